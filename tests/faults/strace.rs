//! What happens to a broker's writes to its store.

use std::{path::Path, process::Command};

use rustix::process::Signal;

use crate::process::Process;

pub(crate) struct Strace(Process);

impl Strace {
    /// The broker is killed at the first write of its next commit, before the write: what it has just learned is gone.
    pub(crate) fn kill_at_next_write(broker: &Process, store: &Path) -> Self {
        Self::inject("error=EIO:signal=KILL", broker, store)
    }

    /// The disk is full, until this ends.
    pub(crate) fn fill_disk(broker: &Process, store: &Path) -> Self {
        Self::inject("error=ENOSPC", broker, store)
    }

    /// Returns once the broker is traced.
    fn inject(fault: &str, broker: &Process, store: &Path) -> Self {
        let mut command = Command::new("strace");
        let data = store.join("db");
        command.args(["-f", "-e", "trace=pwrite64", "-P"]).arg(data);
        command.args(["-e", &format!("inject=pwrite64:{fault}"), "-p", &broker.id().to_string()]);
        let mut process = Process::spawn(&mut command);
        process.error_line(|line| line.contains("attached"));
        Self(process)
    }

    /// Lets the broker go.
    pub(crate) fn end(self) {
        self.0.stop(Signal::TERM);
    }

    /// The broker has been killed.
    pub(crate) fn wait(self) {
        self.0.finish();
    }
}
