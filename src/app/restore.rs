//! A store from an archive: verified to its end before anything is touched, filled beside the place, proven, and only
//! then put there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    build::{self, ERASURES},
    replacement::Replacement,
};
use crate::{
    archive::{End, Entry, Header, Reader, verify},
    config::Config,
    domain::{AuditAction, AuditRecord, Clock, EntryId, Timestamp, installation_tenant},
    sealing::{AuditKey, Random, RootKeys},
    store::{Head, sled::Import},
    vault::{ErasureList, Vault},
};

/// What restoring is about.
pub struct Restore<'a> {
    pub config: &'a Config,
    pub archive: &'a Path,
    /// Also in the place of a store that is there.
    pub replace: bool,
    /// A list of erasures to follow, beside the one of the store that is there.
    pub erasures: Option<&'a Path>,
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
    /// How many subjects were erased again; `None`: there was no list of erasures to follow.
    pub erased: Option<usize>,
    /// Where the store is now that was there before.
    pub kept: Option<PathBuf>,
}

/// Why nothing was restored. What was there is there still.
#[derive(Debug, thiserror::Error)]
pub enum NotRestored {
    #[error("{path} cannot be read")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path} cannot be written")]
    Unwritten { path: PathBuf, source: io::Error },
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
        let roots = RootKeys::load(&self.config.sealing.root_keys)?;
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
        let of_before = Some(place.directory().join(ERASURES)).filter(|list| list.exists());
        let followed = bring_erasures([of_before, self.erasures.map(Path::to_owned)], place.staging())?;
        let mut config = self.config.clone();
        config.store.directory = place.staging().to_owned();
        let erased = prove(config, roots, self.random, self.clock.now(), &end).await?;
        let directory = place.directory().to_owned();
        let erased = followed.then_some(erased);
        Ok(Restored { header, end, epoch, directory, erased, kept: place.finish()? })
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

/// Opens the new store as a broker would, erases again whoever is on the list of erasures, and puts on record what was
/// done. Nobody is known here but who may use the files.
async fn prove(config: Config, roots: RootKeys, random: &Random, now: Timestamp, end: &End) -> anyhow::Result<usize> {
    let audit_key = AuditKey::default();
    let store = build::open_store(&config, &audit_key, random).await?;
    let record = AuditRecord {
        generation: Some(end.revision.0),
        ..AuditRecord::by_broker(installation_tenant(), AuditAction::StoreRestored, now)
    };
    let proving = async {
        let vault = Vault::open(Arc::clone(&store), roots, random.clone(), &audit_key).await?;
        let mut change = vault.change(&record.tenant, None).await?;
        change.audit(&record);
        change.commit().await?;
        vault.replay_erasures(&ErasureList::new(config.store.directory.join(ERASURES)), now).await
    };
    let erased = proving.await;
    store.close().await;
    Ok(erased?)
}

/// Brings the lists of erasures to the new store, durably; the archive has none. Whether there was one.
fn bring_erasures(lists: [Option<PathBuf>; 2], staging: &Path) -> Result<bool, NotRestored> {
    let mut lines = Vec::new();
    for path in lists.into_iter().flatten() {
        let text = fs::read_to_string(&path).map_err(|source| NotRestored::Unreadable { path, source })?;
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            if !lines.iter().any(|known| known == line) {
                lines.push(line.to_owned());
            }
        }
    }
    if lines.is_empty() {
        return Ok(false);
    }
    let path = staging.join(ERASURES);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| {
        file.write_all(lines.concat().as_bytes())?;
        file.sync_all()?;
        File::open(staging)?.sync_all()
    });
    written.map_err(|source| NotRestored::Unwritten { path, source })?;
    Ok(true)
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
