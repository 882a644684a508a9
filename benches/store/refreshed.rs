//! Disk after credentials were refreshed again and again, while the logs are cut to their retention.

use std::{fs, path::Path};

use claviger::{
    domain::{AuditAction, AuditRecord, Clock, Connection, CredentialEvent, CredentialStatus, EventKind, Timestamp},
    store::sled,
    vault::{Tokens, Vault},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{
    child::ask_one,
    measure::{disk, live, mib, timed},
    place,
    population::{self, connection_id, due, for_each, granted, scattered, subject, tenant, tokens},
    product::{DAY, KEPT, Product, make_place, store_of},
    scale::number,
};

/// Each a day.
const ROUNDS: u64 = 10;

pub(super) fn measure(credentials: u64) {
    let place = place("refreshed");
    if place.exists() {
        fs::remove_dir_all(&place).unwrap();
    }
    make_place(&place);
    let went = ask_one("refresh", &place, credentials);
    let (disk, live) = (disk(&store_of(&place)), live(&store_of(&place)));
    println!("\n## {credentials} credentials, each refreshed {ROUNDS} times\n");
    println!("One round a day; both logs are cut every day, events to 1 day, audit records to {KEPT}.\n");
    println!("| what | figure |\n|---|---|");
    println!("| on the disk after loading, MiB | {:.0} |", mib(number(&went, "loaded") as u64));
    println!("| on the disk after the rounds, MiB | {:.0} |", mib(disk));
    println!("| live data, MiB | {:.0} |", mib(live));
    println!("| **disk by live data** | **{:.2}** |", disk as f64 / live as f64);
    let (compacted, time) = timed(|| sled::compact(&store_of(&place), |_| {}).unwrap());
    println!("| after `claviger store compact`, MiB | {:.0} |", mib(compacted.after));
    println!("| **disk by live data then** | **{:.2}** |", compacted.after as f64 / live as f64);
    println!("| `claviger store compact`, s | {:.1} |", time.as_secs_f64());
    println!("| refreshes/s | {:.0} |", (credentials * ROUNDS) as f64 / number(&went, "seconds"));
    println!("| cutting the logs, share of the time | {:.2} |", number(&went, "cutting") / number(&went, "seconds"));
    fs::remove_dir_all(&place).unwrap();
}

/// In the child.
pub(super) fn refresh(directory: &Path, count: u64) -> Value {
    Runtime::new().unwrap().block_on(async {
        let product = Product::open(directory).await;
        population::load(&product.vault, count).await;
        let loaded = disk(&store_of(directory));
        let begun = std::time::Instant::now();
        let mut cutting = 0.0;
        for round in 0..ROUNDS {
            product.clock.turn(DAY);
            let (vault, now) = (product.vault.clone(), product.clock.now());
            // every round in another order
            let offset = scattered(round) % count;
            for_each(count, move |turn| refresh_one(vault.clone(), scattered_below(turn, offset, count), now)).await;
            let cut = std::time::Instant::now();
            product.broker.retain().await.unwrap();
            cutting += cut.elapsed().as_secs_f64();
        }
        let seconds = begun.elapsed().as_secs_f64();
        product.close().await;
        json!({ "loaded": loaded, "seconds": seconds, "cutting": cutting })
    })
}

/// Every number below `count` once: a stride that shares no factor with it.
fn scattered_below(turn: u64, offset: u64, count: u64) -> u64 {
    const STRIDE: u64 = 1_000_003;
    (turn * STRIDE + offset) % count
}

/// As the broker stores a refresh: new tokens, an event and an audit record.
async fn refresh_one(vault: Vault, number: u64, now: Timestamp) {
    let from = vault.connection(&tenant(), connection_id(number)).await.unwrap().unwrap();
    let refreshed = from.value.credential.refreshed(granted(), now).unwrap().credential;
    let to = Connection { credential: refreshed, ..from.value.clone() };
    let mut change = vault.change(&tenant(), Some(subject(number / population::EACH))).await.unwrap();
    let fresh = tokens(number, to.credential.generation);
    change.update_connection(&from, &to, Tokens::Replace(&fresh), due(number));
    let status = CredentialStatus::of(&to);
    change.event(&CredentialEvent { kind: EventKind::Refreshed, tenant: tenant(), occurred_at: now, status });
    change.audit(&AuditRecord {
        subject: Some(to.subject),
        provider: Some(to.provider.clone()),
        connection: Some(to.id),
        generation: Some(to.credential.generation),
        ..AuditRecord::by_broker(tenant(), AuditAction::RefreshSettled, now)
    });
    change.commit().await.unwrap();
}
