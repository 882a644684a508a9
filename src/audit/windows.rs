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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::domain::CallContext;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);
    const LENGTH: Duration = Duration::from_secs(10);

    #[test]
    fn a_read_is_covered_within_its_window_only() {
        let windows = Windows::new(LENGTH);
        assert_eq!(windows.cover(&key(), at(0)), Coverage::Uncovered, "nothing is recorded yet");
        windows.open(key(), 7, read(at(0)));
        for (second, coverage) in [(0, Coverage::Covered), (9, Coverage::Covered), (10, Coverage::Uncovered)] {
            assert_eq!(windows.cover(&key(), at(second)), coverage, "after {second} s");
        }
    }

    #[test]
    fn a_record_covers_no_other_read() {
        let windows = Windows::new(LENGTH);
        windows.open(key(), 7, read(at(0)));
        let others: Vec<WindowKey> = variations().iter().map(|record| WindowKey::of(record, "read")).collect();
        for other in others.iter().chain([&WindowKey::of(&read(at(0)), "read write")]) {
            assert_eq!(windows.cover(other, at(1)), Coverage::Uncovered, "{other:?}");
        }
        assert_eq!(windows.cover(&key(), at(1)), Coverage::Covered);
    }

    #[test]
    fn closing_appends_one_record_with_the_count_and_the_last_time() {
        let windows = Windows::new(LENGTH);
        windows.open(key(), 7, read(at(0)));
        for second in [1, 4, 8] {
            assert_eq!(windows.cover(&key(), at(second)), Coverage::Covered);
        }
        assert_eq!(windows.next_close(), Some(at(10)));
        assert_eq!(windows.closed(at(9)), []);
        let repeated = Some(Repeated { first: 7, last_at: at(8), count: 3 });
        let expected = AuditRecord { at: at(12), action: AuditAction::ReadsRepeated, repeated, ..read(at(0)) };
        assert_eq!(windows.closed(at(12)), [expected]);
        assert_eq!(windows.closed(at(30)), []);
        assert_eq!(windows.next_close(), None);
    }

    #[test]
    fn a_window_that_covered_nothing_closes_in_silence() {
        let windows = Windows::new(LENGTH);
        windows.open(key(), 7, read(at(0)));
        assert_eq!(windows.closed(at(10)), []);
        assert_eq!(windows.next_close(), None);
    }

    #[test]
    fn windows_without_length_cover_nothing() {
        let windows = Windows::new(Duration::ZERO);
        windows.open(key(), 7, read(at(0)));
        assert_eq!(windows.cover(&key(), at(0)), Coverage::Uncovered);
        assert_eq!(windows.next_close(), None);
    }

    #[test]
    fn a_clock_set_back_opens_a_new_window() {
        let windows = Windows::new(LENGTH);
        windows.open(key(), 7, read(at(100)));
        assert_eq!(windows.cover(&key(), at(101)), Coverage::Covered);
        assert_eq!(windows.cover(&key(), at(50)), Coverage::Uncovered);
        let closed = windows.closed(at(50));
        assert_eq!(closed[0].repeated, Some(Repeated { first: 7, last_at: at(101), count: 1 }));
        windows.open(key(), 8, read(at(50)));
        assert_eq!(windows.cover(&key(), at(51)), Coverage::Covered);
        assert_eq!(windows.cover(&key(), at(60)), Coverage::Uncovered);
    }

    #[test]
    fn two_first_reads_at_once_are_two_records_and_one_window() {
        let windows = Windows::new(LENGTH);
        windows.open(key(), 7, read(at(0)));
        assert_eq!(windows.cover(&key(), at(1)), Coverage::Covered);
        windows.open(key(), 8, read(at(0)));
        assert_eq!(windows.cover(&key(), at(2)), Coverage::Covered);
        let closed = windows.closed(at(10));
        assert_eq!(closed.len(), 1);
        assert_eq!(closed[0].repeated, Some(Repeated { first: 7, last_at: at(2), count: 2 }));
    }

    proptest! {
        #[test]
        fn every_read_is_recorded_or_counted(steps in vec((0u64..8, any::<bool>()), 1..60)) {
            let windows = Windows::new(LENGTH);
            let (mut now, mut recorded, mut counted) = (START, 0, 0);
            for (seconds, closes) in &steps {
                now = now.plus(Duration::from_secs(*seconds));
                if *closes {
                    counted += count(&windows.closed(now));
                }
                if windows.cover(&key(), now) == Coverage::Uncovered {
                    recorded += 1;
                    windows.open(key(), recorded, read(now));
                }
            }
            counted += count(&windows.closed(Timestamp::NEVER));
            prop_assert_eq!(recorded + counted, steps.len() as u64);
        }
    }

    fn count(closed: &[AuditRecord]) -> u64 {
        closed.iter().filter_map(|record| record.repeated.as_ref()).map(|repeated| repeated.count).sum()
    }

    /// The read with one thing different in each, for everything that must be equal.
    fn variations() -> Vec<AuditRecord> {
        let base = || read(at(0));
        vec![
            AuditRecord { tenant: "other".parse().unwrap(), ..base() },
            AuditRecord { subject: Some(SubjectId::from_bytes([9; 32])), ..base() },
            AuditRecord { agent: Some("agent-2".parse().unwrap()), ..base() },
            AuditRecord { action: AuditAction::ConnectionsRead, ..base() },
            AuditRecord { result: AuditResult::Refused, ..base() },
            AuditRecord { reason: Some(Reason::ConsentRequired), ..base() },
            AuditRecord { plugin: Some("mail".parse().unwrap()), ..base() },
            AuditRecord { connection: Some(ConnectionId::from_bytes([9; 16])), ..base() },
            AuditRecord { generation: Some(4), ..base() },
            AuditRecord { context: CallContext { session_id: Some("s2".to_owned()), ..base().context }, ..base() },
            AuditRecord { peer: Some([10, 0, 0, 2].into()), ..base() },
        ]
    }

    fn key() -> WindowKey {
        WindowKey::of(&read(at(0)), "read")
    }

    fn read(at: Timestamp) -> AuditRecord {
        AuditRecord {
            at,
            tenant: "acme".parse().unwrap(),
            subject: Some(SubjectId::from_bytes([1; 32])),
            agent: Some("agent-1".parse().unwrap()),
            action: AuditAction::TokenRead,
            result: AuditResult::Allowed,
            reason: None,
            link: None,
            provider: Some("github".parse().unwrap()),
            plugin: Some("issues".parse().unwrap()),
            connection: Some(ConnectionId::from_bytes([2; 16])),
            generation: Some(3),
            request_id: None,
            peer: Some([10, 0, 0, 1].into()),
            user_agent: None,
            context: CallContext { session_id: Some("s1".to_owned()), ..CallContext::default() },
            target: None,
            applied: None,
            repeated: None,
            purged: None,
        }
    }

    fn at(second: u64) -> Timestamp {
        START.plus(Duration::from_secs(second))
    }
}
