//! One request, one answer.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{Certificate, Client, ClientBuilder, redirect, retry};
use rustls::crypto::aws_lc_rs;
use url::Url;
use zeroize::Zeroizing;

use super::{
    Failure, InternalHost, Lookup, OutboundError, Reply, Request,
    address::is_public,
    internal::may_be_internal,
    resolver::{Filtered, NoPublicAddress, system},
    target,
};

/// What the client may do.
#[derive(Clone)]
pub struct Policy {
    /// Permits plain http, and addresses that are not public, for literal loopback addresses alone. `localhost` is a
    /// name, not a literal. For development and tests.
    pub allow_http_loopback: bool,
    /// Name, connection and TLS together. Must be shorter than `timeout`, or a slow connection counts as sent.
    pub connect_timeout: Duration,
    /// From the first step to the last byte of the answer.
    pub timeout: Duration,
    /// Bytes of an answer's body.
    pub max_response: usize,
    /// Certificates (PEM) trusted beside the system's.
    pub extra_roots: Vec<u8>,
    /// Reached over https although their addresses are not public.
    pub internal_hosts: Vec<InternalHost>,
}

/// The guarded client. Cheap to clone.
#[derive(Clone)]
pub struct Outbound {
    client: Client,
    /// For the internal hosts: reqwest's resolver sees neither port nor list.
    internal_client: Client,
    internal_hosts: Arc<[InternalHost]>,
    allow_http_loopback: bool,
    max_response: usize,
}

impl Outbound {
    pub fn new(policy: &Policy) -> Result<Self, OutboundError> {
        Self::with_lookup(policy, system())
    }

    /// As [`Self::new`], with another source of addresses; what it finds is filtered all the same.
    pub fn with_lookup(policy: &Policy, lookup: Lookup) -> Result<Self, OutboundError> {
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
            allow_http_loopback: policy.allow_http_loopback,
            max_response: policy.max_response,
        })
    }

    /// Whether the URL may be called at all, by scheme, credentials and IP literal. Names are judged when they are called.
    pub fn check(&self, url: &Url) -> Result<(), OutboundError> {
        target::check(url, self.allow_http_loopback, &self.internal_hosts)
    }

    /// Sends the request once and reads the whole answer. A redirect is an answer: nothing is followed. Nothing is
    /// retried. Every request has its own connection: on a reused one, the server's idle time-out would look like
    /// an answer lost after sending.
    pub async fn send(&self, mut request: Request) -> Result<Reply, OutboundError> {
        self.check(&request.url)?;
        request.mark_sensitive();
        let host = request.url.host_str().unwrap_or_default().to_owned();
        let limit = request.max_response.map_or(self.max_response, |own| own.min(self.max_response));
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

impl Default for Policy {
    fn default() -> Self {
        Self {
            allow_http_loopback: false,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            max_response: 1024 * 1024,
            extra_roots: Vec::new(),
            internal_hosts: Vec::new(),
        }
    }
}

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
