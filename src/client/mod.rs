//! The gRPC client: what the command line, the container side and the benches call the broker with.
//!
//! - [`connect`]: from an endpoint to a [`Client`] · [`calls`]: one method an RPC
//! - [`error`]: what a refusal says · [`watch`]: the status stream, kept open; [`view`]: what it adds up to;
//!   [`resume_file`]: how far a program has come that stops

mod calls;
mod connect;
mod error;
mod resume_file;
mod view;
mod watch;

pub use connect::{Client, ClientCertificate, Connect, ConnectError};
pub use error::ClientError;
pub use resume_file::{ResumeFile, ResumeFileError};
pub use view::{Cause, Change, View};
pub use watch::{Heard, Interruption, Jitter, Watch};
