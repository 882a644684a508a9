//! What runs in a process of its own, so that its memory, its caches and its opening are its own. A child prints one
//! line of JSON for each thing that it was told on standard input.

use std::{
    env,
    io::{BufRead, BufReader, Write, stdin, stdout},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use super::{refreshed, scale};

pub(super) struct Running {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Running {
    pub(super) fn start(part: &str, directory: &Path, count: u64) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["child", part])
            .arg(directory)
            .arg(count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, input, output }
    }

    pub(super) fn ask(&mut self, what: &str) -> Value {
        writeln!(self.input, "{what}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the child ended at {what}"))
    }

    pub(super) fn end(self) {
        let Self { mut process, input, output } = self;
        drop(input);
        assert!(process.wait().unwrap().success());
        drop(output);
    }
}

/// One question, and the end.
pub(super) fn ask_one(part: &str, directory: &Path, count: u64) -> Value {
    let mut child = Running::start(part, directory, count);
    let answer = child.ask("");
    child.end();
    answer
}

/// In the child.
pub(super) fn run(part: &str, directory: &Path, count: u64) {
    match part {
        "load" => answer(|_| scale::load(directory, count)),
        "open-raw" => answer(|_| scale::open_raw(directory)),
        "open" => answer(|_| scale::open(directory)),
        "read" => {
            let reader = scale::Reader::open(directory, count);
            answer(|question| reader.answer(question));
            reader.close();
        }
        "refresh" => answer(|_| refreshed::refresh(directory, count)),
        other => panic!("{other} is no child's part"),
    }
}

/// Until the input ends.
fn answer(mut answer: impl FnMut(&str) -> Value) {
    for question in stdin().lock().lines().map(Result::unwrap) {
        println!("{}", answer(&question));
        stdout().flush().unwrap();
    }
}
