//! Who is connected: subjects with four connections each, all of it made from their numbers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use claviger::{
    broker::GetPluginToken,
    domain::{
        AccessToken, Call, CallContext, Caller, Connection, ConnectionId, Consent, Credential, CredentialId, Granted,
        RefreshToken, Role, ScopeSet, SubjectId, TenantId, Timestamp,
    },
    vault::{TokenSet, Vault},
};

use super::product::PROVIDERS;

/// Connections of a subject, one to each provider.
pub(super) const EACH: u64 = PROVIDERS.len() as u64;
/// Who writes at the same time.
pub(super) const WRITERS: usize = 64;

const SINCE: Timestamp = Timestamp::from_secs(1_799_999_000);

/// Number `number` of a sequence without order or repetition (SplitMix64).
pub(super) fn scattered(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

pub(super) fn tenant() -> TenantId {
    "acme".parse().unwrap()
}

pub(super) fn subject(number: u64) -> SubjectId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&scattered(number).to_be_bytes());
    SubjectId::from_bytes(bytes)
}

pub(super) fn connection_id(number: u64) -> ConnectionId {
    ConnectionId::from_bytes(bytes(number))
}

/// About 2 KiB sealed, with [`tokens`].
fn connection(number: u64) -> Connection {
    let credential = Credential::pending(CredentialId::from_bytes(bytes(number)), SINCE);
    let subject = subject(number / EACH);
    Connection {
        id: connection_id(number),
        tenant: tenant(),
        subject,
        provider: provider(number).parse().unwrap(),
        account: Some(format!("account {number}")),
        created_at: SINCE,
        consent: Consent { subject, agent: None, scopes: scopes(), at: SINCE },
        credential: credential.authorized(granted(), SINCE).unwrap().credential,
        remote_revocation: None,
        withheld: false,
    }
}

pub(super) fn provider(number: u64) -> &'static str {
    PROVIDERS[(number % EACH) as usize]
}

pub(super) fn granted() -> Granted {
    let expires_at = Some(SINCE.plus(Duration::from_secs(365 * 24 * 3600)));
    Granted { scopes: scopes(), expires_at, refreshable: true, refresh_token_end: None }
}

pub(super) fn tokens(number: u64, generation: u64) -> TokenSet {
    TokenSet {
        access: AccessToken::new(format!("{:x}.{generation}{}", scattered(number), "a".repeat(900))),
        refresh: Some(RefreshToken::new(format!("{:x}.{generation}{}", scattered(number), "r".repeat(300)))),
        id_token: None,
    }
}

fn scopes() -> ScopeSet {
    ["read".parse().unwrap()].into_iter().collect()
}

fn bytes(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&scattered(number).to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Stores `count` connections, the four of a subject in one change set.
pub(super) async fn load(vault: &Vault, count: u64) {
    for_each(count / EACH, {
        let vault = vault.clone();
        move |owner| {
            let vault = vault.clone();
            async move {
                let mut change = vault.change(&tenant(), Some(subject(owner))).await.unwrap();
                for number in owner * EACH..(owner + 1) * EACH {
                    change.insert_connection(&connection(number), &tokens(number, 1), due(number));
                }
                change.commit().await.unwrap();
            }
        }
    })
    .await;
}

/// Spread over a year from now on.
pub(super) fn due(number: u64) -> Timestamp {
    SINCE.plus(Duration::from_secs(scattered(number) % (365 * 24 * 3600)))
}

/// Runs `work` on all the numbers below `end`, [`WRITERS`] at a time.
pub(super) async fn for_each<F: Future<Output = ()> + Send + 'static>(
    end: u64,
    work: impl Fn(u64) -> F + Clone + Send + 'static,
) {
    let next = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (next, work) = (Arc::clone(&next), work.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return;
                    }
                    work(number).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}

pub(super) fn call(owner: u64) -> Call {
    let caller = Caller {
        tenant: tenant(),
        subject: subject(owner),
        family: "platform".parse().unwrap(),
        external_id: "bench".to_owned(),
        agent: None,
        audience: vec!["claviger".to_owned()],
        scopes: ScopeSet::default(),
        roles: [Role::User].into(),
        issued_at: Timestamp::EPOCH,
        expires_at: Timestamp::NEVER,
    };
    Call {
        caller: Arc::new(caller),
        request_id: "bench".parse().unwrap(),
        peer: None,
        user_agent: None,
        context: CallContext::default(),
    }
}

pub(super) fn ask(number: u64) -> GetPluginToken {
    GetPluginToken {
        plugin: provider(number).parse().unwrap(),
        account: None,
        scopes: None,
        min_remaining: None,
        min_generation: None,
        rejected_token_sha256: None,
        return_url: None,
    }
}
