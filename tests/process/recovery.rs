//! The recovery drill of docs/operations.md, with the program itself: serve under load, back up, lose everything, restore
//! elsewhere, go on.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use claviger::{
    app::SystemClock,
    client::{Client, Connect},
    dev::{self, DevProvider, PlatformClaims},
    domain::{AccessToken, PresentedToken},
    outbound::Request,
    proto::v1::{self, watch_credential_status_request::Start, watch_credential_status_response::Body},
    sealing::Random,
};
use futures_util::future::{join, join_all};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use url::Url;

use crate::{
    dev::{ask, ask_for_a_new_one, claviger, outbound, parameter, read, run, visit},
    emitted::{self, Emitted},
    process::{Finished, Process},
};

const CALLBACK: &str = "http://127.0.0.1/callback";

/// A provider that outlives every broker, and an operator's machines.
struct Drill {
    /// Before the directory, which it searches when it goes.
    _emitted: Emitted,
    directory: TempDir,
    provider: DevProvider,
}

/// One machine: a configuration, a root key, and perhaps a store.
struct Machine {
    directory: PathBuf,
}

/// A broker that serves there.
struct Serving {
    process: Process,
    grpc: String,
    http: String,
}

impl Drill {
    async fn new() -> Self {
        let directory = TempDir::with_prefix("claviger-drill-").unwrap();
        let emitted = Emitted::of("drill").below(directory.path());
        let options = dev::Options {
            redirect_uris: vec![CALLBACK.parse().unwrap()],
            access_token_lifetime: Duration::from_secs(3600),
            ..dev::Options::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let random = Random::system();
        let fill = move |bytes: &mut [u8]| random.fill(bytes).unwrap();
        let provider = DevProvider::start(listener, options, Arc::new(SystemClock), fill).await.unwrap();
        Self { _emitted: emitted, directory, provider }
    }

    fn machine(&self, name: &str) -> Machine {
        let directory = self.directory.path().join(name);
        fs::create_dir(&directory).unwrap();
        let machine = Machine { directory };
        run(claviger().arg("generate-key").arg(machine.path("root.key"))).expect_code(0);
        let key = read(&machine.path("root.key"));
        emitted::know("root key", key.trim().rsplit(':').next().unwrap());
        private(&machine.path("dev.secret"), self.provider.client_secret().expose());
        let configuration = format!(
            r#"
[grpc]
listen = "127.0.0.1:0"
rate = 0
[http]
listen = "127.0.0.1:0"
[store]
directory = "store"
[sealing]
root_keys = ["root.key"]
[outbound]
allow_http_loopback = true
[[identity]]
id = "platform"
subject_claims = ["sub"]
[[identity.issuers]]
issuer = "{}"
audiences = ["claviger"]
tenant = {{ fixed = "acme" }}
roles = [{{ role = "operator", claim = "roles", values = ["operator"] }}]
token_types = ["at+jwt"]
[[tenants]]
id = "acme"
redirect_uris = [{{ loopback = "/callback" }}]
[[providers]]
id = "dev"
definition = "oidc"
issuer = "{}"
rotation = "strict"
client_id = "{}"
client_secret_file = "dev.secret"
[[plugins]]
id = "calendar"
display_name = "Calendar"
provider = "dev"
scopes = ["calendar.read"]
"#,
            self.provider.platform_issuer(),
            self.provider.issuer(),
            dev::CLIENT_ID,
        );
        fs::write(machine.file(), configuration).unwrap();
        machine
    }

    fn token(&self, user: &str, roles: &[&str]) -> PresentedToken {
        let roles = roles.iter().map(ToString::to_string).collect();
        let claims =
            PlatformClaims { lifetime: Duration::from_secs(24 * 3600), roles, ..PlatformClaims::to("claviger") };
        let token = self.provider.mint_platform_token(user, &claims).unwrap();
        emitted::know("platform token's signature", token.expose().rsplit('.').next().unwrap());
        token
    }

    fn client(&self, serving: &Serving, user: &str) -> Client {
        let connect = Connect { endpoint: format!("http://{}", serving.grpc), ..Connect::default() };
        connect.with_token(&self.token(user, &[])).unwrap()
    }

    /// A command under an operator's token.
    fn operator(&self, serving: &Serving, arguments: &[&str]) -> Command {
        let token = self.directory.path().join("operator.token");
        private(&token, self.token("olga", &["operator"]).expose());
        let mut command = claviger();
        command.args(arguments).arg("--endpoint").arg(format!("http://{}", serving.grpc));
        command.arg("--token-file").arg(token).args(["--output", "json"]);
        command
    }

    fn accepts(&self, token: &v1::GetPluginTokenResponse) -> bool {
        self.provider.is_access_token_live(&AccessToken::new(token.access_token.clone()))
    }
}

impl Machine {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn file(&self) -> PathBuf {
        self.path("claviger.toml")
    }

    fn serve(&self) -> Serving {
        let mut process = Process::spawn(claviger().arg("serve").arg("--config").arg(self.file()));
        let line = process.error_line(|line| line.contains("serving"));
        let address = |name: &str| {
            let rest = line.split_once(&format!("{name}=")).unwrap().1;
            rest.split_whitespace().next().unwrap().to_owned()
        };
        Serving { grpc: address("grpc.address"), http: address("http.address"), process }
    }

    fn restore(&self, archive: &Path, more: &[&str]) -> Finished {
        run(claviger().arg("restore").arg("--config").arg(self.file()).arg(archive).args(more))
    }
}

fn private(path: &Path, text: &str) {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

async fn connect(client: &Client, user: &str) -> v1::Connection {
    let request = v1::StartAuthorizationRequest {
        target: Some(v1::start_authorization_request::Target::Plugin("calendar".to_owned())),
        binding: v1::AuthorizationBinding::Caller.into(),
        redirect_uri: CALLBACK.to_owned(),
        ..Default::default()
    };
    let started = client.start_authorization(request).await.unwrap();
    let url: Url = started.authorization_url.parse().unwrap();
    for secret in ["state", "nonce", "code_challenge"] {
        emitted::know(secret, parameter(&url, secret));
    }
    let answer = if user == "alice" { visit(url.as_str()).await } else { visit_as(user, &url).await };
    let flow = v1::FlowCode {
        state: parameter(&answer, "state"),
        code: parameter(&answer, "code"),
        iss: parameter(&answer, "iss"),
    };
    let code = v1::StoreAuthCodeRequest { flow: Some(v1::store_auth_code_request::Flow::FlowCode(flow)) };
    client.store_auth_code(code).await.unwrap().connection.unwrap()
}

async fn visit_as(user: &str, url: &Url) -> Url {
    use claviger::dev::visitor::{Decision, Visitor};
    Visitor::new(outbound()).visit(url, user, Decision::Approve).await.unwrap()
}

/// A position in the log as it is now.
async fn resume_token(client: &Client) -> Vec<u8> {
    let request = v1::WatchCredentialStatusRequest { start: Some(Start::Now(true)), ..Default::default() };
    let mut stream = client.watch_credential_status(request).await.unwrap();
    loop {
        let message = stream.message().await.unwrap().unwrap();
        if !message.resume_token.is_empty() {
            return message.resume_token;
        }
    }
}

/// What is asked over and over while a backup is taken. Every answer must be good.
enum Caller {
    /// Of a token that lives long.
    Reader(Client),
    /// Connects anew and refreshes.
    Writer(Client),
    /// Of an orchestrator.
    Readiness(Url),
}

impl Caller {
    async fn call(&self) {
        match self {
            Self::Reader(client) => drop(client.get_plugin_token(ask()).await.unwrap()),
            Self::Writer(client) => {
                connect(client, "bob").await;
                client.get_plugin_token(ask_for_a_new_one()).await.unwrap();
            }
            Self::Readiness(url) => {
                assert_eq!(outbound().send(Request::get(url.clone())).await.unwrap().status, 200, "readiness");
            }
        }
    }
}

/// Does `work` while callers are at it: before, during and after it each of them is answered.
async fn under_load<T>(drill: &Drill, serving: &Serving, work: impl Future<Output = T>) -> T {
    let callers = [
        Caller::Reader(drill.client(serving, "alice")),
        Caller::Writer(drill.client(serving, "bob")),
        Caller::Readiness(format!("http://{}/readyz", serving.http).parse().unwrap()),
    ];
    let (answers, over) = (callers.each_ref().map(|_| Cell::new(0)), Cell::new(false));
    let calling = join_all(callers.iter().zip(&answers).map(async |(caller, answers)| {
        while !over.get() {
            caller.call().await;
            answers.set(answers.get() + 1);
        }
    }));
    let answered = async |times: u64| {
        let wanted = answers.each_ref().map(|answers| answers.get() + times);
        while answers.iter().zip(wanted).any(|(answers, wanted)| answers.get() < wanted) {
            tokio::task::yield_now().await;
        }
    };
    let working = async {
        answered(3).await;
        let done = work.await;
        answered(1).await;
        over.set(true);
        done
    };
    join(calling, working).await.1
}

async fn finished(mut command: Command) -> Finished {
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_backed_up_under_load_goes_on_elsewhere() {
    let drill = Drill::new().await;
    let here = drill.machine("here");
    let serving = here.serve();
    let alice = drill.client(&serving, "alice");
    let connection = connect(&alice, "alice").await;
    connect(&drill.client(&serving, "bob"), "bob").await;
    let token = resume_token(&alice).await;

    let archive = drill.directory.path().join("monday.archive");
    let backup = finished(drill.operator(&serving, &["backup", archive.to_str().unwrap()]));
    let copied = under_load(&drill, &serving, backup).await;
    copied.expect_code(0);
    let summary: Value = serde_json::from_str(&copied.stdout).unwrap();
    assert_eq!(summary["bytes"], fs::metadata(&archive).unwrap().len());
    let again = finished(drill.operator(&serving, &["backup", archive.to_str().unwrap()])).await;
    again.expect_code(73);
    assert!(again.stderr.contains("is not overwritten"), "{}", again.stderr);
    serving.process.stop(Signal::KILL);

    let elsewhere = drill.machine("elsewhere");
    fs::copy(here.path("root.key"), elsewhere.path("root.key")).unwrap();
    fs::remove_dir_all(&here.directory).unwrap();
    let restored = elsewhere.restore(&archive, &["--output", "json"]);
    restored.expect_code(0);
    let restored: Value = serde_json::from_str(&restored.stdout).unwrap();
    assert_eq!((&restored["revision"], &restored["rows"]), (&summary["revision"], &summary["rows"]));
    assert_eq!(restored["kept"], Value::Null);

    let serving = elsewhere.serve();
    let alice = drill.client(&serving, "alice");
    let served = alice.get_plugin_token(ask()).await.unwrap();
    assert_eq!(served.connection_id, connection.connection_id);
    assert!(drill.accepts(&served));
    let refreshed = alice.get_plugin_token(ask_for_a_new_one()).await.unwrap();
    assert!(refreshed.generation > served.generation && drill.accepts(&refreshed));
    let lost = v1::WatchCredentialStatusRequest {
        start: Some(Start::ResumeToken(token)),
        on_lost: v1::OnLost::Resync.into(),
        ..Default::default()
    };
    let mut watch = alice.watch_credential_status(lost).await.unwrap();
    let mut bodies = Vec::new();
    while bodies.len() < 2 {
        bodies.extend(watch.message().await.unwrap().unwrap().body);
    }
    assert!(matches!(bodies[1], Body::Resync(_)), "the log of before is not this one");
    let all = v1::RevokeRequest { target: Some(v1::revoke_request::Target::AllMine(true)), preview: false };
    let revoked = alice.revoke(all).await.unwrap().results;
    assert_eq!(revoked[0].remote_outcome(), v1::RemoteOutcome::Confirmed);
    assert!(!drill.accepts(&refreshed));

    let status = finished(drill.operator(&serving, &["keys", "status"])).await;
    status.expect_code(0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["keys"][0]["state"], "PRESENT");
    serving.process.stop(Signal::TERM).expect_code(0);
    let checked = run(claviger().arg("doctor").arg("--config").arg(elsewhere.file()));
    assert!(checked.stdout.contains("records hold together"), "the trail goes on in one chain: {}", checked.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_to_restore_has_its_message_and_its_exit_code() {
    let drill = Drill::new().await;
    let here = drill.machine("here");
    let serving = here.serve();
    connect(&drill.client(&serving, "alice"), "alice").await;
    let archive = drill.directory.path().join("archive");
    finished(drill.operator(&serving, &["backup", archive.to_str().unwrap()])).await.expect_code(0);
    let running = here.restore(&archive, &["--replace"]);
    serving.process.stop(Signal::TERM).expect_code(0);
    let stranger = drill.machine("stranger");
    let whole = fs::read(&archive).unwrap();
    let bad = |name: &str, bytes: &[u8]| {
        let path = drill.directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let (flipped, short) = (bad("flipped", &flipped), bad("short", &whole[..whole.len() - 1]));
    for (refused, code, message) in [
        (running, 75, "is in use by another process"),
        (here.restore(&archive, &[]), 73, "give --replace"),
        (here.restore(&flipped, &["--replace"]), 65, "the archive is damaged: chunk 0 is not as it was written"),
        (here.restore(&short, &["--replace"]), 65, "the archive ends too early"),
        (here.restore(&here.file(), &["--replace"]), 65, "this is not an archive of claviger"),
        (here.restore(&here.path("nowhere"), &["--replace"]), 66, "cannot be read"),
        (stranger.restore(&archive, &[]), 78, "the archive is sealed under root key key_"),
    ] {
        refused.expect_code(code);
        assert!(refused.stderr.contains(message), "{}", refused.stderr);
    }
    assert!(!stranger.path("store").exists());

    let kept = here.restore(&archive, &["--replace"]);
    kept.expect_code(0);
    assert!(kept.stderr.contains("store.before-restore"), "{}", kept.stderr);
    assert!(here.path("store.before-restore").join("db").exists());
    let compacted = run(claviger().args(["store", "compact", "--output", "json", "--config"]).arg(here.file()));
    compacted.expect_code(0);
    let compacted: Value = serde_json::from_str(&compacted.stdout).unwrap();
    assert!(compacted["rows"].as_u64().is_some_and(|rows| rows > 0), "{compacted}");
    let serving = here.serve();
    let served = drill.client(&serving, "alice").get_plugin_token(ask()).await.unwrap();
    assert!(drill.accepts(&served));
    let compacting = run(claviger().args(["store", "compact", "--config"]).arg(here.file()));
    compacting.expect_code(75);
    serving.process.stop(Signal::TERM).expect_code(0);
}
