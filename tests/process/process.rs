//! A child process whose output is read as it comes, and that never outlives its test.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything here takes. What is not there by then never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    /// The lines of standard output that were read so far.
    read: Vec<String>,
    stderr: Option<JoinHandle<String>>,
}

pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut stderr = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Self { child, lines, read: Vec::new(), stderr: Some(stderr) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads standard output up to the line that `wanted` holds for.
    pub(crate) fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.read.push(line.clone());
                    if wanted(&line) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("the line never came: {:#?}", self.read),
                Err(RecvTimeoutError::Disconnected) => {
                    let finished = self.end();
                    panic!("it ended ({}) without the line:\n{}{}", finished.status, finished.stdout, finished.stderr);
                }
            }
        }
    }

    /// What was printed up to the last awaited line.
    pub(crate) fn printed(&self) -> &[String] {
        &self.read
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, which closes standard output.
    pub(crate) fn finish(mut self) -> Finished {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.read.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.end(),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; it printed {:#?}", self.read),
            }
        }
    }

    pub(crate) fn stop(self, signal: Signal) -> Finished {
        self.signal(signal);
        self.finish()
    }

    fn end(&mut self) -> Finished {
        let status = self.child.wait().unwrap();
        let stdout = self.read.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        let stderr = self.stderr.take().map(|reading| reading.join().unwrap()).unwrap_or_default();
        Finished { status, stdout, stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Finished {
    #[track_caller]
    pub(crate) fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }
}
