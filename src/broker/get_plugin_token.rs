//! A fresh access token for a plugin, or exactly what the user must do.

use std::time::Duration;

use url::Url;

use super::{Broker, BrokerError, authorize::Access, refresh::Flown, trail::About};
use crate::{
    domain::{
        AccessToken, AuditAction, Call, Connection, Credential, CredentialState, Plugin, PluginId, Reason, Role,
        ScopeSet, TokenUsage,
    },
    vault::{FlowIntent, Stored},
};

/// What a caller gets when it does not say how long the token must live.
const DEFAULT_REMAINING: Duration = Duration::from_secs(60);
/// At most one refresh per this time because a caller says that a token was rejected.
const REJECTION_COOL_DOWN: Duration = Duration::from_secs(30);

pub struct GetPluginToken {
    pub plugin: PluginId,
    /// Needed only when several accounts are connected.
    pub account: Option<String>,
    /// `None`: all of the plugin's.
    pub scopes: Option<ScopeSet>,
    /// `None`: 60 s, or half of the token's lifetime if that is less.
    pub min_remaining: Option<Duration>,
    /// The caller has seen this generation announced and must not get an older one.
    pub min_generation: Option<u64>,
    /// SHA-256 of a token that the plugin's API refused: it is not handed out again.
    pub rejected_token_sha256: Option<[u8; 32]>,
    pub return_url: Option<Url>,
}

/// A token and how to use it.
pub struct PluginToken {
    pub access_token: AccessToken,
    pub connection: Stored<Connection>,
    pub usage: TokenUsage,
    pub enforcement: ScopeEnforcement,
}

/// How it is made sure that the token can do no more than was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeEnforcement {
    /// The token carries exactly the asked scopes.
    Exact,
    /// It carries more; nothing but the agent's word keeps it from using them.
    Advisory,
}

impl Broker {
    pub async fn get_plugin_token(&self, call: &Call, request: GetPluginToken) -> Result<PluginToken, BrokerError> {
        let outcome = self.plugin_token(call, &request).await;
        if let Err(error) = &outcome {
            let about = About { plugin: Some(&request.plugin), connection: None };
            self.record_refusal(call, AuditAction::TokenRead, about, error).await;
        }
        outcome
    }

    async fn plugin_token(&self, call: &Call, request: &GetPluginToken) -> Result<PluginToken, BrokerError> {
        self.authorize_secrets(call, Role::User).await?;
        let access = Access { plugin: &request.plugin, scopes: request.scopes.as_ref() };
        let catalog = self.catalog();
        let allowed = Self::authorize_plugin(&catalog, &access)?;
        let (plugin, scopes) = (allowed.plugin, allowed.scopes);
        // A generation that was obtained for this call is good enough for it, however short it lives: otherwise a
        // provider with very short tokens would be asked in a circle.
        let mut obtained = None;
        loop {
            let stored = self.connection_for(call, request, plugin, scopes).await?;
            let generation = stored.value.credential.generation;
            if obtained.is_none_or(|obtained| generation < obtained) && self.is_stale(&stored, request).await? {
                match self.refresh(stored.value.id, generation).await {
                    Flown::Generation(newer) => {
                        obtained = Some(newer);
                        continue;
                    }
                    flown => self.still_usable(call, request, plugin, &stored, flown).await?,
                }
            }
            // A provider may answer a refresh with the token that it had given before.
            if obtained.is_some() && self.is_rejected(&stored, request).await? {
                return Err(BrokerError::RateLimited { retry_after: REJECTION_COOL_DOWN });
            }
            match self.serve(call, plugin, scopes, &stored).await {
                Err(BrokerError::Conflict) => continue,
                other => return other,
            }
        }
    }

    /// The connection that this call means, in a state to serve and with the scopes that it needs.
    async fn connection_for(
        &self,
        call: &Call,
        request: &GetPluginToken,
        plugin: &Plugin,
        scopes: &ScopeSet,
    ) -> Result<Stored<Connection>, BrokerError> {
        let caller = &call.caller;
        let mut candidates = self.vault().connections(&caller.tenant, caller.subject, Some(&plugin.provider)).await?;
        candidates.retain(|stored| !stored.value.credential.state.is_stopped());
        if let Some(account) = &request.account {
            candidates.retain(|stored| stored.value.account.as_ref() == Some(account));
        }
        let alive = candidates.iter().filter(|stored| stored.value.credential.state.serves()).count();
        if alive > 0 {
            candidates.retain(|stored| stored.value.credential.state.serves());
        }
        let intent = intent_of(call, request, plugin, scopes);
        let stored = match candidates.len() {
            0 => {
                return Err(self.authentication_required(call, Reason::ConsentRequired, &intent, scopes.clone()).await);
            }
            1 => candidates.swap_remove(0),
            _ => {
                let accounts = candidates.iter().filter_map(|stored| stored.value.account.clone()).collect();
                return Err(BrokerError::AccountAmbiguous { accounts });
            }
        };
        let credential = &stored.value.credential;
        if credential.state == CredentialState::ReauthorizationRequired {
            return Err(self.dead(call, request, plugin, scopes, &stored).await);
        }
        let missing = scopes.minus(&credential.scopes);
        if !missing.is_empty() {
            // Asking for the missing ones alone would lose the others at providers that replace the grant.
            let union = scopes.union(&credential.scopes);
            let intent = FlowIntent { scopes: &union, renews: Some(stored.value.id), ..intent };
            return Err(self.authentication_required(call, Reason::ScopesMissing, &intent, missing).await);
        }
        Ok(stored)
    }

    /// Whether this call needs a newer token than the stored one.
    async fn is_stale(&self, stored: &Stored<Connection>, request: &GetPluginToken) -> Result<bool, BrokerError> {
        let (credential, now) = (&stored.value.credential, self.now());
        if request.min_generation.is_some_and(|wanted| wanted > credential.generation) {
            return Err(BrokerError::Invalid { field: "min_generation", problem: "is ahead of the credential" });
        }
        if self.is_rejected(stored, request).await? {
            let again_at = credential.obtained_at.plus(REJECTION_COOL_DOWN);
            return if credential.obtained_at <= now && now < again_at {
                Err(BrokerError::RateLimited { retry_after: again_at - now })
            } else {
                Ok(true)
            };
        }
        let remaining = match request.min_remaining {
            Some(wanted) => wanted,
            None => DEFAULT_REMAINING.min(credential.margin()),
        };
        Ok(!credential.is_fresh(now, remaining))
    }

    /// Whether the stored token is the one that the caller says was refused.
    async fn is_rejected(&self, stored: &Stored<Connection>, request: &GetPluginToken) -> Result<bool, BrokerError> {
        match &request.rejected_token_sha256 {
            Some(rejected) => Ok(self.vault().is_access_token(stored, rejected).await?),
            None => Ok(false),
        }
    }

    /// A flight ended without a new token. The one at hand is served while it lives, unless the caller says that it
    /// does not work.
    async fn still_usable(
        &self,
        call: &Call,
        request: &GetPluginToken,
        plugin: &Plugin,
        stored: &Stored<Connection>,
        flown: Flown,
    ) -> Result<(), BrokerError> {
        let live = stored.value.credential.is_live(self.now()) && !self.is_rejected(stored, request).await?;
        let scopes = request.scopes.as_ref().unwrap_or(&plugin.scopes);
        match flown {
            Flown::Stopped => Err(self
                .authentication_required(
                    call,
                    Reason::ConsentRequired,
                    &intent_of(call, request, plugin, scopes),
                    scopes.clone(),
                )
                .await),
            Flown::StoreUnavailable => Err(BrokerError::StoreUnavailable),
            _ if live => Ok(()),
            Flown::ReauthorizationRequired => Err(self.dead(call, request, plugin, scopes, stored).await),
            Flown::ProviderSuspended => Err(BrokerError::ProviderSuspended),
            Flown::Failing { reason: Reason::ProviderRateLimited, retry_after } => {
                Err(BrokerError::ProviderRateLimited { retry_after })
            }
            Flown::Failing { retry_after, .. } => Err(BrokerError::ProviderUnreachable { retry_after }),
            Flown::Generation(_) => Err(BrokerError::Conflict),
        }
    }

    /// The record of the read is durable before the token leaves, and the connection is looked at once more after it:
    /// what was revoked meanwhile is not served, nor what another caller has a newer one of.
    async fn serve(
        &self,
        call: &Call,
        plugin: &Plugin,
        scopes: &ScopeSet,
        stored: &Stored<Connection>,
    ) -> Result<PluginToken, BrokerError> {
        let about = About { plugin: Some(&plugin.id), connection: Some(&stored.value) };
        self.record_read(call, AuditAction::TokenRead, about, &scopes.join(' ')).await?;
        let access_token = self.vault().access_token(stored).await?;
        let latest = self.vault().latest(stored).await?;
        let generation = stored.value.credential.generation;
        let is_newest = |credential: &Credential| credential.state.serves() && credential.generation == generation;
        if !latest.is_some_and(|latest| is_newest(&latest.value.credential)) {
            return Err(BrokerError::Conflict);
        }
        // What every authorization at this provider carries (`openid`, `offline_access`) opens no API.
        let provider = self.provider(&stored.value.provider)?;
        let always = &provider.definition.always_scopes;
        let exact = |scope| scopes.contains(scope) || always.contains(scope);
        let enforcement = match stored.value.credential.scopes.iter().all(exact) {
            true => ScopeEnforcement::Exact,
            false => ScopeEnforcement::Advisory,
        };
        Ok(PluginToken { access_token, connection: stored.clone(), usage: plugin.usage.clone(), enforcement })
    }

    async fn dead(
        &self,
        call: &Call,
        request: &GetPluginToken,
        plugin: &Plugin,
        scopes: &ScopeSet,
        stored: &Stored<Connection>,
    ) -> BrokerError {
        let union = scopes.union(&stored.value.credential.scopes);
        let intent =
            FlowIntent { scopes: &union, renews: Some(stored.value.id), ..intent_of(call, request, plugin, scopes) };
        self.authentication_required(call, Reason::ReauthorizationRequired, &intent, ScopeSet::default()).await
    }
}

fn intent_of<'a>(
    call: &'a Call,
    request: &'a GetPluginToken,
    plugin: &'a Plugin,
    scopes: &'a ScopeSet,
) -> FlowIntent<'a> {
    FlowIntent {
        subject: call.caller.subject,
        agent: call.caller.agent.as_ref(),
        plugin: Some(&plugin.id),
        provider: &plugin.provider,
        scopes,
        account: request.account.as_deref(),
        return_url: request.return_url.as_ref(),
        renews: None,
    }
}
