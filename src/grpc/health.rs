//! `grpc.health.v1`, for the server as a whole and for each service: serving while the broker is ready.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

use super::status;
use crate::{
    broker::Broker,
    domain::{Clock, Reason},
    proto::v1::{
        connection_service_server::SERVICE_NAME as CONNECTION_SERVICE,
        operations_service_server::SERVICE_NAME as OPERATIONS_SERVICE,
        token_broker_service_server::SERVICE_NAME as TOKEN_BROKER_SERVICE,
    },
};

/// How often a watcher's answer is looked at again.
const LOOK: Duration = Duration::from_secs(1);
/// Anybody may watch without a token, so there is an end to it.
const MOST_WATCHERS: usize = 1000;

pub(super) struct Readiness {
    broker: Broker,
    clock: Arc<dyn Clock>,
    watchers: Arc<Semaphore>,
}

impl Readiness {
    pub(super) fn new(broker: Broker, clock: Arc<dyn Clock>) -> Self {
        Self { broker, clock, watchers: Arc::new(Semaphore::new(MOST_WATCHERS)) }
    }
}

#[async_trait]
impl Health for Readiness {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if is_known(&request.get_ref().service) {
            Ok(Response::new(answer(serving(&self.broker))))
        } else {
            Err(status::service_unknown())
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Ends when the broker stops, so that no watcher holds up the shutdown.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let permit = Arc::clone(&self.watchers).try_acquire_owned();
        let watcher = Watcher {
            broker: self.broker.clone(),
            clock: Arc::clone(&self.clock),
            known: is_known(&request.get_ref().service),
            told: None,
            _permit: permit.map_err(|_| status::of_reason(Reason::StreamQuota))?,
        };
        let changes = stream::unfold(watcher, |mut watcher| async move {
            watcher.next().await.map(|status| (Ok(answer(status)), watcher))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

struct Watcher {
    broker: Broker,
    clock: Arc<dyn Clock>,
    known: bool,
    told: Option<ServingStatus>,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    /// The next status that differs from the last one told.
    async fn next(&mut self) -> Option<ServingStatus> {
        loop {
            let leaving = self.broker.leaving().is_cancelled();
            let status = if self.known { serving(&self.broker) } else { ServingStatus::ServiceUnknown };
            if self.told != Some(status) {
                self.told = Some(status);
                return Some(status);
            }
            if leaving {
                return None;
            }
            tokio::select! {
                () = self.clock.sleep_until(self.clock.now().plus(LOOK)) => {}
                () = self.broker.leaving().cancelled() => {}
            }
        }
    }
}

fn is_known(service: &str) -> bool {
    ["", TOKEN_BROKER_SERVICE, CONNECTION_SERVICE, OPERATIONS_SERVICE].contains(&service)
}

fn serving(broker: &Broker) -> ServingStatus {
    if broker.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
