//! Who is there: an OpenID Connect sign-in for one flow, in one browser.
//!
//! Nothing is stored until somebody has signed in, so that strangers cannot fill the disk: `state`, nonce and PKCE
//! verifier are made of the cookie under a key of the installation's, and are made again when the browser comes back.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use url::Url;

use super::{Broker, BrokerError, Cookies, LOGIN_CALLBACK, VisitRefused, why_over};
use crate::{
    broker::trail::{visited, visited_by},
    domain::{
        AuditAction, BrowserSecret, BrowserSession, ClientAuthentication, CodeVerifier, Definition, Flow, FlowId,
        FlowSecret, Nonce, Provider, Reason, ReplyClass, Visit,
    },
    identity::{IdentityError, SignIn, SignedIn},
    oauth::{
        AuthorizationAnswer, AuthorizationError, AuthorizationRequest, AuthorizationResponse, MalformedResponse,
        TokenFailure, check_iss,
        definitions::{SHIPPED, shipped},
    },
    sealing::BrowserPurpose,
    vault::{Parked, Stored},
};

/// Where to send the browser to sign in.
pub struct SignInBegun {
    pub url: Url,
    /// The session cookie to set; it opens nothing before the sign-in is over.
    pub cookie: BrowserSecret,
}

/// The flow's owner has signed in.
pub struct SignedInBrowser {
    pub flow: FlowId,
    /// The session cookie to set: another than before, so that one that was planted is worth nothing.
    pub cookie: BrowserSecret,
}

impl Broker {
    /// Begins a sign-in for a flow. With `as_other` the issuer is asked to let the user choose anew.
    pub async fn begin_sign_in(&self, id: FlowId, as_other: bool) -> Result<SignInBegun, BrokerError> {
        let flow = self.visited_flow(id).await?.into_value();
        let (public_url, sign_in) = self.required_pages(&flow)?;
        if !flow.is_open(self.now()) {
            return Err(BrokerError::FlowEnded(why_over(&flow)));
        }
        let cookie = self.vault().random().browser_secret()?;
        let mut provider = registration(&sign_in);
        if as_other {
            let parameters = &mut provider.definition.authorization_parameters;
            parameters.insert("prompt".to_owned(), "login".to_owned());
        }
        let request = AuthorizationRequest {
            redirect_uri: &public_url.at(LOGIN_CALLBACK),
            state: &self.sign_in_state(id, &cookie),
            verifier: &CodeVerifier::new(self.of_cookie(BrowserPurpose::SignInVerifier, id, &cookie)),
            nonce: &Nonce::new(self.of_cookie(BrowserPurpose::SignInNonce, id, &cookie)),
            scopes: &sign_in.scopes,
            login_hint: None,
            hints: None,
        };
        let url = self.servers().authorization_url(&provider, &request).await?.url;
        Ok(SignInBegun { url, cookie })
    }

    /// Takes the issuer's answer to a sign-in. Anybody but the flow's owner is refused, and that is audited under who
    /// they are.
    pub async fn complete_sign_in(
        &self,
        visit: &Visit,
        unverified: &[u8],
        cookies: &Cookies,
    ) -> Result<SignedInBrowser, VisitRefused> {
        let response = AuthorizationResponse::parse(unverified)
            .map_err(|MalformedResponse { .. }| BrokerError::Invalid { field: "response", problem: "is malformed" })?;
        let id = flow_of(&response.state).ok_or(BrokerError::FlowNotFound)?;
        self.sign_in(visit, id, response, cookies).await.map_err(|error| error.at(id))
    }

    async fn sign_in(
        &self,
        visit: &Visit,
        id: FlowId,
        response: AuthorizationResponse,
        cookies: &Cookies,
    ) -> Result<SignedInBrowser, BrokerError> {
        let flow = self.visited_flow(id).await?.into_value();
        let cookie = cookies.sessions.get(&id).ok_or(BrokerError::OtherBrowser)?;
        if response.state != self.sign_in_state(id, cookie) {
            return Err(BrokerError::OtherBrowser);
        }
        if !flow.is_open(self.now()) {
            return Err(BrokerError::FlowEnded(why_over(&flow)));
        }
        self.count_sign_in(&flow)?;
        let signed_in = self.signed_in(&flow, cookie, response).await?;
        if signed_in.tenant != flow.tenant || signed_in.subject != flow.subject {
            let record = visited_by(visit, &signed_in, AuditAction::SignedIn, self.now());
            self.record_refused(record, &BrokerError::OtherUser).await;
            return Err(BrokerError::OtherUser);
        }
        self.open_session(visit, id).await
    }

    async fn signed_in(
        &self,
        flow: &Flow,
        cookie: &BrowserSecret,
        response: AuthorizationResponse,
    ) -> Result<SignedIn, BrokerError> {
        let (public_url, sign_in) = self.required_pages(flow)?;
        let provider = registration(&sign_in);
        let server = self.servers().endpoints(&provider).await?;
        check_iss(Some(sign_in.issuer.as_str()), server.iss_parameter_supported, response.iss.as_deref())
            .map_err(|_| BrokerError::IssuerMismatch)?;
        let code = match response.answer {
            AuthorizationAnswer::Code(code) => code,
            AuthorizationAnswer::Error(error) => return Err(BrokerError::SignInFailed(reason_of(error))),
        };
        let verifier = CodeVerifier::new(self.of_cookie(BrowserPurpose::SignInVerifier, flow.id, cookie));
        let redirect_uri = public_url.at(LOGIN_CALLBACK);
        let tokens = self.servers().exchange(&provider, &server.token, &code, &verifier, &redirect_uri).await;
        let tokens = tokens.map_err(|failure| {
            tracing::debug!(flow.id = %flow.id, family.id = %flow.family, %failure, "a sign-in's code was not exchanged");
            BrokerError::SignInFailed(exchange_reason(&failure))
        })?;
        let id_token = tokens.id_token.ok_or(BrokerError::SignInFailed(Reason::ProviderReplyInvalid))?;
        let nonce = Nonce::new(self.of_cookie(BrowserPurpose::SignInNonce, flow.id, cookie));
        self.authenticator().verify_id_token(&flow.family, &id_token, &nonce).await.map_err(|error| {
            tracing::warn!(flow.id = %flow.id, family.id = %flow.family, %error, "an ID token was refused");
            refused(error)
        })
    }

    /// Remembers this browser as the owner's, in the place of another. Only an open flow is written: one that is being
    /// exchanged belongs to the exchange.
    async fn open_session(&self, visit: &Visit, id: FlowId) -> Result<SignedInBrowser, BrokerError> {
        let cookie = self.vault().random().browser_secret()?;
        loop {
            let flow = self.visited_flow(id).await?;
            let now = self.now();
            if !flow.value.is_open(now) {
                return Err(BrokerError::FlowEnded(why_over(&flow.value)));
            }
            match self.write_session(visit, &flow, &cookie).await {
                Err(BrokerError::Conflict) => {}
                other => return other.map(|()| SignedInBrowser { flow: id, cookie }),
            }
        }
    }

    async fn write_session(
        &self,
        visit: &Visit,
        flow: &Stored<Flow>,
        cookie: &BrowserSecret,
    ) -> Result<(), BrokerError> {
        let Flow { id, tenant, subject, .. } = &flow.value;
        let now = self.now();
        let digest = self.vault().keys().browser(BrowserPurpose::Session, *id, cookie);
        let session = BrowserSession { cookie: digest, signed_in_at: now };
        let mut change = self.vault().change(tenant, Some(*subject)).await?;
        change.update_flow(flow, &Flow { session: Some(session), ..flow.value.clone() }, Parked::Keep);
        change.audit(&visited(visit, &flow.value, AuditAction::SignedIn, now));
        change.commit().await?;
        Ok(())
    }

    /// Names the flow, so that the callback knows which cookie to look for.
    fn sign_in_state(&self, flow: FlowId, cookie: &BrowserSecret) -> FlowSecret {
        FlowSecret::new(format!("{flow}.{}", self.of_cookie(BrowserPurpose::SignInState, flow, cookie)))
    }

    fn of_cookie(&self, purpose: BrowserPurpose, flow: FlowId, cookie: &BrowserSecret) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.vault().keys().browser(purpose, flow, cookie))
    }
}

fn flow_of(unverified_state: &FlowSecret) -> Option<FlowId> {
    unverified_state.expose().split_once('.')?.0.parse().ok()
}

/// Our registration as the protocol sees it. Where the metadata does not mention PKCE it is sent all the same, and the
/// nonce does its work (RFC 9700 §2.1.1).
fn registration(sign_in: &SignIn) -> Provider {
    let standard = shipped("oidc").expect("the standard definition ships with the broker");
    Provider {
        id: "sign-in".parse().expect("a constant of legal characters"),
        definition: Definition {
            issuer: Some(sign_in.issuer.clone()),
            endpoint_hosts: known_hosts(sign_in),
            pkce_asserted: true,
            client_authentication: match sign_in.client_secret {
                Some(_) => ClientAuthentication::Basic,
                None => ClientAuthentication::None,
            },
            always_scopes: sign_in.scopes.clone(),
            authorization_parameters: BTreeMap::new(),
            token_parameters: BTreeMap::new(),
            ..standard
        },
        client_id: sign_in.client_id.clone(),
        client_secret: sign_in.client_secret.clone(),
        refreshes_per_second: Provider::REFRESHES_PER_SECOND,
    }
}

/// Where the issuer's endpoints may lie beside its own host, if a definition that ships with the broker knows it.
fn known_hosts(sign_in: &SignIn) -> Vec<String> {
    let mut known = SHIPPED.iter().filter_map(|name| shipped(name));
    let same = known.find(|definition| definition.issuer.as_ref() == Some(&sign_in.issuer));
    same.map(|definition| definition.endpoint_hosts).unwrap_or_default()
}

/// Why an authorization request brought no code.
pub(super) fn reason_of(error: AuthorizationError) -> Reason {
    match error {
        AuthorizationError::Denied => Reason::FlowDenied,
        AuthorizationError::Unavailable => Reason::ProviderUnreachable,
        AuthorizationError::Configuration => Reason::ProviderSuspended,
        AuthorizationError::Unknown => Reason::ProviderReplyInvalid,
    }
}

fn exchange_reason(failure: &TokenFailure) -> Reason {
    match failure.class {
        ReplyClass::Ambiguous | ReplyClass::Transient | ReplyClass::RateLimited => Reason::ProviderUnreachable,
        ReplyClass::Configuration => Reason::ProviderSuspended,
        ReplyClass::Unknown => Reason::ProviderReplyInvalid,
        ReplyClass::Terminal | ReplyClass::Reauthorize => Reason::ExchangeRefused,
    }
}

fn refused(error: IdentityError) -> BrokerError {
    match error {
        IdentityError::JwksUnavailable { retry_after } => BrokerError::JwksUnavailable { retry_after },
        other => BrokerError::SignInFailed(other.reason()),
    }
}
