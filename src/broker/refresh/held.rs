//! Tokens that the store could not take: a provider has rotated, so what is in hand may be the only living copy.
//!
//! They are kept outside the store's handle, in zeroizing memory and as a sealed, fsynced file, until the store has
//! them. While any are held the broker is not ready, and shutdown waits for them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Mutex;

use super::Flown;
use crate::{
    broker::{Broker, BrokerError},
    domain::{Attempt, Connection, EntryId, Granted, ProviderId, Sealed, SubjectId, TenantId, Timestamp},
    vault::{FlowTokens, HeldTokens, Owner, Stored, TokenSet, VaultError},
};

/// What is held, for one connection or one flow.
pub(in crate::broker) struct Held(HeldTokens);

/// The record that names the key under which tokens are sealed while they are held.
pub(in crate::broker) enum Beside<'a> {
    Connection(&'a Stored<Connection>),
    Attempt(&'a Stored<Attempt>),
}

/// The held tokens' place and number.
pub(in crate::broker) struct HeldPlace {
    directory: Option<PathBuf>,
    count: AtomicUsize,
    /// Held by whoever asks the store again: one at a time, in the order in which they came.
    again: Mutex<()>,
}

impl Held {
    pub(in crate::broker) fn of_connection(
        connection: &Connection,
        generation: u64,
        tokens: TokenSet,
        granted: Granted,
        obtained_at: Timestamp,
    ) -> Self {
        Self(HeldTokens {
            owner: Owner::Connection {
                id: connection.id,
                generation,
                tenant: connection.tenant.clone(),
                subject: connection.subject,
                provider: connection.provider.clone(),
            },
            waiting: FlowTokens { tokens, granted, obtained_at, nonce: None },
        })
    }

    pub(in crate::broker) fn of_flow(attempt: &Attempt, parked: &FlowTokens) -> Self {
        Self(HeldTokens { owner: Owner::Flow(Box::new(attempt.clone())), waiting: parked.clone() })
    }

    pub(super) fn tokens(&self) -> &TokenSet {
        &self.0.waiting.tokens
    }

    fn owner(&self) -> (&TenantId, SubjectId, &ProviderId) {
        match &self.0.owner {
            Owner::Connection { tenant, subject, provider, .. } => (tenant, *subject, provider),
            Owner::Flow(attempt) => (&attempt.tenant, attempt.subject, &attempt.provider),
        }
    }

    pub(super) fn granted(&self) -> &Granted {
        &self.0.waiting.granted
    }

    pub(super) fn generation(&self) -> u64 {
        match self.0.owner {
            Owner::Connection { generation, .. } => generation,
            Owner::Flow(_) => 0,
        }
    }
}

impl HeldPlace {
    pub(in crate::broker) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, count: AtomicUsize::new(0), again: Mutex::default() }
    }

    /// How many token sets wait for the store.
    pub(in crate::broker) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Broker {
    /// Stores held tokens, repeating it until the store takes them. Returns early only for reasons that repeating
    /// cannot cure. `None`: they belonged to a flow.
    pub(in crate::broker) async fn until_stored(
        &self,
        held: &Held,
        beside: Beside<'_>,
    ) -> Result<Option<Flown>, BrokerError> {
        match self.store_held(held).await {
            Err(BrokerError::StoreUnavailable) => {}
            // The provider may have rotated: what no record takes is kept for whoever mends that.
            Err(BrokerError::Vault(error)) => {
                tracing::error!(%error, "fresh tokens cannot be stored; they are left in a file");
                self.write_held(&held.0, beside).await;
                return Err(error.into());
            }
            other => return other,
        }
        self.held().count.fetch_add(1, Ordering::Relaxed);
        tracing::error!("the store cannot take fresh tokens; they are held until it can");
        let file = self.write_held(&held.0, beside).await;
        let stored = self.store_again(held, file.is_some()).await;
        if matches!(stored, Err(BrokerError::StoreUnavailable | BrokerError::ShuttingDown)) {
            return stored;
        }
        // Stored, or not to be stored by any repetition: then the file stays, as it does at the next start.
        self.held().count.fetch_sub(1, Ordering::Relaxed);
        if let (Ok(_), Some(file)) = (&stored, file) {
            remove(&file);
        }
        stored
    }

    /// Waits until the store is there and takes the tokens. `in_file`: should the process be stopped before, the next
    /// one stores them; what is in memory alone is waited for.
    async fn store_again(&self, held: &Held, in_file: bool) -> Result<Option<Flown>, BrokerError> {
        let _turn = tokio::select! {
            biased;
            turn = self.held().again.lock() => turn,
            () = self.stopping().cancelled(), if in_file => return Err(BrokerError::ShuttingDown),
        };
        let mut head = self.vault().store().watch_head();
        head.mark_changed();
        loop {
            let available =
                async { head.changed().await.is_ok() && head.wait_for(|head| head.available).await.is_ok() };
            tokio::select! {
                biased;
                // No more news: the store is closed for good.
                available = available => if !available { return Err(BrokerError::StoreUnavailable) },
                () = self.stopping().cancelled(), if in_file => return Err(BrokerError::ShuttingDown),
            }
            match self.store_held(held).await {
                Err(BrokerError::StoreUnavailable) => {}
                other => return other,
            }
        }
    }

    /// Applies what an earlier process could not store. Called before anything is served. A file that cannot be used is
    /// no reason to serve nobody.
    pub(in crate::broker) async fn recover_held(&self) -> Result<(), BrokerError> {
        let Some(directory) = &self.held().directory else { return Ok(()) };
        let entries = match fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                tracing::error!(directory = %directory.display(), %error, "held tokens cannot be looked for");
                return Ok(());
            }
        };
        for file in entries.into_iter().map(|entry| entry.path()) {
            match self.recover(&file).await {
                Ok(()) => remove(&file),
                Err(BrokerError::StoreUnavailable) => return Err(BrokerError::StoreUnavailable),
                Err(BrokerError::SubjectErased) => remove(&file),
                Err(error) => {
                    tracing::error!(file = %file.display(), %error, "held tokens cannot be applied; the file is left where it is");
                }
            }
        }
        Ok(())
    }

    async fn recover(&self, file: &Path) -> Result<(), BrokerError> {
        let bytes = fs::read(file).map_err(|_| VaultError::Corrupt { record: file.display().to_string() })?;
        let held = self.vault().open_held(&Sealed::from_bytes(bytes.into())).await?;
        self.store_held(&Held(held)).await.map(drop)
    }

    /// Applies tokens to the records as they are now; does nothing when that has happened already. Those of a subject who
    /// was erased meanwhile go back to their provider, and to nobody else.
    async fn store_held(&self, held: &Held) -> Result<Option<Flown>, BrokerError> {
        let (tenant, subject, provider) = held.owner();
        if self.is_erased(tenant, subject).await? {
            self.return_to_provider(tenant, subject, provider, held.tokens()).await?;
            return Ok(Some(Flown::Stopped));
        }
        let stored = match &held.0.owner {
            Owner::Connection { id, .. } => self.apply_tokens(*id, held).await.map(Some),
            Owner::Flow(attempt) => self.try_park(attempt, &held.0.waiting).await.map(|()| None),
        };
        match stored {
            Err(BrokerError::SubjectErased) => {
                self.return_to_provider(tenant, subject, provider, held.tokens()).await?;
                Ok(Some(Flown::Stopped))
            }
            // The connection was there a moment ago, and nothing but an erasure removes one.
            Ok(Some(Flown::Stopped)) if self.is_erased(tenant, subject).await? => {
                self.return_to_provider(tenant, subject, provider, held.tokens()).await?;
                Ok(Some(Flown::Stopped))
            }
            other => other,
        }
    }

    /// `None` when the file cannot be written; the memory copy is then the only one.
    async fn write_held(&self, held: &HeldTokens, beside: Beside<'_>) -> Option<PathBuf> {
        let directory = self.held().directory.clone()?;
        let sealed = match beside {
            Beside::Connection(stored) => self.vault().seal_held(stored, held).await,
            Beside::Attempt(stored) => self.vault().seal_held(stored, held).await,
        };
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(error) => {
                tracing::error!(%error, "held tokens could not be sealed");
                return None;
            }
        };
        let file = directory.join(EntryId::from_bytes(self.fresh().ok()?).to_string());
        match tokio::task::spawn_blocking(move || write_durably(&directory, &file, sealed.as_bytes()).map(|()| file))
            .await
        {
            Ok(Ok(file)) => Some(file),
            _ => {
                tracing::error!("held tokens could not be written to a file");
                None
            }
        }
    }
}

fn write_durably(directory: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::File::open(directory)?.sync_all()
}

fn remove(file: &Path) {
    if let Err(error) = fs::remove_file(file) {
        tracing::warn!(file = %file.display(), %error, "a held file could not be removed");
    }
}
