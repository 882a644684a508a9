//! `claviger store`: what is done to a store's files.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{options::Format, output::Printer, progress::Progress};
use crate::{
    app::NotConfigured,
    config::{self, Config},
    store::sled::{Compacted, compact},
};

#[derive(Debug, Args)]
pub struct Store {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compact(Compact),
}

/// Write a store's files anew without what they no longer need, while the broker is stopped
///
/// Gives disk space back that was freed by refreshes, retention and erasures. Needs room for the live data once more, on
/// the same volume. The files are exchanged at the end, in one step: whatever ends it before leaves them as they were.
#[derive(Debug, Args)]
struct Compact {
    /// The configuration that the broker is started with, as TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

impl Store {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Command::Compact(compact) = self.command;
        compact.run()
    }
}

impl Compact {
    fn run(&self) -> anyhow::Result<()> {
        let (config, ..) = Config::load_apart(&self.config, &config::variables()).map_err(NotConfigured)?;
        let mut progress = Progress::new(None);
        let compacted = compact(&config.store.directory, |rows| progress.show(rows, &format!("{rows} rows")));
        drop(progress);
        let Compacted { rows, before, after } = compacted?;
        let printer = Printer::new(self.output);
        if printer.is_json() {
            printer.document(&json!({ "rows": rows, "bytes_before": before, "bytes_after": after }))?;
        } else {
            let row = [rows, before, after].map(|number| number.to_string());
            printer.table(&["ROWS", "BYTES BEFORE", "BYTES AFTER"], [row.to_vec()], "")?;
        }
        Ok(())
    }
}
