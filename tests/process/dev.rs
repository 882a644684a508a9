//! `claviger dev` as a child process, and what it says about itself.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU16, Ordering},
};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use claviger::{
    client::{Client, Connect},
    dev::visitor::{Decision, Visitor},
    domain::PresentedToken,
    outbound::{Outbound, Policy, Request},
    proto::v1::{self, store_auth_code_request::Flow},
};
use http::{HeaderValue, Method};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use crate::{
    emitted::{self, Emitted},
    process::{Finished, Process},
};

pub(crate) const PLUGIN: &str = "calendar";
const LAST_LINE: &str = "Stop with Ctrl-C.";

/// A directory and a provider's address: what `dev` must be given again to be the same.
pub(crate) struct Place {
    /// Before the directory, which it searches when it goes.
    _emitted: Emitted,
    directory: TempDir,
    pub(crate) provider: String,
}

/// A running `dev` that has printed its quick start.
pub(crate) struct Dev<'p> {
    place: &'p Place,
    pub(crate) process: Process,
    pub(crate) grpc: String,
}

pub(crate) fn claviger() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    let ours = std::env::vars_os().map(|(name, _)| name);
    for inherited in ours.filter(|name| name.to_string_lossy().starts_with("CLAVIGER_")) {
        command.env_remove(inherited);
    }
    command
}

pub(crate) fn run(command: &mut Command) -> Finished {
    Process::spawn(command).finish()
}

/// A free port that no outgoing connection is given, so that it is still free after a restart.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    (0..1000)
        .map(|_| {
            let start = u16::try_from(process::id() % 10_000).unwrap();
            20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000
        })
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of a thousand ports is free")
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = TempDir::with_prefix("claviger-process-").unwrap();
        Self {
            _emitted: Emitted::of("place").below(directory.path()),
            directory,
            provider: format!("127.0.0.1:{}", free_port()),
        }
    }

    /// One that `dev` makes itself.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.path().join("its own")
    }

    pub(crate) fn command(&self) -> Command {
        self.command_in(&self.directory())
    }

    pub(crate) fn command_in(&self, directory: &Path) -> Command {
        let mut command = claviger();
        command.args(["dev", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--provider", &self.provider]);
        command.arg("--directory").arg(directory).env("CLAVIGER_LOG", "trace");
        command
    }

    pub(crate) fn start(&self) -> Dev<'_> {
        self.start_as(&mut self.command())
    }

    pub(crate) fn start_as(&self, command: &mut Command) -> Dev<'_> {
        let mut process = Process::spawn(command);
        let grpc = process.line(|line| line.starts_with("  gRPC"));
        process.line(|line| line.starts_with(LAST_LINE));
        let grpc = grpc.split_whitespace().next_back().unwrap().to_owned();
        self.know_what_it_made();
        Dev { place: self, process, grpc }
    }

    fn know_what_it_made(&self) {
        // Some tests choose another directory.
        let Ok(key) = fs::read_to_string(self.directory().join("root.key")) else { return };
        let key = key.trim().rsplit(':').next().unwrap();
        emitted::know("root key", key);
        emitted::know("root key's bytes", BASE64_URL_SAFE_NO_PAD.decode(key).unwrap());
        let token = read(&self.directory().join("alice.token"));
        emitted::know("platform token", token.trim());
        emitted::know("platform token's signature", token.trim().rsplit('.').next().unwrap());
    }

    /// Starts what cannot start.
    pub(crate) fn fail(&self) -> Finished {
        run(&mut self.command())
    }
}

impl Dev<'_> {
    pub(crate) fn stop(self) -> Finished {
        self.process.stop(Signal::TERM)
    }

    pub(crate) fn kill(self) -> Finished {
        self.process.stop(Signal::KILL)
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.grpc)
    }

    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.place.provider)
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.place.directory()
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.directory().join("alice.token")
    }

    pub(crate) fn token(&self) -> String {
        read(&self.token_file()).trim().to_owned()
    }

    /// Alice's.
    pub(crate) fn client(&self) -> Client {
        let connect = Connect { endpoint: self.endpoint(), ..Connect::default() };
        connect.with_token(&PresentedToken::new(self.token())).unwrap()
    }

    /// A client command under alice's token.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = claviger();
        command.args(arguments).args(["--endpoint", &self.endpoint(), "--token-file"]).arg(self.token_file());
        command
    }

    /// The printed line that calls `method`.
    pub(crate) fn printed_call(&self, method: &str) -> &str {
        let end = format!("/{method}");
        self.process.printed().iter().find(|line| line.ends_with(&end)).unwrap()
    }

    /// The printed line that exports `variable`.
    pub(crate) fn printed_export(&self, variable: &str) -> &str {
        let start = format!("export {variable}=");
        self.process.printed().iter().find(|line| line.starts_with(&start)).unwrap()
    }

    /// The request of the printed `StoreAuthCode` line.
    pub(crate) fn printed_code(&self) -> v1::FlowCode {
        let line = self.printed_call("StoreAuthCode");
        let data = line.split_once(" -d '").and_then(|(_, rest)| rest.split_once("' ")).unwrap().0;
        let request: Value = serde_json::from_str(data).unwrap();
        let member = |name: &str| request["flow_code"][name].as_str().unwrap().to_owned();
        v1::FlowCode { state: member("state"), code: member("code"), iss: member("iss") }
    }

    /// Stores the printed code.
    pub(crate) async fn connect(&self) -> v1::Connection {
        let request = v1::StoreAuthCodeRequest { flow: Some(Flow::FlowCode(self.printed_code())) };
        self.client().store_auth_code(request).await.unwrap().connection.unwrap()
    }

    /// Every request to `endpoint` suffers `fault` until [`Self::disarm`].
    pub(crate) async fn arm(&self, endpoint: &str, fault: &Value) {
        let armed = json!({ "endpoint": endpoint, "count": 1000, "fault": fault }).to_string();
        let mut request = Request::post_form(self.faults(), armed.into_bytes().into());
        request.headers.insert("content-type", HeaderValue::from_static("application/json"));
        let reply = outbound().send(request).await.unwrap();
        assert!(reply.status.is_success(), "{}", reply.status);
    }

    pub(crate) async fn disarm(&self) {
        let request = Request { method: Method::DELETE, ..Request::get(self.faults()) };
        assert!(outbound().send(request).await.unwrap().status.is_success());
    }

    fn faults(&self) -> Url {
        format!("{}/dev/faults", self.issuer()).parse().unwrap()
    }
}

pub(crate) fn outbound() -> Outbound {
    Outbound::new(&Policy { allow_http_loopback: true, ..Policy::default() }).unwrap()
}

/// Logs alice in and approves; the redirect is not followed.
pub(crate) async fn visit(url: &str) -> Url {
    Visitor::new(outbound()).visit(&url.parse().unwrap(), "alice", Decision::Approve).await.unwrap()
}

pub(crate) fn parameter(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap()
}

pub(crate) fn ask() -> v1::GetPluginTokenRequest {
    v1::GetPluginTokenRequest { plugin: PLUGIN.to_owned(), ..Default::default() }
}

/// A token that lives longer than any of the provider's: it must be fetched.
pub(crate) fn ask_for_a_new_one() -> v1::GetPluginTokenRequest {
    let hour = prost_types::Duration { seconds: 3600, nanos: 0 };
    v1::GetPluginTokenRequest { min_remaining: Some(hour), ..ask() }
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
