use std::{io, path::PathBuf};

use super::engine::EngineError;
use crate::domain::{EntryId, InstallationId, Revision};

/// Where the store is, what it may use, and what a new one is called.
#[derive(Clone, Debug)]
pub struct SledOptions {
    /// Created with mode 0700 when it is absent. No other process may use it.
    pub directory: PathBuf,
    /// Bytes of sled's page cache. Reads that miss the row cache are fast while this is above the size of the data.
    pub page_cache: u64,
    /// Bytes of sealed rows and index pages that are kept ready, without asking sled.
    pub row_cache: u64,
    /// Of a new store; an existing one keeps its own. Random, from the caller.
    pub installation: InstallationId,
    /// Of a new store; an existing one keeps its own. Random, from the caller.
    pub epoch: EntryId,
}

/// The store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the store directory {directory} is in use by another process; stop it, or choose another directory")]
    InUse { directory: PathBuf },
    #[error(
        "others may enter the store directory {directory} (mode {mode:o}) and it is not ours to close; chmod it to 700"
    )]
    Exposed { directory: PathBuf, mode: u32 },
    #[error("{path} cannot be read or written")]
    Unreadable { path: PathBuf, source: io::Error },
    /// sled reported an I/O error while the store was being checked.
    #[error("the store's files failed")]
    Failed { source: io::Error },
    /// A change set is there in part. Restore a backup.
    #[error("the change set of revision {} was not written whole", revision.0)]
    TornChangeSet { revision: Revision },
    #[error("the store has format {found}, which this version does not know")]
    UnknownFormat { found: u8 },
    #[error("the row {row} is corrupt")]
    Corrupt { row: String },
    #[error("there is a store in {directory} already; choose another directory, or have that one replaced")]
    Occupied { directory: PathBuf },
    #[error("there is no store in {directory}")]
    Absent { directory: PathBuf },
    /// A copy was not put in place to its end, and there was no store before.
    #[error(
        "filling {directory} from a copy was interrupted; fill it again, or remove its directory `filling` to begin empty"
    )]
    HalfFilled { directory: PathBuf },
    /// A copy's rows do not lead to the copy's head.
    #[error("the copy says that it ends at revision {}, but its rows end otherwise, at {}", revision.0, found.0)]
    Incomplete { revision: Revision, found: Revision },
    /// Only when the store is reopened after an I/O error.
    #[error("revision {} was durable, but the disk now ends at {}", durable.0, found.0)]
    Lost { durable: Revision, found: Revision },
}

impl From<io::Error> for OpenError {
    fn from(source: io::Error) -> Self {
        Self::Failed { source }
    }
}

impl From<EngineError> for OpenError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Corrupt { row } => Self::Corrupt { row },
            EngineError::Failed { source } => Self::Failed { source },
        }
    }
}
