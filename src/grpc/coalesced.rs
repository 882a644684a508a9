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
}

/// As much as waits at most, but for the write that reaches it.
const MOST_WAITING: usize = 32 * 1024;

impl<C> Coalesced<C> {
    pub(super) fn new(io: C) -> Self {
        Self { io, waiting: Vec::new(), written: 0 }
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
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        // An idle connection keeps no room.
        (self.waiting, self.written) = (Vec::new(), 0);
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalesced<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_pending()
            && !self.waiting.is_empty()
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
        self.waiting.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    /// Done at once: the task is woken, and the read that it begins with sends what waits. HTTP/2 always reads.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.waiting.is_empty() {
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
    use std::task::Waker;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

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
