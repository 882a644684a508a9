//! The servers as processes of their own, on the servers' core, that do what they are told line by line.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::SERVERS;

/// A running server. It ends when its standard input does, so that none outlives this process.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    process: Child,
    told: ChildStdin,
    says: BufReader<ChildStdout>,
}

/// Of the kernel's accounting (proc(5)): the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

impl Server {
    pub(super) fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new("taskset")
            .args(["-c", SERVERS])
            .arg(env::current_exe().unwrap())
            .args(arguments)
            .env("_RJEM_MALLOC_CONF", env::var("CHILD_CONF").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (told, mut says) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        let address = line.trim().parse().unwrap_or_else(|_| panic!("{arguments:?} did not start"));
        Self { address, process, told, says }
    }

    pub(super) fn tell(&mut self, line: &str) {
        writeln!(self.told, "{line}").unwrap();
    }

    /// Returns once the server has done what it was told last.
    pub(super) fn has_done(&mut self) {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }

    /// Seconds of a processor that the process has used so far, user and system.
    pub(super) fn processor(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        // The name in the second field may hold spaces; what follows its parenthesis is field 3.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
        (ticks(14) + ticks(15)) / TICKS_PER_SECOND
    }

    /// Bytes of memory that are resident now.
    pub(super) fn resident(&self) -> f64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id())).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<f64>().unwrap() * 1024.0
    }

    pub(super) fn end(mut self) {
        drop(self.told);
        self.process.wait().unwrap();
    }
}

/// In a server's process: says where it listens, then hands each line that it is told to `obey`; returns when the
/// measuring process is done or gone.
pub(super) async fn obey<F: Future<Output = ()>>(address: SocketAddr, mut obey: impl FnMut(Vec<String>) -> F) {
    say(&address.to_string());
    let (lines, mut told) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            lines.send(line.unwrap()).unwrap();
        }
    });
    while let Some(line) = told.recv().await {
        obey(line.split(' ').map(str::to_owned).collect()).await;
        say("done");
    }
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}
