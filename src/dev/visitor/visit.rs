//! The way from an authorization URL to the redirect URI.

use http::{StatusCode, header::LOCATION};
use url::Url;

use super::{browser::Browser, form::Form};
use crate::outbound::{Outbound, OutboundError};

/// Visits authorization URLs of a development server. Every visit is a new browser.
#[derive(Clone)]
pub struct Visitor {
    outbound: Outbound,
}

/// What the user answers on the consent page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Approve,
    Deny,
}

/// Why a visit did not end at the redirect URI. Holds no text of a page.
#[derive(Debug, thiserror::Error)]
pub enum VisitorError {
    /// The authorization URL names no redirect URI, so there is no end to wait for.
    #[error("the authorization URL has no usable redirect_uri")]
    NoRedirectUri,
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The server showed a page that leads nowhere: its way to refuse what it may not redirect.
    #[error("the server answered {status} with a page that leads nowhere")]
    DeadEnd { status: StatusCode },
    #[error("the redirect has no usable location")]
    NoLocation,
    #[error("the page led on for {MOST_STEPS} steps without an end")]
    TooManySteps,
}

impl Visitor {
    /// `outbound` must allow plain http to loopback.
    pub fn new(outbound: Outbound) -> Self {
        Self { outbound }
    }

    /// Logs in as `user` and answers the consent page. Gives back where the browser is sent at last: the redirect URI
    /// with `code` or `error`. It is not called.
    pub async fn visit(&self, authorization_url: &Url, user: &str, decision: Decision) -> Result<Url, VisitorError> {
        let end = redirect_uri_of(authorization_url).ok_or(VisitorError::NoRedirectUri)?;
        let mut browser = Browser::new(&self.outbound);
        let mut place = authorization_url.clone();
        let mut reply = browser.get(place.clone()).await?;
        for _ in 0..MOST_STEPS {
            if reply.status.is_redirection() {
                let location = reply.headers.get(LOCATION).and_then(|value| value.to_str().ok());
                place = location.and_then(|text| place.join(text).ok()).ok_or(VisitorError::NoLocation)?;
                if is_same_place(&place, &end) {
                    return Ok(place);
                }
                reply = browser.get(place.clone()).await?;
                continue;
            }
            let dead_end = VisitorError::DeadEnd { status: reply.status };
            let page = std::str::from_utf8(&reply.body).unwrap_or_default();
            let Some(form) = Form::first_of(page).filter(|_| reply.status.is_success()) else { return Err(dead_end) };
            let Some(pressed) = button(&form, user, decision) else { return Err(dead_end) };
            place = place.join(&form.action).map_err(|_| VisitorError::NoLocation)?;
            reply = browser.post(place.clone(), &form.fields, pressed).await?;
        }
        Err(VisitorError::TooManySteps)
    }
}

/// The button that a user presses, by the form's id.
fn button<'a>(form: &Form, user: &'a str, decision: Decision) -> Option<(&'static str, &'a str)> {
    match form.id.as_str() {
        "login" => Some(("user", user)),
        "consent" => Some(match decision {
            Decision::Approve => ("decision", "approve"),
            Decision::Deny => ("decision", "deny"),
        }),
        _ => None,
    }
}

fn redirect_uri_of(authorization_url: &Url) -> Option<Url> {
    let (_, uri) = authorization_url.query_pairs().find(|(name, _)| name == "redirect_uri")?;
    Url::parse(&uri).ok()
}

fn is_same_place(url: &Url, other: &Url) -> bool {
    url.origin() == other.origin() && url.path() == other.path()
}

const MOST_STEPS: usize = 8;
