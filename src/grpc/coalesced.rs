//! Answers that are ready together leave together.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// A connection whose writes wait until there is nothing more to read. h2 writes and flushes every DATA frame above
/// 256 bytes by itself, so each answer with a token would cost a system call of its own.
pub(super) struct Coalesced<C> {
    io: C,
    waiting: Vec<u8>,
    /// Of `waiting`, already written.
    written: usize,
    /// Nothing waits here, nor below (TLS has a buffer of its own).
    is_sent: bool,
    /// The peer takes nothing now; the task is woken when it does.
    is_blocked: bool,
}

/// As much as waits at most, but for the write that reaches it.
const MOST_WAITING: usize = 32 * 1024;

impl<C> Coalesced<C> {
    pub(super) fn new(io: C) -> Self {
        Self { io, waiting: Vec::new(), written: 0, is_sent: true, is_blocked: false }
    }
}

impl<C: AsyncWrite + Unpin> Coalesced<C> {
    /// Makes room, where there is none, before more may wait.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.len() < MOST_WAITING { Poll::Ready(Ok(())) } else { self.poll_send(cx) }
    }

    /// Sends everything that waits.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.waiting.len() {
            let sent = Pin::new(&mut self.io).poll_write(cx, &self.waiting[self.written..]);
            self.is_blocked = sent.is_pending();
            let written = ready!(sent)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        // An idle connection keeps no room.
        (self.waiting, self.written) = (Vec::new(), 0);
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.is_blocked = flushed.is_pending();
        self.is_sent = matches!(flushed, Poll::Ready(Ok(())));
        flushed
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalesced<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_pending()
            && !self.is_sent
            && let Poll::Ready(Err(error)) = self.poll_send(cx)
        {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Coalesced<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(cx))?;
        self.is_sent = false;
        self.waiting.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    /// Done at once: the task is woken, and the read that it begins with sends what waits. HTTP/2 always reads. While the
    /// peer takes nothing the task is not woken: it would flush, and so wake itself, until the peer does.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_sent && !self.is_blocked {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(cx))?;
        self.is_sent = false;
        bufs.iter().for_each(|buf| self.waiting.extend_from_slice(buf));
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl<C: Connected<ConnectInfo = TcpConnectInfo>> Connected for Coalesced<C> {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::{Wake, Waker},
    };

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_flushed_leaves_with_the_next_read_that_finds_nothing() {
        let (ours, mut theirs) = duplex(1 << 20);
        let mut ours = Coalesced::new(ours);
        for _ in 0..3 {
            ours.write_all(b"answer ").await.unwrap();
            ours.flush().await.unwrap();
        }
        let mut received = [0; 21];
        let mut early = ReadBuf::new(&mut received);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut theirs).poll_read(&mut cx, &mut early).is_pending(), "it waits for the read");
        let mut nothing = [0];
        assert!(Pin::new(&mut ours).poll_read(&mut cx, &mut ReadBuf::new(&mut nothing)).is_pending());
        theirs.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"answer answer answer ");
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_keeps_nobody_busy() {
        let (ours, mut theirs) = duplex(10);
        let mut ours = Coalesced::new(ours);
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut ours).poll_write(&mut cx, &[7; 30]).is_ready());
        assert!(Pin::new(&mut ours).poll_flush(&mut cx).is_ready());
        let mut received = [0; 10];
        for last in [false, false, true] {
            assert!(wakes.take(), "there is room for more");
            assert!(Pin::new(&mut ours).poll_read(&mut cx, &mut ReadBuf::new(&mut [0])).is_pending());
            assert!(Pin::new(&mut ours).poll_flush(&mut cx).is_ready());
            assert!(!wakes.take(), "it waits until there is room, or has nothing to send");
            theirs.read_exact(&mut received).await.unwrap();
            assert_eq!((received, ours.is_sent), ([7; 10], last));
        }
    }

    /// As TLS does, takes everything at once and sends it when it is flushed.
    struct Buffering {
        io: DuplexStream,
        buffered: Vec<u8>,
    }

    impl AsyncRead for Buffering {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Buffering {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.buffered.extend_from_slice(buf);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let Self { io, buffered } = &mut *self;
            while !buffered.is_empty() {
                let sent = ready!(Pin::new(&mut *io).poll_write(cx, buffered))?;
                buffered.drain(..sent);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_a_layer_below_has_buffered_is_sent_too() {
        let (io, mut theirs) = duplex(10);
        let mut ours = Coalesced::new(Buffering { io, buffered: Vec::new() });
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut ours).poll_write(&mut cx, &[7; 20]).is_ready());
        for _ in 0..2 {
            // As h2 does whenever its task is woken.
            assert!(Pin::new(&mut ours).poll_read(&mut cx, &mut ReadBuf::new(&mut [0])).is_pending());
            assert!(Pin::new(&mut ours).poll_flush(&mut cx).is_ready());
            let mut received = [0; 10];
            theirs.read_exact(&mut received).await.unwrap();
            assert_eq!(received, [7; 10]);
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicBool);

    impl Wakes {
        fn take(&self) -> bool {
            self.0.swap(false, Ordering::SeqCst)
        }
    }

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_holds_the_writer_up_and_loses_nothing() {
        let (ours, mut theirs) = duplex(1000);
        let mut ours = Coalesced::new(ours);
        let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let mut cx = Context::from_waker(Waker::noop());
        let mut taken = 0;
        while let Poll::Ready(more) =
            Pin::new(&mut ours).poll_write(&mut cx, &sent[taken..(taken + 5000).min(sent.len())])
        {
            taken += more.unwrap();
            assert!(taken <= MOST_WAITING + 10_000, "nobody has read a byte of what it took");
        }
        let rest = sent[taken..].to_vec();
        let writing = tokio::spawn(async move {
            ours.write_all(&rest).await.unwrap();
            ours.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        theirs.read_to_end(&mut received).await.unwrap();
        writing.await.unwrap();
        assert!(received == sent);
    }
}
