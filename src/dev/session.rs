//! The browser's session: a signed cookie, so that the server has nothing to remember and a restart nothing to forget.

use std::time::Duration;

use aws_lc_rs::hmac;
use axum::response::Response;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};

use super::{options::User, site::Site};
use crate::domain::Timestamp;

/// One browser, and who logged in with it.
pub(super) struct Session {
    id: String,
    login: Option<(&'static User, Timestamp)>,
}

impl Session {
    pub(super) fn new(site: &Site) -> Self {
        Self { id: site.shared.random.text(""), login: None }
    }

    /// A session with a new id, so that one planted before the login is worth nothing after it.
    pub(super) fn logged_in(site: &Site, user: &'static User) -> Self {
        Self { id: site.shared.random.text(""), login: Some((user, site.now())) }
    }

    /// `None`: no cookie, or not one of ours.
    pub(super) fn of(site: &Site, headers: &HeaderMap) -> Option<Self> {
        let name = cookie_name(site);
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let unverified = cookies
            .flat_map(|line| line.split(';'))
            .find_map(|pair| pair.trim().strip_prefix(&name)?.strip_prefix('='))?;
        let (content, tag) = unverified.rsplit_once('.')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&site.shared.identity.session_key, signed("cookie", content).as_bytes(), &tag).ok()?;
        let mut parts = content.split('.');
        let (id, user, since) = (parts.next()?, parts.next()?, parts.next()?);
        let since = Timestamp::from_secs(since.parse().ok()?);
        Some(Self { id: id.to_owned(), login: User::named(user).map(|user| (user, since)) })
    }

    /// Who logged in within the last hour.
    pub(super) fn user(&self, site: &Site) -> Option<&'static User> {
        self.login.filter(|(_, since)| site.now().since(*since) < LOGIN_LASTS).map(|(user, _)| user)
    }

    pub(super) fn csrf_token(&self, site: &Site) -> String {
        let tag = hmac::sign(&site.shared.identity.session_key, signed("csrf", &self.id).as_bytes());
        URL_SAFE_NO_PAD.encode(tag)
    }

    pub(super) fn accepts(&self, site: &Site, unverified_csrf_token: Option<&str>) -> bool {
        let tag = unverified_csrf_token.and_then(|token| URL_SAFE_NO_PAD.decode(token).ok());
        let message = signed("csrf", &self.id);
        tag.is_some_and(|tag| hmac::verify(&site.shared.identity.session_key, message.as_bytes(), &tag).is_ok())
    }

    /// Sets the cookie. Without `Secure`: the server speaks http, on loopback only.
    pub(super) fn keep(&self, site: &Site, mut response: Response) -> Response {
        let (user, since) = self.login.map_or(("", 0), |(user, since)| (user.id, since.as_secs()));
        let content = format!("{}.{user}.{since}", self.id);
        let tag = hmac::sign(&site.shared.identity.session_key, signed("cookie", &content).as_bytes());
        let cookie =
            format!("{}={content}.{}; Path=/; HttpOnly; SameSite=Lax", cookie_name(site), URL_SAFE_NO_PAD.encode(tag));
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }
}

/// One key, two purposes: neither's tag is ever the other's.
fn signed(purpose: &str, content: &str) -> String {
    format!("{purpose}\0{content}")
}

/// With the port: browsers share cookies between all servers of one host.
fn cookie_name(site: &Site) -> String {
    format!("claviger_dev_session_{}", site.shared.port)
}

const LOGIN_LASTS: Duration = Duration::from_secs(3600);
