//! The quick start's lines, pasted into a shell as they are printed.

use std::{fs, path::Path, process::Command};

use serde_json::{Deserializer, Value};

use crate::{
    dev::{Dev, Place},
    process::{Finished, Process},
    tools::{search_path, there_is},
};

#[test]
fn the_printed_calls_work_as_printed() {
    if !there_is("grpcurl") {
        return;
    }
    let place = Place::new();
    let dev = place.start();

    let said = answer(&paste(&dev, dev.printed_call("ValidatePlatformToken")));
    assert_eq!(said[0]["valid"], true);
    assert_eq!((&said[0]["tenant"], &said[0]["externalId"]), (&"dev".into(), &"alice".into()));

    let stored = answer(&paste(&dev, dev.printed_call("StoreAuthCode")));
    let connection = &stored[0]["connection"]["connectionId"];
    assert!(connection.as_str().is_some_and(|id| id.starts_with("con_")), "{stored:?}");

    let token = answer(&paste(&dev, dev.printed_call("GetPluginToken")));
    assert!(token[0]["accessToken"].as_str().is_some_and(|token| token.starts_with("dev_at_")));
    assert_eq!(&token[0]["connectionId"], connection);

    let preview = answer(&paste(&dev, dev.printed_call("Revoke")));
    assert_eq!(&preview[0]["results"][0]["connectionId"], connection);
    assert_eq!(preview[0]["results"][0]["remoteOutcome"], "REMOTE_OUTCOME_PENDING");
    assert_eq!(&answer(&paste(&dev, dev.printed_call("GetPluginToken")))[0]["connectionId"], connection);

    watch(&dev, connection);
    dev.stop().expect_code(0);
}

#[test]
fn after_a_real_revocation_the_next_step_is_told_and_readable() {
    if !there_is("grpcurl") {
        return;
    }
    let place = Place::new();
    let dev = place.start();
    answer(&paste(&dev, dev.printed_call("StoreAuthCode")));
    let revoke = dev.printed_call("Revoke").replace(r#", "preview": true"#, "");
    let revoked = answer(&paste(&dev, &revoke));
    assert_eq!(revoked[0]["results"][0]["localOutcome"], "LOCAL_OUTCOME_STOPPED");
    assert_eq!(revoked[0]["results"][0]["remoteOutcome"], "REMOTE_OUTCOME_CONFIRMED");

    let refused = paste(&dev, dev.printed_call("GetPluginToken"));
    assert!(!refused.status.success());
    assert_eq!(refused.stdout, "");
    for part in [
        "Code: FailedPrecondition",
        r#""@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"claviger""#,
        r#""reason":"CONSENT_REQUIRED""#,
        r#""@type":"type.googleapis.com/claviger.v1.AuthenticationRequired""#,
        r#""flowId":"flw_"#,
        r#""plugin":"calendar""#,
    ] {
        assert!(refused.stderr.contains(part), "{part} is not in: {}", refused.stderr);
    }
}

#[test]
fn a_result_that_is_an_error_is_readable_like_one_that_stands_alone() {
    if !there_is("grpcurl") {
        return;
    }
    let place = Place::new();
    let dev = place.start();
    answer(&paste(&dev, dev.printed_call("StoreAuthCode")));
    let one = dev.printed_call("GetPluginToken");
    let several =
        one.replace(r#"{"plugin": "calendar"}"#, r#"{"requests": [{"plugin": "notes"}, {"plugin": "calendar"}]}"#);
    assert_ne!(several, one);
    let said = answer(&paste(&dev, &format!("{several}s")));
    let results = &said[0]["results"];
    assert!(results[1]["token"]["accessToken"].as_str().is_some_and(|token| token.starts_with("dev_at_")));
    let details = &results[0]["error"]["details"];
    assert_eq!(details[0]["reason"], "SCOPES_MISSING");
    assert_eq!(details[1]["@type"], "type.googleapis.com/claviger.v1.AuthenticationRequired");
    assert_eq!(details[1]["plugin"], "notes");
}

#[test]
fn the_lines_work_wherever_the_directory_is() {
    let place = Place::new();
    let odd = place.directory().join("it's $HOME");
    fs::create_dir_all(&odd).unwrap();
    let dev = place.start_as(place.command_in(Path::new("relative dir")).current_dir(&odd));
    assert_eq!(answer(&paste(&dev, dev.printed_call("ValidatePlatformToken")))[0]["valid"], true);
}

#[test]
fn the_line_of_this_program_finds_it_and_the_broker() {
    if !there_is("grpcurl") {
        return;
    }
    let place = Place::new();
    let dev = place.start();
    let line = dev.process.printed().iter().find(|line| line.contains(" connections")).unwrap();
    let (_, list) = line.rsplit_once("&& ").unwrap();
    let finished = paste(&dev, list);
    finished.expect_code(0);
    assert!(finished.stderr.contains("no connections"), "{}", finished.stderr);
    assert!(line.starts_with(&format!("{} connect calendar && ", env!("CARGO_BIN_EXE_claviger"))), "{line}");
}

/// The stream has no end; the printed line bounds it. While it is open, no process's arguments show the token.
fn watch(dev: &Dev<'_>, connection: &Value) {
    let mut stream = Process::spawn(&mut shell(dev, dev.printed_call("WatchCredentialStatus")));
    stream.line(|line| line.contains("snapshotEnd"));
    let signature = dev.token().rsplit('.').next().unwrap().to_owned();
    let shown = arguments_of_all_processes();
    assert!(shown.iter().any(|arguments| arguments.contains("WatchCredentialStatus")), "grpcurl is running");
    assert!(shown.iter().all(|arguments| !arguments.contains(&signature)), "{shown:#?}");

    let finished = stream.finish();
    assert!(finished.stderr.contains("DeadlineExceeded"), "{}", finished.stderr);
    let messages = messages(&finished.stdout);
    assert!(messages[0]["opened"].is_object(), "{messages:?}");
    assert_eq!(&messages[1]["snapshot"]["statuses"][0]["connectionId"], connection);
    assert!(messages[2]["snapshotEnd"].is_object(), "{messages:?}");
}

fn arguments_of_all_processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    // One that ends meanwhile has none.
    let arguments = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    arguments.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
}

fn paste(dev: &Dev<'_>, line: &str) -> Finished {
    Process::spawn(&mut shell(dev, line)).finish()
}

/// A shell with the printed exports, in which grpcurl is found.
fn shell(dev: &Dev<'_>, line: &str) -> Command {
    let exports = [dev.printed_export("CLAVIGER_TOKEN"), dev.printed_export("CLAVIGER_ENDPOINT")].join("\n");
    let mut command = Command::new("sh");
    command.args(["-ec", &format!("{exports}\n{line}")]).env("PATH", search_path()).current_dir("/");
    command
}

#[track_caller]
fn answer(finished: &Finished) -> Vec<Value> {
    finished.expect_code(0);
    messages(&finished.stdout)
}

fn messages(output: &str) -> Vec<Value> {
    Deserializer::from_str(output).into_iter().map(Result::unwrap).collect()
}
