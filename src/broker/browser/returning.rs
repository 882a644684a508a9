//! The way back to the application that began a flow.

use url::{Host, Url};

use super::{Broker, Outcome};
use crate::domain::Flow;

impl Broker {
    /// The flow's return URL with the flow's id and outcome, and nothing else. It is judged anew: the list may have been
    /// changed since the flow began.
    pub(super) fn way_back(&self, flow: &Flow, outcome: &Outcome) -> Option<Url> {
        let mut url = flow.return_url.clone()?;
        let listed = self.catalog().tenants.get(&flow.tenant)?.return_urls.iter().any(|rule| rule.allows(&url));
        if !listed || !is_followed(&url) {
            return None;
        }
        let outcome = match outcome {
            Outcome::Completed { .. } => "completed",
            Outcome::Denied => "denied",
            Outcome::Expired => "expired",
            Outcome::Failed(_) | Outcome::Over => "failed",
        };
        url.query_pairs_mut().append_pair("flow_id", &flow.id.to_string()).append_pair("outcome", outcome);
        Some(url)
    }
}

/// Whatever an operator listed: a link of ours runs no script and leads to nobody who listens on the way.
fn is_followed(url: &Url) -> bool {
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        ("http", Some(Host::Ipv4(address))) => address.is_loopback(),
        ("http", Some(Host::Ipv6(address))) => address.is_loopback(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_followed;

    #[test]
    fn only_https_and_loopback_are_linked() {
        for followed in ["https://app.example/done", "http://127.0.0.1:3000/", "http://[::1]/"] {
            assert!(is_followed(&followed.parse().unwrap()), "{followed}");
        }
        for refused in ["http://app.example/", "javascript:alert(1)", "data:text/html,x", "app:done", "file:///etc"] {
            assert!(!is_followed(&refused.parse().unwrap()), "{refused}");
        }
    }
}
