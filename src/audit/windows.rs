//! Windows over repeated reads: the first read of a window is recorded durably before its answer leaves; the rest are
//! counted, and the count is appended when the window closes. A crash can cost the count, never the fact.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::domain::{
    AgentId, AuditAction, AuditRecord, AuditResult, ConnectionId, PluginId, Reason, Repeated, SubjectId, TenantId,
    Timestamp,
};

/// Open windows; more reads than that in one window's time are recorded one by one.
const MOST_WINDOWS: usize = 65_536;

/// The open windows.
pub struct Windows {
    length: Duration,
    open: Mutex<HashMap<WindowKey, Window>>,
}

/// What must be equal for one record to cover a read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WindowKey {
    tenant: TenantId,
    subject: Option<SubjectId>,
    agent: Option<AgentId>,
    action: AuditAction,
    result: AuditResult,
    reason: Option<Reason>,
    plugin: Option<PluginId>,
    connection: Option<ConnectionId>,
    generation: Option<u64>,
    session: Option<String>,
    peer: Option<IpAddr>,
    scopes: String,
}

/// Whether an earlier record covers a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Coverage {
    Covered,
    /// The read needs its own durable record.
    Uncovered,
}

struct Window {
    opened_at: Timestamp,
    first: u64,
    last_at: Timestamp,
    count: u64,
    record: AuditRecord,
}

impl Windows {
    /// `length` zero: every read gets its own record.
    pub fn new(length: Duration) -> Self {
        Self { length, open: Mutex::new(HashMap::new()) }
    }

    /// Counts the read in an open window, if there is one.
    pub fn cover(&self, key: &WindowKey, now: Timestamp) -> Coverage {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(key) {
            Some(window) if !self.is_over(window, now) => {
                window.count += 1;
                window.last_at = now;
                Coverage::Covered
            }
            _ => Coverage::Uncovered,
        }
    }

    /// Opens a window over a record that is durable under the sequence number `first`. A window that is still there
    /// for the same key keeps its count: two first reads at once are two records and one window.
    pub fn open(&self, key: WindowKey, first: u64, record: AuditRecord) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if self.length.is_zero() || open.len() >= MOST_WINDOWS {
            return;
        }
        let at = record.at;
        let fresh = Window { opened_at: at, first, last_at: at, count: 0, record };
        if open.get(&key).is_none_or(|window| window.count == 0) {
            open.insert(key, fresh);
        }
    }

    /// Removes the windows that are over and returns the `READS_REPEATED` records of those that covered something.
    pub fn closed(&self, now: Timestamp) -> Vec<AuditRecord> {
        self.take(now, |window| self.is_over(window, now))
    }

    /// As [`Windows::closed`], of one key alone.
    pub fn close(&self, key: &WindowKey, now: Timestamp) -> Option<AuditRecord> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(key).filter(|window| self.is_over(window, now))?;
        open.remove(key).filter(|window| window.count > 0).map(|window| window.repeated(now))
    }

    /// Closes every window before its time: what is counted would be lost with the process.
    pub fn end(&self, now: Timestamp) -> Vec<AuditRecord> {
        self.take(now, |_| true)
    }

    fn take(&self, now: Timestamp, which: impl Fn(&Window) -> bool) -> Vec<AuditRecord> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.extract_if(|_, window| which(window))
            .filter(|(_, window)| window.count > 0)
            .map(|(_, window)| window.repeated(now))
            .collect()
    }

    /// A clock that was set back must not stretch a window.
    fn is_over(&self, window: &Window, now: Timestamp) -> bool {
        now < window.opened_at || now >= window.opened_at.plus(self.length)
    }

    /// When the next window closes.
    pub fn next_close(&self) -> Option<Timestamp> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().map(|window| window.opened_at.plus(self.length)).min()
    }
}

impl Window {
    fn repeated(self, now: Timestamp) -> AuditRecord {
        AuditRecord {
            at: now,
            action: AuditAction::ReadsRepeated,
            repeated: Some(Repeated { first: self.first, last_at: self.last_at, count: self.count }),
            ..self.record
        }
    }
}

impl WindowKey {
    /// `scopes`: the scope set that was read, joined.
    pub fn of(record: &AuditRecord, scopes: &str) -> Self {
        Self {
            tenant: record.tenant.clone(),
            subject: record.subject,
            agent: record.agent.clone(),
            action: record.action,
            result: record.result,
            reason: record.reason,
            plugin: record.plugin.clone(),
            connection: record.connection,
            generation: record.generation,
            session: record.context.session_id.clone(),
            peer: record.peer,
            scopes: scopes.to_owned(),
        }
    }
}
