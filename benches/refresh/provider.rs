//! A token endpoint that does nothing but answer, in a process of its own, and knows when it was asked.

use std::{
    env,
    io::{BufRead, BufReader, Write, stdin, stdout},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};

/// The word that makes this program the provider.
pub(super) const CHILD: &str = "provider";

pub(super) struct Provider {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(super) token_endpoint: String,
}

/// What was asked since the last look.
pub(super) struct Asked {
    pub(super) times: u64,
    pub(super) most_in_a_second: u64,
}

impl Provider {
    pub(super) fn start() -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .arg(CHILD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let mut provider = Self { process, input, output, token_endpoint: String::new() };
        provider.token_endpoint = provider.line()["token_endpoint"].as_str().unwrap().to_owned();
        provider
    }

    pub(super) fn asked(&mut self) -> Asked {
        writeln!(self.input, "asked").unwrap();
        let asked = self.line();
        let number = |name: &str| asked[name].as_u64().unwrap();
        Asked { times: number("times"), most_in_a_second: number("most_in_a_second") }
    }

    pub(super) fn end(self) {
        let Self { mut process, input, .. } = self;
        drop(input);
        assert!(process.wait().unwrap().success());
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect("the provider lives")
    }
}

/// In the child, until its input ends.
pub(super) fn run() {
    let runtime = Runtime::new().unwrap();
    let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    say(&json!({ "token_endpoint": format!("http://{}/token", listener.local_addr().unwrap()) }));
    let (number, journal) = (Arc::new(AtomicU64::new(0)), Arc::clone(&asked));
    let answer = move || {
        journal.lock().unwrap().push(Instant::now());
        let number = number.fetch_add(1, Ordering::Relaxed);
        async move {
            Json(json!({
                "access_token": format!("{number}.{}", "a".repeat(900)),
                "refresh_token": format!("{number}.{}", "r".repeat(300)),
                "token_type": "Bearer",
                "expires_in": 86_400,
                "scope": "read",
            }))
        }
    };
    let routes = Router::new().route("/token", post(answer));
    runtime.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    for _ in stdin().lock().lines().map(Result::unwrap) {
        let times = std::mem::take(&mut *asked.lock().unwrap());
        say(&json!({ "times": times.len(), "most_in_a_second": most_in_a_second(&times) }));
    }
}

fn most_in_a_second(times: &[Instant]) -> usize {
    let within = |first: usize| times[first..].partition_point(|at| *at - times[first] < Duration::from_secs(1));
    (0..times.len()).map(within).max().unwrap_or(0)
}

fn say(value: &Value) {
    println!("{value}");
    stdout().flush().unwrap();
}
