//! Which URLs may be called. Names are judged again by [`super::resolver`], once their addresses are known.

use url::{Host, Url};

use super::{InternalHost, OutboundError, UrlRule, address::is_public, internal::may_be_internal};

/// Judges scheme, credentials and IP literals. `Url` has already turned every odd spelling of an IPv4 address (`127.1`,
/// `0x7f.1`, full-width digits) into the address itself; the connector would call a literal without asking a resolver.
pub(super) fn check(url: &Url, allow_http_loopback: bool, internal: &[InternalHost]) -> Result<(), OutboundError> {
    let refused = |rule| Err(OutboundError::UrlRefused { host: url.host_str().unwrap_or_default().to_owned(), rule });
    if !url.username().is_empty() || url.password().is_some() {
        return refused(UrlRule::Credentials);
    }
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        Some(Host::Domain(_)) => None,
        None => return refused(UrlRule::Scheme),
    };
    let own_loopback = allow_http_loopback && literal.is_some_and(|address: std::net::IpAddr| address.is_loopback());
    match url.scheme() {
        "https" => {}
        "http" if own_loopback => {}
        _ => return refused(UrlRule::Scheme),
    }
    match literal {
        Some(address) if own_loopback || is_public(address) => Ok(()),
        Some(address) if is_internal(url, internal) && may_be_internal(address) => Ok(()),
        Some(_) => refused(UrlRule::Address),
        None => Ok(()),
    }
}

/// Whether the operator vouches for the URL's host.
pub(super) fn is_internal(url: &Url, internal: &[InternalHost]) -> bool {
    internal.iter().any(|host| host.is_of(url))
}
