//! What carries a request to its server and an answer back.

use super::{OutboundError, Reply, Request};
use crate::domain::BoxFuture;

/// The last thing below every request: with another one, a whole world of servers can stand in for the Internet.
pub trait Wire: Send + Sync {
    /// Sends the request at most once, follows no redirect, and gives the whole answer. `max_response` and `timeout` are
    /// always set and are kept; an error tells truly whether the server may have got the request.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Reply, OutboundError>>;
}
