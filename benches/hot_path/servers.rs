//! The servers as processes of their own, each pinned to the servers' core before its runtime looks at the machine.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use super::SERVERS;

/// A running server. It ends when its standard input does, so that none outlives this process.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    process: Child,
}

impl Server {
    pub(super) fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new("taskset")
            .args(["-c", SERVERS])
            .arg(env::current_exe().unwrap())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { address: line.trim().parse().unwrap_or_else(|_| panic!("{arguments:?} did not start")), process }
    }

    /// User and system time that the process has used so far, in clock ticks (proc(5)).
    pub(super) fn ticks(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        // The name in the second field may hold spaces; what follows its parenthesis is field 3.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
        ticks(14) + ticks(15)
    }

    pub(super) fn end(mut self) {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }
}

/// In a server's process: says where it listens.
pub(super) fn announce(address: SocketAddr) {
    println!("{address}");
    std::io::stdout().flush().unwrap();
}

/// In a server's process: returns when the measuring process is done or gone.
pub(super) async fn until_told() {
    tokio::task::spawn_blocking(|| {
        let _ = std::io::stdin().read(&mut [0]);
    })
    .await
    .unwrap();
}
