//! The real wire: names are resolved and judged, every request has its own connection.

use std::{error::Error, sync::Arc};

use bytes::Bytes;
use reqwest::{Certificate, Client, ClientBuilder, redirect, retry};
use rustls::crypto::aws_lc_rs;
use zeroize::Zeroizing;

use super::{
    Failure, InternalHost, Lookup, OutboundError, Policy, Reply, Request, Wire,
    address::is_public,
    internal::may_be_internal,
    resolver::{Filtered, NoPublicAddress},
    target,
};
use crate::domain::BoxFuture;

/// HTTP/1.1 by reqwest.
pub(super) struct Direct {
    client: Client,
    /// For the internal hosts: reqwest's resolver sees neither port nor list.
    internal_client: Client,
    internal_hosts: Arc<[InternalHost]>,
    max_response: usize,
}

impl Direct {
    pub(super) fn new(policy: &Policy, lookup: Lookup) -> Result<Self, OutboundError> {
        // Already installed by the application, or by another client: both are the same provider.
        let _ = aws_lc_rs::default_provider().install_default();
        let roots = Certificate::from_pem_bundle(&policy.extra_roots).map_err(|_| OutboundError::TrustAnchors)?;
        let build = |lookup, allows| {
            let guarded = guarded(policy, Filtered { lookup, allows });
            let guarded = if roots.is_empty() { guarded } else { guarded.tls_certs_merge(roots.clone()) };
            guarded.build().map_err(|_| OutboundError::TrustAnchors)
        };
        let has_internal = !policy.internal_hosts.is_empty();
        let internal = has_internal.then(|| build(Arc::clone(&lookup), may_be_internal)).transpose()?;
        let client = build(lookup, is_public)?;
        Ok(Self {
            internal_client: internal.unwrap_or_else(|| client.clone()),
            client,
            internal_hosts: policy.internal_hosts.clone().into(),
            max_response: policy.max_response,
        })
    }

    async fn exchange(&self, request: Request) -> Result<Reply, OutboundError> {
        let host = request.host();
        let limit = request.max_response.unwrap_or(self.max_response);
        let internal = target::is_internal(&request.url, &self.internal_hosts);
        let client = if internal { &self.internal_client } else { &self.client };
        let mut outgoing = client.request(request.method, request.url).headers(request.headers);
        if let Some(time) = request.timeout {
            outgoing = outgoing.timeout(time);
        }
        if let Some(body) = request.body {
            outgoing = outgoing.body(Bytes::from_owner(body));
        }
        let answer = outgoing.send().await.map_err(|error| classify(&error, &host))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = read(answer, limit, &host).await?;
        Ok(Reply { status, headers, body })
    }
}

impl Wire for Direct {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Reply, OutboundError>> {
        Box::pin(self.exchange(request))
    }
}

/// Nothing is pooled: on a reused connection, the server's idle time-out would look like an answer lost after sending.
#[expect(clippy::disallowed_methods, reason = "this is the one guarded client")]
fn guarded(policy: &Policy, resolver: Filtered) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("claviger/", env!("CARGO_PKG_VERSION")))
        .https_only(!policy.allow_http_loopback)
        .dns_resolver(resolver)
        .no_proxy()
        .referer(false)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .http1_only()
        .pool_max_idle_per_host(0)
        .connect_timeout(policy.connect_timeout)
        .timeout(policy.timeout)
}

/// Reads the body without ever holding more than `limit` bytes of it, and without leaving copies behind when the
/// buffer grows.
async fn read(mut answer: reqwest::Response, limit: usize, host: &str) -> Result<Zeroizing<Vec<u8>>, OutboundError> {
    let too_large = || OutboundError::TooLarge { host: host.to_owned(), limit };
    let announced = answer.content_length().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut body = Zeroizing::new(Vec::with_capacity(announced.unwrap_or(FIRST_BUFFER).min(limit)));
    while let Some(chunk) = answer.chunk().await.map_err(|_| OutboundError::AnswerLost { host: host.to_owned() })? {
        let length = body.len() + chunk.len();
        if length > limit {
            return Err(too_large());
        }
        if length > body.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity((length * 2).min(limit)));
            larger.extend_from_slice(&body);
            body = larger;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Only what failed while connecting was certainly not sent; everything else may have been.
fn classify(error: &reqwest::Error, host: &str) -> OutboundError {
    let host = host.to_owned();
    if sources(error).any(|source| source.is::<NoPublicAddress>()) {
        return OutboundError::AddressRefused { host };
    }
    if !error.is_connect() {
        return OutboundError::AnswerLost { host };
    }
    let failure = if error.is_timeout() {
        Failure::ConnectTimeout
    } else if error.is_dns() {
        Failure::Dns
    } else if sources(error).any(|source| source.is::<rustls::Error>()) {
        Failure::Tls
    } else {
        Failure::Connect
    };
    OutboundError::NotSent { host, failure }
}

/// The error's causes. An `io::Error` hides what it wraps from `source()`, so that is looked into as well.
fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<std::io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

const FIRST_BUFFER: usize = 4096;
