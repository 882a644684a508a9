//! A channel that hands over what the server says about each call: the refusals, with their details.

use std::task::{Context, Poll};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use tonic::{body::Body, transport};
use tower::Service;

use crate::emitted::Outputs;

#[derive(Clone)]
pub(crate) struct Recorded {
    channel: transport::Channel,
    outputs: Outputs,
}

impl Recorded {
    pub(crate) fn new(channel: transport::Channel, outputs: Outputs) -> Self {
        Self { channel, outputs }
    }
}

impl Service<Request<Body>> for Recorded {
    type Response = Response<Body>;
    type Error = transport::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, transport::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), transport::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answering, outputs) = (self.channel.call(request), self.outputs.clone());
        let recorded = answering.map(move |answer| {
            let answer = answer?;
            outputs.add("headers", format!("{:?}", answer.headers()), &[]);
            Ok(answer)
        });
        recorded.boxed()
    }
}
