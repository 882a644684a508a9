//! Programs beyond the build: `make test` installs them and sets `CLAVIGER_TOOLS`; plain `cargo test` does without.

use std::{env, path::Path};

/// Where programs are looked for: what `make tools` installs beside the build, then the path.
#[expect(clippy::disallowed_methods, reason = "programs are found by the path that this process was given")]
pub(crate) fn search_path() -> String {
    let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools").join("bin");
    format!("{}:{}", beside.display(), env::var("PATH").unwrap_or_default())
}

/// Whether the test can run. Without the program it fails under `make test`, and says on its own that it was left out.
#[expect(clippy::disallowed_methods, reason = "`make test` tells the tests by this variable")]
pub(crate) fn there_is(program: &str) -> bool {
    let found = search_path().split(':').any(|directory| Path::new(directory).join(program).is_file());
    assert!(found || env::var_os("CLAVIGER_TOOLS").is_none(), "{program} is missing: `make tools` installs it");
    if !found {
        eprintln!("left out: needs {program}, which `make test` installs");
    }
    found
}
