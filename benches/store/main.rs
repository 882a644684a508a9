//! What the store and the sealing of records cost: beside raw sled in the same run where a ratio can be had, and in
//! figures where not. `docs/performance.md` says how it is measured and why.
//!
//! `cargo bench --bench store -- [PART]... [--connections N] [--credentials N]`; the parts are `writers`, `sealing`,
//! `scale` and `refreshed`, and without one all are measured. What was loaded for `scale` is kept under
//! `target/bench-store` and used again.

#![expect(clippy::unwrap_used, clippy::panic, reason = "set-up that fails ends the run")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

mod child;
mod measure;
mod population;
mod product;
mod refreshed;
mod scale;
mod sealing;
mod writers;

use std::{env, path::PathBuf};

/// Like the binary's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PARTS: [&str; 4] = ["writers", "sealing", "scale", "refreshed"];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    if let ["child", part, directory, count] = words[..] {
        return child::run(part, directory.as_ref(), count.parse().unwrap());
    }
    let (mut parts, mut connections, mut credentials) = (Vec::new(), 1_000_000, 100_000);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut count = || words.next().and_then(|count| count.parse().ok()).expect("a number follows");
        match word {
            "--connections" => connections = count(),
            "--credentials" => credentials = count(),
            part if PARTS.contains(&part) => parts.push(part),
            other => panic!("{other} is no part; the parts are {PARTS:?}"),
        }
    }
    for part in PARTS.iter().filter(|part| parts.is_empty() || parts.contains(part)) {
        match *part {
            "writers" => writers::measure(),
            "sealing" => sealing::measure(),
            "scale" => scale::measure(connections),
            _ => refreshed::measure(credentials),
        }
    }
}

/// Kept from run to run.
fn place(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-store").join(name)
}
