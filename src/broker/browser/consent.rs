//! The owner's yes or no on our page.

use url::Url;

use super::{Broker, BrokerError, Cookies, OAUTH_CALLBACK, why_over};
use crate::{
    broker::{authorize::Access, start_authorization::Minting, trail::visited},
    domain::{AuditAction, BrowserSecret, Flow, FlowId, FlowState, Visit},
    sealing::BrowserPurpose,
    vault::{Parked, Stored},
};

/// What shows that a form was sent from our own page.
pub struct FormProof {
    pub unverified_token: String,
    /// `false`: the browser says that another site sent it.
    pub from_our_page: bool,
}

/// The owner agreed.
pub struct SentToProvider {
    /// It holds the attempt's state.
    pub url: Url,
    /// The flow cookie to set: the provider's answer is taken only with it.
    pub cookie: BrowserSecret,
    /// The provider's name.
    pub provider: String,
}

impl Broker {
    /// Mints an attempt for a flow whose owner agrees, bound to this browser.
    pub async fn consent(
        &self,
        visit: &Visit,
        id: FlowId,
        cookies: &Cookies,
        proof: &FormProof,
    ) -> Result<SentToProvider, BrokerError> {
        loop {
            let flow = self.own_form(visit, id, cookies, proof, AuditAction::ConsentGiven).await?;
            match self.send_to_provider(visit, flow.clone()).await {
                // Another tab's attempt was minted between.
                Err(BrokerError::Conflict) => {}
                Err(error) => {
                    let record = visited(visit, &flow.value, AuditAction::ConsentGiven, self.now());
                    self.record_refused(record, &error).await;
                    return Err(error);
                }
                sent => return sent,
            }
        }
    }

    /// Ends a flow whose owner declines.
    pub async fn decline(
        &self,
        visit: &Visit,
        id: FlowId,
        cookies: &Cookies,
        proof: &FormProof,
    ) -> Result<(), BrokerError> {
        loop {
            let flow = self.own_form(visit, id, cookies, proof, AuditAction::ConsentDeclined).await?;
            let mut change = self.vault().change(&flow.value.tenant, Some(flow.value.subject)).await?;
            change.update_flow(&flow, &Flow { state: FlowState::Denied, ..flow.value.clone() }, Parked::Keep);
            change.audit(&visited(visit, &flow.value, AuditAction::ConsentDeclined, self.now()));
            match change.commit().await.map_err(BrokerError::from) {
                Err(BrokerError::Conflict) => {}
                other => return other.map(|_| ()),
            }
        }
    }

    /// The open flow behind a form that its owner sent from our page in this browser. Whose session it is comes first:
    /// without one nothing is audited, because anybody could send it.
    async fn own_form(
        &self,
        visit: &Visit,
        id: FlowId,
        cookies: &Cookies,
        proof: &FormProof,
        action: AuditAction,
    ) -> Result<Stored<Flow>, BrokerError> {
        let flow = self.visited_flow(id).await?;
        if !self.is_owners(&flow.value, cookies).await? {
            return Err(BrokerError::OtherBrowser);
        }
        let token = BrowserSecret::new(proof.unverified_token.clone());
        let judged = if !proof.from_our_page || self.form_token(id, cookies) != Some(token) {
            Err(BrokerError::OtherBrowser)
        } else if !flow.value.is_open(self.now()) {
            Err(BrokerError::FlowEnded(why_over(&flow.value)))
        } else {
            Ok(())
        };
        if let Err(error) = judged {
            let record = visited(visit, &flow.value, action, self.now());
            self.record_refused(record, &error).await;
            return Err(error);
        }
        Ok(flow)
    }

    async fn send_to_provider(&self, visit: &Visit, flow: Stored<Flow>) -> Result<SentToProvider, BrokerError> {
        let (public_url, _) = self.required_pages(&flow.value)?;
        let catalog = self.catalog();
        if let Some(plugin) = &flow.value.plugin {
            // Since the flow began, an operator may have closed the plugin.
            Self::authorize_plugin(&catalog, &Access { plugin, scopes: None })?;
        }
        let provider = self.provider(&flow.value.provider)?;
        let cookie = self.vault().random().browser_secret()?;
        let id = flow.value.id;
        let record = visited(visit, &flow.value, AuditAction::ConsentGiven, self.now());
        let minted = self
            .mint(Minting {
                flow,
                provider: &provider,
                redirect_uri: &public_url.at(OAUTH_CALLBACK),
                browser: Some(self.vault().keys().browser(BrowserPurpose::Attempt, id, &cookie)),
                record,
            })
            .await?;
        let provider = provider.definition.display_name.clone();
        Ok(SentToProvider { url: minted.authorization_url, cookie, provider })
    }
}
