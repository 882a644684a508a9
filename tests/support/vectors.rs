//! Test vectors that others made. They are not part of the project: a run that has them names their directory.

use std::{env, fs, path::PathBuf};

use serde_json::Value;

/// A collection of vectors, if this run has any. Without them the test says on its own that it was left out.
#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says by this variable where the vectors are")]
pub(crate) fn collection(name: &str) -> Option<PathBuf> {
    let Some(directory) = env::var_os("CLAVIGER_VECTORS") else {
        eprintln!("left out: needs the test vectors {name}, in the directory that CLAVIGER_VECTORS names");
        return None;
    };
    let collection = PathBuf::from(directory).join(name);
    assert!(collection.is_dir(), "{} is missing", collection.display());
    Some(collection)
}

/// The JSON files directly in a folder; there must be some.
pub(crate) fn json_files(folder: PathBuf) -> Vec<(String, Value)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read: Vec<_> = files
        .map(|path| {
            let document = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            (path.file_name().unwrap().to_string_lossy().into_owned(), document)
        })
        .collect();
    assert!(!read.is_empty());
    read
}
