//! Sealed bytes open in the one place that they were made for.

use std::sync::Arc;

use claviger::{
    audit::Chain,
    domain::{ConnectionId, EntryId, FlowId, InstallationId, JobId, Sealed, Timestamp},
    sealing::AuditKey,
    store::{FieldTag, RecordKey, RecordKind, Row},
    vault::{TokenSet, Tokens, Vault, VaultError},
};

use crate::{
    memory_store::MemoryStore,
    populated::{LATER, Populated, people, refused, roots, rotate_everything},
    specimens::{next_generation, state, tokens},
    tampering_store::TamperingStore,
};

const KINDS: [RecordKind; 12] = [
    RecordKind::Installation,
    RecordKind::Key,
    RecordKind::Tenant,
    RecordKind::Subject,
    RecordKind::Connection,
    RecordKind::Flow,
    RecordKind::Attempt,
    RecordKind::Job,
    RecordKind::Configuration,
    RecordKind::RootKeys,
    RecordKind::Suspension,
    RecordKind::Holders,
];

struct Field {
    record: RecordKey,
    tag: FieldTag,
    sealed: Sealed,
    row: Row,
}

/// Every sealed field, of every record of everybody, as it is now and as it was two generations and a rotation ago, put
/// into the place of every other.
#[tokio::test]
async fn no_two_ciphertexts_can_be_exchanged() {
    let (store, world) = tampered().await;
    let mut donors = fields(&store).await;
    for _ in 0..2 {
        move_on(&world.vault).await;
        donors.extend(fields(&store).await);
    }
    let vault = world.open(roots(2)).await.unwrap();
    rotate_everything(&vault, Timestamp::from_secs(5_000)).await.unwrap();
    let places = fields(&store).await;
    donors.extend(fields(&store).await);
    donors.sort_by(|a, b| a.sealed.as_bytes().cmp(b.sealed.as_bytes()));
    donors.dedup_by(|a, b| a.sealed == b.sealed);
    assert!(places.len() > 80 && donors.len() > 120, "{} {}", places.len(), donors.len());

    let mut exchanged = 0;
    for place in &places {
        for donor in donors.iter().filter(|donor| donor.sealed != place.sealed) {
            let mut row = place.row.clone();
            for (tag, sealed) in &mut row.fields {
                if *tag == place.tag {
                    *sealed = donor.sealed.clone();
                }
            }
            store.forge(&place.record, Some(row));
            // Keys at hand would hide that a key's own row is forged.
            let opened = if is_of_keys(place) { world.open(roots(2)).await } else { Ok(vault.clone()) };
            let refused = match opened {
                Ok(vault) => {
                    let before = vault.alarms();
                    read(&vault, &place.record).await.is_err() && vault.alarms() > before
                }
                Err(_) => true,
            };
            let (from, to) = ((&donor.record, donor.tag), (&place.record, place.tag));
            assert!(refused, "{from:?} opens as {to:?}");
            store.repent();
            exchanged += 1;
        }
    }
    assert!(exchanged > 10_000, "{exchanged}");
    // Without a forgery every one of the reads succeeds.
    let vault = world.open(roots(2)).await.unwrap();
    for place in &places {
        read(&vault, &place.record).await.unwrap();
    }
    assert_eq!(vault.alarms(), 0);
}

fn is_of_keys(field: &Field) -> bool {
    use RecordKind as R;
    matches!(field.record.kind(), R::Installation | R::Key | R::Tenant | R::RootKeys)
}

async fn tampered() -> (Arc<TamperingStore>, Populated) {
    let audit_key = AuditKey::default();
    let (installation, epoch) = (InstallationId::from_bytes([1; 16]), EntryId::from_bytes([2; 16]));
    let inner = MemoryStore::new(installation, epoch, Box::new(Chain::new(audit_key.clone())));
    let store = Arc::new(TamperingStore::over(Arc::new(inner)));
    (store.clone(), Populated::over(store, audit_key).await)
}

async fn fields(store: &TamperingStore) -> Vec<Field> {
    let mut fields = Vec::new();
    for kind in KINDS {
        for (record, row) in store.rows(kind).await {
            let of = |(tag, sealed): &(FieldTag, Sealed)| Field {
                record: record.clone(),
                tag: *tag,
                sealed: sealed.clone(),
                row: row.clone(),
            };
            fields.extend(row.fields.iter().map(of));
        }
    }
    fields
}

/// The next generation of everybody's connection.
async fn move_on(vault: &Vault) {
    for (number, tenant, subject) in people() {
        let stored = vault.connections(&tenant, subject, None).await.unwrap().remove(0);
        let mut change = vault.change(&tenant, Some(subject)).await.unwrap();
        let tokens: TokenSet = tokens(40 + number);
        change.update_connection(&stored, &next_generation(&stored.value), Tokens::Replace(&tokens), LATER);
        change.commit().await.unwrap();
    }
}

/// Reads the record with all that is sealed in it, or, for keys and those who own them, whatever needs it.
async fn read(vault: &Vault, record: &RecordKey) -> Result<(), VaultError> {
    let id = record.id();
    let short = || <[u8; 16]>::try_from(id.as_ref()).unwrap();
    match record.kind() {
        RecordKind::Connection => {
            let stored = vault.any_connection(ConnectionId::from_bytes(short())).await?.unwrap();
            vault.connection_tokens(&stored).await?;
        }
        RecordKind::Holders => {
            let stored = vault.any_connection(ConnectionId::from_bytes(short())).await?.unwrap();
            vault.holders(&stored.value).await?;
        }
        RecordKind::Flow => {
            let stored = vault.any_flow(FlowId::from_bytes(short())).await?.unwrap();
            vault.flow_tokens(&stored).await?;
        }
        RecordKind::Job => {
            let stored = vault.job(JobId::from_bytes(short())).await?.unwrap();
            vault.job_tokens(&stored).await?;
        }
        RecordKind::Attempt => {
            for (number, ..) in people() {
                let stored = vault.attempt(&state(number)).await?.unwrap();
                vault.attempt_verifier(&stored).await?;
            }
        }
        RecordKind::Subject => {
            for (_, tenant, subject) in people() {
                vault.subject(&tenant, subject).await?;
            }
        }
        RecordKind::Configuration => drop(vault.configuration().await?),
        RecordKind::Suspension => drop(vault.suspension(&refused()).await?),
        RecordKind::Installation | RecordKind::Key | RecordKind::Tenant | RecordKind::RootKeys => {
            for (_, tenant, subject) in people() {
                vault.change(&tenant, Some(subject)).await?;
            }
            vault.change(&claviger::domain::installation_tenant(), None).await?;
        }
    }
    Ok(())
}
