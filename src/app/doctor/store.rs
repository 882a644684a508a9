//! Whether the store opens under its root key, and whether its audit chain holds.

use std::{
    fs::{OpenOptions, TryLockError},
    sync::Arc,
};

use super::{About, Finding};
use crate::{
    app::build,
    audit::{self, Position},
    config::Config,
    sealing::{AuditKey, Random, RootKeys},
    vault::Vault,
};

/// Audit records read at a time.
const PAGE: usize = 1000;

pub(super) async fn examine(config: &Config, roots: Option<RootKeys>, random: &Random) -> Vec<Finding> {
    let directory = &config.store.directory;
    let (about, chain) = (About::new("store", directory.display()), About::new("audit chain", directory.display()));
    let Some(roots) = roots else {
        let cure = "mend the root keys first";
        return vec![
            about.warn("it was not opened without its root keys", cure),
            chain.warn("it was not checked", cure),
        ];
    };
    if !directory.join("db").exists() {
        return vec![about.ok("there is none yet")];
    }
    if is_in_use(config) {
        let cure = "stop the broker to have the chain checked";
        return vec![about.ok("in use by a running broker"), chain.warn("it was not checked", cure)];
    }
    let audit_key = AuditKey::default();
    let store = match build::open_store(config, &audit_key, random).await {
        Ok(store) => store,
        Err(error) => {
            return vec![
                about
                    .fail(format!("it does not open: {error:#}"), "restore a backup with `claviger restore --replace`"),
            ];
        }
    };
    let findings = match Vault::open(Arc::clone(&store), roots, random.clone(), &audit_key).await {
        Err(error) => {
            let cure = "put back the root key that it was made with, or the directory that belongs to this key";
            vec![about.fail(error.to_string(), cure)]
        }
        Ok(vault) => vec![keys(&about, &vault).await, audit_chain(&chain, &vault).await],
    };
    store.close().await;
    findings
}

/// By the lock that a broker holds as long as it lives.
fn is_in_use(config: &Config) -> bool {
    let lock = OpenOptions::new().read(true).write(true).open(config.store.directory.join("lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Every tenant's keys open, and what was not written there is found in none of their rows.
async fn keys(about: &About, vault: &Vault) -> Finding {
    match (vault.list_keys().await, vault.rotations().await) {
        (Ok(_), Ok(under_way)) if under_way.is_empty() => about.ok("it opens under its root keys"),
        (Ok(_), Ok(under_way)) => {
            let left: u64 = under_way.iter().map(|(_, rotation)| rotation.left).sum();
            about.ok(format!("it opens under its root keys; {left} rows are on their way to newer keys"))
        }
        (Err(error), _) | (_, Err(error)) => {
            about.fail(error.to_string(), "restore the store from its copy, and find out who has edited its files")
        }
    }
}

async fn audit_chain(about: &About, vault: &Vault) -> Finding {
    let mut end: Option<Position> = None;
    loop {
        let after = end.map_or(0, |end| end.sequence);
        let Ok(page) = vault.store().audit(after, PAGE).await else {
            return about.fail(
                format!("records after {after} cannot be read"),
                "restore a backup with `claviger restore --replace`",
            );
        };
        if page.is_empty() {
            return about.ok(format!("{after} records hold together"));
        }
        match audit::check(vault.keys().audit(), end, page.iter().map(|entry| &*entry.linked)) {
            Ok(position) => end = position,
            Err(broken) => {
                let cure = "somebody has edited the store's files: compare them with the last backup, and find out who";
                return about.fail(broken.to_string(), cure);
            }
        }
    }
}
