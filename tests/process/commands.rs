//! The client commands against the running product; `tests/cli.rs` has their finer points.

use std::{fs, process::Command};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    dev::{Dev, PLUGIN, Place, claviger, outbound, run, visit},
    process::{Finished, Process},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_connected_used_and_revoked() {
    let place = Place::new();
    let dev = place.start();

    let connected = connect(&dev, &["--output", "json"]).await;
    connected.expect_code(0);
    let connection = json(&connected)["connection"]["connection_id"].as_str().unwrap().to_owned();

    let token = run(&mut dev.command(&["token", PLUGIN]));
    token.expect_code(0);
    assert_eq!(token.stderr, "");
    let detailed = run(&mut dev.command(&["token", PLUGIN, "--output", "json"]));
    let detailed = json(detailed.expect_code(0));
    assert_eq!(detailed["access_token"], token.stdout.trim());
    assert_eq!((&detailed["connection_id"], &detailed["generation"]), (&connection.as_str().into(), &1.into()));

    let listed = run(&mut dev.command(&["connections", "--output", "json"]));
    let listed = json(listed.expect_code(0));
    assert_eq!(listed["connections"][0]["connection_id"], connection.as_str());
    assert_eq!(listed["connections"][0]["badge"], "CONNECTED");
    let table = run(&mut dev.command(&["connections"]));
    assert!(table.expect_code(0).stdout.contains(&connection), "{}", table.stdout);

    let preview = run(&mut dev.command(&["revoke", "--plugin", PLUGIN, "--preview", "--output", "json"]));
    let preview = json(preview.expect_code(0));
    assert_eq!((&preview["preview"], &preview["results"][0]["remote_outcome"]), (&true.into(), &"PENDING".into()));
    let revoked = run(&mut dev.command(&["revoke", "--connection", &connection, "--output", "json"]));
    let revoked = json(revoked.expect_code(0));
    assert_eq!(revoked["results"][0]["local_outcome"], "STOPPED");
    assert_eq!(revoked["results"][0]["remote_outcome"], "CONFIRMED");

    let refused = run(&mut dev.command(&["token", PLUGIN, "--output", "json"]));
    refused.expect_code(1);
    assert_eq!(refused.stdout, "", "nothing that could be taken for a token");
    let error: Value = serde_json::from_str(&refused.stderr).unwrap();
    assert_eq!(error["error"]["reason"], "CONSENT_REQUIRED");
    assert_eq!(error["error"]["authentication_required"]["plugin"], PLUGIN);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tokens_are_printed_though_one_is_refused() {
    let place = Place::new();
    let dev = place.start();
    dev.connect().await;
    let lines = run(&mut dev.command(&["token", "notes", PLUGIN]));
    lines.expect_code(1);
    let (plugin, token) = lines.stdout.trim_end().split_once('\t').unwrap();
    assert!(plugin == PLUGIN && token.starts_with("dev_at_"), "{plugin}");
    for part in ["notes: SCOPES_MISSING", "or run: claviger connect notes", "1 of 2 tokens were refused"] {
        assert!(lines.stderr.contains(part), "{part} is not in: {}", lines.stderr);
    }
    let document = run(&mut dev.command(&["token", "notes", PLUGIN, "--output", "json"]));
    let document = json(document.expect_code(1));
    assert_eq!(document["results"][0]["plugin"], "notes");
    assert_eq!(document["results"][0]["error"]["reason"], "SCOPES_MISSING");
    assert_eq!(document["results"][1]["token"]["access_token"], token);
    run(&mut dev.command(&["token", PLUGIN, PLUGIN])).expect_code(0);
    run(&mut dev.command(&["token", PLUGIN, PLUGIN, "--header"])).expect_code(64);
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_prints_a_table_for_people() {
    let place = Place::new();
    let dev = place.start();
    let connected = connect(&dev, &[]).await;
    connected.expect_code(0);
    let rows: Vec<Vec<_>> = connected.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..3], ["CONNECTION", "PROVIDER", "ACCOUNT"]);
    assert_eq!(rows[1][1..4], ["dev", "alice", "connected"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_what_happens_and_no_token() {
    let place = Place::new();
    let dev = place.start();
    let mut watch = Process::spawn(&mut dev.command(&["watch", "--output", "json"]));
    let connection = dev.connect().await;
    let event: Value = serde_json::from_str(&watch.line(|line| line.contains("CONNECTED"))).unwrap();
    assert_eq!(event["connection_id"], connection.connection_id.as_str());
    assert_eq!(event["generation"], connection.generation);

    let shown = fs::read(format!("/proc/{}/cmdline", watch.id())).unwrap();
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(shown.contains("--token-file") && !shown.contains(&dev.token()), "{shown}");
    let finished = watch.stop(Signal::INT);
    finished.expect_code(0);
    assert_eq!(finished.stderr, "");
}

#[test]
fn a_token_file_that_is_none_is_told_apart_from_a_bad_token() {
    let place = Place::new();
    let dev = place.start();
    let with_file = |path: &str| {
        let mut command = claviger();
        command.args(["connections", "--endpoint", &dev.endpoint(), "--token-file", path]);
        run(&mut command)
    };
    let missing = with_file("/nowhere/alice.token");
    missing.expect_code(66);
    assert!(missing.stderr.contains("/nowhere/alice.token"), "{}", missing.stderr);

    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    with_file(path).expect_code(78);
    fs::write(path, "not-a-token").unwrap();
    let refused = with_file(path);
    refused.expect_code(77);
    assert!(refused.stderr.contains("TOKEN_INVALID") && !refused.stderr.contains("not-a-token"), "{}", refused.stderr);
}

#[test]
fn a_broker_that_is_down_is_told_apart_from_one_that_refuses() {
    let place = Place::new();
    let dev = place.start();
    let commands: Vec<Command> = [&["connections"][..], &["token", PLUGIN], &["revoke", "--all"], &["connect", PLUGIN]]
        .iter()
        .map(|arguments| dev.command(arguments))
        .collect();
    dev.stop().expect_code(0);
    for mut command in commands {
        let finished = run(&mut command);
        finished.expect_code(69);
        assert_eq!(finished.stdout, "");
        assert!(finished.stderr.starts_with("error: "), "{}", finished.stderr);
    }
}

/// `claviger connect`, with alice at the browser.
async fn connect(dev: &Dev<'_>, options: &[&str]) -> Finished {
    let mut process = Process::spawn(dev.command(&["connect", PLUGIN]).args(options));
    let redirect = visit(process.error_line(|line| line.contains("/authorize?")).trim()).await;
    let page = outbound().send(claviger::outbound::Request::get(redirect)).await.unwrap();
    assert_eq!(page.status, 200);
    process.finish()
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap()
}
