//! Whether a provider is there at all. While it is not, no refresh token is sent to it: at a strict provider each one
//! would come a step nearer to its end, and none would bring anything.

use std::time::Duration;

use crate::domain::{ConnectionId, Credential, Provider, Rotation, Timestamp};

/// So many failures in a row, not all of one connection, and it is the provider that fails.
const SHARED_FAILURES: u32 = 5;
/// Between the probes of a provider that does not answer.
const FIRST_PROBE: Duration = Duration::from_secs(2);
const LONGEST_PROBE: Duration = Duration::from_secs(30);
/// How long a sign of life holds.
const ALIVE: Duration = Duration::from_secs(60);
/// How long a provider that has come back is left to those whose tokens are surely unspent.
const PATIENCE: Duration = Duration::from_secs(5);
/// A provider that never answers probes is tried for real this often.
const UNPROBED: Duration = Duration::from_secs(600);
/// How long a token that may be spent is kept back from a provider that gives no sign of life.
const DOUBT: Duration = Duration::from_secs(6 * 3600);
/// Between trials that fail though the probes before them were answered.
const LONGEST_MISLED: Duration = Duration::from_secs(120);
/// How long after the last failed refresh a token that may be spent is kept back from a provider that answers probes
/// and refreshes nothing: of the first kind, refreshes of several connections failed; of the second, trials did.
const SUSPECT: Duration = Duration::from_secs(600);
const MISLEADING: Duration = Duration::from_secs(2 * 3600);
/// The longest that one connection's being told to wait holds up the others.
const ONE_LIMITED: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// How a credential stands with its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its last refresh succeeded.
    Sound,
    /// Its last refreshes failed, and that spent nothing. `newly`: it may be the first to notice an outage.
    Failing { newly: bool },
    /// An answer was lost, and where tokens rotate the next POST may be the last that can be made.
    Doubtful,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// `trial`: everybody else waits for what comes of it.
    Go { trial: bool },
    /// Ask the provider something that spends nothing, and tell [`Breaker::probed`].
    Probe,
    /// A probe or a trial is in the air: ask again when something has changed, at the latest then.
    Listen(Timestamp),
    /// Ask again then, or when something has changed.
    Wait(Timestamp),
}

/// What a POST told of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It judged, whatever the verdict.
    Alive,
    /// It wants to be left alone.
    Limited(Option<Duration>),
    Down,
    Nothing,
}

pub(super) struct Breaker {
    phase: Phase,
    /// Since when it has not been closed.
    down_since: Timestamp,
    /// Refreshes that failed in a row, and that no dead probe explains.
    failures: u32,
    failed_at: Timestamp,
    /// Whose the first of these was, and whether others followed.
    failed_first: Option<ConnectionId>,
    shared: bool,
    alive_at: Timestamp,
    /// Not before this time.
    probe_at: Timestamp,
    /// While one is in the air.
    probing_until: Timestamp,
    /// Openings and dead probes in a row.
    rounds: u32,
    /// Trials that failed after an answered probe, since the last refresh that was answered: probes tell little.
    misled: u32,
    /// It answered a refresh, and its probes it does not: they tell nothing.
    mute: bool,
    paused_until: Timestamp,
    /// Who was told to wait, since the last success.
    limited_first: Option<ConnectionId>,
    limited: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open {
        trial_at: Timestamp,
    },
    /// `unprobed`: no probe said that it is there; one refresh is to find out.
    HalfOpen {
        since: Timestamp,
        trial_until: Timestamp,
        unprobed: bool,
    },
}

impl Standing {
    pub(super) fn of(provider: &Provider, credential: &Credential) -> Self {
        let rotates = matches!(provider.definition.rotation, Rotation::Grace { .. } | Rotation::Strict);
        match credential.refresh.failures {
            _ if rotates && credential.refresh.attempts > 0 => Self::Doubtful,
            0 => Self::Sound,
            failures => Self::Failing { newly: failures <= 2 },
        }
    }

    fn wants_a_sign_of_life(self) -> bool {
        matches!(self, Self::Doubtful | Self::Failing { newly: true })
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            phase: Phase::Closed,
            down_since: Timestamp::EPOCH,
            failures: 0,
            failed_at: Timestamp::EPOCH,
            failed_first: None,
            shared: false,
            alive_at: Timestamp::EPOCH,
            probe_at: Timestamp::EPOCH,
            probing_until: Timestamp::EPOCH,
            rounds: 0,
            misled: 0,
            mute: false,
            paused_until: Timestamp::EPOCH,
            limited_first: None,
            limited: 0,
        }
    }
}

impl Breaker {
    /// Whether a refresh of that standing may go. `sound_waits`: one that is sound wants to, too. `lease`: after this
    /// time a probe or trial of which nothing was heard is taken for dead. `draw` is random, of 0..1.
    pub(super) fn advise(
        &mut self,
        standing: Standing,
        sound_waits: bool,
        lease: Duration,
        now: Timestamp,
        draw: f64,
    ) -> Advice {
        if is_ahead(self.paused_until, now, LONGEST_PAUSE) {
            return Advice::Wait(self.paused_until);
        }
        match self.phase {
            Phase::Closed if standing.wants_a_sign_of_life() && self.is_silent(now) => self.probe(lease, now),
            Phase::Closed => match self.kept_back(standing, now) {
                Some(until) => Advice::Wait(until),
                None => Advice::Go { trial: false },
            },
            Phase::Open { trial_at } => {
                let may_try = self.may_go_unprobed(standing, now);
                if may_try && !is_ahead(trial_at, now, UNPROBED) && !is_ahead(self.probing_until, now, lease) {
                    self.phase = Phase::HalfOpen { since: now, trial_until: now.plus(lease), unprobed: true };
                    return Advice::Go { trial: true };
                }
                match self.probe(lease, now) {
                    Advice::Wait(probe_at) if may_try => Advice::Wait(probe_at.min(trial_at)),
                    other => other,
                }
            }
            Phase::HalfOpen { since, trial_until, unprobed } => {
                if is_ahead(trial_until, now, lease) {
                    return Advice::Listen(trial_until);
                }
                let patient_at = since.plus(PATIENCE);
                if let Some(until) = self.kept_back(standing, now) {
                    return Advice::Wait(until);
                }
                if standing == Standing::Doubtful && self.is_silent(now) {
                    return self.probe(lease, now);
                }
                if standing == Standing::Sound || (!is_ahead(patient_at, now, PATIENCE) && !sound_waits) {
                    self.phase = Phase::HalfOpen { since, trial_until: now.plus(lease), unprobed };
                    return Advice::Go { trial: true };
                }
                // Never at once, and not all at the same time.
                Advice::Wait(patient_at.max(now.plus(Duration::from_secs(1) + PATIENCE.mul_f64(draw))))
            }
        }
    }

    /// What a probe brought.
    pub(super) fn probed(&mut self, alive: bool, now: Timestamp, draw: f64) {
        self.probe_is_over();
        if !alive {
            self.forget_failures();
            return self.open(now, draw);
        }
        self.mute = false;
        (self.alive_at, self.probe_at) = (now, now);
        if let Phase::Open { .. } = self.phase {
            self.phase = half_open(now);
        }
    }

    /// Its answer was not waited for, or is known.
    pub(super) fn probe_is_over(&mut self) {
        self.probing_until = Timestamp::EPOCH;
    }

    /// What a POST told. True when those who wait may all go now.
    pub(super) fn ended(
        &mut self,
        connection: ConnectionId,
        told: Told,
        trial: bool,
        now: Timestamp,
        draw: f64,
    ) -> bool {
        match told {
            Told::Alive => {
                // It was silent to probes, and answers: its silence says nothing.
                self.mute |= trial && matches!(self.phase, Phase::HalfOpen { unprobed: true, .. });
                self.forget_failures();
                self.alive_at = now;
                (self.limited_first, self.limited) = (None, 0);
                let reopened = self.phase != Phase::Closed;
                (self.phase, self.rounds, self.misled) = (Phase::Closed, 0, 0);
                return reopened;
            }
            Told::Limited(asked) => self.limit(connection, asked, now, draw),
            Told::Down if trial => {
                self.failed_at = now;
                if let Phase::HalfOpen { unprobed: false, .. } = self.phase {
                    self.misled = self.misled.saturating_add(1);
                }
                self.open(now, draw);
            }
            Told::Down if self.phase == Phase::Closed => {
                (self.failures, self.failed_at) = (self.failures.saturating_add(1), now);
                self.shared |= *self.failed_first.get_or_insert(connection) != connection;
                if self.shared && self.failures >= SHARED_FAILURES {
                    self.open(now, draw);
                }
            }
            Told::Down | Told::Nothing => {}
        }
        if trial {
            self.trial_is_over();
        }
        false
    }

    /// The one that was let through to try was not sent, or told nothing.
    pub(super) fn trial_is_over(&mut self) {
        match &mut self.phase {
            // Still nothing says that it is there.
            Phase::HalfOpen { since, unprobed: true, .. } => self.phase = Phase::Open { trial_at: *since },
            Phase::HalfOpen { trial_until, .. } => *trial_until = Timestamp::EPOCH,
            Phase::Closed | Phase::Open { .. } => {}
        }
    }

    /// Whether it is the provider's wish, and not its absence, that keeps refreshes back.
    pub(super) fn is_paused(&self, now: Timestamp) -> bool {
        is_ahead(self.paused_until, now, LONGEST_PAUSE)
    }

    fn is_silent(&self, now: Timestamp) -> bool {
        !self.mute && now - self.alive_at > ALIVE
    }

    fn may_go_unprobed(&self, standing: Standing, now: Timestamp) -> bool {
        standing != Standing::Doubtful || now - self.down_since >= DOUBT
    }

    /// An outage may leave whole what answers a malformed request: where refreshes failed beside answered probes, a
    /// token that may be spent waits for a refresh that works, and asks again then.
    fn kept_back(&self, standing: Standing, now: Timestamp) -> Option<Timestamp> {
        let longest = match (standing, self.misled, self.shared) {
            (Standing::Sound | Standing::Failing { .. }, ..) | (Standing::Doubtful, 0, false) => return None,
            (Standing::Doubtful, 0, true) => SUSPECT,
            (Standing::Doubtful, ..) => MISLEADING,
        };
        let until = self.failed_at.plus(longest);
        // Asked again and again: a caller who is told to wait is not told for hours.
        is_ahead(until, now, longest).then(|| until.min(now.plus(ALIVE)))
    }

    fn probe(&mut self, lease: Duration, now: Timestamp) -> Advice {
        if is_ahead(self.probing_until, now, lease) {
            return Advice::Listen(self.probing_until);
        }
        if is_ahead(self.probe_at, now, LONGEST_MISLED) {
            return Advice::Wait(self.probe_at);
        }
        self.probing_until = now.plus(lease);
        Advice::Probe
    }

    fn open(&mut self, now: Timestamp, draw: f64) {
        self.leave_closed(now);
        let usual = doubled(self.rounds, LONGEST_PROBE);
        let probe_in = half_to_whole(usual.max(doubled(self.misled, LONGEST_MISLED)), draw);
        self.rounds = self.rounds.saturating_add(1);
        self.probe_at = now.plus(probe_in);
        let trial_at = match self.phase {
            // A dead probe puts off no trial, be it to come or due.
            Phase::Open { trial_at } if trial_at - now <= UNPROBED => trial_at,
            _ if self.mute => self.probe_at,
            _ => now.plus(UNPROBED),
        };
        self.phase = Phase::Open { trial_at };
    }

    fn limit(&mut self, connection: ConnectionId, asked: Option<Duration>, now: Timestamp, draw: f64) {
        self.alive_at = now;
        let usual = half_to_whole(doubled(self.limited, ONE_LIMITED), draw);
        self.limited = self.limited.saturating_add(1);
        let asked = asked.unwrap_or(usual).min(LONGEST_PAUSE);
        let shared = *self.limited_first.get_or_insert(connection) != connection;
        let pause = if shared { asked } else { asked.min(ONE_LIMITED) };
        self.paused_until = self.paused_until.max(now.plus(pause));
        if shared {
            // One asks whether it is over, not all at once.
            self.leave_closed(now);
            self.phase = half_open(self.paused_until);
        }
    }

    fn leave_closed(&mut self, now: Timestamp) {
        if self.phase == Phase::Closed {
            self.down_since = now;
        }
    }

    fn forget_failures(&mut self) {
        (self.failures, self.failed_first, self.shared) = (0, None, false);
    }
}

fn half_open(since: Timestamp) -> Phase {
    Phase::HalfOpen { since, trial_until: Timestamp::EPOCH, unprobed: false }
}

fn doubled(times: u32, longest: Duration) -> Duration {
    FIRST_PROBE.saturating_mul(1 << times.min(8)).min(longest)
}

/// Whether a time that was set at most `longest` ahead is still to come; a clock that was set back since has passed it.
fn is_ahead(at: Timestamp, now: Timestamp, longest: Duration) -> bool {
    now < at && at - now <= longest
}

fn half_to_whole(of: Duration, draw: f64) -> Duration {
    of.mul_f64(0.5 + draw / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);
    const LEASE: Duration = Duration::from_secs(60);

    fn person(nth: u8) -> ConnectionId {
        ConnectionId::from_bytes([nth; 16])
    }

    /// Five of five fail.
    fn opened(breaker: &mut Breaker, now: Timestamp) {
        for nth in 0..5 {
            breaker.ended(person(nth), Told::Down, false, now, 1.0);
        }
        assert!(matches!(breaker.phase, Phase::Open { .. }), "{:?}", breaker.phase);
    }

    /// One of that standing waits as it is advised, and its probes all look dead, until it may go.
    fn goes_unprobed(breaker: &mut Breaker, standing: Standing, mut now: Timestamp) -> Timestamp {
        loop {
            match breaker.advise(standing, false, LEASE, now, 1.0) {
                Advice::Go { trial } => {
                    assert!(trial);
                    return now;
                }
                Advice::Probe => breaker.probed(false, now, 1.0),
                Advice::Listen(until) | Advice::Wait(until) => {
                    assert!(until > now);
                    now = until;
                }
            }
        }
    }

    #[test]
    fn a_provider_that_answers_no_probe_is_tried_within_ten_minutes_of_each_outage() {
        let mut breaker = Breaker::default();
        opened(&mut breaker, START);
        let tried_at = goes_unprobed(&mut breaker, Standing::Sound, START);
        assert!(tried_at - START <= UNPROBED);
        breaker.ended(person(0), Told::Down, true, tried_at, 1.0);
        let again_at = goes_unprobed(&mut breaker, Standing::Failing { newly: false }, tried_at);
        assert!(again_at - tried_at <= UNPROBED);
        assert!(breaker.ended(person(0), Told::Alive, true, again_at, 1.0), "those who wait may go");

        let quiet = again_at.plus(Duration::from_secs(3600));
        for standing in [Standing::Sound, Standing::Failing { newly: true }, Standing::Doubtful] {
            assert_eq!(breaker.advise(standing, false, LEASE, quiet, 1.0), Advice::Go { trial: false });
        }
        opened(&mut breaker, quiet);
        assert!(goes_unprobed(&mut breaker, Standing::Sound, quiet) - quiet <= LONGEST_PROBE);
    }

    #[test]
    fn a_token_that_may_be_spent_waits_long_for_a_provider_that_gives_no_sign_of_life_and_not_for_ever() {
        let mut breaker = Breaker::default();
        opened(&mut breaker, START);
        let waited = goes_unprobed(&mut breaker, Standing::Doubtful, START) - START;
        assert!((DOUBT..=DOUBT + LONGEST_PROBE).contains(&waited), "{waited:?}");
    }

    /// The probe is answered, and then the first that is sound goes.
    fn misled(breaker: &mut Breaker, nth: u8, mut now: Timestamp) -> Timestamp {
        loop {
            match breaker.advise(Standing::Sound, false, LEASE, now, 1.0) {
                Advice::Go { trial } => {
                    assert!(trial);
                    breaker.ended(person(nth), Told::Down, true, now, 1.0);
                    return now;
                }
                Advice::Probe => breaker.probed(true, now, 1.0),
                Advice::Listen(until) | Advice::Wait(until) => now = until,
            }
        }
    }

    /// Waits as it is advised, all probes being answered, for at most so long.
    fn goes_within(breaker: &mut Breaker, standing: Standing, begun: Timestamp, longest: Duration) -> bool {
        let mut now = begun;
        while now - begun <= longest {
            match breaker.advise(standing, false, LEASE, now, 1.0) {
                Advice::Go { .. } => return true,
                Advice::Probe => breaker.probed(true, now, 1.0),
                Advice::Listen(until) | Advice::Wait(until) => {
                    assert!(until > now);
                    now = until;
                }
            }
        }
        false
    }

    #[test]
    fn once_a_provider_answered_a_probe_and_failed_a_refresh_no_token_that_may_be_spent_is_its_trial() {
        let mut breaker = Breaker::default();
        opened(&mut breaker, START);
        let failed_at = misled(&mut breaker, 9, START);
        assert!(!goes_within(&mut breaker, Standing::Doubtful, failed_at, MISLEADING - ALIVE));
        let now = failed_at.plus(MISLEADING - ALIVE);
        assert!(goes_within(&mut breaker, Standing::Sound, now, LONGEST_MISLED), "who is sound may try");
        assert!(breaker.ended(person(9), Told::Alive, true, now, 1.0));
        assert_eq!(breaker.advise(Standing::Doubtful, false, LEASE, now, 1.0), Advice::Go { trial: false });
    }

    #[test]
    fn trials_that_answered_probes_lead_to_for_nothing_become_rare() {
        let mut breaker = Breaker::default();
        opened(&mut breaker, START);
        let (mut now, mut trials) = (START, 0);
        while now - START < Duration::from_secs(3600) {
            now = misled(&mut breaker, trials, now);
            trials += 1;
        }
        assert!((30..=40).contains(&trials), "{trials} in an hour");
        assert!(goes_within(&mut breaker, Standing::Sound, now, LONGEST_MISLED), "and stay frequent enough");
    }

    #[test]
    fn where_several_lost_an_answer_and_probes_are_answered_none_is_tried_again_for_minutes() {
        let mut breaker = Breaker::default();
        breaker.ended(person(1), Told::Down, false, START, 1.0);
        assert!(goes_within(&mut breaker, Standing::Doubtful, START, Duration::ZERO), "one's loss is its own");
        breaker.ended(person(2), Told::Down, false, START, 1.0);
        assert!(!goes_within(&mut breaker, Standing::Doubtful, START, SUSPECT - ALIVE));
        assert!(goes_within(&mut breaker, Standing::Sound, START, Duration::ZERO));
        assert!(goes_within(&mut breaker, Standing::Doubtful, START, SUSPECT + ALIVE), "not for ever");
    }

    #[test]
    fn an_outage_that_probes_saw_keeps_nothing_back_when_it_is_over() {
        let mut breaker = Breaker::default();
        opened(&mut breaker, START);
        breaker.probed(false, START, 1.0);
        assert!(goes_within(&mut breaker, Standing::Doubtful, START, LONGEST_PROBE));
    }

    #[test]
    fn a_probe_or_an_unprobed_trial_that_came_to_nothing_is_made_again() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.advise(Standing::Doubtful, false, LEASE, START, 1.0), Advice::Probe);
        assert!(matches!(breaker.advise(Standing::Doubtful, false, LEASE, START, 1.0), Advice::Listen(_)));
        breaker.probe_is_over();
        assert_eq!(breaker.advise(Standing::Doubtful, false, LEASE, START, 1.0), Advice::Probe);
        breaker.probed(false, START, 1.0);

        let tried_at = goes_unprobed(&mut breaker, Standing::Sound, START);
        assert!(matches!(breaker.advise(Standing::Sound, false, LEASE, tried_at, 1.0), Advice::Listen(_)));
        breaker.trial_is_over();
        assert!(goes_unprobed(&mut breaker, Standing::Doubtful, tried_at) - START >= DOUBT);
    }
}
