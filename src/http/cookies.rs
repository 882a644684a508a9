//! Our cookies: for each flow one that says who is there, and one that says where an attempt was minted.

use std::{collections::HashMap, convert::Infallible};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, header, request::Parts},
    response::{IntoResponseParts, ResponseParts},
};

use crate::{
    broker::{self, Broker},
    domain::{BrowserSecret, FLOW_LIFETIME, FLOW_MEMORY, FlowId, PublicUrl},
};

/// A name that browsers take only over TLS, from this very host and for all of it (RFC 6265bis §4.1.3.2): nobody who
/// holds a neighbouring name can plant one.
const HOST_ONLY: &str = "__Host-";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Session,
    /// Set when the user is sent to the provider.
    Flow,
}

/// A cookie to set, or to take away.
pub(super) struct SetCookie(HeaderValue);

impl SetCookie {
    /// Kept as long as the flow is remembered, so that the owner still learns how it ended. `Lax`: it must come along when
    /// the provider sends the browser back, and never with another site's form.
    pub(super) fn of(broker: &Broker, kind: Kind, flow: FlowId, secret: &BrowserSecret) -> Self {
        let life = (FLOW_LIFETIME + FLOW_MEMORY).as_secs();
        Self::written(broker, kind, flow, secret.expose(), life)
    }

    pub(super) fn gone(broker: &Broker, kind: Kind, flow: FlowId) -> Self {
        Self::written(broker, kind, flow, "", 0)
    }

    fn written(broker: &Broker, kind: Kind, flow: FlowId, value: &str, life: u64) -> Self {
        let (prefix, secure) = if is_https(broker) { (HOST_ONLY, "; Secure") } else { ("", "") };
        let name = kind.name();
        let text = format!("{prefix}{name}-{flow}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Lax{secure}");
        let mut value = HeaderValue::from_str(&text).expect("base64url, hex and constants make a header value");
        value.set_sensitive(true);
        Self(value)
    }
}

impl IntoResponseParts for SetCookie {
    type Error = Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Infallible> {
        response.headers_mut().append(header::SET_COOKIE, self.0);
        Ok(response)
    }
}

/// The cookies of ours that a request brings.
pub(super) struct Cookies(pub(super) broker::Cookies);

impl FromRequestParts<Broker> for Cookies {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, broker: &Broker) -> Result<Self, Infallible> {
        Ok(Self(read(&parts.headers, is_https(broker))))
    }
}

fn read(headers: &HeaderMap, https: bool) -> broker::Cookies {
    let prefix = if https { HOST_ONLY } else { "" };
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = broker::Cookies::default();
    for (name, value) in lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('=')) {
        let Some(name) = name.strip_prefix(prefix) else { continue };
        let place = |kind: Kind, map: &mut HashMap<FlowId, BrowserSecret>| {
            let flow = name.strip_prefix(kind.name()).and_then(|rest| rest.strip_prefix('-')?.parse().ok());
            if let Some(flow) = flow {
                map.entry(flow).or_insert_with(|| BrowserSecret::new(value.to_owned()));
            }
        };
        place(Kind::Session, &mut cookies.sessions);
        place(Kind::Flow, &mut cookies.attempts);
    }
    cookies
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Flow => "flow",
        }
    }
}

fn is_https(broker: &Broker) -> bool {
    broker.public_url().is_some_and(PublicUrl::is_https)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(byte: u8) -> FlowId {
        FlowId::from_bytes([byte; 16])
    }

    fn cookies(line: &str, https: bool) -> broker::Cookies {
        read(&HeaderMap::from_iter([(header::COOKIE, line.parse().unwrap())]), https)
    }

    #[test]
    fn cookies_are_found_by_kind_and_flow() {
        let (one, two) = (flow(1), flow(2));
        let read = cookies(&format!("a=b; session-{one}=s1; flow-{one}=f1; session-{two}=s2; session-x=y"), false);
        assert_eq!(read.sessions.len(), 2);
        assert_eq!(read.sessions[&one].expose(), "s1");
        assert_eq!(read.attempts[&one].expose(), "f1");
        assert!(!read.attempts.contains_key(&two));
    }

    #[test]
    fn over_tls_only_host_cookies_count() {
        let one = flow(1);
        assert!(cookies(&format!("flow-{one}=planted"), true).attempts.is_empty());
        assert!(cookies(&format!("__Secure-flow-{one}=planted"), true).attempts.is_empty());
        assert_eq!(cookies(&format!("__Host-flow-{one}=ours"), true).attempts[&one].expose(), "ours");
    }
}
