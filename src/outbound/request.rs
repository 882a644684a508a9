//! What is sent and what comes back. Neither has `Debug`: bodies and headers hold secrets.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE},
};
use url::Url;
use zeroize::Zeroizing;

/// One request. Headers that carry credentials are marked sensitive when it is sent.
pub struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Option<Zeroizing<Vec<u8>>>,
    /// Bytes of answer that this request tolerates, below the policy's cap.
    pub max_response: Option<usize>,
    /// Whole time that this request may take, in place of the policy's.
    pub timeout: Option<Duration>,
}

/// One whole answer, of whatever status; redirects are answers too.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Zeroizing<Vec<u8>>,
}

impl Request {
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: None, max_response: None, timeout: None }
    }

    /// A POST of an already encoded `application/x-www-form-urlencoded` body.
    pub fn post_form(url: Url, form: Zeroizing<Vec<u8>>) -> Self {
        let headers =
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))]);
        Self { method: Method::POST, url, headers, body: Some(form), max_response: None, timeout: None }
    }

    #[must_use]
    pub fn accept_json(mut self) -> Self {
        self.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        self
    }

    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.max_response = Some(bytes);
        self
    }

    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.timeout = Some(time);
        self
    }

    /// Sets `authorization`, marked sensitive.
    #[must_use]
    pub fn authorization(mut self, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        self.headers.insert(AUTHORIZATION, value);
        self
    }

    /// For error messages, which must not name more of the URL.
    pub(super) fn host(&self) -> String {
        self.url.host_str().unwrap_or_default().to_owned()
    }

    pub(super) fn mark_sensitive(&mut self) {
        for name in [AUTHORIZATION, COOKIE] {
            if let http::header::Entry::Occupied(mut entry) = self.headers.entry(name) {
                entry.iter_mut().for_each(|value| value.set_sensitive(true));
            }
        }
    }
}
