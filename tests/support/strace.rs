//! What happens to a broker's writes to its store.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::LazyLock,
};

use rustix::process::Signal;

use crate::{process::Process, tools::there_is};

/// Whether strace is here and may trace what it has not started: some kernels let only parents do that (Yama).
pub(crate) fn can_attach() -> bool {
    static ATTACHES: LazyLock<bool> = LazyLock::new(|| {
        let mut bystander = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut command = Command::new("strace");
        command.args(["-p", &bystander.id().to_string()]);
        let mut strace = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(strace.stderr.take().unwrap()).read_line(&mut said).unwrap();
        for process in [&mut bystander, &mut strace] {
            // It may have ended by itself, which is as good.
            drop(process.kill());
            process.wait().unwrap();
        }
        let attaches = said.contains("attached");
        if !attaches {
            eprintln!("left out: needs strace to be let to attach to a process ({})", said.trim());
        }
        attaches
    });
    there_is("strace") && *ATTACHES
}

pub(crate) struct Strace(Process);

impl Strace {
    /// The broker is killed at the first write of its next commit, before the write: what it has just learned is gone.
    pub(crate) fn kill_at_next_write(broker: &Process, store: &Path) -> Self {
        Self::inject("pwrite64", "error=EIO:signal=KILL", broker, store)
    }

    /// The broker is killed when its next commit is written and not synced.
    pub(crate) fn kill_at_next_sync(broker: &Process, store: &Path) -> Self {
        Self::inject("fdatasync", "error=EIO:signal=KILL", broker, store)
    }

    /// The broker learns late that its next commit is synced: see [`Self::synced`].
    pub(crate) fn hold_after_next_sync(broker: &Process, store: &Path) -> Self {
        Self::inject("fdatasync", "delay_exit=600s", broker, store)
    }

    /// The disk is full, until this ends.
    pub(crate) fn fill_disk(broker: &Process, store: &Path) -> Self {
        Self::inject("pwrite64", "error=ENOSPC", broker, store)
    }

    /// Returns once the broker is traced.
    fn inject(call: &str, fault: &str, broker: &Process, store: &Path) -> Self {
        let mut command = Command::new("strace");
        let data = store.join("db");
        command.args(["-f", "-e", &format!("trace={call}"), "-P"]).arg(data);
        command.args(["-e", &format!("inject={call}:{fault}"), "-p", &broker.id().to_string()]);
        let mut process = Process::spawn(&mut command);
        process.error_line(|line| line.contains("attached"));
        Self(process)
    }

    /// Returns once a commit is synced; the broker has not learned of it.
    pub(crate) fn synced(&mut self) {
        self.0.error_line(|line| line.contains("(DELAYED)"));
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
