//! Answers where the code below has none of its own.

use std::{
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    domain::{Reason, RequestId},
    grpc::status,
};

/// A panic becomes `INTERNAL`; a status without details, which tonic made, becomes one of ours.
#[derive(Clone)]
pub(in crate::grpc) struct Recover;

impl<S> Layer<S> for Recover {
    type Service = Recovering<S>;

    fn layer(&self, inner: S) -> Recovering<S> {
        Recovering(inner)
    }
}

#[derive(Clone)]
pub(in crate::grpc) struct Recovering<S>(S);

impl<S> Service<Request<Body>> for Recovering<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Unpin>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Recovered<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let id = request.extensions().get::<RequestId>().cloned();
        Recovered { answering: self.0.call(request), id }
    }
}

pub(in crate::grpc) struct Recovered<F> {
    answering: F,
    id: Option<RequestId>,
}

impl<F> Future for Recovered<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A future that has panicked is not polled again, so nobody sees what it left half done; what it shares with
        // other calls is behind locks that ignore poisoning, or in the store.
        let answering = &mut self.answering;
        let Ok(polled) = catch_unwind(AssertUnwindSafe(|| Pin::new(answering).poll(cx))) else {
            tracing::error!(request.id = self.id.as_ref().map(RequestId::as_str), "a call panicked");
            return Poll::Ready(Ok(status::of_reason(Reason::Internal).into_http()));
        };
        let response = match ready!(polled) {
            Ok(response) => response,
            Err(never) => match never {},
        };
        Poll::Ready(Ok(explained(&response).map_or(response, Status::into_http)))
    }
}

fn explained(response: &Response<Body>) -> Option<Status> {
    let headers = response.headers();
    if headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return None;
    }
    status::of_undecoded(Status::from_header_map(headers)?.code())
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, poll_fn, ready};

    use futures_util::future::{BoxFuture, FutureExt as _};
    use tower::{ServiceExt, service_fn};

    use super::*;

    async fn answered(
        inner: impl FnMut(Request<Body>) -> BoxFuture<'static, Result<Response<Body>, Infallible>>,
    ) -> Status {
        let response = Recover.layer(service_fn(inner)).oneshot(Request::new(Body::empty())).await;
        let response = response.unwrap_or_else(|never| match never {});
        Status::from_header_map(response.headers()).expect("the answer is a status")
    }

    #[tokio::test]
    async fn a_panic_is_answered_without_its_text() {
        let status = answered(|_| poll_fn(|_| panic!("canary")).boxed()).await;
        assert_eq!(
            (status.code(), status.message()),
            (tonic::Code::Internal, status::of_reason(Reason::Internal).message())
        );
        assert!(!String::from_utf8_lossy(status.details()).contains("canary"));
    }

    #[tokio::test]
    async fn only_what_is_unexplained_is_explained() {
        let answer = |status: Status| -> Ready<_> { ready(Ok(status.into_http())) };
        let undecoded = answered(move |_| answer(Status::internal("failed to decode")).boxed()).await;
        assert_eq!(undecoded.code(), tonic::Code::InvalidArgument);
        let unknown = answered(move |_| answer(Status::unimplemented("")).boxed()).await;
        assert_eq!(unknown.code(), tonic::Code::Unimplemented);
        let ours = answered(move |_| answer(status::of_reason(Reason::AheadOfLog)).boxed()).await;
        assert_eq!(ours.code(), tonic::Code::OutOfRange);
    }
}
