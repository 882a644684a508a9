//! The client commands as a script sees them: arguments in, output, errors and exit code out.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    pin::Pin,
    process::{Child, Command, Output, Stdio},
};

use claviger::proto::v1::{
    self, ApplyOutcome, AuthenticationRequired, Connection, ConnectionBadge, CredentialEvent, CredentialEventKind,
    CredentialHolder, CredentialState, CredentialStatus, LocalOutcome, RemoteOutcome, RevokeResult, TokenUsage,
    WatchBatch, WatchCredentialStatusResponse, WatchOpened,
    connection_service_server::{ConnectionService, ConnectionServiceServer},
    operations_service_server::{OperationsService, OperationsServiceServer},
    revoke_request::Target,
    start_authorization_request::Target as StartTarget,
    store_auth_code_request::Flow,
    token_broker_service_server::{TokenBrokerService, TokenBrokerServiceServer},
    watch_credential_status_response::Body,
};
use futures_util::{Stream, StreamExt as _, stream};
use prost::Message as _;
use prost_types::Any;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

const TOKEN: &str = "platform-token";

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_token_is_the_token_and_nothing_else() {
    let broker = Broker::start().await;
    let output = broker.run(&["token", "calendar"]);
    assert_eq!(stdout(&output), "provider-token\n");
    assert_eq!(stderr(&output), "");
    assert_eq!(output.status.code(), Some(0));

    assert_eq!(stdout(&broker.run(&["token", "calendar", "--header"])), "authorization: Bearer provider-token\n");
    let document: Value =
        serde_json::from_str(&stdout(&broker.run(&["token", "calendar", "--output", "json"]))).unwrap();
    assert_eq!(document["access_token"], "provider-token");
    assert_eq!(document["expires_at"], Value::Null, "unknown stays unknown");
    assert_eq!(document["usage"]["base_url"], "https://calendar.example/v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_must_authorize_is_told_what_to_do() {
    let broker = Broker::start().await;
    let output = broker.run(&["token", "mail"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "error: CONSENT_REQUIRED: no account is connected\n  authorize at: https://broker.example/connect/flw_1\n  \
         or run: claviger connect mail\n  request id: req-1\n"
    );
    let output = broker.run(&["token", "mail", "--output", "json"]);
    let document: Value = serde_json::from_str(&stderr(&output)).unwrap();
    assert_eq!(document["error"]["reason"], "CONSENT_REQUIRED");
    assert_eq!(document["error"]["authentication_required"]["flow_id"], "flw_1");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_the_failures_apart() {
    let broker = Broker::start().await;
    let code = |command: &mut Command| command.output().unwrap().status.code();
    assert_eq!(code(broker.command(&["token", "calendar"]).env_remove("CLAVIGER_TOKEN")), Some(78));
    assert_eq!(code(broker.command(&["token", "calendar"]).env("CLAVIGER_TOKEN", "stolen")), Some(77));
    assert_eq!(code(&mut broker.command(&["token", "calendar", "--token-file", "/nowhere"])), Some(66));
    assert_eq!(code(&mut broker.command(&["connections", "--endpoint", "http://127.0.0.1:1"])), Some(69));
    assert_eq!(code(&mut broker.command(&["connections", "--endpoint", "http://192.0.2.1:1"])), Some(78));
    assert_eq!(code(&mut broker.command(&["revoke"])), Some(2));
    assert_eq!(code(&mut broker.command(&["revoke", "--all", "--plugin", "calendar"])), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_may_come_from_a_file() {
    let broker = Broker::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    writeln!(&file, "{TOKEN}").unwrap();
    let path = file.path().to_str().unwrap();
    let output = broker.command(&["connections", "--token-file", path]).env_remove("CLAVIGER_TOKEN").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_plain_and_cannot_steer_the_terminal() {
    let broker = Broker::start().await;
    let table = stdout(&broker.run(&["connections"]));
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows[0],
        ["CONNECTION", "PROVIDER", "ACCOUNT", "STATUS", "STATE", "NEXT", "WHY", "EXPIRES", "HELD", "BY", "SCOPES"]
    );
    assert_eq!(
        rows[1],
        [
            "con_1",
            "example",
            "al\u{fffd}ice",
            "connected",
            "EXPIRED",
            "-",
            "-",
            "-",
            "po\u{fffd}d-1:",
            "6,",
            "2",
            "forgotten",
            "read",
            "write"
        ]
    );
    assert!(!table.contains('\x1b'));

    let table = stdout(&broker.run(&["revoke", "--all", "--preview"]));
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows[1],
        ["con_1", "example", "-", "STOPPED", "PENDING", "po\u{fffd}d-1:", "6", "the\u{fffd}", "bot", "leaves"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_again_shows_who_still_holds_what() {
    let broker = Broker::start().await;
    let output = broker.run(&["revoke", "--connection", "con_1"]);
    let table = stdout(&output);
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().take(7).collect();
    assert_eq!(row, ["con_1", "example", "-", "ALREADY_STOPPED", "CONFIRMED", "po\u{fffd}d-1:", "6"]);
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_takes_the_providers_answer_on_loopback() {
    let broker = Broker::start().await;
    let mut child = broker.spawn(&["connect", "calendar", "--output", "json"]);
    let (redirect_uri, state) = shown_flow(&mut child);

    assert!(visit(&redirect_uri, "code=stolen&state=guessed").starts_with("HTTP/1.1 400"), "a guess changes nothing");
    assert!(visit(&redirect_uri, &format!("code=good&state={state}")).starts_with("HTTP/1.1 200"));
    let output = child.wait_with_output().unwrap();
    let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(document["connection"]["connection_id"], "con_1");
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_reports_a_refusal_without_the_providers_prose() {
    let broker = Broker::start().await;
    let mut child = broker.spawn(&["connect", "calendar"]);
    let (redirect_uri, state) = shown_flow(&mut child);
    visit(&redirect_uri, &format!("error=access_denied&error_description=call+0900-1234&state={state}"));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(said.trim(), "error: the provider answered access_denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_reads_a_pasted_address() {
    let broker = Broker::start().await;
    let mut child =
        broker.spawn(&["connect", "calendar", "--no-listen", "--redirect-uri", "https://app.example/callback"]);
    let (redirect_uri, state) = shown_flow(&mut child);
    assert_eq!(redirect_uri.as_str(), "https://app.example/callback");
    writeln!(child.stdin.take().unwrap(), "{redirect_uri}?code=good&state={state}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(stdout(&output).contains("con_1"));
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_prints_a_line_an_event_until_it_is_interrupted() {
    let broker = Broker::start().await;
    let mut child = broker.spawn(&["watch", "--output", "json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let (first, second) = (line(), line());
    assert_eq!((&first["kind"], &first["revision"]), (&"REFRESHED".into(), &7.into()));
    assert_eq!(first.get("resume_token"), None, "resuming between two events of one revision would lose the second");
    assert_eq!((&second["kind"], &second["resume_token"]), (&"REVOKED".into(), &"YWZ0ZXIgNw".into()));

    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_goes_on_when_its_token_is_renewed_and_ends_when_it_is_not() {
    let broker = Broker::start().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(TOKEN.as_bytes()).unwrap();
    let mut child = broker.spawn(&["watch", "--output", "json", "--token-file", file.path().to_str().unwrap()]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.by_ref().take(2).for_each(|line| assert!(line.is_ok()));

    file.write_all(b"-renewed").unwrap();
    broker.accept_only("platform-token-renewed");
    lines.by_ref().take(2).for_each(|line| assert!(line.is_ok()));

    broker.accept_only("another");
    assert_eq!(child.wait().unwrap().code(), Some(77));
    assert_eq!(lines.count(), 0);
}

/// Where the browser would be sent, and with which state (as it stands in a query), as standard error shows it.
fn shown_flow(child: &mut Child) -> (url::Url, String) {
    let shown = BufReader::new(child.stderr.as_mut().expect("standard error is piped"))
        .lines()
        .map_while(Result::ok)
        .find_map(|line| url::Url::parse(line.trim()).ok())
        .expect("connect shows a URL");
    let parameter = |wanted| shown.query_pairs().find(|(name, _)| name == wanted).expect("sent").1.into_owned();
    let state = url::form_urlencoded::byte_serialize(parameter("state").as_bytes()).collect();
    (parameter("redirect_uri").parse().expect("a URL"), state)
}

/// What a browser does with a redirect.
fn visit(redirect_uri: &url::Url, query: &str) -> String {
    let address = (redirect_uri.host_str().expect("loopback"), redirect_uri.port().expect("a port"));
    let mut connection = TcpStream::connect(address).expect("connect listens");
    let path = redirect_uri.path();
    write!(connection, "GET {path}?{query} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("answered");
    answer
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_its_name_when_it_is_whole_and_is_its_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("monday.archive");
    let named = file.to_str().unwrap();
    std::fs::write(directory.path().join("monday.archive.part"), "left of an earlier try").unwrap();
    let broker = Broker::start().await;
    let output = broker.run(&["backup", named, "--output", "json"]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(document["file"], named);
    assert_eq!((&document["revision"], &document["rows"], &document["bytes"]), (&7.into(), &3.into(), &10.into()));
    assert_eq!(std::fs::read(&file).unwrap(), b"first last");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);

    let again = broker.run(&["backup", named]);
    assert_eq!(again.status.code(), Some(73));
    assert_eq!(std::fs::read(&file).unwrap(), b"first last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_breaks_off_leaves_nothing_behind() {
    for (ends, message) in [(End::Early, "before it was whole"), (End::WithAnError, "BACKUP_OUTRUN")] {
        let broker = Broker::start_with(Operations { ends }).await;
        let directory = tempfile::tempdir().unwrap();
        let output = broker.run(&["backup", directory.path().join("archive").to_str().unwrap()]);
        assert!(matches!(output.status.code(), Some(69 | 75)), "{:?}", output.status);
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_told_with_what_they_still_seal() {
    let broker = Broker::start().await;
    let output = broker.run(&["keys", "status"]);
    let table = stdout(&output);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["key_1", "ROOT", "-", "ROTATING", "12", "-"]);
    assert_eq!(rows[2], ["key_2", "TENANT", "acme", "PRESENT", "3", "2027-01-15T08:00:00Z"]);
    assert_eq!(stderr(&output), "a rotation is under way: 12 of 20 rows are left\n");
    let document: Value = serde_json::from_str(&stdout(&broker.run(&["keys", "status", "--output", "json"]))).unwrap();
    assert_eq!((&document["keys"][0]["tenant"], &document["keys"][1]["tenant"]), (&Value::Null, &"acme".into()));
    assert_eq!(document["rotation"]["left_rows"], 12);

    let document: Value =
        serde_json::from_str(&stdout(&broker.run(&["keys", "rotate", "--root", "--output", "json"]))).unwrap();
    assert_eq!((&document["begun_rows"], &document["left_rows"]), (&20.into(), &20.into()));
    assert_eq!(broker.run(&["keys", "rotate"]).status.code(), Some(2), "which is for its caller to say");
    assert_eq!(broker.run(&["keys", "rotate", "--root", "--all-tenants"]).status.code(), Some(2));
    assert!(stdout(&broker.run(&["keys", "retire", "key_1"])).contains("destroy the key's file"));
    let refused = broker.run(&["keys", "retire", "key_2"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("KEY_IN_USE"), "{}", stderr(&refused));
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// A broker that knows one user, one connection and two plugins.
struct Broker {
    endpoint: String,
    accepted: watch::Sender<&'static str>,
}

impl Broker {
    async fn start() -> Self {
        Self::start_with(Operations { ends: End::Well }).await
    }

    async fn start_with(operations: Operations) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
        let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let accepted = watch::Sender::new(TOKEN);
        let answers = Answers(accepted.subscribe());
        let current = accepted.subscribe();
        let check = move |request| authenticated(*current.borrow(), request);
        let server = Server::builder()
            .add_service(TokenBrokerServiceServer::with_interceptor(answers.clone(), check.clone()))
            .add_service(ConnectionServiceServer::with_interceptor(answers, check.clone()))
            .add_service(OperationsServiceServer::with_interceptor(operations, check));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { endpoint, accepted }
    }

    /// Open streams end: their token is no longer good.
    fn accept_only(&self, token: &'static str) {
        self.accepted.send_replace(token);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        command.args(arguments).env("CLAVIGER_TOKEN", TOKEN).env("CLAVIGER_ENDPOINT", &self.endpoint);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary was built")
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the binary was built")
    }
}

fn authenticated(accepted: &str, request: Request<()>) -> Result<Request<()>, Status> {
    let bearer = request.metadata().get("authorization").map(|value| value.as_bytes());
    if bearer == Some(format!("Bearer {accepted}").as_bytes()) {
        Ok(request)
    } else {
        Err(refusal(Code::Unauthenticated, "TOKEN_INVALID", "not yours", None))
    }
}

fn refusal(code: Code, reason: &str, message: &str, required: Option<&AuthenticationRequired>) -> Status {
    let info = Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, "claviger", []));
    let mut details = tonic_types::Status::decode(info.details()).expect("just encoded");
    details.details.extend(required.map(|required| Any {
        type_url: "type.googleapis.com/claviger.v1.AuthenticationRequired".to_owned(),
        value: required.encode_to_vec(),
    }));
    let mut status = Status::with_details(code, message, details.encode_to_vec().into());
    status.metadata_mut().insert("x-request-id", "req-1".parse().expect("legal"));
    status
}

fn connection() -> Connection {
    Connection {
        connection_id: "con_1".to_owned(),
        provider: "example".to_owned(),
        account: "al\x1bice".to_owned(),
        state: CredentialState::Expired.into(),
        badge: ConnectionBadge::Connected.into(),
        scopes: vec!["read".to_owned(), "write".to_owned()],
        holders: vec![holder()],
        holders_forgotten: 2,
        ..Default::default()
    }
}

fn holder() -> CredentialHolder {
    CredentialHolder {
        // The broker takes no such name, and a table trusts no broker.
        holder: "po\x1bd-1".to_owned(),
        generation: 6,
        outcome: ApplyOutcome::Applied.into(),
        reported_generation: 6,
        reported_at: None,
    }
}

#[derive(Clone)]
struct Answers(watch::Receiver<&'static str>);

#[tonic::async_trait]
impl TokenBrokerService for Answers {
    type WatchCredentialStatusStream =
        Pin<Box<dyn Stream<Item = Result<WatchCredentialStatusResponse, Status>> + Send>>;

    async fn validate_platform_token(
        &self,
        _: Request<v1::ValidatePlatformTokenRequest>,
    ) -> Result<Response<v1::ValidatePlatformTokenResponse>, Status> {
        Err(Status::unimplemented("no command asks"))
    }

    async fn get_plugin_token(
        &self,
        request: Request<v1::GetPluginTokenRequest>,
    ) -> Result<Response<v1::GetPluginTokenResponse>, Status> {
        if request.into_inner().plugin == "calendar" {
            return Ok(Response::new(v1::GetPluginTokenResponse {
                access_token: "provider-token".to_owned(),
                usage: Some(TokenUsage {
                    header: "authorization".to_owned(),
                    scheme: "Bearer".to_owned(),
                    base_url: "https://calendar.example/v1".to_owned(),
                }),
                ..Default::default()
            }));
        }
        let required = AuthenticationRequired {
            auth_url: "https://broker.example/connect/flw_1".to_owned(),
            flow_id: "flw_1".to_owned(),
            plugin: "mail".to_owned(),
            ..Default::default()
        };
        Err(refusal(Code::FailedPrecondition, "CONSENT_REQUIRED", "no account is connected", Some(&required)))
    }

    async fn get_plugin_tokens(
        &self,
        _: Request<v1::GetPluginTokensRequest>,
    ) -> Result<Response<v1::GetPluginTokensResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn store_auth_code(
        &self,
        request: Request<v1::StoreAuthCodeRequest>,
    ) -> Result<Response<v1::StoreAuthCodeResponse>, Status> {
        match request.into_inner().flow {
            Some(Flow::FlowCode(flow)) if (&*flow.code, &*flow.state) == ("good", "s+t/a te") => {
                Ok(Response::new(v1::StoreAuthCodeResponse { connection: Some(connection()) }))
            }
            _ => Err(refusal(Code::NotFound, "FLOW_NOT_FOUND", "no such flow", None)),
        }
    }

    async fn report_applied(
        &self,
        _: Request<v1::ReportAppliedRequest>,
    ) -> Result<Response<v1::ReportAppliedResponse>, Status> {
        Err(Status::unimplemented("no command asks"))
    }

    async fn revoke(&self, request: Request<v1::RevokeRequest>) -> Result<Response<v1::RevokeResponse>, Status> {
        let request = request.into_inner();
        let (local, remote) = match (request.target, request.preview) {
            (Some(Target::AllMine(true)), true) => (LocalOutcome::Stopped, RemoteOutcome::Pending),
            (Some(Target::ConnectionId(id)), false) if id == "con_1" => {
                (LocalOutcome::AlreadyStopped, RemoteOutcome::Confirmed)
            }
            other => panic!("no command asks for {other:?}"),
        };
        let result = RevokeResult {
            connection_id: "con_1".to_owned(),
            provider: "example".to_owned(),
            local_outcome: local.into(),
            remote_outcome: remote.into(),
            side_effects: "the\x1b bot leaves".to_owned(),
            holders: vec![holder()],
            ..Default::default()
        };
        Ok(Response::new(v1::RevokeResponse { results: vec![result] }))
    }

    async fn watch_credential_status(
        &self,
        _: Request<v1::WatchCredentialStatusRequest>,
    ) -> Result<Response<Self::WatchCredentialStatusStream>, Status> {
        let event = |kind: CredentialEventKind| CredentialEvent {
            kind: kind.into(),
            status: Some(CredentialStatus { connection_id: "con_1".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let events = vec![event(CredentialEventKind::Refreshed), event(CredentialEventKind::Revoked)];
        let said = [
            (Vec::new(), Body::Opened(WatchOpened::default())),
            (b"after 7".to_vec(), Body::Batch(WatchBatch { events, more_follows: false })),
        ];
        let messages = said.map(|(resume_token, body)| {
            Ok(WatchCredentialStatusResponse { resume_token, revision: 7, body: Some(body) })
        });
        let mut accepted = self.0.clone();
        accepted.mark_unchanged();
        let end = stream::once(async move {
            accepted.changed().await.expect("the test holds the broker");
            Err(refusal(Code::Unauthenticated, "TOKEN_EXPIRED", "the token ended", None))
        });
        Ok(Response::new(Box::pin(stream::iter(messages).chain(end))))
    }
}

#[tonic::async_trait]
impl ConnectionService for Answers {
    async fn start_authorization(
        &self,
        request: Request<v1::StartAuthorizationRequest>,
    ) -> Result<Response<v1::StartAuthorizationResponse>, Status> {
        let request = request.into_inner();
        assert_eq!(request.target, Some(StartTarget::Plugin("calendar".to_owned())));
        let mut url = url::Url::parse("https://provider.example/authorize").expect("a URL");
        url.query_pairs_mut().append_pair("redirect_uri", &request.redirect_uri).append_pair("state", "s+t/a te");
        Ok(Response::new(v1::StartAuthorizationResponse { authorization_url: url.into(), ..Default::default() }))
    }

    async fn get_authorization(
        &self,
        _: Request<v1::GetAuthorizationRequest>,
    ) -> Result<Response<v1::GetAuthorizationResponse>, Status> {
        Err(Status::unimplemented("no command asks"))
    }

    async fn list_connections(
        &self,
        _: Request<v1::ListConnectionsRequest>,
    ) -> Result<Response<v1::ListConnectionsResponse>, Status> {
        Ok(Response::new(v1::ListConnectionsResponse { connections: vec![connection()] }))
    }

    async fn get_connection(
        &self,
        _: Request<v1::GetConnectionRequest>,
    ) -> Result<Response<v1::GetConnectionResponse>, Status> {
        Err(Status::unimplemented("no command asks"))
    }
}

/// How the stream of a backup ends.
#[derive(Clone, Copy)]
enum End {
    Well,
    /// In good order, and without its end.
    Early,
    WithAnError,
}

/// What an operator is answered.
struct Operations {
    ends: End,
}

#[tonic::async_trait]
impl OperationsService for Operations {
    type CreateBackupStream = Pin<Box<dyn Stream<Item = Result<v1::CreateBackupResponse, Status>> + Send>>;

    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(v1::GetStatusResponse::default()))
    }

    async fn create_backup(
        &self,
        _: Request<v1::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        let part = |archive: &[u8], end| Ok(v1::CreateBackupResponse { archive: archive.to_vec(), rows: 3, end });
        let end = v1::BackupSummary { revision: 7, rows: 3, bytes: 10, finished_at: None };
        let last = match self.ends {
            End::Well => part(b"last", Some(end)),
            End::Early => part(b"more", None),
            End::WithAnError => Err(refusal(Code::Aborted, "BACKUP_OUTRUN", "too slow", None)),
        };
        Ok(Response::new(stream::iter([part(b"first ", None), last]).boxed()))
    }

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::RotateKeyResponse>, Status> {
        assert_eq!(request.into_inner().target, Some(v1::rotate_key_request::Target::Root(true)));
        let rotation = v1::KeyRotation { begun_rows: 20, left_rows: 20, started_at: None };
        Ok(Response::new(v1::RotateKeyResponse { rotation: Some(rotation) }))
    }

    async fn retire_key(
        &self,
        request: Request<v1::RetireKeyRequest>,
    ) -> Result<Response<v1::RetireKeyResponse>, Status> {
        if request.into_inner().key_id == "key_1" {
            return Ok(Response::new(v1::RetireKeyResponse {}));
        }
        Err(refusal(Code::FailedPrecondition, "KEY_IN_USE", "the key is still needed", None))
    }

    async fn list_keys(&self, _: Request<v1::ListKeysRequest>) -> Result<Response<v1::ListKeysResponse>, Status> {
        let root = v1::SealingKey {
            key_id: "key_1".to_owned(),
            kind: v1::SealingKeyKind::Root.into(),
            state: v1::SealingKeyState::Rotating.into(),
            live_rows: 12,
            ..Default::default()
        };
        let tenant = v1::SealingKey {
            key_id: "key_2".to_owned(),
            kind: v1::SealingKeyKind::Tenant.into(),
            tenant: "acme".to_owned(),
            state: v1::SealingKeyState::Present.into(),
            live_rows: 3,
            made_at: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
        };
        let rotation = v1::KeyRotation { begun_rows: 20, left_rows: 12, started_at: None };
        Ok(Response::new(v1::ListKeysResponse { keys: vec![root, tenant], rotation: Some(rotation) }))
    }
}
