//! The way between the client and whichever broker there is: an address that stays, and connections that do not.

use std::{future::pending, net::SocketAddr};

use tokio::{
    io::{self, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::place::in_time;

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    way: watch::Sender<Way>,
    ends: watch::Receiver<Ends>,
}

/// What becomes of connections. When it changes, those that there are break.
#[derive(Clone, Copy, Debug)]
enum Way {
    Closed,
    To(SocketAddr),
    Bytes(SocketAddr, u64),
}

/// How many connections there were that got nowhere, and no further.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    refused: u32,
    stuck: u32,
}

impl Relay {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, ways) = watch::channel(Way::To(target));
        let (end, ends) = watch::channel(Ends::default());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut ways, end) = (ways.clone(), end.clone());
                let way = *ways.borrow_and_update();
                tokio::spawn(async move {
                    tokio::select! {
                        () = carry(client, way, &end) => {}
                        _ = ways.changed() => {}
                    }
                });
            }
        });
        Self { address, way, ends }
    }

    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.way.send_replace(Way::To(target));
    }

    /// On each new connection the client is sent so many bytes and no more.
    pub(crate) fn lead_to_for(&self, target: SocketAddr, bytes: u64) {
        self.way.send_replace(Way::Bytes(target, bytes));
    }

    pub(crate) fn close(&self) {
        self.way.send_replace(Way::Closed);
    }

    /// Returns once one more connection has been refused.
    pub(crate) async fn refuses(&mut self) {
        let until = self.ends.borrow().refused + 1;
        in_time(self.ends.wait_for(|ends| ends.refused >= until)).await.unwrap();
    }

    /// Returns once one more connection has no bytes left.
    pub(crate) async fn is_stuck(&mut self) {
        let until = self.ends.borrow().stuck + 1;
        in_time(self.ends.wait_for(|ends| ends.stuck >= until)).await.unwrap();
    }
}

async fn carry(client: TcpStream, way: Way, ends: &watch::Sender<Ends>) {
    let (target, bytes) = match way {
        Way::Closed => return ends.send_modify(|ends| ends.refused += 1),
        Way::To(target) => (target, u64::MAX),
        Way::Bytes(target, bytes) => (target, bytes),
    };
    let Ok(broker) = TcpStream::connect(target).await else { return };
    client.set_nodelay(true).unwrap();
    broker.set_nodelay(true).unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (from_broker, mut to_broker) = broker.into_split();
    let up = async {
        drop(io::copy(&mut from_client, &mut to_broker).await);
        drop(to_broker.shutdown().await);
    };
    let down = async {
        if io::copy(&mut from_broker.take(bytes), &mut to_client).await.is_ok_and(|carried| carried == bytes) {
            ends.send_modify(|ends| ends.stuck += 1);
            pending::<()>().await;
        }
        drop(to_client.shutdown().await);
    };
    tokio::join!(up, down);
}
