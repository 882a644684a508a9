//! An open connection: it must begin to speak within a time, take what it is sent, and end when told to.

use std::{
    future::Future,
    io::{self, ErrorKind, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
use tokio_util::{
    either::Either,
    sync::{CancellationToken, WaitForCancellationFutureOwned},
};

use super::seats::Seat;
use crate::domain::{BoxFuture, Clock};

/// Plain, or under TLS with its handshake done.
pub(super) type Io = Either<TcpStream, Box<TlsStream<TcpStream>>>;

pub struct Connection {
    io: Io,
    local: Option<SocketAddr>,
    peer: SocketAddr,
    clock: Arc<dyn Clock>,
    /// `None` once the first bytes are there.
    awaited: Option<FirstBytes>,
    write_stall: Duration,
    /// Running while the peer takes nothing of what it is sent.
    stalled: Option<BoxFuture<'static, ()>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _seat: Seat,
}

pub(super) struct FirstBytes {
    pub(super) missing: usize,
    pub(super) deadline: BoxFuture<'static, ()>,
}

pub(super) struct Bounds {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) write_stall: Duration,
    pub(super) cut: CancellationToken,
}

impl Connection {
    pub(super) fn new(
        io: Io,
        (local, peer): (Option<SocketAddr>, SocketAddr),
        bounds: Bounds,
        first_bytes: FirstBytes,
        seat: Seat,
    ) -> Self {
        let Bounds { clock, write_stall, cut } = bounds;
        Self {
            io,
            local,
            peer,
            clock,
            awaited: (first_bytes.missing > 0).then_some(first_bytes),
            write_stall,
            stalled: None,
            // A token of its own: connections on different cores would wait for each other at a shared one.
            cut: Box::pin(cut.child_token().cancelled_owned()),
            _seat: seat,
        }
    }

    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the connection must end, with its reason. Asked wherever a peer can keep us waiting: HTTP/2 does not
    /// read while it cannot write.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<ErrorKind> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(ErrorKind::ConnectionAborted);
        }
        match &mut self.awaited {
            Some(first_bytes) => first_bytes.deadline.as_mut().poll(cx).map(|()| ErrorKind::TimedOut),
            None => Poll::Pending,
        }
    }

    /// What a write came to, and what follows of it for a peer that takes nothing.
    fn poll_written<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        if let Poll::Ready(kind) = self.poll_end(cx) {
            return Poll::Ready(Err(kind.into()));
        }
        let (clock, write_stall) = (&self.clock, self.write_stall);
        let stalled = self.stalled.get_or_insert_with(|| clock.sleep_until(clock.now().plus(write_stall)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if Pin::new(&mut self.io).poll_read(cx, buf)?.is_pending() {
            return self.poll_end(cx).map(|kind| Err(kind.into()));
        }
        if let Some(first_bytes) = &mut self.awaited {
            first_bytes.missing = first_bytes.missing.saturating_sub(buf.filled().len() - before);
            if first_bytes.missing == 0 {
                self.awaited = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.poll_written(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.poll_written(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.poll_written(cx, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.poll_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
