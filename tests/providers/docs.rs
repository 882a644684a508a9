//! `docs/providers.md` tells the truth about the definitions, and its configuration is one.

use std::collections::BTreeSet;

use claviger::{
    config::Config,
    domain::{Definition, Revocation, Rotation},
    oauth::definitions::{SHIPPED, shipped},
};

const DOCS: &str = include_str!("../../docs/providers.md");

/// Everything that is not about providers.
const REST: &str = r#"
    [store]
    directory = "/var/lib/claviger"
    [sealing]
    root_keys = ["/etc/claviger/root.key"]
    [[identity]]
    id = "platform"
    [[identity.issuers]]
    issuer = "https://platform.example"
    audiences = ["claviger"]
    tenant = { fixed = "acme" }
    [[tenants]]
    id = "acme"
"#;

fn examples() -> Vec<&'static str> {
    DOCS.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

#[test]
fn every_example_is_a_configuration_of_less_than_ten_lines() {
    let mut shown = BTreeSet::new();
    for example in examples() {
        assert!(example.lines().count() < 10, "{example}");
        let mut written: toml::Table = toml::from_str(example).unwrap();
        let provider = written["providers"][0].as_table_mut().unwrap();
        // The file is there only where the example is used.
        let secret = provider.remove("client_secret_file").and_then(|path| path.as_str().map(str::to_owned));
        assert!(secret.is_some_and(|path| path.starts_with("/etc/claviger/")), "{example}");
        written.extend(toml::from_str::<toml::Table>(REST).unwrap());
        let config: Config = written.try_into().unwrap();
        let problems: Vec<_> = config.check().iter().map(ToString::to_string).collect();
        assert_eq!(problems, Vec::<String>::new(), "{example}");
        shown.insert(config.providers[0].definition.clone());
    }
    let variants = BTreeSet::from(["slack-bot".to_owned()]);
    let shipped: BTreeSet<_> = SHIPPED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(&shipped - &shown, variants);
}

fn row(name: &str, definition: &Definition) -> String {
    let used = match definition.rotation {
        _ if name == "github" => "there is none",
        _ if name == "oidc" => "dead, unless you say otherwise",
        Rotation::None => "stays the same",
        Rotation::Reuse => "a new one, the old one keeps working",
        Rotation::Grace { .. } => "works a while longer",
        Rotation::Strict => "dead",
    };
    let idle = match definition.refresh_token_lifetime.idle {
        _ if name == "github" => "–".to_owned(),
        Some(seconds) => format!("{} days", seconds / 86_400),
        None => "not known".to_owned(),
    };
    let revocation = match &definition.revocation {
        Revocation::Rfc7009 if name == "google" => "the whole grant of the user (RFC 7009)",
        Revocation::Rfc7009 => "what RFC 7009 asks for",
        Revocation::DeleteJson => "the whole authorization of the user",
        Revocation::AccessToken { .. } => "the access token alone",
        Revocation::None => "none",
    };
    format!("| `{name}` | {used} | {idle} | {revocation} |")
}

#[test]
fn the_table_is_that_of_the_definitions() {
    let table: Vec<_> = DOCS.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
    let rows: Vec<_> = SHIPPED.iter().map(|name| row(name, &shipped(name).unwrap())).collect();
    assert_eq!(table, rows);
}
