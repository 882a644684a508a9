//! The HTTP edge: health for orchestrators and load balancers.
//!
//! - [`server`]: limits, shutdown · [`health`]

mod health;
mod server;

use axum::Router;

pub use server::serve;

use crate::broker::Broker;

/// Everything that the second listener serves.
pub fn router(broker: Broker) -> Router {
    health::routes(broker)
}
