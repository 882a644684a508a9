//! Sends requests and keeps cookies.

use std::collections::BTreeMap;

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use url::Url;
use zeroize::Zeroizing;

use crate::outbound::{Outbound, OutboundError, Reply, Request};

/// A browser of one visit; its cookies belong to the one server that is visited.
pub(super) struct Browser<'a> {
    outbound: &'a Outbound,
    cookies: BTreeMap<String, Zeroizing<String>>,
}

impl<'a> Browser<'a> {
    pub(super) fn new(outbound: &'a Outbound) -> Self {
        Self { outbound, cookies: BTreeMap::new() }
    }

    pub(super) async fn get(&mut self, url: Url) -> Result<Reply, OutboundError> {
        self.send(Request::get(url)).await
    }

    pub(super) async fn post(
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
