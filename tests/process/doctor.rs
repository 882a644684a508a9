//! `claviger doctor`, as an operator runs it.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::Value;

use crate::{
    dev::{Dev, Place, claviger, run},
    process::Finished,
};

fn configuration(dev: &Dev<'_>) -> String {
    let (directory, issuer) = (dev.directory().display().to_string(), dev.issuer());
    format!(
        r#"
        store.directory = "{directory}/store"
        sealing.root_keys = ["{directory}/root.key"]
        outbound.allow_http_loopback = true
        [[tenants]]
        id = "dev"
        [[identity]]
        id = "platform"
        [[identity.issuers]]
        issuer = "{issuer}/platform"
        audiences = ["claviger"]
        tenant = {{ fixed = "dev" }}
        [[providers]]
        id = "dev"
        definition = "oidc"
        issuer = "{issuer}"
        client_id = "claviger"
        "#
    )
}

fn examine(dev: &Dev<'_>, configuration: &str, options: &[&str]) -> Finished {
    let file = dev.directory().join("claviger.toml");
    fs::write(&file, configuration).unwrap();
    run(claviger().args(["doctor", "--config"]).arg(&file).args(options))
}

#[test]
fn the_exit_code_says_whether_anything_fails() {
    let place = Place::new();
    let dev = place.start();
    let good = examine(&dev, &configuration(&dev), &[]);
    good.expect_code(0);
    for line in ["ok    root key", "ok    store", "warn  audit chain", "ok    issuer", "ok    provider", "ok    clock"]
    {
        assert!(good.stdout.contains(line), "{line} is not in: {}", good.stdout);
    }

    let key = dev.directory().join("root.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let bad = examine(&dev, &configuration(&dev), &["--output", "json"]);
    bad.expect_code(1);
    let report: Value = serde_json::from_str(&bad.stdout).unwrap();
    assert_eq!(report["failed"], 1);
    assert_eq!(
        (&report["findings"][0]["check"], &report["findings"][0]["verdict"]),
        (&"root key".into(), &"fail".into())
    );
    assert!(report["findings"][0]["detail"].as_str().unwrap().contains("chmod 600"), "{report}");
}

#[test]
fn a_configuration_that_is_none_is_told_apart() {
    let place = Place::new();
    let dev = place.start();
    let wrong = configuration(&dev).replace("definition = \"oidc\"", "definition = \"nothing\"");
    let refused = examine(&dev, &wrong, &[]);
    refused.expect_code(78);
    assert!(refused.stderr.contains("nothing"), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
}
