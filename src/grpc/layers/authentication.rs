//! Who calls. Deny by default: only what is listed as open passes without a token.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, Request, Response, header};
use tonic::{Status, body::Body, transport::server::TcpConnectInfo};
use tower::{Layer, Service};

use crate::{
    domain::{Call, CallContext, PresentedToken, Reason, RequestId},
    grpc::{fields::InvalidField, status},
    identity::{Authenticator, TokenSource},
};

/// Would name the agent that calls. Ignoring it would serve the call as if no agent had been named, so it is refused.
const AGENT_AUTHORIZATION: HeaderName = HeaderName::from_static("agent-authorization");
const LONGEST_USER_AGENT: usize = 256;

/// Puts a [`Call`] into each request's extensions, or refuses it. Tenant, subject and agent come from the verified
/// token alone: no other header is looked at.
#[derive(Clone)]
pub(in crate::grpc) struct Authentication {
    authenticator: Arc<Authenticator>,
    /// Services that anybody may call, by their full names.
    open: Arc<[&'static str]>,
}

impl Authentication {
    pub(in crate::grpc) fn new(authenticator: Arc<Authenticator>, open: &[&'static str]) -> Self {
        Self { authenticator, open: open.into() }
    }

    /// Of the path `/package.Service/Method`, the service.
    fn is_open(&self, path: &str) -> bool {
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/')).map(|(service, _)| service);
        service.is_some_and(|service| self.open.contains(&service))
    }

    async fn authenticate(&self, request: &mut Request<Body>) -> Result<Call, Status> {
        let unverified = bearer(request.headers()).map_err(status::of_reason)?;
        request.headers_mut().remove(header::AUTHORIZATION);
        let verified = self.authenticator.authenticate(&unverified, TokenSource::Metadata).await;
        let caller = verified.map_err(|error| {
            tracing::debug!(%error, "a caller was refused");
            status::of_identity(error)
        })?;
        if request.headers().contains_key(AGENT_AUTHORIZATION) {
            let problem = "is not served yet: the platform token names the agent";
            return Err(InvalidField { field: "agent-authorization", problem }.into());
        }
        let extensions = request.extensions();
        Ok(Call {
            caller,
            request_id: extensions.get::<RequestId>().cloned().ok_or_else(|| status::of_reason(Reason::Internal))?,
            peer: extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr).map(|peer| peer.ip()),
            user_agent: user_agent(request.headers()),
            context: CallContext::default(),
        })
    }
}

impl<S> Layer<S> for Authentication {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated { layer: self.clone(), inner }
    }
}

#[derive(Clone)]
pub(in crate::grpc) struct Authenticated<S> {
    layer: Authentication,
    inner: S,
}

impl<S> Service<Request<Body>> for Authenticated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Whatever a layer further out may have left there.
        request.extensions_mut().remove::<Call>();
        if self.layer.is_open(request.uri().path()) {
            request.headers_mut().remove(header::AUTHORIZATION);
            return Box::pin(self.inner.call(request));
        }
        let layer = self.layer.clone();
        // The service that was found ready is the one to call.
        let waiting = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        Box::pin(async move {
            match layer.authenticate(&mut request).await {
                Ok(call) => {
                    request.extensions_mut().insert(call);
                    inner.call(request).await
                }
                Err(refusal) => Ok(refusal.into_http()),
            }
        })
    }
}

/// The one bearer token (RFC 6750 §2.1). Two `authorization` headers are refused: a proxy may have looked at the other.
fn bearer(headers: &HeaderMap) -> Result<PresentedToken, Reason> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let only = values.next().ok_or(Reason::TokenMissing)?;
    if values.next().is_some() {
        return Err(Reason::TokenInvalid);
    }
    let unverified = only.to_str().map_err(|_| Reason::TokenInvalid)?;
    let (scheme, unverified) = unverified.split_once(' ').ok_or(Reason::TokenMissing)?;
    let unverified = unverified.trim_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") || unverified.is_empty() {
        return Err(Reason::TokenMissing);
    }
    Ok(PresentedToken::new(unverified.to_owned()))
}

/// For the audit trail: what is visible of it, cut to a bounded length.
fn user_agent(headers: &HeaderMap) -> Option<String> {
    let unverified = headers.get(header::USER_AGENT)?.to_str().ok()?;
    Some(unverified.chars().filter(|c| !c.is_control()).take(LONGEST_USER_AGENT).collect())
}
