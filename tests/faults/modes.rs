//! How the provider fails, and what a broker can know of it.

use claviger::domain::Rotation;

/// One row of the matrix.
pub(crate) struct Mode {
    /// The fault of docs/testing.md; `None`: all goes well.
    pub(crate) fault: Option<&'static str>,
    pub(crate) rotation: Rotation,
    pub(crate) provider: Played,
    pub(crate) learns: Learns,
    /// Whether the provider replaces the refresh token, be its answer heard or not.
    pub(crate) replaces: bool,
    pub(crate) told: Told,
}

/// Whom the development server plays.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Played {
    Demo,
    Entra,
}

/// What the answer says to a broker that gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learns {
    /// Here are tokens.
    Tokens,
    /// The user has to come back.
    Dead,
    /// The registration is refused.
    Refused,
    /// Not now; nothing happened.
    Later,
    /// Not within the hour; nothing happened.
    MuchLater,
    /// Nothing: the request may have taken effect.
    Nothing,
}

/// What the tokens' receiver is told of their lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Usual,
    Unknown,
    Longer,
    /// Nothing: the token has not the scopes that are asked for, and is not given out.
    TooFewScopes,
}

const fn mode(fault: &'static str, learns: Learns) -> Mode {
    Mode {
        fault: Some(fault),
        rotation: Rotation::Strict,
        provider: Played::Demo,
        learns,
        replaces: false,
        told: Told::Usual,
    }
}

const fn plain(rotation: Rotation) -> Mode {
    Mode { fault: None, ..lost("", rotation) }
}

/// The request takes effect and its answer is lost.
const fn lost(fault: &'static str, rotation: Rotation) -> Mode {
    let learns = if fault.is_empty() { Learns::Tokens } else { Learns::Nothing };
    Mode { rotation, replaces: true, ..mode(fault, learns) }
}

/// Tokens in an odd shape.
const fn odd(fault: &'static str, told: Told) -> Mode {
    Mode { replaces: true, told, ..mode(fault, Learns::Tokens) }
}

/// Longer than any cell takes.
const GRACE: Rotation = Rotation::Grace { seconds: 300 };

/// Named faults that no row is for. A token that cannot be used is a refusal whose request took effect; how it is read
/// is tested in src/oauth/reply.rs.
pub(crate) const LEFT_OUT: &[&str] = &["token_type_dpop"];

pub(crate) const MODES: &[Mode] = &[
    plain(Rotation::Strict),
    plain(GRACE),
    plain(Rotation::Reuse),
    plain(Rotation::None),
    mode("omitted_refresh_token", Learns::Tokens),
    mode("empty_refresh_token", Learns::Tokens),
    mode("null_refresh_token", Learns::Tokens),
    lost("commit_then_drop", Rotation::Strict),
    lost("commit_then_drop", GRACE),
    lost("commit_then_drop", Rotation::Reuse),
    lost("commit_then_drop", Rotation::None),
    lost("commit_then_502", Rotation::Strict),
    lost("commit_then_502", GRACE),
    lost("commit_then_truncate", Rotation::Strict),
    lost("commit_then_truncate", Rotation::Reuse),
    lost("slow_answer", Rotation::Strict),
    lost("slow_answer", GRACE),
    mode("slow_request", Learns::Nothing),
    mode("drop", Learns::Nothing),
    mode("invalid_grant", Learns::Dead),
    mode("invalid_grant_403", Learns::Dead),
    mode("invalid_grant_200", Learns::Dead),
    // Neither is an OAuth error to a broker that takes the provider for a plain one.
    mode("ok_false", Learns::Later),
    mode("bad_refresh_token", Learns::Later),
    // And this one is, like any other.
    mode("salesforce_concurrency", Learns::Dead),
    mode("html_400", Learns::Later),
    mode("html_403", Learns::Later),
    mode("redirect", Learns::Later),
    mode("invalid_client", Learns::Refused),
    mode("interaction_required", Learns::Dead),
    Mode { provider: Played::Entra, rotation: Rotation::Reuse, ..mode("entra_50196", Learns::Later) },
    mode("rate_limited", Learns::Later),
    mode("rate_limited_seconds", Learns::Later),
    mode("rate_limited_date", Learns::Later),
    mode("rate_limited_forever", Learns::MuchLater),
    mode("unavailable", Learns::Nothing),
    mode("unavailable_seconds", Learns::Later),
    mode("server_error", Learns::Nothing),
    odd("expires_in_absent", Told::Unknown),
    odd("expires_in_zero", Told::Unknown),
    odd("expires_in_negative", Told::Unknown),
    odd("expires_in_text", Told::Usual),
    odd("expires_in_fraction", Told::Usual),
    odd("expires_in_huge", Told::Longer),
    odd("expires_in_milliseconds", Told::Longer),
    odd("expires_at_date", Told::Unknown),
    odd("expires_at_seconds", Told::Unknown),
    odd("expires_at_milliseconds", Told::Unknown),
    odd("fewer_scopes", Told::TooFewScopes),
    odd("token_type_lower", Told::Usual),
    odd("token_type_upper", Told::Usual),
    odd("token_type_absent", Told::Usual),
    odd("other_subject", Told::Usual),
];
