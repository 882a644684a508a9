//! Serves WatchCredentialStatus before the generated service sees it: that would give each stream the same large buffers
//! as any call, and write what is shared once for each stream.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{
    Status,
    body::Body,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
    codegen::BoxFuture,
    server::{Grpc, NamedService},
};
use tonic_prost::{ProstCodec, ProstDecoder};
use tower::{Service, service_fn};

use super::{service::Rpcs, watch_credential_status, watch_wire::Outgoing};
use crate::proto::v1;

const PATH: &str = "/claviger.v1.TokenBrokerService/WatchCredentialStatus";
/// Room for one event. Every open stream keeps it, and idle ones are most of what a broker serves.
const BUFFER: usize = 512;
/// What waits in a stream whose reader stands still, but for the message that reaches it.
const YIELD_AT: usize = 4 * 1024;

/// The service, with one RPC of it taken out.
#[derive(Clone)]
pub(super) struct WatchRoute<S> {
    rpcs: Rpcs,
    longest_message: usize,
    others: S,
}

impl<S> WatchRoute<S> {
    pub(super) fn before(others: S, rpcs: Rpcs, longest_message: usize) -> Self {
        Self { rpcs, longest_message, others }
    }
}

impl<S: NamedService> NamedService for WatchRoute<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for WatchRoute<S>
where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<Response<Body>, Infallible>,
        >,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.others.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != PATH {
            return self.others.call(request);
        }
        let (rpcs, longest_message) = (self.rpcs.clone(), self.longest_message);
        Box::pin(async move {
            let answer = service_fn(|request| watch_credential_status::answer(rpcs.clone(), request));
            let mut grpc = Grpc::new(WatchCodec).max_decoding_message_size(longest_message);
            Ok(grpc.server_streaming(answer, request).await)
        })
    }
}

struct WatchCodec;

struct WatchEncoder;

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER, YIELD_AT)
}

impl Codec for WatchCodec {
    type Encode = Outgoing;
    type Decode = v1::WatchCredentialStatusRequest;
    type Encoder = WatchEncoder;
    type Decoder = ProstDecoder<v1::WatchCredentialStatusRequest>;

    fn encoder(&mut self) -> WatchEncoder {
        WatchEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<v1::WatchCredentialStatusResponse, _>::raw_decoder(buffers())
    }
}

impl Encoder for WatchEncoder {
    type Item = Outgoing;
    type Error = Status;

    fn encode(&mut self, message: Outgoing, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(message.length());
        message.write(buf);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}
