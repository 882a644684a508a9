//! How many streams one subject may hold open: refused visibly, not queued.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{broker::BrokerError, domain::SubjectId};

/// Streams per subject.
const MOST_STREAMS: usize = 64;

/// Seats taken, by subject.
#[derive(Clone, Default)]
pub(in crate::broker) struct Quota(Arc<Mutex<HashMap<SubjectId, usize>>>);

/// One open stream's seat; given back when dropped.
pub(super) struct Seat {
    subject: SubjectId,
    quota: Quota,
}

impl Quota {
    pub(super) fn take(&self, subject: SubjectId) -> Result<Seat, BrokerError> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seats = taken.entry(subject).or_default();
        if *seats >= MOST_STREAMS {
            return Err(BrokerError::StreamQuota { retry_after: Duration::from_secs(10) });
        }
        *seats += 1;
        Ok(Seat { subject, quota: self.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.quota.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seats) = taken.get_mut(&self.subject) {
            *seats -= 1;
            if *seats == 0 {
                taken.remove(&self.subject);
            }
        }
    }
}
