//! A child process whose output is read as it comes, and that never outlives its test. What `claviger` itself prints and
//! shows of itself must hold no secret but those that it is asked for.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::emitted::Emitted;

/// Longer than anything here is silent. What has not come by then never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is printed on purpose: by which command, on which stream, which secrets.
const HANDED_OVER: &[(&str, Stream, &[&str])] = &[
    // The quick start's line with a live code, and the way to alice's connection.
    ("dev", Stream::Output, &["provider's code", "state"]),
    ("token", Stream::Output, &["provider's access token"]),
    // The address that the user opens.
    ("connect", Stream::Error, &["state", "nonce"]),
];

pub(crate) struct Process {
    /// `None`: some other program.
    emitted: Option<Emitted>,
    command: String,
    child: Child,
    lines: Receiver<(Stream, String)>,
    stdout: Vec<String>,
    stderr: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Output,
    Error,
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
        read(Stream::Output, child.stdout.take().unwrap(), sender.clone());
        read(Stream::Error, child.stderr.take().unwrap(), sender);
        let name = command.get_args().next().unwrap_or_default().to_string_lossy().into_owned();
        let emitted = (command.get_program() == env!("CARGO_BIN_EXE_claviger")).then(|| Emitted::of(&name));
        Self { emitted, command: name, child, lines, stdout: Vec::new(), stderr: Vec::new() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the line of standard output that `wanted` holds for.
    pub(crate) fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        self.await_line(Stream::Output, wanted)
    }

    /// Waits for the line of standard error that `wanted` holds for.
    pub(crate) fn error_line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        self.await_line(Stream::Error, wanted)
    }

    /// What has been read of standard output.
    pub(crate) fn printed(&self) -> &[String] {
        &self.stdout
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn stop(self, signal: Signal) -> Finished {
        self.show();
        self.signal(signal);
        self.finish()
    }

    /// Waits for its end, which closes both streams.
    pub(crate) fn finish(mut self) -> Finished {
        while self.receive() {}
        let status = self.child.wait().unwrap();
        let text = |lines: &[String]| lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        let finished = Finished { status, stdout: text(&self.stdout), stderr: text(&self.stderr) };
        if let Some(emitted) = &self.emitted {
            for (stream, text) in [(Stream::Output, &finished.stdout), (Stream::Error, &finished.stderr)] {
                let on_purpose = HANDED_OVER.iter().find(|(command, of, _)| *command == self.command && *of == stream);
                emitted.outputs.add(
                    &format!("{stream:?}"),
                    text.as_str(),
                    on_purpose.map_or(&[], |(.., secrets)| secrets),
                );
            }
        }
        finished
    }

    /// What other processes can see of it.
    fn show(&self) {
        let Some(emitted) = &self.emitted else { return };
        let process = format!("/proc/{}", self.child.id());
        let arguments = fs::read(format!("{process}/cmdline")).unwrap();
        emitted.outputs.add("arguments", arguments, &[]);
        // Other users cannot read it, and with core dumps off neither can we, but for root. The machine's own variables
        // are none of ours.
        let environment = fs::read(format!("{process}/environ")).unwrap_or_default();
        let ours = environment.split(|byte| *byte == 0).filter(|variable| variable.starts_with(b"CLAVIGER"));
        emitted.outputs.add("environment", ours.collect::<Vec<_>>().join(&b'\n'), &[]);
    }

    fn await_line(&mut self, stream: Stream, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let lines = if stream == Stream::Output { &self.stdout } else { &self.stderr };
            if let Some(line) = lines.iter().find(|line| wanted(line)) {
                return line.clone();
            }
            assert!(self.receive(), "it ended without the line: {:#?} {:#?}", self.stdout, self.stderr);
        }
    }

    /// False when both streams have ended.
    fn receive(&mut self) -> bool {
        match self.lines.recv_timeout(PATIENCE) {
            Ok((Stream::Output, line)) => self.stdout.push(line),
            Ok((Stream::Error, line)) => self.stderr.push(line),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => panic!("nothing more comes: {:#?} {:#?}", self.stdout, self.stderr),
        }
        true
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

fn read(stream: Stream, bytes: impl Read + Send + 'static, lines: Sender<(Stream, String)>) {
    thread::spawn(move || {
        BufReader::new(bytes).lines().map_while(Result::ok).try_for_each(|line| lines.send((stream, line)))
    });
}
