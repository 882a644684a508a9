//! `claviger restore`: a store from a backup.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{
    options::Format,
    output::{Printer, note, time},
    progress::Progress,
};
use crate::{
    app::{NotConfigured, Restore as Restoring, RestoreStep, Restored, SystemClock},
    config::{self, Config},
    domain::Timestamp,
    sealing::Random,
};

/// Make a store of a backup, while the broker is stopped
///
/// The archive is read to its end before anything is touched, the store is filled and opened beside its place, and put
/// there in one step. It has a new epoch, so watchers take a new snapshot. A store that was there is kept, as
/// DIRECTORY.before-restore. Run it as the user that the broker runs as.
///
/// Exits with 65 when the archive is damaged, cut short or no archive, with 66 when it cannot be read, with 73 when there
/// is a store and no --replace, with 75 while a broker has it open, with 78 when the root key is another one.
#[derive(Debug, Args)]
pub struct Restore {
    /// The configuration that the broker is started with, as TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The file that `claviger backup` made
    archive: PathBuf,
    /// Put it in the place of the store that is there
    #[arg(long)]
    replace: bool,
    /// A list of erasures to follow, from where the archives are kept: whoever is on it is erased again. The list of a
    /// store that is there is always followed
    #[arg(long, value_name = "FILE")]
    erasures: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

impl Restore {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        // What providers and certificates are is of no matter here; the root keys are read apart.
        let (config, ..) = Config::load_apart(&self.config, &config::variables()).map_err(NotConfigured)?;
        let mut shown = Shown { step: RestoreStep::Verifying, progress: None };
        let restored = Restoring {
            config: &config,
            archive: &self.archive,
            replace: self.replace,
            erasures: self.erasures.as_deref(),
            clock: &SystemClock,
            random: &Random::system(),
            progress: &mut |step, read, of| shown.show(step, read, of),
        };
        let restored = restored.run().await?;
        drop(shown);
        self.report(&restored)
    }

    fn report(&self, restored: &Restored) -> anyhow::Result<()> {
        let Restored { header, end, epoch, directory, erased, kept } = restored;
        let made_at = time(Some(&wire(header.made_at))).unwrap_or_default();
        let printer = Printer::new(self.output);
        if printer.is_json() {
            printer.document(&json!({
                "directory": directory,
                "kept": kept,
                "made_at": made_at,
                "revision": end.revision.0,
                "rows": end.rows,
                "epoch": epoch.to_string(),
                "erased_again": erased,
            }))?;
            return Ok(());
        }
        let row = [directory.display().to_string(), made_at, end.revision.0.to_string(), end.rows.to_string()];
        printer.table(&["STORE", "AS OF", "REVISION", "ROWS"], [row.to_vec()], "")?;
        match erased {
            Some(erased) => note(&format!("the list of erasures was followed: {erased} subjects were erased again"))?,
            None => note(
                "there was no list of erasures to follow; give --erasures if somebody was erased since the backup",
            )?,
        }
        if let Some(kept) = kept {
            note(&format!("what was there before is kept in {}", kept.display()))?;
        }
        Ok(())
    }
}

/// A bar for each pass over the archive.
struct Shown {
    step: RestoreStep,
    progress: Option<Progress>,
}

impl Shown {
    fn show(&mut self, step: RestoreStep, read: u64, of: u64) {
        if self.step != step {
            (self.step, self.progress) = (step, None);
        }
        let words = match step {
            RestoreStep::Verifying => "verifying the archive",
            RestoreStep::Filling => "filling the store",
        };
        self.progress.get_or_insert_with(|| Progress::new(Some(of))).show(read, words);
    }
}

fn wire(at: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.as_millis().rem_euclid(1000)).expect("less than a thousand") * 1_000_000;
    prost_types::Timestamp { seconds: at.as_secs(), nanos }
}
