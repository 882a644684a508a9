//! Binding `BROWSER`: our own pages sign the user in, show what is asked for, and take the provider's answer.
//!
//! A link can be sent to anybody, so nothing that came through one is believed: not who opens it, and not who comes back
//! from the provider. An attempt is minted only in a browser in which the flow's owner has signed in and agreed, and its
//! answer is taken only from that browser. PKCE and `state` alone do not stop somebody who sends a victim the link of his
//! own flow.
//!
//! - [`connect`]: what the page shows · [`sign_in`]: who is there · [`consent`]: yes or no · [`answer`]: what the
//!   provider says · [`returning`]: the way back to the application

mod answer;
mod connect;
mod consent;
mod returning;
mod sign_in;

use std::{collections::HashMap, sync::PoisonError};

pub use connect::{ConnectPage, ConsentRequest, Ended, Outcome};
pub use consent::{FormProof, SentToProvider};
pub use sign_in::{SignInBegun, SignedInBrowser};
use url::Url;

use super::{Broker, BrokerError, exchange::ended};
use crate::{
    domain::{BrowserSecret, Caller, FamilyId, Flow, FlowId, FlowState, PublicUrl, Reason, TenantId, Visit},
    identity::SignIn,
    sealing::BrowserPurpose,
    vault::Stored,
};

/// Where providers send browsers back to; registered there under our public URL.
pub const OAUTH_CALLBACK: &str = "/oauth/callback";
/// Where a family's issuer sends browsers back to after a sign-in; registered there under our public URL.
pub const LOGIN_CALLBACK: &str = "/login/callback";
/// Answers that one flow's sign-ins may bring.
const MOST_SIGN_INS: u32 = 20;

/// The cookies of one browser that are ours.
#[derive(Default)]
pub struct Cookies {
    pub sessions: HashMap<FlowId, BrowserSecret>,
    /// Set when the user was sent to the provider.
    pub attempts: HashMap<FlowId, BrowserSecret>,
}

/// Why a browser is not served, and the flow that it came for as far as that is known.
#[derive(Debug)]
pub struct VisitRefused {
    pub error: BrokerError,
    pub flow: Option<FlowId>,
}

impl From<BrokerError> for VisitRefused {
    fn from(error: BrokerError) -> Self {
        Self { error, flow: None }
    }
}

impl BrokerError {
    fn at(self, flow: FlowId) -> VisitRefused {
        VisitRefused { error: self, flow: Some(flow) }
    }
}

impl Broker {
    /// Where browsers find our pages, if there are any.
    pub fn public_url(&self) -> Option<&PublicUrl> {
        self.settings().public_url.as_ref()
    }

    /// The page for a flow; `None` where nobody of the family could sign in on it.
    pub(super) fn connect_url(&self, flow: &Flow) -> Option<Url> {
        let (public_url, _) = self.pages(&flow.family, &flow.tenant)?;
        Some(public_url.at(&format!("/connect/{}", flow.id)))
    }

    /// Whether the caller could sign in on our pages.
    pub(super) fn has_pages(&self, caller: &Caller) -> bool {
        self.pages(&caller.family, &caller.tenant).is_some()
    }

    /// Names a request to our pages.
    pub fn visit(&self, peer: Option<std::net::IpAddr>, user_agent: Option<String>) -> Result<Visit, BrokerError> {
        let id = u128::from_be_bytes(self.fresh()?);
        let request_id = format!("req_{id:032x}").parse().expect("prefix, underscore and hex are visible characters");
        Ok(Visit { request_id, peer, user_agent })
    }

    fn pages(&self, family: &FamilyId, tenant: &TenantId) -> Option<(&PublicUrl, SignIn)> {
        let sign_in = self.authenticator().sign_in(family)?;
        // A template is many issuers; this tenant's people are known to one.
        let issuer = self.authenticator().sign_in_issuer(family, tenant)?;
        Some((self.public_url()?, SignIn { issuer, ..sign_in.clone() }))
    }

    fn required_pages(&self, flow: &Flow) -> Result<(&PublicUrl, SignIn), BrokerError> {
        self.pages(&flow.family, &flow.tenant).ok_or(BrokerError::SignInNotConfigured)
    }

    /// Each answer to a sign-in is a token request with our secret, and whoever has a flow's link can bring as many as
    /// they like: past a few the issuer hears no more of it. Nothing is stored for a stranger.
    fn count_sign_in(&self, flow: &Flow) -> Result<(), BrokerError> {
        let now = self.now();
        let mut sign_ins = self.0.sign_ins.lock().unwrap_or_else(PoisonError::into_inner);
        sign_ins.retain(|_, (_, until)| now < *until);
        let (count, _) = sign_ins.entry(flow.id).or_insert((0, flow.expires_at));
        *count += 1;
        if *count > MOST_SIGN_INS {
            return Err(BrokerError::FlowQuota { retry_after: flow.expires_at - now });
        }
        Ok(())
    }

    async fn visited_flow(&self, id: FlowId) -> Result<Stored<Flow>, BrokerError> {
        let flow = self.vault().any_flow(id).await?.ok_or(BrokerError::FlowNotFound)?;
        // A tenant that was taken out of the configuration is nobody's any more.
        let served = self.catalog().tenants.contains_key(&flow.value.tenant);
        if served { Ok(flow) } else { Err(BrokerError::FlowNotFound) }
    }

    /// Whether this is the browser in which the flow's owner signed in, and that session was not ended since.
    async fn is_owners(&self, flow: &Flow, cookies: &Cookies) -> Result<bool, BrokerError> {
        let (Some(session), Some(secret)) = (&flow.session, cookies.sessions.get(&flow.id)) else { return Ok(false) };
        if self.vault().keys().browser(BrowserPurpose::Session, flow.id, secret) != session.cookie {
            return Ok(false);
        }
        let subject = self.vault().subject(&flow.tenant, flow.subject).await?;
        let not_before = subject.and_then(|stored| stored.value.not_before);
        Ok(not_before.is_none_or(|not_before| session.signed_in_at >= not_before))
    }
}

/// Why a flow that is not open takes nothing more.
fn why_over(flow: &Flow) -> Reason {
    if flow.state == FlowState::Open { Reason::FlowExpired } else { ended(flow) }
}
