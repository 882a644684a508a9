//! A store from an archive: verified to its end before anything is touched, filled beside the place, proven, and only
//! then put there.

use std::{
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{build, replacement::Replacement};
use crate::{
    archive::{End, Entry, Header, Reader, verify},
    config::Config,
    domain::{
        AuditAction, AuditRecord, AuditResult, CallContext, Clock, EntryId, Revision, Timestamp, installation_tenant,
    },
    sealing::{AuditKey, Random, RootKey, root_key},
    store::{Head, sled::Import},
    vault::Vault,
};

/// What restoring is about.
pub struct Restore<'a> {
    pub config: &'a Config,
    pub archive: &'a Path,
    /// Also in the place of a store that is there.
    pub replace: bool,
    pub clock: &'a dyn Clock,
    pub random: &'a Random,
    /// Told how many of the archive's bytes were read, of how many: first to verify it, then to fill the store.
    pub progress: &'a mut dyn FnMut(RestoreStep, u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreStep {
    Verifying,
    Filling,
}

/// A store that was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    pub header: Header,
    pub end: End,
    /// The epoch that the restored store has: streams of before do not go on in it.
    pub epoch: EntryId,
    pub directory: PathBuf,
    /// Where the store is now that was there before.
    pub kept: Option<PathBuf>,
}

/// Why nothing was restored. What was there is there still.
#[derive(Debug, thiserror::Error)]
pub enum NotRestored {
    #[error("{path} cannot be read")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("there is a store in {directory}; give --replace to put the archive's in its place")]
    StoreExists { directory: PathBuf },
}

/// What was there before has this word after its name.
const KEPT: &str = "before-restore";
/// Rows that are added at a time, in bytes.
const PAGE: usize = 1 << 20;

impl Restore<'_> {
    pub async fn run(self) -> anyhow::Result<Restored> {
        build::install_crypto();
        let roots = [root_key::file::load(&self.config.sealing.root_key)?];
        let unreadable = |source| NotRestored::Unreadable { path: self.archive.to_owned(), source };
        let file = File::open(self.archive).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let place = Replacement::begin(&self.config.store.directory, "restoring", KEPT)?;
        if place.has_store() && !self.replace {
            return Err(NotRestored::StoreExists { directory: place.directory().to_owned() }.into());
        }
        let mut counted =
            Counted { file: &file, step: RestoreStep::Verifying, read: 0, length, progress: self.progress };
        verify(&mut counted, &roots)?;
        // The same file again, not the same name: what was verified is what is read.
        (&file).seek(SeekFrom::Start(0)).map_err(unreadable)?;
        (counted.step, counted.read) = (RestoreStep::Filling, 0);
        let epoch = EntryId::from_bytes(self.random.bytes()?);
        let reader = Reader::open(counted, &roots)?;
        let (header, end) = fill(place.staging(), reader, epoch)?;
        let record = restored(self.clock.now(), end.revision);
        prove(self.config, place.staging(), roots, self.random, &record).await?;
        let directory = place.directory().to_owned();
        Ok(Restored { header, end, epoch, directory, kept: place.finish()? })
    }
}

fn fill(staging: &Path, mut reader: Reader<impl Read>, epoch: EntryId) -> anyhow::Result<(Header, End)> {
    let mut import = Import::begin(staging)?;
    let (mut rows, mut size) = (Vec::new(), 0);
    let end = loop {
        match reader.take()? {
            Entry::Row(row) => {
                size += row.place.len() + row.value.as_ref().map_or(0, |value| value.len());
                rows.push(row);
            }
            Entry::End(end) => break end,
        }
        if size >= PAGE {
            import.add(&rows)?;
            rows.clear();
            size = 0;
        }
    };
    import.add(&rows)?;
    let header = reader.header().clone();
    let End { revision, compacted, audit, audit_purged, .. } = end;
    let installation = header.installation;
    import.finish(Head { installation, epoch, revision, compacted, audit, audit_purged, available: true })?;
    Ok((header, end))
}

/// Opens the new store as a broker would, and writes into it what was done.
async fn prove(
    config: &Config,
    staging: &Path,
    roots: [RootKey; 1],
    random: &Random,
    record: &AuditRecord,
) -> anyhow::Result<()> {
    let mut config = config.clone();
    config.store.directory = staging.to_owned();
    let audit_key = AuditKey::default();
    let store = build::open_store(&config, &audit_key, random).await?;
    let [root] = roots;
    let written = async {
        let vault = Vault::open(Arc::clone(&store), root, random.clone(), &audit_key).await?;
        let mut change = vault.change(&record.tenant, None).await?;
        change.audit(record);
        change.commit().await
    };
    let written = written.await;
    store.close().await;
    written?;
    Ok(())
}

/// Nobody is known here but who may use the files.
fn restored(at: Timestamp, revision: Revision) -> AuditRecord {
    AuditRecord {
        at,
        tenant: installation_tenant(),
        subject: None,
        agent: None,
        action: AuditAction::StoreRestored,
        result: AuditResult::Allowed,
        reason: None,
        link: None,
        provider: None,
        plugin: None,
        connection: None,
        generation: Some(revision.0),
        request_id: None,
        peer: None,
        user_agent: None,
        context: CallContext::default(),
        repeated: None,
    }
}

/// Tells how much of the archive was read.
struct Counted<'a> {
    file: &'a File,
    step: RestoreStep,
    read: u64,
    length: u64,
    progress: &'a mut dyn FnMut(RestoreStep, u64, u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read += read as u64;
        (self.progress)(self.step, self.read, self.length);
        Ok(read)
    }
}
