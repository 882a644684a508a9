//! Which requests suffer what.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Fault, Hold, HoldPoint, hold::Gate};
use crate::dev::Endpoint;

/// Arms faults for the next requests. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Faults {
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    armed: Vec<Armed>,
    gates: Vec<Arc<Gate>>,
}

struct Armed {
    endpoint: Endpoint,
    fault: Arc<Fault>,
    left: u32,
}

impl Faults {
    /// The next `count` requests to `endpoint` suffer `fault`, after those armed before it.
    pub fn arm(&self, endpoint: Endpoint, fault: Fault, count: u32) {
        if count > 0 {
            self.plan().armed.push(Armed { endpoint, fault: Arc::new(fault), left: count });
        }
    }

    /// Disarms everything that has not happened yet; holds stay.
    pub fn clear(&self) {
        self.plan().armed.clear();
    }

    /// Requests that are still to suffer a fault.
    pub fn armed(&self) -> u32 {
        self.plan().armed.iter().map(|armed| armed.left).fold(0, u32::saturating_add)
    }

    /// From now on every request to `endpoint` waits at `point`, until the hold is released or dropped.
    pub fn hold(&self, endpoint: Endpoint, point: HoldPoint) -> Hold {
        let gate = Arc::new(Gate::new(endpoint, point));
        self.plan().gates.push(gate.clone());
        Hold::new(gate, self.clone())
    }

    pub(in crate::dev) fn release_all(&self) {
        let gates = std::mem::take(&mut self.plan().gates);
        gates.iter().for_each(|gate| gate.open());
    }

    pub(super) fn take(&self, endpoint: Endpoint) -> Option<Arc<Fault>> {
        let mut plan = self.plan();
        let at = plan.armed.iter().position(|armed| armed.endpoint == endpoint)?;
        let armed = &mut plan.armed[at];
        armed.left -= 1;
        let fault = armed.fault.clone();
        if armed.left == 0 {
            plan.armed.remove(at);
        }
        Some(fault)
    }

    pub(super) fn gates(&self, endpoint: Endpoint, point: HoldPoint) -> Vec<Arc<Gate>> {
        self.plan().gates.iter().filter(|gate| gate.stands_at(endpoint, point)).cloned().collect()
    }

    pub(super) fn remove(&self, gate: &Arc<Gate>) {
        self.plan().gates.retain(|other| !Arc::ptr_eq(other, gate));
        gate.open();
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
