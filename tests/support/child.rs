//! A test that runs itself again as a child: what it is told, and what it tells.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::Command,
};

/// Tells the child's words from those of the test harness.
pub(crate) const WORD: &str = "child: ";

const ORDERS: &str = "CLAVIGER_TEST_ORDERS";

/// `command` is this executable, or ends in it; the child runs `test` alone and finds `orders` in [`orders`].
pub(crate) fn this_test(test: &str, orders: &str, mut command: Command) -> Command {
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ORDERS, orders);
    command
}

pub(crate) fn myself() -> PathBuf {
    std::env::current_exe().expect("a test knows its own path")
}

/// Only in the child: what it is to do.
#[expect(clippy::disallowed_methods, reason = "libtest leaves a child no other way to be told something")]
pub(crate) fn orders() -> Option<String> {
    std::env::var(ORDERS).ok()
}

/// One line in one system call, so that a kill leaves all of it or nothing. Fails when nobody listens any more.
pub(crate) fn tell(word: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{WORD}{word}\n").as_bytes())?;
    out.flush()
}

/// The word in a line of the child's output, which the harness may have begun.
pub(crate) fn told(line: &str) -> Option<&str> {
    line.split_once(WORD).map(|(_, word)| word)
}
