//! Records for tests of the vault. Their texts hold "canary", so that a search for it finds what leaked.

use claviger::{
    domain::{
        AccessToken, AppliedReport, ApplyOutcome, Attempt, AuditAction, AuditRecord, AuditResult, BrowserSession,
        CallContext, CodeVerifier, Connection, ConnectionId, Consent, Credential, CredentialEvent, CredentialId,
        CredentialStatus, EventKind, Flow, FlowId, FlowSecret, FlowState, Granted, Heard, Holders, IdToken, Job, JobId,
        JobKind, Nonce, RefreshToken, ScopeSet, SubjectId, TenantId, Timestamp,
    },
    sealing::RootKey,
    vault::{FlowTokens, TokenSet},
};
use zeroize::Zeroizing;

pub(crate) fn root(byte: u8) -> RootKey {
    RootKey::from_secret(&Zeroizing::new([byte; 32]))
}

pub(crate) fn acme() -> TenantId {
    "acme-canary".parse().expect("a legal name")
}

pub(crate) fn umbrella() -> TenantId {
    "umbrella".parse().expect("a legal name")
}

pub(crate) fn alice() -> SubjectId {
    SubjectId::from_bytes(*b"alice's subject id of 32 bytes..")
}

pub(crate) fn bob() -> SubjectId {
    SubjectId::from_bytes(*b"bob's subject id of 32 bytes....")
}

pub(crate) fn scopes() -> ScopeSet {
    ScopeSet::parse("repo:canary read:org", ' ').expect("legal scopes")
}

pub(crate) fn connection(number: u8) -> Connection {
    let (now, pending) = (Timestamp::from_secs(1_000), Timestamp::from_secs(900));
    let credential = Credential::pending(CredentialId::from_bytes([0xC0 | number; 16]), pending);
    Connection {
        id: ConnectionId::from_bytes([number; 16]),
        tenant: acme(),
        subject: alice(),
        provider: "github-canary".parse().expect("a legal name"),
        account: Some("alice@canary.example".to_owned()),
        created_at: now,
        consent: Consent { subject: alice(), agent: agent(), scopes: scopes(), at: now },
        credential: credential.authorized(granted(), now).expect("it was pending").credential,
        remote_revocation: None,
        withheld: false,
    }
}

pub(crate) fn holders(connection: &Connection) -> Holders {
    let holder = "holder-canary".parse().expect("a legal holder");
    let report = AppliedReport { holder, generation: 1, outcome: ApplyOutcome::Applied };
    let heard = Holders::of(connection).hear(&report, Timestamp::from_secs(1_200));
    let news = if let Heard::News(holders) = heard { Some(holders) } else { None };
    news.expect("a first report")
}

pub(crate) fn next_generation(connection: &Connection) -> Connection {
    let refreshed = connection.credential.refreshed(granted(), Timestamp::from_secs(1_500));
    Connection { credential: refreshed.expect("it was connected").credential, ..connection.clone() }
}

pub(crate) fn granted() -> Granted {
    Granted {
        scopes: scopes(),
        expires_at: Some(Timestamp::from_secs(4_600)),
        refreshable: true,
        refresh_token_end: None,
    }
}

pub(crate) fn tokens(number: u8) -> TokenSet {
    TokenSet {
        access: AccessToken::new(format!("access-canary-{number}")),
        refresh: Some(RefreshToken::new(format!("refresh-canary-{number}"))),
        id_token: Some(IdToken::new(format!("id-token-canary-{number}"))),
    }
}

pub(crate) fn flow_tokens(number: u8) -> FlowTokens {
    FlowTokens {
        tokens: tokens(number),
        granted: granted(),
        obtained_at: Timestamp::from_secs(1_001),
        nonce: Some(nonce()),
    }
}

pub(crate) fn agent() -> Option<claviger::domain::AgentId> {
    Some("agent-canary".parse().expect("a legal agent"))
}

pub(crate) fn flow(number: u16) -> Flow {
    let mut id = [0xF0; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    Flow {
        id: FlowId::from_bytes(id),
        tenant: acme(),
        subject: alice(),
        family: "family-canary".parse().expect("a legal name"),
        agent: agent(),
        plugin: Some("jira-canary".parse().expect("a legal name")),
        provider: "github-canary".parse().expect("a legal name"),
        scopes: scopes(),
        account: Some("alice@canary.example".to_owned()),
        return_url: Some("https://return.canary.example/done".parse().expect("a legal URL")),
        renews: None,
        attempts: 1,
        created_at: Timestamp::from_secs(1_000),
        expires_at: Timestamp::from_secs(1_600),
        state: FlowState::Open,
        session: Some(BrowserSession { cookie: [9; 32], signed_in_at: Timestamp::from_secs(1_100) }),
    }
}

pub(crate) fn attempt(flow: &Flow) -> Attempt {
    Attempt {
        flow: flow.id,
        tenant: flow.tenant.clone(),
        subject: flow.subject,
        provider: flow.provider.clone(),
        redirect_uri: "https://redirect.canary.example/callback".parse().expect("a legal URL"),
        issuer: Some("https://issuer.canary.example".to_owned()),
        iss_parameter_supported: true,
        token_endpoint: "https://issuer.canary.example/token".parse().expect("a legal URL"),
        expires_at: flow.expires_at,
        consumed_by: None,
        browser: Some([8; 32]),
    }
}

pub(crate) fn state(number: u8) -> FlowSecret {
    FlowSecret::new(format!("state-canary-{number}"))
}

pub(crate) fn verifier() -> CodeVerifier {
    CodeVerifier::new("verifier-canary".to_owned())
}

pub(crate) fn nonce() -> Nonce {
    Nonce::new("nonce-canary".to_owned())
}

pub(crate) fn job(number: u8, kind: JobKind) -> Job {
    Job { id: JobId::from_bytes([0x70 | number; 16]), tenant: acme(), subject: alice(), kind, failures: 0 }
}

pub(crate) fn event(connection: &Connection, kind: EventKind) -> CredentialEvent {
    CredentialEvent {
        kind,
        tenant: connection.tenant.clone(),
        occurred_at: Timestamp::from_secs(1_000),
        status: CredentialStatus::of(connection),
    }
}

pub(crate) fn audit_record() -> AuditRecord {
    AuditRecord {
        at: Timestamp::from_secs(1_000),
        tenant: acme(),
        subject: Some(alice()),
        agent: agent(),
        action: AuditAction::ConnectionChanged,
        result: AuditResult::Allowed,
        reason: None,
        link: None,
        provider: Some("github-canary".parse().expect("a legal name")),
        plugin: Some("jira-canary".parse().expect("a legal name")),
        connection: Some(connection(1).id),
        generation: Some(1),
        request_id: Some("request-1".parse().expect("a legal request id")),
        peer: None,
        user_agent: Some("browser-canary".to_owned()),
        context: CallContext { session_id: Some("session-canary".to_owned()), ..CallContext::default() },
        target: None,
        applied: None,
        repeated: None,
        purged: None,
    }
}
