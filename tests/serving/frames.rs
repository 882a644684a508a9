//! HTTP/2 frame by frame (RFC 9113), for clients that no library lets us be.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// What has not come by then never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;

pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub(crate) struct Raw<S = TcpStream>(pub(crate) S);

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) async fn connect_from(local: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{local}:0").parse().unwrap()).unwrap();
    socket.connect(address).await.unwrap()
}

/// Whether a new connection is served. One that is refused may be reset before it has come about.
pub(crate) async fn is_served(address: SocketAddr) -> bool {
    match TcpStream::connect(address).await {
        Ok(socket) => Raw::over(socket).await.lives().await,
        Err(_) => false,
    }
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Says the preface. That it could not shows with the first answer that is waited for.
    pub(crate) async fn over(io: S) -> Self {
        let mut raw = Self(io);
        raw.write(PREFACE).await;
        raw
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        if self.0.write_all(bytes).await.is_ok() {
            self.0.flush().await.ok();
        }
    }

    /// The next frame; `None` when the connection has ended, in good order or not.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        timeout(PATIENCE, self.read()).await.expect("neither a frame nor the end comes").ok()
    }

    async fn read(&mut self) -> std::io::Result<Frame> {
        let length = usize::from(self.0.read_u8().await?) << 16 | usize::from(self.0.read_u16().await?);
        let (kind, flags, stream) = (self.0.read_u8().await?, self.0.read_u8().await?, self.0.read_u32().await?);
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await?;
        Ok(Frame { kind, flags, stream, payload })
    }

    /// The next frame that `wanted` holds for.
    pub(crate) async fn find(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// Whether the connection lives: a PING is answered.
    pub(crate) async fn lives(&mut self) -> bool {
        self.write(&frame(PING, 0, 0, b"are you?")).await;
        self.find(|frame| frame.kind == PING && frame.flags & ACK != 0).await.is_some()
    }

    /// Returns once the connection has ended.
    pub(crate) async fn ended(&mut self) {
        while self.next().await.is_some() {}
    }
}

impl Frame {
    /// Of RST_STREAM and GOAWAY.
    pub(crate) fn error_code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn is_of(&self, stream: u32) -> bool {
        self.stream == stream
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A call with an empty message, complete.
pub(crate) fn call(stream: u32, path: &str, bearer: Option<&str>) -> Vec<u8> {
    let mut bytes = headers(stream, path, bearer);
    bytes.extend(frame(DATA, END_STREAM, stream, &[0; 5]));
    bytes
}

/// The headers of a call whose message is yet to come.
pub(crate) fn headers(stream: u32, path: &str, bearer: Option<&str>) -> Vec<u8> {
    // `:method: POST` and `:scheme: http` of the static table (RFC 7541, appendix A).
    let mut block = vec![0x83, 0x86];
    literal(&mut block, ":path", path);
    literal(&mut block, "content-type", "application/grpc");
    literal(&mut block, "te", "trailers");
    if let Some(token) = bearer {
        literal(&mut block, "authorization", &format!("Bearer {token}"));
    }
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// Without indexing and without Huffman (RFC 7541 §6.2.2).
fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        integer(block, text.len());
        block.extend(text.as_bytes());
    }
}

/// With a prefix of seven bits (RFC 7541 §5.1).
fn integer(block: &mut Vec<u8>, number: usize) {
    let Some(mut rest) = number.checked_sub(127) else { return block.push(number.try_into().unwrap()) };
    block.push(127);
    while rest >= 128 {
        block.push((rest % 128 + 128).try_into().unwrap());
        rest /= 128;
    }
    block.push(rest.try_into().unwrap());
}
