//! From a listening socket to open connections.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::{either::Either, sync::CancellationToken};

use super::{
    Connection, Limits, Tls,
    connection::{Bounds, FirstBytes},
    seats::{Full, Seat, Seats},
};
use crate::domain::{Clock, Timestamp};

/// How long to wait when the process has no descriptors left: trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often strangers can make us write a line.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A connection that has its seat and nothing else yet.
pub struct Admitted {
    socket: TcpStream,
    peer: SocketAddr,
    seat: Seat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// What turns admitted connections into open ones.
#[derive(Clone)]
pub struct Opening {
    pub protocol: Protocol,
    /// `None`: in the clear.
    pub tls: Option<Arc<Tls>>,
    pub limits: Limits,
    pub clock: Arc<dyn Clock>,
    /// Ends every connection when it is cancelled.
    pub cut: CancellationToken,
}

impl Protocol {
    /// The name in ALPN (RFC 7301 §6).
    pub(super) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    /// What every client says first: in HTTP/2 the preface of 24 bytes and the header of a SETTINGS frame (RFC 9113
    /// §3.4). In HTTP/1 it is a request, for which there is a time of its own.
    fn first_bytes(self) -> usize {
        match self {
            Self::Http1 => 0,
            Self::Http2 => 33,
        }
    }
}

/// The connections that there is room for; the others are reset, which costs us no more than accepting them did. Ends
/// never: dropping it closes the listening socket.
pub fn admit(listener: TcpListener, limits: &Limits, clock: Arc<dyn Clock>) -> impl Stream<Item = Admitted> + Send {
    let door = Door {
        listener,
        seats: Seats::new(limits.connections, limits.connections_per_peer),
        clock,
        refusals: Repeated::default(),
        failures: Repeated::default(),
    };
    stream::unfold(door, |mut door| async move { Some((door.next().await, door)) })
}

/// Opens connections, their TLS handshakes side by side: a slow client keeps nobody else waiting. Dropping the stream
/// ends those that are not open yet.
pub fn open(admitted: impl Stream<Item = Admitted> + Send, opening: Opening) -> impl Stream<Item = Connection> + Send {
    let state = (Box::pin(admitted), JoinSet::new(), opening);
    stream::unfold(state, |(mut admitted, mut handshakes, opening)| async move {
        loop {
            let connection = tokio::select! {
                Some(finished) = handshakes.join_next() => finished.ok().flatten(),
                next = admitted.next() => opening.begin(next?, &mut handshakes),
            };
            if let Some(connection) = connection {
                return Some((connection, (admitted, handshakes, opening)));
            }
        }
    })
}

impl Opening {
    fn begin(&self, admitted: Admitted, handshakes: &mut JoinSet<Option<Connection>>) -> Option<Connection> {
        let Admitted { socket, peer, seat } = admitted;
        let ends = (socket.local_addr().ok(), peer);
        let mut first_bytes = FirstBytes {
            missing: self.protocol.first_bytes(),
            deadline: self.clock.sleep_until(self.clock.now().plus(self.limits.first_byte)),
        };
        let bounds =
            Bounds { clock: Arc::clone(&self.clock), write_stall: self.limits.write_stall, cut: self.cut.clone() };
        let Some(tls) = &self.tls else {
            return Some(Connection::new(Either::Left(socket), ends, bounds, first_bytes, seat));
        };
        let handshake = tls.accept(socket);
        handshakes.spawn(async move {
            let done = tokio::select! {
                done = handshake => done,
                () = &mut first_bytes.deadline => Err(ErrorKind::TimedOut.into()),
            };
            match done {
                Ok(io) => Some(Connection::new(Either::Right(Box::new(io)), ends, bounds, first_bytes, seat)),
                Err(error) => {
                    tracing::debug!(peer = %peer, %error, "a TLS handshake failed");
                    None
                }
            }
        });
        None
    }
}

struct Door {
    listener: TcpListener,
    seats: Seats,
    clock: Arc<dyn Clock>,
    refusals: Repeated,
    failures: Repeated,
}

impl Door {
    async fn next(&mut self) -> Admitted {
        loop {
            match self.listener.accept().await {
                Ok((socket, peer)) => match self.seats.take(peer.ip()) {
                    Ok(seat) => return admitted(socket, peer, seat),
                    Err(full) => self.refuse(&socket, peer, full),
                },
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if let Some(times) = self.failures.tell(self.clock.now()) {
                        tracing::error!(%error, times, "no connection can be accepted; trying again");
                    }
                    self.clock.sleep_until(self.clock.now().plus(ACCEPT_PAUSE)).await;
                }
            }
        }
    }

    fn refuse(&mut self, socket: &TcpStream, peer: SocketAddr, full: Full) {
        // A reset leaves nothing behind; an orderly end would leave a socket in TIME_WAIT for each.
        if let Err(error) = socket.set_zero_linger() {
            tracing::debug!(%error, "a refused connection ends in good order");
        }
        let Some(times) = self.refusals.tell(self.clock.now()) else { return };
        match full {
            Full::ForAll => tracing::warn!(times, "connections are refused: limits.connections are open"),
            Full::ForThisPeer => {
                tracing::warn!(peer = %peer.ip(), times, "connections are refused: limits.connections_per_peer are open");
            }
        }
    }
}

fn admitted(socket: TcpStream, peer: SocketAddr, seat: Seat) -> Admitted {
    // Without it small answers wait for the peer's delayed acknowledgement, about 40 ms.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a connection stays without TCP_NODELAY");
    }
    Admitted { socket, peer, seat }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Something that strangers can make happen as often as they like.
#[derive(Default)]
struct Repeated {
    since_told: u64,
    told_at: Option<Timestamp>,
}

impl Repeated {
    /// How often it has happened since it was last told, when it is to be told again.
    fn tell(&mut self, now: Timestamp) -> Option<u64> {
        self.since_told += 1;
        if self.told_at.is_some_and(|at| now < at.plus(TELL_EVERY)) {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.since_told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_write_one_line_a_minute() {
        let (mut refusals, start) = (Repeated::default(), Timestamp::from_secs(1_800_000_000));
        assert_eq!(refusals.tell(start), Some(1));
        assert_eq!(refusals.tell(start.plus(TELL_EVERY / 2)), None);
        assert_eq!(refusals.tell(start.plus(TELL_EVERY)), Some(2));
    }
}
