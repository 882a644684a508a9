//! Requests held back until a test lets them go, so that tests wait for events and never for time.

use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::watch;

use super::Faults;
use crate::dev::{Endpoint, GrantType};

/// Where a held request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldPoint {
    /// Before it takes effect.
    Request,
    /// After it took effect, before its answer leaves.
    Answer,
}

/// Holds requests back while it lives.
pub struct Hold {
    gate: Arc<Gate>,
    faults: Faults,
}

pub(super) struct Gate {
    endpoint: Endpoint,
    grant_type: Option<GrantType>,
    point: HoldPoint,
    state: watch::Sender<GateState>,
}

#[derive(Clone, Copy, Default)]
struct GateState {
    arrived: usize,
    open: bool,
}

impl Hold {
    pub(super) fn new(gate: Arc<Gate>, faults: Faults) -> Self {
        Self { gate, faults }
    }

    /// Completes once `count` requests have arrived since the hold began, or the hold has ended.
    pub async fn arrived(&self, count: usize) {
        self.gate.reached(|state| state.arrived >= count || state.open).await;
    }

    /// Requests that have arrived since the hold began.
    pub fn arrivals(&self) -> usize {
        self.gate.state.borrow().arrived
    }

    /// Lets everything go.
    pub fn release(self) {}
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.faults.remove(&self.gate);
    }
}

impl Gate {
    pub(super) fn new(endpoint: Endpoint, grant_type: Option<GrantType>, point: HoldPoint) -> Self {
        Self { endpoint, grant_type, point, state: watch::Sender::default() }
    }

    pub(super) fn stands_at(&self, endpoint: Endpoint, grant_type: Option<GrantType>, point: HoldPoint) -> bool {
        let is_meant = self.grant_type.is_none() || self.grant_type == grant_type;
        self.endpoint == endpoint && is_meant && self.point == point
    }

    pub(super) fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    pub(super) async fn pass(&self) {
        self.state.send_modify(|state| state.arrived += 1);
        self.reached(|state| state.open).await;
    }

    async fn reached(&self, condition: impl FnMut(&GateState) -> bool) {
        // The sender lives in `self`, so the channel cannot close.
        let _ = self.state.subscribe().wait_for(condition).await;
    }
}
