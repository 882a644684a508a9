//! Names each call, and gives some of them a span.

use std::{
    collections::HashSet,
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
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::{Instrument, Span};

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
    /// The paths of all methods that there are.
    methods: Arc<HashSet<String>>,
}

/// What strangers call that is not there: a name of theirs for each would be more names than a trace store can take.
const OTHER: &str = "_OTHER";

impl Identify {
    /// One call in `one_in` gets a span at INFO, none with 0. `descriptors` tell which methods there are.
    pub(in crate::grpc) fn new(ids: Arc<RequestIds>, one_in: u32, descriptors: &[&[u8]]) -> Self {
        let methods = descriptors.iter().flat_map(|set| methods(set)).collect();
        Self { ids, spans: Spans { one_in, seen: Arc::default(), methods: Arc::new(methods) } }
    }
}

fn methods(descriptor_set: &[u8]) -> Vec<String> {
    let set = FileDescriptorSet::decode(descriptor_set).expect("embedded descriptor sets are well-formed");
    let services = set.file.iter().flat_map(|file| file.service.iter().map(move |service| (file.package(), service)));
    services
        .flat_map(|(package, service)| {
            service.method.iter().map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
        })
        .collect()
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
            return tracing::debug_span!("rpc", rpc.method = self.method(path), request.id = id.as_str());
        }
        tracing::info_span!("rpc", rpc.method = self.method(path), request.id = id.as_str())
    }

    fn method<'a>(&self, path: &'a str) -> &'a str {
        if self.methods.contains(path) { path } else { OTHER }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::FILE_DESCRIPTOR_SET;

    #[test]
    fn only_methods_that_there_are_give_spans_their_name() {
        let known = methods(FILE_DESCRIPTOR_SET);
        assert!(known.contains(&"/claviger.v1.TokenBrokerService/GetPluginToken".to_owned()), "{known:?}");
        let reflection = methods(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET);
        assert_eq!(reflection, ["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]);
    }
}
