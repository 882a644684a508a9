//! What `dev` makes and says when it starts, and what it says when it cannot.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use crate::{
    dev::{Place, read, run},
    process::Finished,
};

#[test]
fn the_quick_start_is_output_and_the_logs_are_not() {
    let place = Place::new();
    let dev = place.start();
    let (grpc, printed) = (dev.grpc.clone(), dev.process.printed().join("\n") + "\n");
    assert!(!grpc.ends_with(":0"), "{grpc}");
    let finished = dev.stop();
    assert_eq!(finished.stdout, printed, "nothing follows the quick start");
    assert!(finished.stderr.contains("serving") && finished.stderr.contains(&grpc), "{}", finished.stderr);
}

#[test]
fn the_filter_of_the_logs_comes_from_option_or_environment() {
    let place = Place::new();
    let quiet = place.start_as(place.command().args(["--log", "error"])).stop();
    assert_eq!(quiet.stderr, "");
    let loud = place.start_as(place.command().env("CLAVIGER_LOG", "info")).stop();
    assert!(loud.stderr.contains("INFO claviger"), "{}", loud.stderr);

    let refused = run(place.command().args(["--log", "claviger=shouting"]));
    refused.expect_code(78);
    assert!(refused.stderr.contains("--log claviger=shouting"), "{}", refused.stderr);
}

#[test]
fn what_it_makes_is_closed_to_others_and_its_memory_is_not_dumped() {
    let place = Place::new();
    let dev = place.start();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for directory in [place.directory(), place.directory().join("store"), place.directory().join("provider")] {
        assert_eq!(mode(&directory), 0o700, "{}", directory.display());
    }
    for file in ["root.key", "alice.token", "provider/identity.json"] {
        assert_eq!(mode(&place.directory().join(file)), 0o600, "{file}");
    }
    let limits = read(Path::new(&format!("/proc/{}/limits", dev.process.id())));
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"]);
}

#[test]
fn a_taken_port_is_named_with_its_option() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for option in ["--grpc", "--http", "--provider"] {
        let mut arguments = vec!["dev", "--directory"];
        let place = Place::new();
        let directory = place.directory();
        arguments.push(directory.to_str().unwrap());
        for each in ["--grpc", "--http", "--provider"] {
            arguments.extend([each, if each == option { &address } else { "127.0.0.1:0" }]);
        }
        let finished = run(crate::dev::claviger().args(arguments));
        finished.expect_code(69);
        says(&finished, &[option, &address, "stop what listens there, or choose another address"]);
    }
}

#[test]
fn only_loopback_is_served() {
    for option in ["--grpc", "--http", "--provider"] {
        for elsewhere in ["0.0.0.0:4000", "192.0.2.1:4000", "[::]:4000"] {
            let finished = run(crate::dev::claviger().args(["dev", option, elsewhere]));
            finished.expect_code(2);
            says(&finished, &[option, elsewhere, "give a loopback address"]);
        }
    }
}

#[test]
fn a_root_key_that_others_can_read_is_refused_until_it_is_closed() {
    let (place, key) = stopped();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let finished = place.fail();
    finished.expect_code(78);
    says(&finished, &[key.to_str().unwrap(), "chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    place.start().stop().expect_code(0);
}

#[test]
fn a_root_key_that_is_none_is_named() {
    let (place, key) = stopped();
    let name = key.to_str().unwrap();
    let good = fs::read(&key).unwrap();

    fs::write(&key, "claviger-root-key-v1:short\n").unwrap();
    says(place.fail().expect_code(78), &[name, "restore it from its copy"]);
    fs::remove_file(&key).unwrap();
    says(place.fail().expect_code(78), &[name, "is missing", "put it back, or remove"]);
    assert!(!key.exists(), "a new key beside an old store would only be in the way of the right one");
    let elsewhere = place.directory().join("elsewhere");
    fs::write(&elsewhere, &good).unwrap();
    symlink(&elsewhere, &key).unwrap();
    says(place.fail().expect_code(78), &[name, "symbolic link"]);
    fs::remove_file(&key).unwrap();
    fs::remove_file(&elsewhere).unwrap();
    fs::create_dir(&key).unwrap();
    says(place.fail().expect_code(78), &[name, "not a regular file"]);
}

#[test]
fn another_installations_key_opens_nothing() {
    let (place, key) = stopped();
    let (_other, foreign) = stopped();
    fs::copy(foreign, key).unwrap();
    let store = place.directory().join("store");
    says(place.fail().expect_code(78), &[store.to_str().unwrap(), "sealed under root key"]);
}

#[test]
fn a_directory_serves_one_process() {
    let place = Place::new();
    let mut first = place.start();
    let second = Place::new();
    let refused = run(&mut second.command_in(&place.directory()));
    refused.expect_code(75);
    says(&refused, &[place.directory().to_str().unwrap(), "in use by another process", "stop it, or choose another"]);
    assert!(first.process.is_running());
    first.stop().expect_code(0);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let below = file.path().join("below");
    let place = Place::new();
    let finished = run(&mut place.command_in(&below));
    assert_ne!(finished.status.code(), Some(0));
    says(&finished, &[below.to_str().unwrap()]);
}

/// A place where `dev` ran once, and its root key.
fn stopped() -> (Place, std::path::PathBuf) {
    let place = Place::new();
    place.start().stop().expect_code(0);
    let key = place.directory().join("root.key");
    (place, key)
}

#[track_caller]
fn says(finished: &Finished, parts: &[&str]) {
    for part in parts {
        assert!(finished.stderr.contains(part), "{part} is not in: {}", finished.stderr);
    }
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    assert_eq!(finished.stdout, "");
}
