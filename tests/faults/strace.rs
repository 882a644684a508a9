//! Kills a broker at the first write of its next commit, before the write: what it had just learned is gone.

use std::{path::Path, process::Command};

use crate::process::Process;

pub(crate) struct Strace(Process);

impl Strace {
    /// Returns once the broker is traced.
    pub(crate) fn kill_at_next_write(broker: &Process, store: &Path) -> Self {
        let mut command = Command::new("strace");
        let data = store.join("db");
        command.args(["-f", "-e", "trace=pwrite64", "-P"]).arg(data);
        command.args(["-e", "inject=pwrite64:error=EIO:signal=KILL", "-p", &broker.id().to_string()]);
        let mut process = Process::spawn(&mut command);
        process.error_line(|line| line.contains("attached"));
        Self(process)
    }

    /// The broker has been killed.
    pub(crate) fn wait(self) {
        self.0.finish();
    }
}
