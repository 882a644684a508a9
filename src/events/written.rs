//! What subscribers are sent, written once for all of them.

use std::{ops::Deref, sync::Arc};

use bytes::Bytes;

use crate::domain::{CredentialEvent, CredentialStatus};

/// How values stand on the wire. That is for the edge to say; below it the bytes are only kept.
#[derive(Clone, Copy)]
pub struct Wire {
    pub event: fn(&CredentialEvent) -> Vec<u8>,
    pub status: fn(&CredentialStatus) -> Vec<u8>,
}

/// A value with its bytes on the wire.
#[derive(Debug, PartialEq, Eq)]
pub struct Written<T> {
    pub value: T,
    pub wire: Bytes,
}

/// One event of the log, shared by everybody who is sent it.
pub type LoggedEvent = Arc<Written<CredentialEvent>>;
/// One credential's state in a snapshot.
pub type WrittenStatus = Arc<Written<CredentialStatus>>;

impl Wire {
    pub fn event(&self, event: CredentialEvent) -> LoggedEvent {
        let wire = (self.event)(&event).into();
        Arc::new(Written { value: event, wire })
    }

    pub fn status(&self, status: CredentialStatus) -> WrittenStatus {
        let wire = (self.status)(&status).into();
        Arc::new(Written { value: status, wire })
    }
}

impl<T> Deref for Written<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
