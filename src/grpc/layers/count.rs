//! Counts calls by method and status.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use prometheus_client::metrics::counter::Counter;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::Methods;
use crate::metrics::Metrics;

/// Counts each call when its answer begins: a stream that opens is `OK`, however it ends.
#[derive(Clone)]
pub(in crate::grpc) struct Count(Arc<Counts>);

struct Counts {
    metrics: Arc<Metrics>,
    methods: Arc<Methods>,
    places: HashMap<String, usize>,
    /// Each method's name, and its usual end at hand.
    ok: Vec<(String, Counter)>,
    /// Calls whose answer has not begun.
    answering: TaskTracker,
}

impl Count {
    pub(in crate::grpc) fn new(metrics: Arc<Metrics>, methods: Arc<Methods>) -> Self {
        let ok: Vec<_> = methods.names().map(|name| (name.to_owned(), metrics.rpcs(name, name_of(Code::Ok)))).collect();
        let places = ok.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
        Self(Arc::new(Counts { metrics, methods, places, ok, answering: TaskTracker::new() }))
    }

    /// The calls whose answer has not begun: streams are none of them once they are open.
    pub(in crate::grpc) fn answering(&self) -> TaskTracker {
        self.0.answering.clone()
    }
}

impl Counts {
    fn place(&self, path: &str) -> usize {
        self.places[self.methods.name(path)]
    }

    fn count(&self, place: usize, code: Code) {
        let (method, ok) = &self.ok[place];
        match code {
            Code::Ok => ok.inc(),
            code => self.metrics.rpcs(method, name_of(code)).inc(),
        };
    }
}

impl<S> Layer<S> for Count {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting { counts: Arc::clone(&self.0), inner }
    }
}

#[derive(Clone)]
pub(in crate::grpc) struct Counting<S> {
    counts: Arc<Counts>,
    inner: S,
}

impl<S> Service<Request<Body>> for Counting<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Unpin>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Counted<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let counts = Arc::clone(&self.counts);
        let (place, answering) = (counts.place(request.uri().path()), counts.answering.token());
        let ending = Ending { place, counts, code: Code::Cancelled, _answering: answering };
        Counted { answering: self.inner.call(request), ending }
    }
}

pub(in crate::grpc) struct Counted<F> {
    answering: F,
    ending: Ending,
}

/// Counts when it goes: a caller that hangs up is `CANCELLED`.
struct Ending {
    counts: Arc<Counts>,
    place: usize,
    code: Code,
    _answering: TaskTrackerToken,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.counts.count(self.place, self.code);
    }
}

impl<F> Future for Counted<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answering).poll(cx));
        if let Ok(response) = &answer {
            self.ending.code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
        }
        Poll::Ready(answer)
    }
}

/// The name that the gRPC specification gives the code.
const fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
