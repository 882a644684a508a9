//! Fields of requests, parsed into domain types. Nothing of a field's value is in an error.

use std::{str::FromStr, time::Duration};

use url::Url;

use crate::domain::{CallContext, HolderId, Scope, ScopeSet};

const MOST_SCOPES: usize = 64;
const LONGEST_URL: usize = 2048;
const LONGEST_ACCOUNT: usize = 256;
const LONGEST_CONTEXT_ID: usize = 128;

/// A field that breaks a rule: its name, and the rule in words that follow the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidField {
    pub(super) field: &'static str,
    pub(super) problem: &'static str,
}

pub(super) fn invalid<T>(field: &'static str, problem: &'static str) -> Result<T, InvalidField> {
    Err(InvalidField { field, problem })
}

/// A name that an operator gave.
pub(super) fn name<T: FromStr>(field: &'static str, unverified: &str) -> Result<T, InvalidField> {
    required(field, unverified)?;
    let rule = "must be 1 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit";
    unverified.parse().or_else(|_| invalid(field, rule))
}

/// An id that the broker made.
pub(super) fn id<T: FromStr>(field: &'static str, unverified: &str) -> Result<T, InvalidField> {
    required(field, unverified)?;
    unverified.parse().or_else(|_| invalid(field, "is not an id of this kind"))
}

pub(super) fn scopes(field: &'static str, unverified: &[String]) -> Result<ScopeSet, InvalidField> {
    if unverified.len() > MOST_SCOPES {
        return invalid(field, "must be at most 64");
    }
    let scopes: Result<ScopeSet, _> = unverified.iter().map(|scope| scope.parse::<Scope>()).collect();
    scopes.or_else(|_| invalid(field, "must be scopes of up to 512 visible characters without '\"' and '\\'"))
}

pub(super) fn account(field: &'static str, unverified: String) -> Result<Option<String>, InvalidField> {
    match unverified {
        none if none.is_empty() => Ok(None),
        long if long.len() > LONGEST_ACCOUNT => invalid(field, "must be at most 256 bytes"),
        bad if bad.contains(char::is_control) => invalid(field, "must not contain control characters"),
        account => Ok(Some(account)),
    }
}

/// An absolute URL, without a user and a fragment (RFC 6749 §3.1.2). Where it may lead is the tenant's policy.
pub(super) fn url(field: &'static str, unverified: &str) -> Result<Url, InvalidField> {
    required(field, unverified)?;
    if unverified.len() > LONGEST_URL {
        return invalid(field, "must be at most 2048 bytes");
    }
    let Ok(url) = Url::parse(unverified) else { return invalid(field, "must be an absolute URL") };
    if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return invalid(field, "must have no fragment and no user");
    }
    Ok(url)
}

pub(super) fn optional_url(field: &'static str, unverified: &str) -> Result<Option<Url>, InvalidField> {
    if unverified.is_empty() { Ok(None) } else { url(field, unverified).map(Some) }
}

pub(super) fn holder(field: &'static str, unverified: &str) -> Result<HolderId, InvalidField> {
    required(field, unverified)?;
    unverified.parse().or_else(|_| invalid(field, "must be at most 128 visible ASCII characters"))
}

/// Text of visible characters that is handed on as it is.
pub(super) fn opaque(field: &'static str, unverified: String, longest: usize) -> Result<String, InvalidField> {
    required(field, &unverified)?;
    if unverified.len() > longest {
        return invalid(field, "is too long");
    }
    if !unverified.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return invalid(field, "must be visible characters");
    }
    Ok(unverified)
}

pub(super) fn duration(
    field: &'static str,
    unverified: Option<prost_types::Duration>,
) -> Result<Option<Duration>, InvalidField> {
    let Some(unverified) = unverified else { return Ok(None) };
    Duration::try_from(unverified).map(Some).or_else(|_| invalid(field, "must not be negative"))
}

pub(super) fn sha256(field: &'static str, unverified: &[u8]) -> Result<Option<[u8; 32]>, InvalidField> {
    if unverified.is_empty() {
        return Ok(None);
    }
    unverified.try_into().map(Some).or_else(|_| invalid(field, "must be 32 bytes"))
}

pub(super) fn enumeration<T: TryFrom<i32>>(field: &'static str, unverified: i32) -> Result<T, InvalidField> {
    T::try_from(unverified).or_else(|_| invalid(field, "is not one of its values"))
}

/// The platform's own ids, for the audit trail and the echo.
pub(super) fn context(session: &str, task: &str, platform_request: &str) -> Result<CallContext, InvalidField> {
    Ok(CallContext {
        session_id: context_id("session_id", session)?,
        task_id: context_id("task_id", task)?,
        platform_request_id: context_id("platform_request_id", platform_request)?,
    })
}

fn context_id(field: &'static str, unverified: &str) -> Result<Option<String>, InvalidField> {
    if unverified.len() > LONGEST_CONTEXT_ID || !unverified.bytes().all(|byte| byte.is_ascii_graphic()) {
        return invalid(field, "must be at most 128 visible ASCII characters");
    }
    Ok((!unverified.is_empty()).then(|| unverified.to_owned()))
}

fn required(field: &'static str, unverified: &str) -> Result<(), InvalidField> {
    if unverified.is_empty() { invalid(field, "is required") } else { Ok(()) }
}
