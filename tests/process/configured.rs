//! `serve` and `check-config`: a configuration that says what is wrong with it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    dev::{claviger, run},
    process::{Finished, Process},
};

/// A directory with everything that the example names.
pub(crate) struct Installation {
    directory: TempDir,
}

impl Installation {
    pub(crate) fn new() -> Self {
        let installation = Self { directory: TempDir::with_prefix("claviger-configured-").unwrap() };
        let key = installation.path("root.key");
        run(claviger().arg("generate-key").arg(&key)).expect_code(0);
        installation.write("corporate.secret", "a-secret-of-ours\n");
        let authority = rcgen::generate_simple_self_signed(["internal.example".to_owned()]).unwrap();
        installation.write("sign-in.secret", "another-secret-of-ours\n");
        installation.write("internal-ca.pem", &authority.cert.pem());
        installation.write("clients-ca.pem", &authority.cert.pem());
        installation.write("tls.crt", &authority.cert.pem());
        installation.write("tls.key", &authority.signing_key.serialize_pem());
        let example = include_str!("../../claviger.example.toml");
        let here = example.replace("/etc/claviger", ".").replace("/var/lib/claviger", ".");
        assert_eq!(here.matches("\"127.0.0.1:").count(), 3, "the listeners, and nothing else");
        installation.write(
            "claviger.toml",
            &here
                .replace("127.0.0.1:50051", "127.0.0.1:0")
                .replace("127.0.0.1:8080", "127.0.0.1:0")
                .replace("127.0.0.1:9464", "127.0.0.2:0"),
        );
        installation
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path("claviger.toml")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        self.chmod(name, 0o600);
    }

    pub(crate) fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Replaces a part of the configuration that stands in it exactly once.
    #[track_caller]
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.file()).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from}");
        fs::write(self.file(), text.replace(from, to)).unwrap();
    }

    pub(crate) fn check_command(&self) -> Command {
        let mut command = claviger();
        command.arg("check-config").arg(self.file());
        command
    }

    pub(crate) fn serve_command(&self) -> Command {
        let mut command = claviger();
        command.arg("serve").arg("--config").arg(self.file());
        command
    }

    pub(crate) fn check(&self) -> Finished {
        run(&mut self.check_command())
    }

    /// A broker that serves.
    pub(crate) fn serve(&self) -> Process {
        let mut process = Process::spawn(&mut self.serve_command());
        process.error_line(|line| line.contains("serving"));
        process
    }
}

#[test]
fn the_example_passes_and_starts() {
    let installation = Installation::new();
    let good = installation.check();
    good.expect_code(0);
    assert!(good.stdout.ends_with("is good: 1 issuer, 1 tenant, 1 provider, 1 plugin\n"), "{}", good.stdout);
    assert_eq!(good.stderr, "");
    let stopped = installation.serve().stop(Signal::TERM);
    stopped.expect_code(0);
    assert!(installation.path("store").is_dir(), "a relative path begins at the file's directory");
}

/// Twenty mistakes: what is planted, the key that is named, and the cure.
const MISTAKES: [(&str, &str, &str, &str); 20] = [
    ("[grpc]\n", "[gprc]\n[grpc]\n", "gprc", "did you mean \"grpc\"?"),
    (
        "listen = \"127.0.0.1:0\"\n# Needed",
        "listen = \"localhost\"\n# Needed",
        "grpc.listen",
        "for example \"127.0.0.1:50051\"",
    ),
    ("\"authenticated\"\n", "\"authentic\"\n", "grpc.reflection", "did you mean \"authenticated\"?"),
    ("rate = 100", "rate = -1", "grpc.rate", "write a whole number"),
    ("public_url = \"https:", "public_url = \"http:", "http.public_url", "is neither https nor"),
    ("directory = \"./store\"\n", "", "store.directory", "for example \"/var/lib/claviger/store\""),
    (
        "page_cache = \"256MiB\"",
        "page_cache = 268435456",
        "store.page_cache",
        "write a size with its unit, such as \"64KiB\"",
    ),
    ("row_cache = \"64MiB\"", "row_cache = \"64MB\"", "store.row_cache", "one of the units B, KiB, MiB, GiB"),
    (
        "root_keys = [\"./root.key\"]",
        "root_keys = [\"./lost.key\"]",
        "sealing.root_keys[0]",
        "create it with `claviger generate-key",
    ),
    ("timeout = \"15s\"", "timeout = \"2m\"", "outbound.timeout", "must be from 1s to 1m"),
    ("\"keycloak.internal\", ", "\"*.internal\", ", "outbound.internal_hosts[0]", "no scheme, path or wildcard"),
    (
        "extra_roots = \"./internal-ca.pem\"",
        "extra_roots = \"./root.key\"",
        "outbound.extra_roots",
        "write PEM certificates",
    ),
    ("window = \"10s\"", "windows = \"10s\"", "audit.windows", "did you mean \"window\"?"),
    ("level = \"info\"", "level = \"claviger=loud\"", "log.level", "write a level"),
    ("\"ES256\", \"RS256\"", "\"ES256\", \"HS256\"", "identity.platform.issuers[0].algorithms[1]", "did you mean"),
    (
        "\"72f988bf-86f1-41af-91ab-2d7cd011db47\" = \"acme\"",
        "\"x\" = \"acne\"",
        "identity.platform.issuers[0].tenant.claim.allow",
        "did you mean \"acme\"?",
    ),
    ("require_agent = false", "require_agent = true", "tenants.acme.require_agent", "remove the setting"),
    (
        "client_secret_file = \"./corporate.secret\"",
        "client_secret = \"hunter2\"",
        "providers.corporate.client_secret",
        "did you mean \"client_secret_file\"?",
    ),
    ("provider = \"corporate\"", "provider = \"corporat\"", "plugins.calendar.provider", "did you mean \"corporate\"?"),
    ("header = \"authorization\"", "header = \"x y\"", "plugins.calendar.usage.header", "such as \"authorization\""),
];

#[test]
fn twenty_mistakes_are_named_in_one_run_each_with_its_cure() {
    let installation = Installation::new();
    for (from, to, _, _) in MISTAKES {
        installation.edit(from, to);
    }
    let finished = installation.check();
    finished.expect_code(78);
    assert_eq!(finished.stdout, "");
    let problems: Vec<_> = finished.stderr.lines().skip(1).collect();
    for (_, _, key, cure) in MISTAKES {
        let named = format!(": {key}: ");
        let line =
            problems.iter().find(|line| line.contains(&named)).unwrap_or_else(|| panic!("{key}\n{}", finished.stderr));
        assert!(line.contains(cure), "{cure}\n{line}");
        let place = line.trim_start_matches("  - ").strip_prefix(installation.file().to_str().unwrap()).unwrap();
        let number = place.strip_prefix(':').unwrap().split(':').next().unwrap();
        assert!(number.parse::<usize>().is_ok(), "{line}");
    }
    assert_eq!(problems.len(), MISTAKES.len(), "{}", finished.stderr);
    assert!(!finished.stderr.contains("hunter2"), "{}", finished.stderr);
}

#[test]
fn serve_refuses_what_check_config_refuses_and_opens_nothing() {
    let installation = Installation::new();
    installation.edit("timeout = \"15s\"", "timeout = 15");
    installation.chmod("corporate.secret", 0o644);
    let checked = installation.check();
    let served = run(&mut installation.serve_command());
    for finished in [&checked, &served] {
        finished.expect_code(78);
        assert!(finished.stderr.contains("outbound.timeout: is an integer; write a duration with its unit"));
        assert!(
            finished.stderr.contains("providers.corporate.client_secret_file: ")
                && finished.stderr.contains("chmod 600")
        );
    }
    assert_eq!(checked.stderr, served.stderr);
    assert!(!installation.path("store").exists());
}

#[test]
fn a_variable_overrides_its_key_and_is_named_where_it_is_wrong() {
    let installation = Installation::new();
    let check = |name: &str, value: &str| run(installation.check_command().env(name, value));
    for (name, value) in [
        ("CLAVIGER__GRPC__RATE", "500"),
        ("CLAVIGER__GRPC__LISTEN", "127.0.0.1:0"),
        ("CLAVIGER__OUTBOUND__ALLOW_HTTP_LOOPBACK", "true"),
        ("CLAVIGER__OUTBOUND__INTERNAL_HOSTS", "[\"a.internal\"]"),
        ("CLAVIGER__PROVIDERS__CORPORATE__CLIENT_ID", "4711"),
        ("CLAVIGER__PROVIDERS__0__ROTATION", "{ grace = \"30s\" }"),
        ("CLAVIGER__IDENTITY__PLATFORM__ISSUERS__0__AUDIENCES", "[\"api://other\"]"),
    ] {
        check(name, value).expect_code(0);
    }
    for (name, value, named) in [
        ("CLAVIGER__GRPC__RATE", "many", "grpc.rate: is a string; write a whole number"),
        ("CLAVIGER__GRCP__RATE", "5", "grcp: there is no such key; did you mean \"grpc\"?"),
        ("CLAVIGER__PROVIDERS__OTHER__CLIENT_ID", "x", "providers.other: names no element of the array"),
        ("CLAVIGER__PROVIDERS__7__CLIENT_ID", "x", "providers.7: names no element of the array"),
        (
            "CLAVIGER__IDENTITY__PLATFORM__ISSUERS__0__ROLES",
            "[{ role = \"user\", claim = \"groups\", valuez = [\"staff\"] }]",
            "did you mean \"values\"?",
        ),
        ("CLAVIGER__OUTBOUND__INTERNAL_HOSTS", "[\"*.internal\"]", "outbound.internal_hosts"),
        ("CLAVIGER__SEALING", "{}", "sealing.root_keys: is missing"),
        ("CLAVIGER__PLUGINS__0", "{ id = \"calendar\" }", "plugins.calendar.provider: is missing"),
        ("CLAVIGER__PROVIDERS__CORPORATE__CLIENT_SECRET", "hunter2", "did you mean \"client_secret_file\"?"),
    ] {
        let refused = check(name, value);
        refused.expect_code(78);
        assert!(
            refused.stderr.contains(&format!("({name}): ")) && refused.stderr.contains(named),
            "{}",
            refused.stderr
        );
        assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
    }
}

#[test]
fn a_file_that_is_no_configuration_is_named() {
    let installation = Installation::new();
    let missing = run(claviger().args(["check-config", "/nowhere/claviger.toml"]));
    missing.expect_code(78);
    assert!(missing.stderr.contains("/nowhere/claviger.toml: the file cannot be read"), "{}", missing.stderr);
    installation.edit("[audit]\n", "[audit\n");
    let broken = installation.check();
    broken.expect_code(78);
    assert!(broken.stderr.contains(": this is not TOML: "), "{}", broken.stderr);
}

#[test]
fn the_reference_is_what_the_code_says() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let said = claviger::config::reference();
    if fs::read_to_string(document).unwrap_or_default() != said {
        let fresh = concat!(env!("CARGO_TARGET_TMPDIR"), "/configuration.md");
        fs::write(fresh, said).unwrap();
        panic!("docs/configuration.md is stale: cp {fresh} {document}");
    }
}
