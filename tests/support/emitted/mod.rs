//! Everything that claviger emits in a test: its logs at TRACE, panics, what it answers, prints and writes into files.
//!
//! Whoever drives the product (a world, a rig, a process) holds an [`Emitted`] and hands it what comes out. When it is
//! dropped, all of it is searched for every secret that the test process knows, and a find fails the test. With
//! `CLAVIGER_GITLEAKS_RULES` set it is also kept below `target/tmp/emitted`, where `tests/emitted.rs` searches it again
//! by rules, for secrets that nobody thought of.
//!
//! What somebody is given on purpose is named where it is handed over: which output, which secret.

mod kept;
mod log;
mod search;

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    mem,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
};

use search::Secrets;

/// What everything is searched for, whichever test made it known.
static KNOWN: LazyLock<Mutex<Secrets>> = LazyLock::new(|| {
    let mut secrets = Secrets::default();
    for (name, prefix) in [
        ("provider's access token", "dev_at_"),
        ("provider's refresh token", "dev_rt_"),
        ("provider's code", "dev_ac_"),
        ("provider's client secret", "dev_cs_"),
    ] {
        secrets.add(name, prefix);
    }
    Mutex::new(secrets)
});

/// Files that are there to hold a secret: root keys, platform tokens, a client secret, the development provider's state.
const MADE_TO_HOLD: &[&str] = &["root.key", "other.key", "alice.token", "operator.token", "dev.secret", "provider"];

/// From now on it must not be found anywhere. `name` is what is told of a find, never the secret. Under the name
/// `code_challenge` it is the verifier that must not be found.
pub(crate) fn know(name: &str, secret: impl AsRef<[u8]>) {
    known().know(name, secret.as_ref());
}

/// What one driver of the product has got out of it.
pub(crate) struct Emitted {
    name: String,
    log_from: usize,
    pub(crate) outputs: Outputs,
    directories: Vec<PathBuf>,
}

/// Where what comes out is put; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Outputs(Arc<Mutex<Vec<Output>>>);

struct Output {
    name: String,
    bytes: Vec<u8>,
    hands_over: &'static [&'static str],
}

impl Emitted {
    /// Of a driver of this name. From now on the product's logs in this process are captured.
    pub(crate) fn of(name: &str) -> Self {
        let name = format!("{name}-{}", kept::number());
        Self { name, log_from: log::capture(), outputs: Outputs::default(), directories: Vec::new() }
    }

    /// Everything below is searched in the end, but for what is there to hold a secret. Whoever removes the directory
    /// must outlive this.
    pub(crate) fn below(mut self, directory: &Path) -> Self {
        self.directories.push(directory.to_owned());
        self
    }

    /// Where what was found.
    fn search(&self) -> BTreeSet<String> {
        let mut outputs = mem::take(&mut *self.outputs.lock());
        self.directories.iter().for_each(|directory| files(directory, &mut outputs));
        let known = known();
        let mut found = BTreeSet::new();
        for Output { name, bytes, hands_over } in outputs {
            let by_design = |what: &String| hands_over.iter().any(|secret| *what == format!("{secret} as it is"));
            let finds = known.found_in(&bytes).into_iter().filter(|what| !by_design(what));
            found.extend(finds.map(|what| format!("{}/{name}: {what}", self.name)));
            kept::keep(&format!("{}/{name}", self.name), &known.without(hands_over, &bytes));
        }
        found.extend(known.found_in(&log::since(self.log_from)).into_iter().map(|what| format!("log: {what}")));
        found
    }
}

impl Outputs {
    /// `hands_over` names the secrets that this output is there to hand over, as they are.
    pub(crate) fn add(&self, name: &str, bytes: impl Into<Vec<u8>>, hands_over: &'static [&'static str]) {
        self.lock().push(Output { name: name.to_owned(), bytes: bytes.into(), hands_over });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Output>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Emitted {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        let found = self.search();
        assert!(found.is_empty(), "a secret was emitted: {found:#?}");
    }
}

fn known() -> MutexGuard<'static, Secrets> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running broker may remove files meanwhile.
fn files(directory: &Path, outputs: &mut Vec<Output>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        let (path, name) = (entry.path(), entry.file_name());
        if MADE_TO_HOLD.iter().any(|holder| name == **holder) {
            continue;
        }
        if path.is_dir() {
            files(&path, outputs);
            continue;
        }
        match fs::read(&path) {
            Ok(bytes) => {
                let bytes = without_empty_pages(&bytes);
                outputs.push(Output { name: path.display().to_string(), bytes, hands_over: &[] });
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{}", path.display()),
        }
    }
}

/// The store reserves megabytes that it has not written yet.
fn without_empty_pages(bytes: &[u8]) -> Vec<u8> {
    const EMPTY: &[u8] = &[0; 4096];
    let written = bytes.chunks(EMPTY.len()).filter(|page| *page != &EMPTY[..page.len()]);
    written.collect::<Vec<_>>().concat()
}
