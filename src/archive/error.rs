//! Why an archive is refused: the facts that an operator has to tell apart.

use std::{fmt, io};

use crate::domain::KeyId;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("this is not an archive of claviger; name a file that `claviger backup` wrote")]
    NotAnArchive,
    #[error(
        "the archive has version {version}, which this claviger does not know; use the one that wrote it, or a newer one"
    )]
    UnknownVersion { version: u8 },
    /// Known by the key's name, not by a failed decryption.
    #[error(
        "the archive is sealed under root key {expected}, and {}; give that root key's file", named(.given)
    )]
    WrongRootKey { expected: KeyId, given: Vec<KeyId> },
    #[error("the archive is damaged: {part}; take another copy of it")]
    Damaged { part: Part },
    #[error("the archive ends too early, so a part of it is missing; copy it again, or take another")]
    Truncated,
    #[error("the archive cannot be read; check the file and the disk")]
    Unreadable(#[source] io::Error),
}

/// What of an archive is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Header,
    /// Numbered from 0.
    Chunk(u64),
    /// Something follows the last chunk.
    AfterEnd,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("its header is not as it was written"),
            Self::Chunk(number) => write!(f, "chunk {number} is not as it was written"),
            Self::AfterEnd => f.write_str("something follows its end"),
        }
    }
}

fn named(keys: &[KeyId]) -> String {
    match keys {
        [] => "no root key was given".to_owned(),
        [one] => format!("the configuration has {one}"),
        some => {
            let names: Vec<_> = some.iter().map(ToString::to_string).collect();
            format!("the configuration has {}", names.join(", "))
        }
    }
}
