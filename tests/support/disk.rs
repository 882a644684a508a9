//! A store's data file as strace saw it written: which writes there were, and how many of them were synced when.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// What [`Disk`] reads: all threads, the files behind descriptors, all bytes, in hexadecimal.
pub(crate) const STRACE: [&str; 4] = ["-f", "-y", "-xx", "-s16777216"];

#[derive(Clone)]
pub(crate) struct Write {
    offset: u64,
    bytes: Vec<u8>,
}

/// Of the file `db` in a directory `store`.
#[derive(Default)]
pub(crate) struct Disk {
    /// In the order in which they ended.
    writes: Vec<Write>,
    synced: usize,
    /// By thread: a call that others interrupt stands on two lines, its beginning and its end.
    writing: HashMap<String, Write>,
    syncing: HashMap<String, usize>,
}

impl Disk {
    pub(crate) fn see(&mut self, line: &str) {
        let (thread, call) = line.split_once(' ').unwrap();
        let (thread, call) = (thread.to_owned(), call.trim_start());
        let is_of_data = || call.contains(&data());
        let ended = call.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with('-'));
        if call.starts_with("pwrite64(") && is_of_data() {
            let offset = call.rsplit('"').next().unwrap().split([',', ')', ' ']).filter(|part| !part.is_empty()).nth(1);
            let write = Write { offset: offset.unwrap().parse().unwrap(), bytes: argument(call) };
            self.writing.insert(thread.clone(), write);
        } else if (call.starts_with("fdatasync(") || call.starts_with("fsync(")) && is_of_data() {
            self.syncing.insert(thread.clone(), self.writes.len());
        }
        if ended && (call.starts_with("pwrite64(") || call.starts_with("<... pwrite64")) {
            self.writes.extend(self.writing.remove(&thread));
        } else if ended && call.contains("sync") {
            self.synced = self.synced.max(self.syncing.remove(&thread).unwrap_or(0));
        }
    }

    /// So many of the writes are certain.
    pub(crate) fn synced(&self) -> usize {
        self.synced
    }

    pub(crate) fn into_writes(self) -> Vec<Write> {
        self.writes
    }
}

impl Write {
    pub(crate) fn pages(&self) -> impl Iterator<Item = Self> {
        self.bytes
            .chunks(4096)
            .zip((self.offset..).step_by(4096))
            .map(|(bytes, offset)| Self { offset, bytes: bytes.to_vec() })
    }
}

/// A copy of a store's directory, with these writes to its data file.
pub(crate) fn image(from: &Path, writes: &[Write], to: &Path) {
    copy(from, to);
    let data = File::options().write(true).open(to.join("db")).unwrap();
    writes.iter().for_each(|write| data.write_all_at(&write.bytes, write.offset).unwrap());
}

/// What a line writes to that descriptor.
pub(crate) fn written_to(descriptor: &str, line: &str) -> Option<Vec<u8>> {
    let call = line.split_once(' ').unwrap().1.trim_start();
    call.starts_with(&format!("write({descriptor}")).then(|| argument(call))
}

fn data() -> String {
    hex(b"/store/db>").trim_end_matches("\\x3e").to_owned() + ">"
}

fn argument(call: &str) -> Vec<u8> {
    unhex(call.split('"').nth(1).unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}

/// A directory with its files, without what is below.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), place).unwrap();
        }
    }
}
