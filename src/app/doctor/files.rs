//! The root keys' files and the store's directory.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::process::geteuid;

use super::{About, Finding};
use crate::{
    config::Config,
    domain::Timestamp,
    sealing::{RootKey, RootKeys, root_key},
};

/// Who made an older key may have left since.
const OLD_KEY_DAYS: u64 = 365;

/// The root keys come along where all of them can be used.
pub(super) fn examine(config: &Config, now: Timestamp) -> (Vec<Finding>, Option<RootKeys>) {
    let examined = config.sealing.root_keys.iter().map(|path| root_key(path, now));
    let (mut findings, roots): (Vec<_>, Vec<_>) = examined.unzip();
    findings.push(data_directory(config));
    let mut roots = roots.into_iter().collect::<Option<Vec<_>>>().unwrap_or_default().into_iter();
    (findings, roots.next().map(|newest| RootKeys::new(newest, roots.collect())))
}

fn root_key(path: &Path, now: Timestamp) -> (Finding, Option<RootKey>) {
    let about = About::new("root key", path.display());
    let root = match root_key::file::load(path) {
        Ok(root) => root,
        Err(error) => {
            let cure = "run this as the user that the broker runs as, and do what the message says";
            return (about.fail(error.to_string(), cure), None);
        }
    };
    let modified = fs::metadata(path).map_or(0, |metadata| metadata.mtime());
    let days = u64::try_from(now.as_secs() - modified).map(|seconds| seconds / (24 * 3600));
    let finding = match days {
        Err(_) => about.warn("its time lies ahead of this machine's clock", "check the clock"),
        Ok(days) if days > OLD_KEY_DAYS => {
            about.warn(format!("{days} days old"), "make sure that its copy is there and who can read it")
        }
        Ok(days) => about.ok(format!("{days} days old, closed to others")),
    };
    (finding, Some(root))
}

fn data_directory(config: &Config) -> Finding {
    let path = &config.store.directory;
    let about = About::new("data directory", path.display());
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return about.warn("it is not there", "the first `serve` makes it; check the path if there was one before");
        }
        Err(error) => return about.fail(format!("it cannot be looked at: {}", error.kind()), "check the path"),
    };
    let (owner, process) = (metadata.uid(), geteuid().as_raw());
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_dir() {
        about.fail("it is no directory", "name a directory in store.directory")
    } else if owner != process {
        let detail = format!("it belongs to user {owner}, and this process runs as {process}");
        about.fail(detail, "run this as the user that the broker runs as, or give the directory to that user")
    } else if mode & 0o077 != 0 {
        about.fail(format!("it has mode {mode:04o}, so others may use it"), format!("chmod 700 {}", path.display()))
    } else {
        about.ok(format!("mode {mode:04o}"))
    }
}
