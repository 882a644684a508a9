//! h2load: a client that costs less than the server. It takes every gRPC answer for a success, because the status
//! stands in the trailers; so the bytes of the answers are counted too, and `setting` reads some.

use std::{fs, process::Command};

use super::{CLIENTS, servers::Server, setting::Setting};

/// One row of the table.
pub(super) struct Load {
    pub(super) name: &'static str,
    method: &'static str,
    /// The request's body and the answer's length.
    messages: fn(&Setting) -> (Vec<u8>, usize),
    pub(super) connections: usize,
    /// Of each connection, at a time.
    pub(super) streams: usize,
}

pub(super) const ALL: [Load; 4] = [
    Load {
        name: "GetPluginToken",
        method: "GetPluginToken",
        messages: Setting::get_plugin_token,
        connections: 4,
        streams: 16,
    },
    Load {
        name: "ValidatePlatformToken",
        method: "ValidatePlatformToken",
        messages: Setting::validate_platform_token,
        connections: 4,
        streams: 16,
    },
    Load {
        name: "GetPluginToken, one at a time",
        method: "GetPluginToken",
        messages: Setting::get_plugin_token,
        connections: 1,
        streams: 1,
    },
    Load {
        name: "ValidatePlatformToken, one at a time",
        method: "ValidatePlatformToken",
        messages: Setting::validate_platform_token,
        connections: 1,
        streams: 1,
    },
];

pub(super) struct Target<'a>(&'a Server);

/// What one round showed.
pub(super) struct Measured {
    pub(super) calls_per_second: f64,
    /// Microseconds of the server's processor, user and system.
    pub(super) cpu_per_call: f64,
}

/// Of the kernel's accounting (proc(5)): the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;
/// Of a round.
const SECONDS: &str = "2s";
/// gRPC's length prefix.
const PREFIX: usize = 5;

impl<'a> Target<'a> {
    pub(super) fn of(server: &'a Server) -> Self {
        Self(server)
    }
}

impl Load {
    pub(super) fn run(&self, setting: &Setting, target: &Target<'_>) -> Measured {
        let (request, answer) = (self.messages)(setting);
        let body = setting.directory.path().join(self.method);
        let length = u32::try_from(request.len()).unwrap().to_be_bytes();
        fs::write(&body, [&[0], &length[..], &request].concat()).unwrap();
        let before = target.0.ticks();
        let output = Command::new("taskset")
            .args(["-c", CLIENTS, "h2load", "-t1", "-D", SECONDS])
            .args(["-c", &self.connections.to_string(), "-m", &self.streams.to_string()])
            .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
            .args(["-H", &format!("authorization: Bearer {}", setting.token.expose())])
            .arg("-d")
            .arg(&body)
            .arg(format!("http://{}/claviger.v1.TokenBrokerService/{}", target.0.address, self.method))
            .output()
            .unwrap();
        let ticks = target.0.ticks() - before;
        let report = String::from_utf8(output.stdout).unwrap();
        self.read(&report, answer, ticks).unwrap_or_else(|| panic!("h2load says of {}:\n{report}", self.name))
    }

    /// `None`: it is no report, or not everything in it is as it must be.
    fn read(&self, report: &str, answer: usize, ticks: f64) -> Option<Measured> {
        let line = |start: &str| report.lines().find_map(|line| line.strip_prefix(start));
        let rate = line("finished in ")?.split(", ").nth(1)?.strip_suffix(" req/s")?.parse().ok()?;
        let requests = line("requests: ")?;
        let count = |what: &str| number(requests.split(", ").find(|part| part.ends_with(what))?);
        let done = count("done")?;
        // What was on its way when time was up is counted as neither.
        let in_flight = (self.connections * self.streams) as f64;
        let bytes = line("traffic: ")?.split(", ").find(|part| part.ends_with("data"))?;
        let bytes: f64 = bytes.split_once('(')?.1.split_once(')')?.0.parse().ok()?;
        let expected = done * (answer + PREFIX) as f64;
        let sound = done > 0.0
            && count("failed")? == 0.0
            && count("errored")? == 0.0
            && bytes >= expected * 0.99
            && bytes <= (expected + in_flight * (answer + PREFIX) as f64) * 1.01;
        sound.then(|| Measured { calls_per_second: rate, cpu_per_call: ticks / TICKS_PER_SECOND * 1e6 / done })
    }
}

fn number(part: &str) -> Option<f64> {
    part.split_whitespace().next()?.parse().ok()
}
