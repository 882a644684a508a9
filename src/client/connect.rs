//! From an endpoint to a client.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use zeroize::Zeroizing;

use crate::{
    domain::PresentedToken,
    proto::v1::{
        connection_service_client::ConnectionServiceClient, operations_service_client::OperationsServiceClient,
        token_broker_service_client::TokenBrokerServiceClient,
    },
};

/// A call waits for its first byte at most this long: `GetAuthorization`'s 60 s and some.
const CALL_TIMEOUT: Duration = Duration::from_secs(75);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Many streams share a connection; a small window lets one that is not read stall the others.
const CONNECTION_WINDOW: u32 = 4 << 20;
const STREAM_WINDOW: u32 = 64 << 10;

/// Where the broker is, and how far to trust the way there.
#[derive(Clone, Default)]
pub struct Connect {
    /// `https://host:port`, or `http://` on loopback.
    pub endpoint: String,
    /// PEM of the only authorities to trust. `None`: the platform's.
    pub ca: Option<Vec<u8>>,
    /// What the broker's certificate must name. `None`: the endpoint's host.
    pub server_name: Option<String>,
    /// For a broker that asks its clients for one.
    pub certificate: Option<ClientCertificate>,
    /// Allows `http://` beyond loopback, where something else encrypts the way.
    pub allow_plaintext: bool,
}

/// What a client proves itself with on the way; who calls is still for the token to say.
#[derive(Clone)]
pub struct ClientCertificate {
    /// PEM: the client's certificate first, then those that lead to its authority.
    pub chain: Vec<u8>,
    /// PEM.
    pub key: Zeroizing<Vec<u8>>,
}

/// No client can be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the endpoint is not an http or https URL")]
    Endpoint,
    #[error("the endpoint is not encrypted: a token would cross the network in the clear")]
    Plaintext,
    #[error("TLS cannot be set up")]
    Tls(#[source] tonic::transport::Error),
    #[error("the token has characters that no header can carry")]
    Token,
}

/// A connection to the broker under one caller's token. Cheap to clone; it connects with the first call.
#[derive(Clone)]
pub struct Client {
    pub(super) broker: TokenBrokerServiceClient<InterceptedService<Channel, Bearer>>,
    pub(super) connections: ConnectionServiceClient<InterceptedService<Channel, Bearer>>,
    pub(super) operations: OperationsServiceClient<InterceptedService<Channel, Bearer>>,
    bearer: Bearer,
}

/// Puts the token into every call.
#[derive(Clone)]
pub(super) struct Bearer(Arc<ArcSwap<MetadataValue<Ascii>>>);

impl Connect {
    /// Must be called inside the tokio runtime that runs the calls.
    ///
    /// # Errors
    /// The endpoint or the token cannot be used; whether the broker answers shows with the first call.
    pub fn with_token(&self, token: &PresentedToken) -> Result<Client, ConnectError> {
        let channel = self.endpoint()?.connect_lazy();
        let bearer = Bearer(Arc::new(ArcSwap::from_pointee(header(token)?)));
        let intercepted = InterceptedService::new(channel, bearer.clone());
        Ok(Client {
            broker: TokenBrokerServiceClient::new(intercepted.clone()),
            connections: ConnectionServiceClient::new(intercepted.clone()),
            operations: OperationsServiceClient::new(intercepted),
            bearer,
        })
    }

    fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        let endpoint = Endpoint::from_shared(self.endpoint.clone()).map_err(|_| ConnectError::Endpoint)?;
        let endpoint = match (endpoint.uri().scheme_str(), endpoint.uri().host()) {
            (Some("https"), Some(_)) => endpoint.tls_config(self.tls()).map_err(ConnectError::Tls)?,
            (Some("http"), Some(host)) if self.allow_plaintext || is_loopback(host) => endpoint,
            (Some("http"), Some(_)) => return Err(ConnectError::Plaintext),
            _ => return Err(ConnectError::Endpoint),
        };
        Ok(endpoint
            .timeout(CALL_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW))
    }

    fn tls(&self) -> ClientTlsConfig {
        let tls = match &self.ca {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        let tls = match &self.server_name {
            Some(name) => tls.domain_name(name),
            None => tls,
        };
        match &self.certificate {
            Some(ClientCertificate { chain, key }) => tls.identity(Identity::from_pem(chain, key)),
            None => tls,
        }
    }
}

impl Client {
    /// From the next call on, this client and its clones use `token`.
    ///
    /// # Errors
    /// The token cannot stand in a header.
    pub fn replace_token(&self, token: &PresentedToken) -> Result<(), ConnectError> {
        self.bearer.0.store(Arc::new(header(token)?));
        Ok(())
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", MetadataValue::clone(&self.0.load()));
        Ok(request)
    }
}

/// Sensitive: HTTP/2 header compression must not index it, and `Debug` must not print it.
fn header(token: &PresentedToken) -> Result<MetadataValue<Ascii>, ConnectError> {
    let text = Zeroizing::new(format!("Bearer {}", token.expose()));
    let mut value = MetadataValue::try_from(text.as_str()).map_err(|_| ConnectError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_loopback(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || literal.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(endpoint: &str) -> Result<Endpoint, ConnectError> {
        Connect { endpoint: endpoint.to_owned(), ..Connect::default() }.endpoint()
    }

    #[test]
    fn a_token_never_crosses_a_network_in_the_clear_unless_told() {
        for local in ["http://127.0.0.1:50051", "http://[::1]:50051", "http://localhost:50051"] {
            assert!(connect(local).is_ok(), "{local}");
        }
        for remote in ["http://broker.example:50051", "http://127.0.0.1.example", "http://10.0.0.1"] {
            assert!(matches!(connect(remote), Err(ConnectError::Plaintext)), "{remote}");
        }
        let told =
            Connect { endpoint: "http://broker.example".to_owned(), allow_plaintext: true, ..Connect::default() };
        assert!(told.endpoint().is_ok());
    }

    #[test]
    fn an_endpoint_is_an_http_url() {
        for wrong in ["", "broker.example:443", "ftp://broker.example", "/run/broker.sock"] {
            assert!(matches!(connect(wrong), Err(ConnectError::Endpoint)), "{wrong}");
        }
    }

    #[test]
    fn the_token_is_marked_sensitive_and_cannot_split_the_header() {
        let value = header(&PresentedToken::new("secret".to_owned())).unwrap();
        assert!(value.is_sensitive());
        assert!(!format!("{value:?}").contains("secret"));
        assert!(matches!(header(&PresentedToken::new("a\r\nb: c".to_owned())), Err(ConnectError::Token)));
    }
}
