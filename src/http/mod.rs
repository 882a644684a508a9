//! The HTTP edge: health for orchestrators and load balancers.

mod health;

use axum::Router;

use crate::broker::Broker;

/// Everything that the second listener serves.
pub fn router(broker: Broker) -> Router {
    health::routes(broker)
}
