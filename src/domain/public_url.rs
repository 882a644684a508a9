//! Where browsers find our pages.

use url::{Host, Url};

/// The origin of our pages, as browsers name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(Url);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPublicUrl {
    /// A name such as `localhost` may lead elsewhere, and cookies would go there unencrypted.
    #[error("is neither https nor http on a literal loopback address; use https, or http://127.0.0.1 with its port")]
    Scheme,
    #[error("has a user, path, query or fragment; leave only scheme, host and port")]
    NotOrigin,
}

impl PublicUrl {
    pub fn new(url: Url) -> Result<Self, InvalidPublicUrl> {
        let loopback = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(_)) | None => false,
        };
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            _ => return Err(InvalidPublicUrl::Scheme),
        }
        let anonymous = url.username().is_empty() && url.password().is_none();
        let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        if anonymous && bare { Ok(Self(url)) } else { Err(InvalidPublicUrl::NotOrigin) }
    }

    /// `path` begins with a slash and needs no encoding.
    pub fn at(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url
    }

    /// As the `Origin` header names it (RFC 6454 §6.2).
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    pub fn is_origin_of(&self, url: &Url) -> bool {
        url.origin() == self.0.origin()
    }

    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> Result<PublicUrl, InvalidPublicUrl> {
        PublicUrl::new(text.parse().unwrap())
    }

    #[test]
    fn an_origin_is_taken_in_https_or_on_loopback() {
        for text in ["https://broker.example", "https://broker.example:8443/", "http://127.0.0.1:8080", "http://[::1]"]
        {
            assert!(public(text).is_ok(), "{text}");
        }
        let url = public("https://Broker.example:443").unwrap();
        assert_eq!(url.origin(), "https://broker.example");
        assert_eq!(url.at("/oauth/callback").as_str(), "https://broker.example/oauth/callback");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["http://broker.example", "http://localhost:8080", "ftp://127.0.0.1", "http://10.0.0.1"] {
            assert_eq!(public(text), Err(InvalidPublicUrl::Scheme), "{text}");
        }
        for text in [
            "https://u@broker.example",
            "https://broker.example/a",
            "https://broker.example/?x",
            "https://b.example/#x",
        ] {
            assert_eq!(public(text), Err(InvalidPublicUrl::NotOrigin), "{text}");
        }
    }
}
