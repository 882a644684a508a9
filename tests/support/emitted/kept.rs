//! Keeps what was emitted for whoever searches it after the tests, as text.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What is shorter between bytes that are no text is chance.
const SHORTEST_TEXT: usize = 12;

/// One for each test process, when somebody is going to look.
#[expect(clippy::disallowed_methods, reason = "`make test` tells the tests by this variable")]
static DIRECTORY: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    env::var_os("CLAVIGER_GITLEAKS_RULES")?;
    let of_process = format!("{}-{}", env!("CARGO_CRATE_NAME"), process::id());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emitted").join(of_process);
    fs::create_dir_all(&directory).unwrap();
    Some(directory)
});

/// Another one each time.
pub(super) fn number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Where the file of this name is kept, if it is.
pub(super) fn path(name: &str) -> Option<PathBuf> {
    DIRECTORY.as_ref().map(|directory| directory.join(name.replace('/', "_")))
}

pub(super) fn keep(name: &str, bytes: &[u8]) {
    if let Some(path) = path(name) {
        fs::write(path, text(bytes)).unwrap();
    }
}

/// All of a text; of other bytes, the stretches of visible ASCII.
fn text(bytes: &[u8]) -> Vec<u8> {
    if std::str::from_utf8(bytes).is_ok() {
        return bytes.to_vec();
    }
    let runs = bytes.split(|byte| !byte.is_ascii_graphic() && *byte != b' ');
    runs.filter(|run| run.len() >= SHORTEST_TEXT).collect::<Vec<_>>().join(&b'\n')
}
