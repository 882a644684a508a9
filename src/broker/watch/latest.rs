//! Delivery of the newest state of each credential.

use std::collections::HashMap;

use crate::{domain::Revision, events::LoggedEvent};

/// Leaves only the newest event of each credential, in its own revision's place.
pub(super) fn keep_latest(revisions: &mut Vec<(Revision, Vec<LoggedEvent>)>) {
    let mut newest = HashMap::new();
    for (revision, events) in revisions.iter() {
        for (index, event) in events.iter().enumerate() {
            newest.insert(event.status.credential, (*revision, index));
        }
    }
    for (revision, events) in revisions.iter_mut() {
        let mut index = 0;
        events.retain(|event| {
            index += 1;
            newest[&event.status.credential] == (*revision, index - 1)
        });
    }
    revisions.retain(|(_, events)| !events.is_empty());
}
