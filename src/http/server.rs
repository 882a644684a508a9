//! The HTTP listener: its limits, and how it ends.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, DefaultBodyLimit, Request, State},
    http::StatusCode,
    middleware::{Next, from_fn_with_state, map_response},
    response::{IntoResponse as _, Response},
};
use futures_util::StreamExt as _;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::headers;
use crate::{
    domain::Clock,
    listener::{Limits, Opening, admit, open},
};

/// Serves until `closing`, then lets requests under way be answered. What must not be waited for any longer is ended by
/// [`Opening::cut`].
pub async fn serve(listener: TcpListener, router: Router, opening: Opening, closing: CancellationToken) {
    let limits = opening.limits;
    let deadline = Deadline { clock: Arc::clone(&opening.clock), time: limits.http_request_time };
    let router = router.layer(DefaultBodyLimit::max(limits.http_body)).layer(from_fn_with_state(deadline, in_time));
    let router = router.layer(map_response(headers::secured));
    let (http1, ending) = (http1(&limits), GracefulShutdown::new());
    {
        // Closes the listening socket before requests under way are waited for.
        let clock = Arc::clone(&opening.clock);
        let mut connections = pin!(open(admit(listener, &limits, clock), opening));
        loop {
            let next = tokio::select! {
                next = connections.next() => next,
                () = closing.cancelled() => None,
            };
            let Some(connection) = next else { break };
            let peer = ConnectInfo(connection.peer_addr());
            let service = router.clone().map_request(move |mut request: hyper::Request<_>| {
                request.extensions_mut().insert(peer);
                request
            });
            let serving = http1.serve_connection(TokioIo::new(connection), TowerToHyperService::new(service));
            let serving = ending.watch(serving);
            tokio::spawn(async move {
                if let Err(error) = serving.await {
                    tracing::debug!(peer = %peer.0, %error, "an HTTP connection ended early");
                }
            });
        }
    }
    ending.shutdown().await;
}

/// The header time bounds an idle connection too: it begins with the end of the request before.
fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.http_header_time)
        .max_buf_size(usize::try_from(limits.header_list).unwrap_or(usize::MAX));
    builder
}

#[derive(Clone)]
struct Deadline {
    clock: Arc<dyn Clock>,
    time: Duration,
}

async fn in_time(State(deadline): State<Deadline>, request: Request, next: Next) -> Response {
    let Deadline { clock, time } = deadline;
    tokio::select! {
        response = next.run(request) => response,
        () = clock.sleep_until(clock.now().plus(time)) => {
            (StatusCode::SERVICE_UNAVAILABLE, "this took too long; try again\n").into_response()
        }
    }
}
