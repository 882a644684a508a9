//! Power loss: of the data file only what an fdatasync covered is left, and perhaps some of what came after it.
//!
//! strace tells every write with its bytes, and when each fdatasync began and ended. So for each word of the child
//! there is an image of the file that holds what was synced when the word was said, and nothing else.

use std::{collections::BTreeMap, fs, process::Command};

use crate::{
    checker::Checker,
    child,
    disk::{self, Disk, Write},
    tools::there_is,
    words::{Dice, Orders, Word},
    writer,
};

#[test]
fn what_was_acknowledged_or_announced_is_in_what_was_synced() {
    let Some(traced) = Traced::run("power::what_was_acknowledged_or_announced_is_in_what_was_synced") else { return };
    for (synced, words) in traced.losses() {
        traced.check(&traced.writes[..synced], words);
    }
}

/// The disk may have taken any of the writes that nobody waited for.
#[test]
fn writes_that_were_not_synced_do_no_harm_in_whatever_part_they_arrive() {
    let test = "power::writes_that_were_not_synced_do_no_harm_in_whatever_part_they_arrive";
    let Some(traced) = Traced::run(test) else { return };
    let mut dice = Dice(1);
    for (synced, words) in traced.losses() {
        let (certain, later) = traced.writes.split_at(synced);
        let pages = later.iter().take(8).flat_map(Write::pages).filter(|_| dice.once_in(2));
        let writes: Vec<_> = certain.iter().cloned().chain(pages).collect();
        traced.check(&writes, words);
    }
}

/// What a child did to the data file, and said.
struct Traced {
    directory: tempfile::TempDir,
    checker: Checker,
    /// In the order in which they ended.
    writes: Vec<Write>,
    /// Each with the number of writes that were synced when it was said.
    words: Vec<(usize, Word)>,
}

impl Traced {
    /// `None` in the child, and without strace.
    fn run(test: &str) -> Option<Self> {
        if !there_is("strace") {
            return None;
        }
        if let Some(orders) = child::orders() {
            writer::work(&serde_json::from_str(&orders).unwrap());
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let checker = Checker::begin(runtime.block_on(writer::prepare(directory.path())));
        disk::image(&directory.path().join("store"), &[], &directory.path().join("before"));

        let trace = directory.path().join("trace");
        let orders = Orders {
            directory: directory.path().to_owned(),
            round: 1,
            seed: 1,
            each: 8,
            purgeable: checker.checked(),
            compacts: false,
            copies: false,
            roots: 1,
            rotates: false,
        };
        let mut strace = Command::new("strace");
        strace.args(disk::STRACE).args(["-etrace=pwrite64,fdatasync,fsync,write", "-o"]);
        strace.arg(&trace).arg(child::myself());
        let output = child::this_test(test, &serde_json::to_string(&orders).unwrap(), strace)
            .output()
            .expect("strace runs (apt-get install strace; a container needs CAP_SYS_PTRACE)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (writes, words) = read(&fs::read_to_string(trace).unwrap());
        assert!(words.iter().any(|(_, word)| matches!(word, Word::Announced { .. })));
        Some(Self { directory, checker, writes, words })
    }

    /// The moments at which the power may fail, each with all that was said by then: the last before each sync.
    fn losses(&self) -> BTreeMap<usize, &[(usize, Word)]> {
        self.words.iter().enumerate().map(|(index, (synced, _))| (*synced, &self.words[..=index])).collect()
    }

    /// After `writes` and no others there is all that the words promise.
    fn check(&self, writes: &[Write], words: &[(usize, Word)]) {
        let place = tempfile::tempdir_in(self.directory.path()).unwrap();
        disk::image(&self.directory.path().join("before"), writes, &place.path().join("store"));

        let mut checker = self.checker.clone();
        words.iter().for_each(|(_, word)| checker.hear(word.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        // what was begun later may have been written too
        self.words[words.len()..].iter().filter(|(_, word)| matches!(word, Word::Begun { .. })).for_each(
            |(_, word)| {
                checker.hear(word.clone());
            },
        );
        runtime.block_on(checker.check(place.path()));
    }
}

/// What was written, and each word with the number of writes that were synced when it was said.
fn read(trace: &str) -> (Vec<Write>, Vec<(usize, Word)>) {
    let (mut disk, mut words) = (Disk::default(), Vec::new());
    for line in trace.lines() {
        disk.see(line);
        if let Some(said) = disk::written_to("1<", line) {
            let said = String::from_utf8(said).unwrap();
            words.extend(child::told(said.trim_end()).map(|word| (disk.synced(), Word::read(word))));
        }
    }
    (disk.into_writes(), words)
}
