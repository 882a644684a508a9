//! What the child is told and tells, and the store that both open.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use claviger::{
    audit::Chain,
    domain::{ConnectionId, EntryId, InstallationId, JobId, Revision, SubjectId, TenantId, Timestamp},
    sealing::{AuditKey, Random, RootKey, RootKeys},
    store::{
        Store,
        sled::{OpenError, SledOptions, SledStore},
    },
    vault::Vault,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::child;

/// What a child is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) directory: PathBuf,
    pub(crate) round: u32,
    pub(crate) seed: u64,
    /// Change sets that each task tries; then the store is closed.
    pub(crate) each: u32,
    /// Events and audit records up to here have been checked, and may be purged.
    pub(crate) purgeable: (Revision, u64),
    /// The files are written anew before the store is opened.
    pub(crate) compacts: bool,
    /// A copy is taken while the others write.
    pub(crate) copies: bool,
    /// So many root keys are given; the newest is taken into force.
    pub(crate) roots: u8,
    /// Keys are superseded again and again while the others write.
    pub(crate) rotates: bool,
}

impl Orders {
    /// Where the copy goes.
    pub(crate) fn copy(&self) -> PathBuf {
        self.directory.join(format!("copy {}", self.round))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    Compacting,
    Opening,
    Opened,
    Begun {
        name: Name,
        effects: Effects,
    },
    Acknowledged {
        name: Name,
        revision: Revision,
        audit: Vec<u64>,
    },
    /// Another change came first: nothing was written.
    Refused {
        name: Name,
    },
    /// The store's head was heard to be at this revision.
    Announced {
        revision: Revision,
    },
    /// The copy is whole, as of this revision.
    Copied {
        revision: Revision,
    },
}

/// One attempt to change something. It stands in everything that the change set writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Name {
    pub(crate) round: u32,
    pub(crate) task: u32,
    pub(crate) number: u32,
}

/// What a change set leaves behind: connections, in the order of its events, and jobs made and done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Effects {
    pub(crate) connections: Vec<Written>,
    pub(crate) made: Vec<JobId>,
    pub(crate) done: Vec<JobId>,
    pub(crate) audit: usize,
    /// Events up to this revision and audit records up to this number are gone.
    pub(crate) purged: (Revision, u64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) id: ConnectionId,
    pub(crate) generation: u64,
    pub(crate) brings_tokens: bool,
}

impl Word {
    pub(crate) fn tell(&self) {
        // nobody listens any more when the parent is gone
        child::tell(&serde_json::to_string(self).unwrap()).unwrap_or_else(|_| std::process::exit(1));
    }

    pub(crate) fn copied(&self) -> Option<Revision> {
        if let Self::Copied { revision } = self { Some(*revision) } else { None }
    }

    pub(crate) fn read(word: &str) -> Self {
        serde_json::from_str(word).unwrap_or_else(|error| panic!("{error}: {word}"))
    }
}

impl Name {
    /// The name as a time, for what has no room for another.
    pub(crate) fn at(self) -> Timestamp {
        Timestamp::from_millis(i64::from(self.round) << 40 | i64::from(self.task) << 32 | i64::from(self.number))
    }

    pub(crate) fn of(at: Timestamp) -> Self {
        let at = at.as_millis();
        Self { round: (at >> 40) as u32, task: (at >> 32) as u32 & 0xFF, number: at as u32 }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.round, self.task, self.number)
    }
}

impl FromStr for Name {
    type Err = Box<dyn std::error::Error>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.').map(str::parse);
        let mut part = || parts.next().ok_or("too few parts");
        Ok(Self { round: part()??, task: part()??, number: part()?? })
    }
}

/// SplitMix64: as good as needed for choosing, and the same for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31) % end
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Small caches, so that work reaches the files.
pub(crate) async fn open(directory: &Path, roots: u8) -> Result<(Arc<dyn Store>, Vault), OpenError> {
    let (key, random) = (AuditKey::default(), Random::system());
    let options = SledOptions {
        directory: directory.join("store"),
        page_cache: 1 << 20,
        row_cache: 64 << 10,
        installation: InstallationId::from_bytes([1; 16]),
        epoch: EntryId::from_bytes([2; 16]),
    };
    let store: Arc<dyn Store> = Arc::new(SledStore::open(options, Box::new(Chain::new(key.clone()))).await?);
    let root = |number| RootKey::from_secret(&Zeroizing::new([number; 32]));
    let roots = RootKeys::new(root(roots), (1..roots).rev().map(root).collect());
    let vault = Vault::open(Arc::clone(&store), roots, random, &key).await.unwrap();
    Ok((store, vault))
}

pub(crate) fn tenant() -> TenantId {
    "acme".parse().unwrap()
}

pub(crate) fn subject(number: u8) -> SubjectId {
    SubjectId::from_bytes([number; 32])
}

/// Each belongs to one task, but the first to two.
pub(crate) const SUBJECTS: u8 = 5;
