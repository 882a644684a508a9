//! `claviger generate-key`: a new root key in a new file.

use std::path::PathBuf;

use clap::Args;

use crate::sealing::{Random, root_key};

/// Make a root key; keep a copy of it where the store's copies are not
#[derive(Debug, Args)]
pub struct GenerateKey {
    /// The file to make, with mode 0600; it must not be there yet
    file: PathBuf,
}

impl GenerateKey {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let key = root_key::file::create(&self.file, &Random::system())?;
        println!("{} {}", key.id(), self.file.display());
        Ok(())
    }
}
