//! A connection's present and future in words, for the person whose it is.

use std::time::Duration;

use super::output::{bare, reason};
use crate::{
    domain::Timestamp,
    proto::v1::{ApplyOutcome, Connection, CredentialHolder, ErrorReason, NextAction},
};

/// What happens to it next, and when.
pub(super) fn next(connection: &Connection, now: Timestamp) -> String {
    let at = connection.next_action_at.as_ref().map(|at| until(at, now));
    let when = |what: &str| at.as_ref().map_or_else(|| what.to_owned(), |at| format!("{what} {at}"));
    match connection.next_action() {
        NextAction::Unspecified => String::new(),
        NextAction::Refresh if at.is_none() => "refresh when a token is asked for".to_owned(),
        NextAction::Refresh => when("refresh"),
        NextAction::Retry => format!("{} (failed {})", when("retry"), times(connection.failures)),
        NextAction::Attempt => when("asks whether the provider takes the broker again"),
        NextAction::Lapse => when("lapses"),
        NextAction::Authorize => "you authorize: claviger connect PLUGIN".to_owned(),
        NextAction::Confirm => "the provider confirms".to_owned(),
    }
}

/// Why it is not simply connected.
pub(super) fn why(connection: &Connection) -> String {
    match connection.reason() {
        ErrorReason::ReauthorizationRequired => "the provider refused the refresh token",
        ErrorReason::RotationLost => "the answer to a refresh was lost, and with it the refresh token",
        ErrorReason::ProviderUnreachable => "the provider did not answer, or not as it should",
        ErrorReason::ProviderRateLimited => "the provider asked for fewer requests",
        ErrorReason::ProviderReplyInvalid => "the provider refuses to refresh this connection, and no other",
        ErrorReason::ProviderSuspended => "the provider refuses the broker's registration: only an operator can help",
        other => return reason(other).map(ToOwned::to_owned).unwrap_or_default(),
    }
    .to_owned()
}

/// State, next action and reason as one sentence.
pub(super) fn sentence(connection: &Connection, now: Timestamp) -> String {
    let state = bare(connection.state().as_str_name(), "CREDENTIAL_STATE_").to_lowercase().replace('_', " ");
    let parts = [state, why(connection), next(connection, now)];
    let told: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    told.join("; ")
}

/// How many holders a table names.
const MOST_NAMED: usize = 3;

/// Who holds which generation: `pod-1: 7, pod-2: 6 (7 failed)`, and how many more were dropped.
pub(super) fn holders(holders: &[CredentialHolder], forgotten: u64) -> String {
    let holding: Vec<_> = holders.iter().filter(|holder| holder.generation > 0).collect();
    let mut named: Vec<String> = holding.iter().take(MOST_NAMED).map(|holder| held(holder)).collect();
    if holding.len() > MOST_NAMED {
        named.push(format!("{} more", holding.len() - MOST_NAMED));
    }
    if forgotten > 0 {
        named.push(format!("{forgotten} forgotten"));
    }
    named.join(", ")
}

fn held(holder: &CredentialHolder) -> String {
    let CredentialHolder { holder: name, generation, reported_generation, .. } = holder;
    match holder.outcome() {
        ApplyOutcome::Failed => format!("{name}: {generation} ({reported_generation} failed)"),
        _ => format!("{name}: {generation}"),
    }
}

fn until(at: &prost_types::Timestamp, now: Timestamp) -> String {
    let at = Timestamp::from_secs(at.seconds);
    if at <= now { "now".to_owned() } else { format!("in {}", roughly(at - now)) }
}

/// In the largest unit of which there are two at least.
fn roughly(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::CredentialState;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn connection(state: CredentialState, next: NextAction, seconds: Option<i64>) -> Connection {
        let at = seconds.map(|seconds| prost_types::Timestamp { seconds: NOW.as_secs() + seconds, nanos: 0 });
        Connection { state: state.into(), next_action: next.into(), next_action_at: at, ..Default::default() }
    }

    #[test]
    fn holders_are_named_with_what_they_hold_and_who_holds_nothing_is_not() {
        use ApplyOutcome::{Applied, Failed, Removed};
        let holder = |name: &str, generation, outcome: ApplyOutcome| CredentialHolder {
            holder: name.to_owned(),
            generation,
            outcome: outcome.into(),
            reported_generation: 7,
            ..Default::default()
        };
        assert_eq!(holders(&[holder("a", 0, Removed), holder("b", 0, Failed)], 0), "");
        let mut several = vec![holder("a", 7, Applied), holder("b", 0, Removed), holder("c", 6, Failed)];
        assert_eq!(holders(&several, 0), "a: 7, c: 6 (7 failed)");
        several.extend([holder("d", 7, Applied), holder("e", 7, Applied), holder("f", 7, Applied)]);
        assert_eq!(holders(&several, 0), "a: 7, c: 6 (7 failed), d: 7, 2 more");
        assert_eq!(holders(&several, 5), "a: 7, c: 6 (7 failed), d: 7, 2 more, 5 forgotten");
    }

    #[test]
    fn what_comes_next_is_said_with_its_time() {
        for (next_action, seconds, words) in [
            (NextAction::Refresh, Some(2520), "refresh in 42 min"),
            (NextAction::Refresh, Some(-1), "refresh now"),
            (NextAction::Refresh, None, "refresh when a token is asked for"),
            (NextAction::Lapse, Some(259_200), "lapses in 3 d"),
            (NextAction::Lapse, Some(7200), "lapses in 2 h"),
            (NextAction::Attempt, Some(20), "asks whether the provider takes the broker again in 20 s"),
            (NextAction::Authorize, None, "you authorize: claviger connect PLUGIN"),
            (NextAction::Confirm, None, "the provider confirms"),
            (NextAction::Unspecified, None, ""),
        ] {
            assert_eq!(next(&connection(CredentialState::Connected, next_action, seconds), NOW), words);
        }
    }

    #[test]
    fn a_failing_connection_says_why_how_often_and_when_again() {
        let failing = Connection {
            reason: ErrorReason::ProviderUnreachable.into(),
            failures: 4,
            ..connection(CredentialState::RefreshFailing, NextAction::Retry, Some(90))
        };
        let said = "refresh failing; the provider did not answer, or not as it should; retry in 90 s (failed 4 times)";
        assert_eq!(sentence(&failing, NOW), said);
        let once = Connection { failures: 1, reason: 0, ..failing };
        assert_eq!(sentence(&once, NOW), "refresh failing; retry in 90 s (failed once)");
    }
}
