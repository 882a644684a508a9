//! Accepted connections: they must begin to speak within a time, and end when told to.

use std::{
    future::Future,
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::domain::{BoxFuture, Clock};

/// How long a client may take for its preface. After it, HTTP/2 pings find out who is gone.
const PREFACE_TIME: Duration = Duration::from_secs(10);
/// The preface: 24 bytes and the header of a SETTINGS frame (RFC 9113 §3.4). Over TLS the first bytes are the
/// handshake's, which are more.
const PREFACE: usize = 33;
/// Holds about ten answers with tokens; each connection has one.
const WRITE_BUFFER: usize = 16 * 1024;
/// How long to wait when the process has no descriptors left: trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections that a listener accepts. Cancelling `cut` ends them all.
pub(super) fn accept(
    listener: TcpListener,
    clock: Arc<dyn Clock>,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold((listener, clock, cut), |(listener, clock, cut)| async move {
        let io = next(&listener, &*clock).await;
        let connection = Connection::new(io, &*clock, &cut);
        Some((Ok(connection), (listener, clock, cut)))
    })
}

async fn next(listener: &TcpListener, clock: &dyn Clock) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((io, _)) => return io,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted; trying again");
                clock.sleep_until(clock.now().plus(ACCEPT_PAUSE)).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

pub(super) struct Connection {
    /// h2 writes every larger DATA frame by itself and flushes when it has nothing more to send; so the answers that are
    /// ready together leave together.
    io: BufWriter<TcpStream>,
    peer: TcpConnectInfo,
    /// `None` once the preface is there.
    awaited: Option<Preface>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

struct Preface {
    missing: usize,
    deadline: BoxFuture<'static, ()>,
}

impl Connection {
    fn new(io: TcpStream, clock: &dyn Clock, cut: &CancellationToken) -> Self {
        // Without it small answers wait for the peer's delayed acknowledgement, about 40 ms.
        if let Err(error) = io.set_nodelay(true) {
            tracing::debug!(%error, "a connection stays without TCP_NODELAY");
        }
        let deadline = clock.sleep_until(clock.now().plus(PREFACE_TIME));
        Self {
            peer: io.connect_info(),
            io: BufWriter::with_capacity(WRITE_BUFFER, io),
            awaited: Some(Preface { missing: PREFACE, deadline }),
            cut: Box::pin(cut.clone().cancelled_owned()),
        }
    }

    /// Whether the connection must end, with its reason.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<ErrorKind> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(ErrorKind::ConnectionAborted);
        }
        match &mut self.awaited {
            Some(preface) => preface.deadline.as_mut().poll(cx).map(|()| ErrorKind::TimedOut),
            None => Poll::Pending,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if Pin::new(&mut self.io).poll_read(cx, buf)?.is_pending() {
            return self.poll_end(cx).map(|kind| Err(kind.into()));
        }
        if let Some(preface) = &mut self.awaited {
            preface.missing = preface.missing.saturating_sub(buf.filled().len() - before);
            if preface.missing == 0 {
                self.awaited = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.peer.clone()
    }
}
