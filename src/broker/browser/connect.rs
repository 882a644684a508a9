//! What the page of a flow shows, and to whom.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use url::Url;

use super::{Broker, BrokerError, Cookies};
use crate::{
    domain::{AgentId, BrowserSecret, Flow, FlowId, FlowState, Reason, Scope},
    sealing::BrowserPurpose,
};

pub enum ConnectPage {
    /// Nobody has signed in in this browser.
    SignIn,
    Consent(Box<ConsentRequest>),
    /// The provider's answer is being worked on.
    Settling,
    Ended(Ended),
}

/// What the owner is asked.
pub struct ConsentRequest {
    /// The agent as the platform names it; `None`: the user's own application.
    pub agent: Option<AgentId>,
    /// The plugin's name; `None`: a provider was asked for by itself.
    pub plugin: Option<String>,
    pub provider: String,
    /// The account that is to be (re)connected.
    pub account: Option<String>,
    /// Everything that the provider will be asked for, with what it lets the agent do; that completes "wants to …".
    pub scopes: Vec<(Scope, Option<String>)>,
    pub renews: bool,
    /// To be sent back with the answer.
    pub form_token: BrowserSecret,
}

/// How a flow ended.
pub struct Ended {
    pub outcome: Outcome,
    /// The provider's name; `None` for whoever has not shown that the flow is theirs.
    pub provider: Option<String>,
    /// Where the application that began the flow wants the browser next.
    pub return_url: Option<Url>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Completed {
        account: Option<String>,
    },
    Denied,
    Expired,
    Failed(Reason),
    /// Over, and nobody's business how.
    Over,
}

impl Broker {
    /// What to show a browser that opens a flow's page. Opening it is never too often: whoever closed the window comes
    /// back here. Before a sign-in nothing is told but that a flow is over.
    pub async fn connect_page(&self, id: FlowId, cookies: &Cookies) -> Result<ConnectPage, BrokerError> {
        let flow = self.visited_flow(id).await?.into_value();
        self.required_pages(&flow)?;
        let open = flow.is_open(self.now());
        match (self.is_owners(&flow, cookies).await?, &flow.state) {
            (false, _) if open => Ok(ConnectPage::SignIn),
            (false, state) => {
                let outcome = if *state == FlowState::Open { Outcome::Expired } else { Outcome::Over };
                Ok(ConnectPage::Ended(Ended { outcome, provider: None, return_url: None }))
            }
            (true, FlowState::Open) if open => self.consent_request(&flow, cookies).map(ConnectPage::Consent),
            (true, FlowState::Exchanging | FlowState::Exchanged) => Ok(ConnectPage::Settling),
            (true, FlowState::Open) => Ok(self.ended_page(&flow, Outcome::Expired)),
            (true, FlowState::Denied) => Ok(self.ended_page(&flow, Outcome::Denied)),
            (true, FlowState::Failed { reason }) => Ok(self.ended_page(&flow, Outcome::Failed(*reason))),
            (true, FlowState::Completed { connection }) => {
                let stored = self.vault().connection(&flow.tenant, *connection).await?;
                let account = stored.and_then(|stored| stored.into_value().account);
                Ok(self.ended_page(&flow, Outcome::Completed { account }))
            }
        }
    }

    fn consent_request(&self, flow: &Flow, cookies: &Cookies) -> Result<Box<ConsentRequest>, BrokerError> {
        let catalog = self.catalog();
        let provider = self.provider(&flow.provider)?;
        let plugin = flow.plugin.as_ref().map(|id| catalog.plugins.get(id).ok_or(BrokerError::PluginUnknown));
        let plugin = plugin.transpose()?.map(|plugin| plugin.display_name.clone());
        let all = provider.definition.always_scopes.union(&flow.scopes);
        let words = |scope: &Scope| provider.definition.words(scope).map(str::to_owned);
        let scopes = all.iter().map(|scope| (scope.clone(), words(scope))).collect();
        Ok(Box::new(ConsentRequest {
            agent: flow.agent.clone(),
            plugin,
            provider: provider.definition.display_name.clone(),
            account: flow.account.clone(),
            scopes,
            renews: flow.renews.is_some(),
            form_token: self.form_token(flow.id, cookies).ok_or(BrokerError::OtherBrowser)?,
        }))
    }

    /// What the forms of this browser's session carry.
    pub(super) fn form_token(&self, flow: FlowId, cookies: &Cookies) -> Option<BrowserSecret> {
        let token = self.vault().keys().browser(BrowserPurpose::FormToken, flow, cookies.sessions.get(&flow)?);
        Some(BrowserSecret::new(BASE64_URL_SAFE_NO_PAD.encode(token)))
    }

    fn ended_page(&self, flow: &Flow, outcome: Outcome) -> ConnectPage {
        let provider = self.provider(&flow.provider).ok().map(|provider| provider.definition.display_name.clone());
        let return_url = self.way_back(flow, &outcome);
        ConnectPage::Ended(Ended { outcome, provider, return_url })
    }
}
