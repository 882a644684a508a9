//! The gRPC client: what the command line, the container side and the benches call the broker with.
//!
//! - [`connect`]: from an endpoint to a [`Client`] · [`calls`]: one method an RPC
//! - [`error`]: what a refusal says · [`watch`]: the status stream, kept open

mod calls;
mod connect;
mod error;
mod watch;

pub use connect::{Client, ClientCertificate, Connect, ConnectError};
pub use error::ClientError;
pub use watch::{Jitter, Watch};
