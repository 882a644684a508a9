//! Names each call, and gives some of them a span.

use std::{
    convert::Infallible,
    fmt::Write,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::{Instrument, Span};

use super::Methods;
use crate::domain::RequestId;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers that hold secrets: marked, so that nothing prints them and HPACK does not index them.
const SENSITIVE: [HeaderName; 4] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    HeaderName::from_static("agent-authorization"),
];

/// Makes ids for calls that bring none: unique, not secret.
pub struct RequestIds {
    process: String,
    next: AtomicU64,
}

impl RequestIds {
    /// `process` is random and tells this process from every other.
    pub fn new(process: [u8; 8]) -> Self {
        Self { process: format!("req_{:016x}", u64::from_be_bytes(process)), next: AtomicU64::new(1) }
    }

    fn next(&self) -> RequestId {
        let mut id = String::with_capacity(self.process.len() + 17);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        write!(id, "{}_{number:x}", self.process).expect("writing to a string does not fail");
        id.parse().expect("prefix, hex and underscores are visible characters")
    }
}

/// Takes the caller's `x-request-id` or makes one, and echoes it on every answer, refusals included.
#[derive(Clone)]
pub(in crate::grpc) struct Identify {
    ids: Arc<RequestIds>,
    spans: Spans,
}

/// Which calls get a span that traces show: building one costs more than the rest of a warm call's bookkeeping, so it is
/// decided before. The others get theirs when somebody debugs.
#[derive(Clone)]
struct Spans {
    one_in: u32,
    seen: Arc<AtomicU64>,
    methods: Arc<Methods>,
}

impl Identify {
    /// One call in `one_in` gets a span at INFO, none with 0.
    pub(in crate::grpc) fn new(ids: Arc<RequestIds>, one_in: u32, methods: Arc<Methods>) -> Self {
        Self { ids, spans: Spans { one_in, seen: Arc::default(), methods } }
    }
}

impl<S> Layer<S> for Identify {
    type Service = Identified<S>;

    fn layer(&self, inner: S) -> Identified<S> {
        Identified { layer: self.clone(), inner }
    }
}

#[derive(Clone)]
pub(in crate::grpc) struct Identified<S> {
    layer: Identify,
    inner: S,
}

impl<S> Service<Request<Body>> for Identified<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        mark_sensitive(request.headers_mut());
        let id = offered(request.headers()).unwrap_or_else(|| self.layer.ids.next());
        let echo = HeaderValue::from_str(id.as_str()).expect("visible characters make a header value");
        let span = self.layer.spans.span(request.uri().path(), &id);
        request.extensions_mut().insert(id);
        let answering = self.inner.call(request);
        Box::pin(
            async move {
                let mut response = answering.await?;
                response.headers_mut().insert(REQUEST_ID, echo);
                Ok(response)
            }
            .instrument(span),
        )
    }
}

impl Spans {
    fn span(&self, path: &str, id: &RequestId) -> Span {
        if self.one_in == 0 || !self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.one_in.into()) {
            return tracing::debug_span!("rpc", rpc.method = self.methods.name(path), request.id = id.as_str());
        }
        tracing::info_span!("rpc", rpc.method = self.methods.name(path), request.id = id.as_str())
    }
}

fn mark_sensitive(headers: &mut HeaderMap) {
    for name in &SENSITIVE {
        if let header::Entry::Occupied(mut values) = headers.entry(name) {
            values.iter_mut().for_each(|value| value.set_sensitive(true));
        }
    }
}

/// The caller's own id, if there is exactly one and it can be one.
fn offered(headers: &HeaderMap) -> Option<RequestId> {
    let mut values = headers.get_all(REQUEST_ID).iter();
    let (only, None) = (values.next()?, values.next()) else { return None };
    only.to_str().ok()?.parse().ok()
}
