//! `claviger backup`: the broker's store as one sealed file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use super::{ClientOptions, Failure, Session, output, progress::Progress};
use crate::{
    client::ClientError,
    proto::v1::{BackupSummary, CreateBackupRequest, GetStatusRequest},
};

/// Copy a running broker's whole store into one sealed file
///
/// For operators. The copy shows one moment, and nobody waits for it. It opens only with the root key that was in force:
/// keep copies of that key where the archives are not. The file is written beside its name, as FILE.part, and gets its
/// name when it is whole.
#[derive(Debug, Args)]
pub struct Backup {
    /// The file to make, with mode 0600; it must not be there yet
    file: PathBuf,
    #[command(flatten)]
    pub(super) options: ClientOptions,
}

impl Backup {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        if self.file.symlink_metadata().is_ok() {
            return Err(Failure::FileExists { path: self.file.clone() });
        }
        let partial = partial(&self.file);
        let written = self.copy(session, &partial).await;
        if written.is_err() {
            // Ours, and no archive. The first error is the one to report.
            fs::remove_file(&partial).ok();
        }
        let end = written?;
        if session.printer.is_json() {
            session.printer.document(&json!({
                "file": self.file,
                "finished_at": output::time(end.finished_at.as_ref()),
                "revision": end.revision,
                "rows": end.rows,
                "bytes": end.bytes,
            }))?;
        } else {
            let row = [
                self.file.display().to_string(),
                end.revision.to_string(),
                end.rows.to_string(),
                end.bytes.to_string(),
            ];
            session.printer.table(&["ARCHIVE", "REVISION", "ROWS", "BYTES"], [row.to_vec()], "")?;
        }
        Ok(())
    }

    async fn copy(&self, session: &Session, partial: &Path) -> Result<BackupSummary, Failure> {
        let failed = |source| Failure::Write { path: partial.to_owned(), source };
        // About as many rows as last time, if there was one.
        let status = session.client.get_status(GetStatusRequest {}).await?;
        let mut progress = Progress::new(status.last_backup.map(|last| last.rows));
        let mut parts = session.client.create_backup(CreateBackupRequest {}).await?;
        let mut file = open(partial).map_err(failed)?;
        let mut end = None;
        let mut bytes = 0;
        while let Some(part) = parts.message().await.map_err(ClientError::from)? {
            file.write_all(&part.archive).map_err(failed)?;
            bytes += part.archive.len();
            progress.show(part.rows, &format!("{} rows, {} MiB", part.rows, bytes >> 20));
            end = part.end;
        }
        drop(progress);
        let end = end.ok_or(Failure::Unfinished)?;
        file.sync_all().map_err(failed)?;
        fs::rename(partial, &self.file).map_err(failed)?;
        sync_directory_of(&self.file).map_err(failed)?;
        Ok(end)
    }
}

fn partial(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// What an earlier try left behind makes room; it may belong to others, or lead elsewhere.
fn open(partial: &Path) -> io::Result<File> {
    match fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial)
}

fn sync_directory_of(file: &Path) -> io::Result<()> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
