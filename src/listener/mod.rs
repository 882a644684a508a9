//! Sockets that strangers reach: who is let in, how long they may take to say something, and what proves who we are.
//!
//! - [`accept`]: from a listening socket to open connections · [`connection`]: what bounds one of them
//! - [`seats`]: how many there may be · [`tls`]: certificates, and exchanging them · [`limits`]: every bound in one place

mod accept;
mod connection;
mod limits;
mod seats;
mod tls;

pub use accept::{Admitted, Opening, Protocol, admit, open};
pub use connection::Connection;
pub use limits::Limits;
pub use tls::{ClientCertificates, Tls, TlsError, TlsFiles};
