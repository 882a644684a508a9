//! Which requests suffer what.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Arm, Count, Fault, Hold, HoldPoint, hold::Gate};
use crate::dev::{Endpoint, GrantType};

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
    arm: Arm,
    fault: Arc<Fault>,
}

impl Faults {
    /// The next `count` requests to `endpoint` suffer `fault`, after those armed before it.
    pub fn arm(&self, endpoint: Endpoint, fault: Fault, count: u32) {
        self.add(Arm { count: Count::Times(count), ..Arm::once(endpoint, fault) });
    }

    /// Arms one more fault, behind those armed before it: a request suffers the first whose turn it is.
    pub fn add(&self, arm: Arm) {
        if arm.count != Count::Times(0) {
            let fault = Arc::new(arm.fault.clone());
            self.plan().armed.push(Armed { arm, fault });
        }
    }

    /// Disarms everything that has not happened yet; holds stay.
    pub fn clear(&self) {
        self.plan().armed.clear();
    }

    /// Requests that are still to suffer a fault; [`u32::MAX`] when one is armed for good.
    pub fn armed(&self) -> u32 {
        let left = |armed: &Armed| match armed.arm.count {
            Count::Times(left) => left,
            Count::Always => u32::MAX,
        };
        self.plan().armed.iter().map(left).fold(0, u32::saturating_add)
    }

    /// From now on every request to `endpoint`, except a probe, waits at `point`, until the hold is released or dropped.
    pub fn hold(&self, endpoint: Endpoint, point: HoldPoint) -> Hold {
        self.hold_if(endpoint, None, point)
    }

    /// As [`Self::hold`]; at a token endpoint only requests of this kind wait.
    pub fn hold_if(&self, endpoint: Endpoint, grant_type: Option<GrantType>, point: HoldPoint) -> Hold {
        let gate = Arc::new(Gate::new(endpoint, grant_type, point));
        self.plan().gates.push(gate.clone());
        Hold::new(gate, self.clone())
    }

    pub(in crate::dev) fn release_all(&self) {
        let gates = std::mem::take(&mut self.plan().gates);
        gates.iter().for_each(|gate| gate.open());
    }

    /// `roll` gives 0 to 99.
    pub(super) fn take(
        &self,
        endpoint: Endpoint,
        grant_type: Option<GrantType>,
        roll: impl Fn() -> u8,
    ) -> Option<Arc<Fault>> {
        let mut plan = self.plan();
        let at = plan.armed.iter_mut().position(|armed| armed.arm.falls_on(endpoint, grant_type, &roll))?;
        let armed = &mut plan.armed[at];
        let fault = armed.fault.clone();
        if let Count::Times(left) = &mut armed.arm.count {
            *left -= 1;
            if *left == 0 {
                plan.armed.remove(at);
            }
        }
        Some(fault)
    }

    pub(super) fn gates(&self, endpoint: Endpoint, grant_type: Option<GrantType>, point: HoldPoint) -> Vec<Arc<Gate>> {
        let gates = &self.plan().gates;
        gates.iter().filter(|gate| gate.stands_at(endpoint, grant_type, point)).cloned().collect()
    }

    pub(super) fn remove(&self, gate: &Arc<Gate>) {
        self.plan().gates.retain(|other| !Arc::ptr_eq(other, gate));
        gate.open();
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
