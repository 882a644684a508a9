//! What is asked of every request and every answer, whatever carries them.

use std::{sync::Arc, time::Duration};

use super::{InternalHost, Lookup, OutboundError, Reply, Request, Wire, direct::Direct, resolver::system, target};
use url::Url;

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
    wire: Arc<dyn Wire>,
    internal_hosts: Arc<[InternalHost]>,
    allow_http_loopback: bool,
    timeout: Duration,
    max_response: usize,
}

impl Outbound {
    pub fn new(policy: &Policy) -> Result<Self, OutboundError> {
        Self::with_lookup(policy, system())
    }

    /// As [`Self::new`], with another source of addresses; what it finds is filtered all the same.
    pub fn with_lookup(policy: &Policy, lookup: Lookup) -> Result<Self, OutboundError> {
        Ok(Self::over(Arc::new(Direct::new(policy, lookup)?), policy))
    }

    /// Requests go over `wire`. What this type judges (URLs, sizes) it still judges; what becomes of names and
    /// addresses is the wire's.
    pub fn over(wire: Arc<dyn Wire>, policy: &Policy) -> Self {
        Self {
            wire,
            internal_hosts: policy.internal_hosts.clone().into(),
            allow_http_loopback: policy.allow_http_loopback,
            timeout: policy.timeout,
            max_response: policy.max_response,
        }
    }

    /// Whether the URL may be called at all, by scheme, credentials and IP literal. Names are judged when they are called.
    pub fn check(&self, url: &Url) -> Result<(), OutboundError> {
        target::check(url, self.allow_http_loopback, &self.internal_hosts)
    }

    /// Sends the request once and reads the whole answer. A redirect is an answer: nothing is followed. Nothing is
    /// retried.
    pub async fn send(&self, mut request: Request) -> Result<Reply, OutboundError> {
        self.check(&request.url)?;
        request.mark_sensitive();
        let limit = request.max_response.map_or(self.max_response, |own| own.min(self.max_response));
        request.max_response = Some(limit);
        request.timeout.get_or_insert(self.timeout);
        let host = request.host();
        let reply = self.wire.send(request).await?;
        if reply.body.len() > limit { Err(OutboundError::TooLarge { host, limit }) } else { Ok(reply) }
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
