//! A user with a browser, without a browser: follows the development server's pages over real HTTP.

mod form;

use std::collections::BTreeMap;

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{COOKIE, LOCATION, SET_COOKIE},
};
use url::Url;
use zeroize::Zeroizing;

use self::form::Form;
use crate::outbound::{Outbound, OutboundError, Reply, Request};

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
        let mut browser = Browser { outbound: &self.outbound, cookies: BTreeMap::new() };
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

/// Cookies of one visit; all of them belong to the one server that is visited.
struct Browser<'a> {
    outbound: &'a Outbound,
    cookies: BTreeMap<String, Zeroizing<String>>,
}

impl Browser<'_> {
    async fn get(&mut self, url: Url) -> Result<Reply, OutboundError> {
        self.send(Request::get(url)).await
    }

    async fn post(
        &mut self,
        url: Url,
        fields: &[(String, String)],
        pressed: (&str, &str),
    ) -> Result<Reply, OutboundError> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields).append_pair(pressed.0, pressed.1);
        let request = Request::post_form(url, Zeroizing::new(form.finish().into_bytes()));
        self.send(request).await
    }

    async fn send(&mut self, mut request: Request) -> Result<Reply, OutboundError> {
        let pairs: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={}", value.as_str())).collect();
        if let Ok(value) = HeaderValue::try_from(pairs.join("; "))
            && !pairs.is_empty()
        {
            request.headers.insert(COOKIE, value);
        }
        let reply = self.outbound.send(request).await?;
        self.keep_cookies(&reply.headers);
        Ok(reply)
    }

    fn keep_cookies(&mut self, headers: &HeaderMap) {
        let set = headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
        for (name, value) in set.filter_map(|cookie| cookie.split(';').next()?.split_once('=')) {
            self.cookies.insert(name.trim().to_owned(), Zeroizing::new(value.trim().to_owned()));
        }
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
