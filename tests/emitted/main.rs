//! Proof that a secret which claviger emits is found: by the tests that know it, and by the rules of gitleaks in what
//! all tests have left. The second search runs after them: `make test` does it when `CLAVIGER_GITLEAKS_RULES` names a
//! `gitleaks.toml`.

#![expect(clippy::unwrap_used, reason = "set-up that fails fails the test")]

#[path = "../support/emitted/mod.rs"]
mod emitted;
mod rules;

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use emitted::{Emitted, know};
use regex::bytes::Regex;
use rules::Rules;
use tempfile::TempDir;

/// How the test fails that had this emitted; empty if it does not. What the tests beside this one have planted in the
/// log is found as well.
fn failure(emitted: Emitted) -> String {
    let failure = catch_unwind(AssertUnwindSafe(|| drop(emitted))).err();
    failure.map(|failure| *failure.downcast::<String>().unwrap()).unwrap_or_default()
}

#[test]
fn a_secret_in_the_log_fails_the_test() {
    know("logged", "canary~in/the+log");
    let emitted = Emitted::of("planted");
    tracing::trace!(target: "claviger::planted", token = "canary~in/the+log", "a careless line");
    assert!(failure(emitted).contains("log: logged as it is"));
}

#[test]
fn a_secret_in_a_panic_fails_the_test() {
    know("panicked with", "canary~in/a+panic");
    let emitted = Emitted::of("planted");
    drop(std::thread::spawn(|| assert!(env!("CARGO_CRATE_NAME").is_empty(), "canary~in/a+panic")).join());
    assert!(failure(emitted).contains("log: panicked with as it is"));
}

#[test]
fn a_secret_in_what_other_crates_say_quietly_is_not_emitted() {
    know("sent", "canary~in/a+header");
    let emitted = Emitted::of("planted");
    tracing::trace!(target: "h2::codec", header = "canary~in/a+header", "a frame");
    assert!(!failure(emitted).contains("sent as it is"));
}

#[test]
fn a_secret_in_an_answer_or_a_file_fails_the_test() {
    know("told", "canary~in/an+answer");
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("store")).unwrap();
    fs::write(directory.path().join("root.key"), "canary~in/an+answer").unwrap();
    fs::write(directory.path().join("store/db"), [&[0xff; 5000], &b"canary~in/an+answer"[..], &[0; 9000]].concat())
        .unwrap();
    let emitted = Emitted::of("planted").below(directory.path());
    emitted.outputs.add("page", "<p>canary~in/an+answer</p>", &[]);
    emitted.outputs.add("details", "Y2FuYXJ5fmluL2FuK2Fuc3dlcg", &[]);
    let found = failure(emitted);
    for expected in ["page: told as it is", "details: told as base64", "store/db: told as it is"] {
        assert!(found.contains(expected), "{expected} is not in {found}");
    }
    assert!(!found.contains("root.key"), "it is there to hold one");
}

#[test]
fn a_secret_is_handed_over_as_it_is_and_where_it_is_named() {
    know("given", "canary~on/purpose");
    let emitted = Emitted::of("planted");
    emitted.outputs.add("by design", "canary~on/purpose", &["given"]);
    emitted.outputs.add("encoded", "Y2FuYXJ5fm9uL3B1cnBvc2", &["given"]);
    emitted.outputs.add("elsewhere", "canary~on/purpose", &["told"]);
    let found = failure(emitted);
    assert!(!found.contains("by design"), "{found}");
    assert!(found.contains("encoded: given as base64") && found.contains("elsewhere: given as it is"), "{found}");
}

#[test]
#[ignore = "after all other tests: `make test` runs it"]
#[expect(clippy::disallowed_methods, reason = "`make test` tells the tests by this variable")]
fn what_all_tests_made_claviger_emit_holds_nothing_that_looks_like_a_secret() {
    let rules = env::var_os("CLAVIGER_GITLEAKS_RULES").expect("CLAVIGER_GITLEAKS_RULES names a gitleaks.toml");
    let rules = Rules::read(&fs::read_to_string(rules).unwrap());
    let planted = format!("INFO claviger: token=ghp_{}", "a8F3k2J5h7D1q9W8e7R6t5Y4u3I2o1P0z9X8");
    let found = rules.found_in("log", planted.as_bytes());
    assert!(found.iter().any(|found| found == "github-pat: log:1"), "the rules find something: {found:?}");

    // Our ids open nothing, and the rules take some for keys: "token was refused flow.id=flw_…".
    let ids = Regex::new(r"\b(sub|con|crd|flw|job|key|ent|ins|req)_[0-9a-f]{32,64}\b").unwrap();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emitted");
    let (mut found, mut searched) = (Vec::new(), Vec::new());
    for of_process in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let name = of_process.file_name().into_string().unwrap();
        // What the tests above have planted.
        if name.starts_with(concat!(env!("CARGO_CRATE_NAME"), "-")) {
            continue;
        }
        for file in fs::read_dir(of_process.path()).unwrap().map(Result::unwrap) {
            let path = file.path();
            let bytes = fs::read(&path).unwrap();
            found.extend(rules.found_in(path.to_str().unwrap(), &ids.replace_all(&bytes, &b"$1"[..])));
        }
        searched.push(name);
    }
    for tests in ["broker", "browser", "grpc", "process"] {
        assert!(searched.iter().any(|name| name.starts_with(tests)), "{tests} has left nothing: {searched:?}");
    }
    assert!(found.is_empty(), "{} finds: {found:#?}", found.len());
}
