//! The credential's state machine: what holds whatever is done to it, in whatever order.

use std::time::Duration;

use claviger::domain::{
    AfterLostAnswer, Credential, CredentialId, CredentialState, EntryId, EventKind, Granted, Intent, Reason, Refresh,
    Rotation, ScopeSet, Timestamp,
};
use proptest::{collection::vec, option, prelude::*};

use CredentialState::{
    Connected, Expired, Expiring, Pending, ReauthorizationRequired, RefreshFailing, Revoked, Revoking,
};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const TIMEOUT: Duration = Duration::from_secs(10);
const UNDER_WAY: &str = "a POST is under way";
const STATES: [CredentialState; 8] =
    [Pending, Connected, Expiring, Expired, RefreshFailing, ReauthorizationRequired, Revoking, Revoked];

/// Everything that can be done to a credential.
#[derive(Clone, Debug)]
enum Step {
    Authorized(Grant),
    BeginRefresh,
    Refreshed(Grant),
    RefreshFailed { spent: bool, retry_after: u64 },
    RefreshDeferred,
    ReauthorizationRequired,
    Aged,
    BeginRevocation,
    Revoked,
}

#[derive(Clone, Debug)]
struct Grant {
    lifetime: Option<u64>,
    refreshable: bool,
}

/// What was announced since the last new secret.
#[derive(Default)]
struct Announced {
    expiring: u32,
    expired: u32,
}

proptest! {
    #[test]
    fn the_invariants_hold_after_every_step(steps in vec((0u64..4000, step()), 1..60)) {
        let (mut now, mut credential) = (START, Credential::pending(id(), START));
        let mut announced = Announced::default();
        for (seconds, step) in steps {
            now = now.plus(Duration::from_secs(seconds));
            let Some((next, events)) = apply(&credential, &step, now) else { continue };
            check_change(&credential, &step, &next, &events)?;
            if next.generation > credential.generation {
                announced = Announced::default();
            }
            announced.count(&next, &events)?;
            check_state(&next)?;
            check_schedule(&next, now)?;
            credential = next;
        }
    }

    #[test]
    fn a_strict_refresh_token_is_posted_at_most_twice(answers in vec(answer(), 1..40), lifetime in option::of(0u64..4000)) {
        for rotation in [Rotation::Strict, Rotation::Grace { seconds: 0 }] {
            let mut flights = Flights::over(connected(lifetime, true), rotation);
            for answer in &answers {
                flights.fly(answer);
                prop_assert!(flights.unanswered <= 2, "{} POSTs of one refresh token", flights.unanswered);
                prop_assert!(flights.credential.refresh.attempts <= 2);
            }
        }
    }

    #[test]
    fn a_second_lost_answer_outside_the_grace_is_the_last(answers in vec(answer(), 1..40), seconds in 0u64..120) {
        let mut flights = Flights::over(connected(None, true), Rotation::Grace { seconds });
        for answer in &answers {
            flights.fly(answer);
            let Some(first) = flights.first_unanswered else { continue };
            let in_grace = flights.last_verdict_at < first.plus(Duration::from_secs(seconds));
            prop_assert!(flights.unanswered < 2 || in_grace || !flights.credential.state.refreshes());
        }
    }

    #[test]
    fn the_margin_stays_within_its_bounds(lifetime in 0u64..10_000_000) {
        let lifetime = Duration::from_secs(lifetime);
        let margin = connected(Some(lifetime.as_secs()), true).margin();
        prop_assert!(margin <= lifetime / 2);
        prop_assert!(margin <= Duration::from_secs(60).max(lifetime / 10));
        prop_assert!(margin == lifetime / 2 || margin >= Duration::from_secs(60));
        prop_assert!(margin == lifetime / 2 || margin >= lifetime / 10);
    }

    #[test]
    fn a_token_that_lives_longer_is_fresh_for_every_shorter_time(
        lifetime in 0u64..4000,
        elapsed in 0u64..5000,
        remaining in 0u64..5000,
        less in 0u64..5000,
    ) {
        let (credential, now) = (connected(Some(lifetime), true), START.plus(Duration::from_secs(elapsed)));
        let fresh = |seconds| credential.is_fresh(now, Duration::from_secs(seconds));
        prop_assert_eq!(fresh(remaining), elapsed + remaining < lifetime);
        prop_assert!(!fresh(remaining) || fresh(remaining.min(less)));
        prop_assert_eq!(fresh(0), credential.is_live(now));
    }
}

#[test]
fn freshness_at_the_edges() {
    let (hour, forever) = (connected(Some(3600), true), connected(None, true));
    let none_yet = Credential::pending(id(), START);
    for remaining in [Duration::ZERO, Duration::from_secs(3599), Duration::MAX] {
        assert!(forever.is_fresh(Timestamp::NEVER, remaining), "an unknown expiry is never assumed to have passed");
        assert!(!none_yet.is_fresh(START, remaining), "there is nothing to be fresh");
    }
    assert!(hour.is_fresh(START, Duration::from_secs(3599)));
    assert!(!hour.is_fresh(START, Duration::from_secs(3600)));
    assert!(!hour.is_fresh(START, Duration::MAX));
    assert!(!hour.is_fresh(START.plus(Duration::from_secs(3600)), Duration::ZERO));
    assert_eq!(forever.margin(), Duration::ZERO);
}

#[test]
fn each_step_is_allowed_in_its_states_and_no_other() {
    let grant = Grant { lifetime: Some(3600), refreshable: true };
    let refreshing = [Connected, Expiring, Expired, RefreshFailing].as_slice();
    let table: [(Step, &[CredentialState]); 7] = [
        (
            Step::Authorized(grant.clone()),
            &[Pending, Connected, Expiring, Expired, RefreshFailing, ReauthorizationRequired],
        ),
        (Step::BeginRefresh, refreshing),
        (Step::Refreshed(grant), refreshing),
        (Step::RefreshFailed { spent: false, retry_after: 1 }, refreshing),
        (Step::ReauthorizationRequired, &[Pending, Connected, Expiring, Expired, RefreshFailing]),
        (Step::BeginRevocation, &[Pending, Connected, Expiring, Expired, RefreshFailing, ReauthorizationRequired]),
        (Step::Revoked, &[Revoking]),
    ];
    for (step, allowed) in table {
        for state in STATES {
            let mut credential = Credential { state, ..connected(Some(3600), true) };
            if matches!(step, Step::RefreshFailed { .. }) {
                credential.refresh = under_way(1, START);
            }
            assert_eq!(apply(&credential, &step, START).is_some(), allowed.contains(&state), "{step:?} in {state:?}");
        }
    }
}

#[test]
fn a_refresh_of_another_generation_or_of_nothing_is_refused() {
    let intent = |generation| Intent { generation, ..intent(1, START) };
    assert!(connected(None, true).begin_refresh(intent(1)).is_ok());
    assert!(connected(None, true).begin_refresh(intent(2)).is_err());
    assert!(connected(None, true).begin_refresh(intent(0)).is_err());
    assert!(connected(None, false).begin_refresh(intent(1)).is_err());
}

#[test]
fn one_refresh_at_a_time() {
    let begun = connected(None, true).begin_refresh(intent(1, START)).unwrap().credential;
    assert!(begun.begin_refresh(intent(2, START)).is_err());
    assert!(connected(None, true).refresh_failed(Reason::ProviderUnreachable, START, true).is_err());
}

#[test]
fn a_lost_answer_by_rotation_policy() {
    let at = |seconds| START.plus(Duration::from_secs(seconds));
    let retry = |seconds| AfterLostAnswer::RetryAt(at(seconds));
    let grace = Rotation::Grace { seconds: 30 };
    // Policy, attempt, lifetime, seconds since the POST → what to do.
    let table = [
        (Rotation::None, 1, Some(3600), 3, retry(3)),
        (Rotation::None, 9, None, 3, retry(3)),
        (Rotation::Reuse, 1, Some(3600), 3, retry(3)),
        (Rotation::Reuse, 9, None, 3, retry(3)),
        // The last 5 of its 30 seconds are left for the way there.
        (grace, 1, Some(3600), 24, retry(24)),
        (grace, 5, Some(3600), 24, retry(24)),
        (grace, 1, None, 25, retry(10)),
        (grace, 2, None, 25, AfterLostAnswer::GiveUp),
        // Not before the lost POST is certainly over, and not before the living access token has nearly lapsed.
        (Rotation::Strict, 1, None, 3, retry(10)),
        (Rotation::Strict, 1, Some(3600), 3, retry(3590)),
        (Rotation::Strict, 1, Some(12), 3, retry(10)),
        (Rotation::Strict, 1, Some(5), 6, retry(10)),
        (Rotation::Strict, 2, Some(3600), 3, AfterLostAnswer::GiveUp),
        (Rotation::Strict, 3, None, 3, AfterLostAnswer::GiveUp),
    ];
    for (rotation, attempt, lifetime, elapsed, expected) in table {
        let credential = Credential { refresh: under_way(attempt, START), ..connected(lifetime, true) };
        let after = credential.after_lost_answer(rotation, START, at(elapsed), TIMEOUT);
        assert_eq!(after, expected, "{rotation:?}, attempt {attempt}, lifetime {lifetime:?}, after {elapsed} s");
    }
}

#[test]
fn grace_counts_from_the_first_post_that_may_have_spent_the_token() {
    let (grace, later) = (Rotation::Grace { seconds: 30 }, START.plus(Duration::from_secs(20)));
    let lost = Credential { refresh: under_way(1, START), ..connected(None, true) }
        .refresh_failed(Reason::ProviderUnreachable, later, true)
        .unwrap()
        .credential;
    let again = lost.begin_refresh(intent(2, later)).unwrap().credential;
    let after = |seconds| again.after_lost_answer(grace, later, START.plus(Duration::from_secs(seconds)), TIMEOUT);
    assert_eq!(after(24), AfterLostAnswer::RetryAt(START.plus(Duration::from_secs(24))));
    assert_eq!(after(30), AfterLostAnswer::GiveUp);
}

#[test]
fn an_answered_failure_does_not_uncount_a_lost_one() {
    let begin = |credential: &Credential| {
        let attempt = credential.refresh.attempts + 1;
        credential.begin_refresh(intent(attempt, START)).unwrap().credential
    };
    let fail = |credential: &Credential, spent| {
        credential.refresh_failed(Reason::ProviderUnreachable, START, spent).unwrap().credential
    };
    let lost = fail(&begin(&connected(None, true)), true);
    assert_eq!(lost.refresh.attempts, 1);
    assert_eq!(fail(&begin(&lost), false).refresh.attempts, 1);
    assert_eq!(begin(&lost).refresh_deferred(false).credential.refresh.attempts, 1);
    assert_eq!(begin(&lost).refresh_deferred(true).credential.refresh.attempts, 2);
    assert_eq!(lost.refresh_deferred(false).credential.refresh.attempts, 1, "no POST was under way");
    assert_eq!(fail(&begin(&lost), true).refresh.attempts, 2);
}

#[test]
fn only_answers_in_a_row_are_excused() {
    let excuse = |credential: &Credential| {
        let begun = credential.begin_refresh(intent(credential.refresh.attempts + 1, START)).unwrap().credential;
        begun.refresh_excused(Reason::ProviderUnreachable, START).unwrap().credential
    };
    let twice = excuse(&excuse(&connected(None, true)));
    assert_eq!((twice.refresh.excused, twice.refresh.failures, twice.refresh.attempts), (2, 2, 0));
    let begun = twice.begin_refresh(intent(1, START)).unwrap().credential;
    let failed = begun.refresh_failed(Reason::ProviderUnreachable, START, false).unwrap().credential;
    assert_eq!(failed.refresh.excused, 0);
    let grant = Grant { lifetime: None, refreshable: true };
    assert_eq!(begun.refreshed(grant.at(START), START).unwrap().credential.refresh.excused, 0);
}

#[test]
fn recovery_is_announced_and_so_is_every_way_back() {
    let granted =
        || Granted { scopes: ScopeSet::default(), expires_at: None, refreshable: true, refresh_token_end: None };
    let events = |state| {
        let credential = Credential { state, ..connected(Some(3600), true) };
        credential.refreshed(granted(), START).unwrap().events
    };
    assert_eq!(events(Connected), [EventKind::Refreshed]);
    assert_eq!(events(Expired), [EventKind::Refreshed]);
    assert_eq!(events(RefreshFailing), [EventKind::Recovered, EventKind::Refreshed]);
}

#[test]
fn late_refreshes_wait_until_the_token_has_lapsed() {
    let expiry = START.plus(Duration::from_secs(3600));
    let credential = connected(Some(3600), true);
    assert_eq!(credential.next_action(false, None), expiry.minus(credential.margin()));
    assert_eq!(credential.next_action(true, None), expiry);
    let lapsed = credential.aged(expiry).unwrap().credential;
    assert_eq!(lapsed.next_action(true, None), expiry, "announced, and now to be refreshed");
}

/// How long a refresh token lives that is not used.
const IDLE: Duration = Duration::from_secs(7 * 24 * 3600);

#[test]
fn a_refresh_token_is_used_before_it_dies_of_disuse() {
    let week = Some(IDLE);
    let kept_alive = START.plus(IDLE / 4 * 3);
    assert_eq!(connected(None, true).next_action(false, week), kept_alive, "though nobody knows the token's end");
    let month = connected(Some(30 * 24 * 3600), true);
    assert_eq!((month.next_action(false, week), month.next_action(true, week)), (kept_alive, kept_alive));
    let hour = connected(Some(3600), true);
    assert_eq!(hour.next_action(false, week), hour.next_action(false, None), "what is due sooner is");
    assert_eq!(connected(None, false).next_action(false, week), Timestamp::NEVER, "there is nothing to keep");
}

fn check_change(
    before: &Credential,
    step: &Step,
    after: &Credential,
    events: &[EventKind],
) -> Result<(), TestCaseError> {
    let new_secret = matches!(step, Step::Authorized(_) | Step::Refreshed(_));
    prop_assert_eq!(after.id, before.id);
    prop_assert_eq!(after.generation, before.generation + u64::from(new_secret));
    prop_assert!(before.state != Revoked || after.state == Revoked, "{:?} left REVOKED", step);
    prop_assert!(!before.state.is_stopped() || after.state.is_stopped(), "{:?} undid a revocation", step);
    if matches!(step, Step::BeginRefresh | Step::RefreshDeferred) {
        prop_assert_eq!(events, []);
        prop_assert_eq!(&Credential { refresh: before.refresh.clone(), ..after.clone() }, before);
    }
    let changed = after.state != before.state || new_secret;
    let aged =
        (after.announced_expiring, after.announced_expired) != (before.announced_expiring, before.announced_expired);
    prop_assert!(!events.is_empty() || !changed, "{:?} changed the state in silence", step);
    prop_assert!(events.is_empty() || changed || aged, "{:?} announced {:?} and changed nothing", step, events);
    Ok(())
}

fn check_state(credential: &Credential) -> Result<(), TestCaseError> {
    let Credential { state, refresh, reason, generation, refreshable, .. } = credential;
    prop_assert!(!state.is_stopped() || !(state.serves() || state.refreshes()));
    prop_assert!(!state.serves() || *generation > 0, "{:?} serves a secret that never came", state);
    prop_assert!(refresh.intent.is_none() || !matches!(state, ReauthorizationRequired | Revoked));
    prop_assert_eq!(reason.is_some(), matches!(state, RefreshFailing | ReauthorizationRequired));
    prop_assert!(*state != RefreshFailing || (*refreshable && refresh.retry_at.is_some()));
    if let Some(intent) = &refresh.intent {
        prop_assert_eq!(intent.generation, *generation);
        prop_assert_eq!(intent.attempt, refresh.attempts);
    }
    Ok(())
}

/// What time will bring is never forgotten, and nothing is planned where it brings nothing.
fn check_schedule(credential: &Credential, now: Timestamp) -> Result<(), TestCaseError> {
    let Credential { state, refresh, refreshable, expires_at, .. } = credential;
    let ages = credential.aged(Timestamp::NEVER).is_some();
    let refreshes = *refreshable && (refresh.retry_at.is_some() || expires_at.is_some());
    let something = state.refreshes() && (refresh.intent.is_some() || ages || refreshes);
    for (late, idle) in [(false, None), (true, None), (false, Some(IDLE)), (true, Some(IDLE))] {
        let next = credential.next_action(late, idle);
        let kept_alive = idle.is_some() && *refreshable && state.refreshes();
        prop_assert_eq!(next != Timestamp::NEVER, something || kept_alive, "{:?}", credential);
        let lasts = next <= credential.obtained_at.plus(IDLE) || refresh.retry_at.is_some() || refresh.intent.is_some();
        prop_assert!(!kept_alive || lasts, "{:?}", credential);
        if refresh.intent.is_none() {
            prop_assert!(next <= now || credential.aged(next.minus(Duration::from_millis(1))).is_none());
        }
    }
    Ok(())
}

impl Announced {
    fn count(&mut self, credential: &Credential, events: &[EventKind]) -> Result<(), TestCaseError> {
        let of = |kind| u32::from(events.contains(&kind));
        prop_assert!(of(EventKind::Expiring) == 0 || (!credential.refreshable && self.expired == 0));
        self.expiring += of(EventKind::Expiring);
        self.expired += of(EventKind::Expired);
        prop_assert!(self.expiring <= 1 && self.expired <= 1, "announced twice in one generation");
        Ok(())
    }
}

/// How the provider answers one POST.
#[derive(Clone, Debug)]
enum Answer {
    Lost,
    Refused,
    Deferred,
}

/// Refreshes of one generation, as flights do them: an open intent is settled by the provider's policy before the
/// next POST.
struct Flights {
    credential: Credential,
    rotation: Rotation,
    now: Timestamp,
    /// POSTs that may have spent the refresh token.
    unanswered: u32,
    first_unanswered: Option<Timestamp>,
    last_verdict_at: Timestamp,
}

impl Flights {
    fn over(credential: Credential, rotation: Rotation) -> Self {
        Self { credential, rotation, now: START, unanswered: 0, first_unanswered: None, last_verdict_at: START }
    }

    fn fly(&mut self, answer: &Answer) {
        if !self.credential.state.refreshes() {
            return;
        }
        self.now = self.now.max(self.credential.refresh.retry_at.unwrap_or(self.now));
        let begun_at = self.now;
        let intent = intent(self.credential.refresh.attempts + 1, begun_at);
        self.credential = self.credential.begin_refresh(intent).expect("nothing is under way").credential;
        self.now = self.now.plus(TIMEOUT);
        let later = self.now.plus(Duration::from_secs(1));
        self.credential = match answer {
            Answer::Refused => {
                self.credential.refresh_failed(Reason::ProviderUnreachable, later, false).expect(UNDER_WAY)
            }
            Answer::Deferred => self.credential.refresh_deferred(false),
            Answer::Lost => {
                self.unanswered += 1;
                self.first_unanswered.get_or_insert(begun_at);
                self.last_verdict_at = self.now;
                match self.credential.after_lost_answer(self.rotation, begun_at, self.now, TIMEOUT) {
                    AfterLostAnswer::GiveUp => {
                        self.credential.reauthorization_required(Reason::RotationLost, None).expect(UNDER_WAY)
                    }
                    AfterLostAnswer::RetryAt(at) => {
                        self.credential.refresh_failed(Reason::ProviderUnreachable, at, true).expect(UNDER_WAY)
                    }
                }
            }
        }
        .credential;
    }
}

/// `None`: refused, or nothing is due.
fn apply(credential: &Credential, step: &Step, now: Timestamp) -> Option<(Credential, Vec<EventKind>)> {
    let later = |seconds: &u64| now.plus(Duration::from_secs(*seconds));
    let transition = match step {
        Step::Authorized(grant) => credential.authorized(grant.at(now), now).ok(),
        Step::BeginRefresh => {
            let attempt = credential.refresh.attempts + 1;
            credential.begin_refresh(Intent { generation: credential.generation, ..intent(attempt, now) }).ok()
        }
        Step::Refreshed(grant) => credential.refreshed(grant.at(now), now).ok(),
        Step::RefreshFailed { spent, retry_after } => {
            credential.refresh_failed(Reason::ProviderUnreachable, later(retry_after), *spent).ok()
        }
        Step::RefreshDeferred => Some(credential.refresh_deferred(false)),
        Step::ReauthorizationRequired => {
            credential.reauthorization_required(Reason::ReauthorizationRequired, None).ok()
        }
        Step::Aged => credential.aged(now),
        Step::BeginRevocation => credential.begin_revocation().ok(),
        Step::Revoked => credential.revoked().ok(),
    };
    transition.map(|transition| (transition.credential, transition.events))
}

impl Grant {
    fn at(&self, now: Timestamp) -> Granted {
        Granted {
            scopes: ScopeSet::parse("read write", ' ').expect("legal scopes"),
            expires_at: self.lifetime.map(|seconds| now.plus(Duration::from_secs(seconds))),
            refreshable: self.refreshable,
            refresh_token_end: None,
        }
    }
}

/// Ends of a connection are rare, so that most sequences go on.
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => grant().prop_map(Step::Authorized),
        6 => Just(Step::BeginRefresh),
        4 => grant().prop_map(Step::Refreshed),
        4 => (any::<bool>(), 0u64..600).prop_map(|(spent, retry_after)| Step::RefreshFailed { spent, retry_after }),
        2 => Just(Step::RefreshDeferred),
        1 => Just(Step::ReauthorizationRequired),
        8 => Just(Step::Aged),
        1 => Just(Step::BeginRevocation),
        1 => Just(Step::Revoked),
    ]
}

fn grant() -> impl Strategy<Value = Grant> {
    let lifetime = prop_oneof![1 => Just(None), 1 => Just(Some(0)), 6 => (1u64..8000).prop_map(Some)];
    (lifetime, any::<bool>()).prop_map(|(lifetime, refreshable)| Grant { lifetime, refreshable })
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![Just(Answer::Lost), Just(Answer::Refused), Just(Answer::Deferred)]
}

/// Generation 1, obtained at [`START`].
fn connected(lifetime: Option<u64>, refreshable: bool) -> Credential {
    let granted = Grant { lifetime, refreshable }.at(START);
    Credential::pending(id(), START)
        .authorized(granted, START)
        .expect("a new credential takes its first secret")
        .credential
}

fn under_way(attempt: u32, begun_at: Timestamp) -> Refresh {
    Refresh { attempts: attempt, intent: Some(intent(attempt, begun_at)), ..Refresh::default() }
}

fn intent(attempt: u32, begun_at: Timestamp) -> Intent {
    Intent {
        owner: EntryId::from_bytes([7; 16]),
        attempt,
        generation: 1,
        begun_at,
        until: begun_at.plus(TIMEOUT),
        fingerprint: [0; 32],
    }
}

fn id() -> CredentialId {
    CredentialId::from_bytes([1; 16])
}
