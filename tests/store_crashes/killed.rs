//! kill -9 at random moments, while change sets are written, the logs are purged, keys are superseded, a copy is
//! taken, or the files are written anew. It does not test an fsync, for the page cache survives the process: see `power`.

use std::{
    hash::{BuildHasher, RandomState},
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use crate::{
    checker::Checker,
    child,
    words::{Dice, Orders, Word},
    writer,
};

/// Half a minute of them, or more under `make soak`.
#[expect(clippy::disallowed_methods, reason = "how long to test is not the product's configuration")]
fn rounds() -> u32 {
    if std::env::var_os("CLAVIGER_SOAK").is_some() { 200 } else { 25 }
}

/// A new one each time; `CLAVIGER_SEED` repeats what a failure printed, as far as the machine does.
#[expect(clippy::disallowed_methods, reason = "which seed to test is not the product's configuration")]
fn seed() -> u64 {
    let told = std::env::var("CLAVIGER_SEED").ok().map(|seed| seed.parse().expect("a seed is a number"));
    told.unwrap_or_else(|| RandomState::new().hash_one(std::process::id()))
}

#[test]
fn whatever_kill_9_leaves_agrees_with_what_was_acknowledged() {
    if let Some(orders) = child::orders() {
        return writer::work(&serde_json::from_str(&orders).unwrap());
    }
    let seed = seed();
    println!("CLAVIGER_SEED={seed}");
    let mut dice = Dice(seed);
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut checker = Checker::begin(runtime.block_on(writer::prepare(directory.path())));
    for round in 1..=rounds() {
        let orders = Orders {
            directory: directory.path().to_owned(),
            round,
            seed: dice.below(u64::MAX),
            each: u32::MAX,
            purgeable: checker.checked(),
            compacts: dice.once_in(4),
            copies: dice.once_in(3),
            roots: if dice.once_in(4) { checker.add_root() } else { checker.roots() },
            rotates: dice.once_in(2),
        };
        // also while it opens, and before a crash was recovered from
        let words = if dice.once_in(6) { 1 } else { 2 + dice.below(600) };
        println!("round {round}: killed after {words} words");
        let heard = run_and_kill(&orders, words);
        heard.iter().for_each(|word| checker.hear(word.clone()));
        if let Some(revision) = heard.iter().find_map(Word::copied) {
            println!("round {round}: copied as of revision {}", revision.0);
            runtime.block_on(checker.check_copy(&orders.copy(), revision));
        }
        if !dice.once_in(4) {
            runtime.block_on(checker.check(directory.path()));
        }
    }
    runtime.block_on(checker.check(directory.path()));
    assert!(checker.committed() > u64::from(rounds()));
}

/// Kills the child after so many words, and returns all that it said.
fn run_and_kill(orders: &Orders, words: u64) -> Vec<Word> {
    let test = "killed::whatever_kill_9_leaves_agrees_with_what_was_acknowledged";
    let orders = serde_json::to_string(orders).unwrap();
    let mut child =
        child::this_test(test, &orders, Command::new(child::myself())).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut told = lines.filter_map(|line| child::told(&line).map(Word::read));
    let mut heard: Vec<_> = told.by_ref().take(words.try_into().unwrap()).collect();
    child.kill().unwrap();
    heard.extend(told);
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "it ended before it was killed: {status}");
    heard
}
