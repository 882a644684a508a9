//! The way between clients and the broker: an address that stays, and a network that can fail without closing anything.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Nothing passes in either direction, and nothing is closed: as if one end had lost its power.
    Silent,
    /// To the client one byte passes whenever the test says so.
    Dribbles,
}

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    target: watch::Sender<SocketAddr>,
    way: watch::Sender<Way>,
    /// Changes when all connections of before are to end.
    cuts: watch::Sender<u32>,
    bytes: Arc<Semaphore>,
}

impl Relay {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (target, way) = (watch::Sender::new(target), watch::Sender::new(Way::Open));
        let (cuts, bytes) = (watch::Sender::new(0), Arc::new(Semaphore::new(0)));
        tokio::spawn({
            let (target, way, cuts, bytes) =
                (target.subscribe(), way.subscribe(), cuts.subscribe(), Arc::clone(&bytes));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let (target, way, bytes) = (*target.borrow(), way.clone(), Arc::clone(&bytes));
                    let mut cuts = cuts.clone();
                    cuts.mark_unchanged();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = join(client, target, way, bytes) => {}
                            _ = cuts.changed() => {}
                        }
                    });
                }
            }
        });
        Self { address, target, way, cuts, bytes }
    }

    /// New connections go there.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    pub(crate) fn open(&self) {
        self.way.send_replace(Way::Open);
    }

    pub(crate) fn fall_silent(&self) {
        self.way.send_replace(Way::Silent);
    }

    pub(crate) fn dribble(&self) {
        self.way.send_replace(Way::Dribbles);
    }

    pub(crate) fn let_pass(&self, bytes: usize) {
        self.bytes.add_permits(bytes);
    }

    /// Ends all connections that there are; those that come find the way open.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
        self.open();
    }
}

/// Ends when one end does, with what it said last carried to the other.
async fn join(client: TcpStream, target: SocketAddr, way: watch::Receiver<Way>, bytes: Arc<Semaphore>) {
    // A broker that is gone is one that closes at once.
    let Ok(broker) = TcpStream::connect(target).await else { return };
    client.set_nodelay(true).unwrap();
    broker.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    tokio::join!(carry(from_client, to_broker, way.clone(), None), carry(from_broker, to_client, way, Some(bytes)));
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut way: watch::Receiver<Way>,
    single: Option<Arc<Semaphore>>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        drop(way.wait_for(|way| *way != Way::Silent).await);
        let length = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            Ok(()) = way.changed() => continue,
        };
        let sent = match &single {
            Some(bytes) if *way.borrow() == Way::Dribbles => dribble(&mut to, &buffer[..length], bytes, &mut way).await,
            _ => to.write_all(&buffer[..length]).await,
        };
        if length == 0 || sent.is_err() {
            // The other direction may have something to say yet.
            drop(to.shutdown().await);
            return;
        }
    }
}

async fn dribble(
    to: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    single: &Semaphore,
    way: &mut watch::Receiver<Way>,
) -> std::io::Result<()> {
    for (index, byte) in bytes.iter().enumerate() {
        tokio::select! {
            permit = single.acquire() => permit.unwrap().forget(),
            () = opened(way) => return to.write_all(&bytes[index..]).await,
        }
        to.write_all(&[*byte]).await?;
    }
    Ok(())
}

async fn opened(way: &mut watch::Receiver<Way>) {
    drop(way.wait_for(|way| *way != Way::Dribbles).await);
}
