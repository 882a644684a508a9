//! Hosts on private networks that the operator vouches for.

use std::{fmt, net::IpAddr, str::FromStr};

use url::{Host, Url};

/// One host, by its exact name or address, on one port or on any: `keycloak.internal`, `10.0.0.7:8443`,
/// `[fd00::7]:8443`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InternalHost {
    host: Host<String>,
    port: Option<u16>,
}

/// The text names no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a host name or address with an optional port; no scheme, path or wildcard")]
pub struct InvalidHost;

impl InternalHost {
    /// Whether a request to `url` goes there.
    pub(super) fn is_of(&self, url: &Url) -> bool {
        let same_port = self.port.is_none() || self.port == url.port_or_known_default();
        same_port && url.host().is_some_and(|host| host.to_owned() == self.host)
    }
}

/// Whether a name that the operator vouches for may lead to this address. Link-local addresses are where clouds serve
/// their credentials, and the rest means nobody in particular.
pub(super) fn may_be_internal(address: IpAddr) -> bool {
    let nobody = address.is_unspecified() || address.is_multicast();
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        // A mapped or otherwise embedded IPv4 address is never needed: resolvers give the address itself.
        IpAddr::V6(address) => {
            let embedded = matches!(address.segments(), [0x64, 0xff9b, ..] | [0x2002, ..]);
            // AWS serves credentials there as well.
            let metadata = matches!(address.segments(), [0xfd00, 0x0ec2, ..]);
            let ipv4 = address.to_ipv4().is_some_and(|_| !address.is_loopback());
            address.is_unicast_link_local() || ipv4 || embedded || metadata
        }
    };
    !nobody && !link_local
}

impl FromStr for InternalHost {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
        if text.is_empty() || !text.bytes().all(legal) {
            return Err(InvalidHost);
        }
        let url = Url::parse(&format!("https://{text}/")).map_err(|_| InvalidHost)?;
        let host = url.host().ok_or(InvalidHost)?.to_owned();
        let written = text.rsplit_once(':').filter(|(before, _)| !before.contains(':') || before.ends_with(']'));
        let port = written.map(|(_, port)| port.parse().map_err(|_| InvalidHost)).transpose()?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for InternalHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => write!(f, "{}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_itself_and_no_other() {
        for (listed, url, is) in [
            ("keycloak.internal", "https://keycloak.internal/x", true),
            ("keycloak.internal", "https://KEYCLOAK.internal:8443/x", true),
            ("keycloak.internal:443", "https://keycloak.internal/x", true),
            ("keycloak.internal:8443", "https://keycloak.internal/x", false),
            ("keycloak.internal", "https://a.keycloak.internal/x", false),
            ("keycloak.internal", "https://keycloak.internal.evil.example/x", false),
            ("10.0.0.7", "https://10.0.0.7/x", true),
            ("10.0.0.7", "https://10.0.0.70/x", false),
            ("[fd00::7]:8443", "https://[fd00:0::7]:8443/x", true),
            ("[fd00::7]", "https://[fd00::7]/x", true),
        ] {
            let host: InternalHost = listed.parse().unwrap();
            assert_eq!(host.is_of(&url.parse().unwrap()), is, "{listed} {url}");
            assert_eq!(host.to_string().parse(), Ok(host));
        }
    }

    #[test]
    fn what_is_no_single_host_is_refused() {
        for text in [
            "",
            "*.internal",
            "https://a.internal",
            "a.internal/x",
            "10.0.0.0/8",
            "a b",
            "u@a",
            "a:",
            "a:port",
            "a:0x1",
        ] {
            assert!(text.parse::<InternalHost>().is_err(), "{text}");
        }
    }

    #[test]
    fn nobody_vouches_for_where_clouds_serve_credentials() {
        for (address, may) in [
            ("10.1.2.3", true),
            ("127.0.0.1", true),
            ("fd00::1", true),
            ("::1", true),
            ("93.184.215.14", true),
            ("169.254.169.254", false),
            ("fe80::1", false),
            ("::ffff:169.254.169.254", false),
            ("0.0.0.0", false),
            ("::", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(may_be_internal(address.parse().unwrap()), may, "{address}");
        }
    }
}
