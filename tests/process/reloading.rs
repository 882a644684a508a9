//! SIGHUP: another configuration comes into force without a restart, or the old one stays.

use std::{fs, path::PathBuf, sync::Arc};

use claviger::{
    audit::Chain,
    domain::{AuditAction, AuditResult, Configuration, EntryId, InstallationId},
    sealing::{AuditKey, Random, root_key},
    store::{
        Store,
        sled::{SledOptions, SledStore},
    },
    vault::Vault,
};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    dev::{Dev, Place, claviger, run},
    process::{Finished, Process},
};

/// A broker of its own for the platform that a `dev` runs.
struct Served {
    directory: TempDir,
    process: Process,
    grpc: String,
}

impl Served {
    fn start(dev: &Dev<'_>) -> Self {
        let directory = TempDir::with_prefix("claviger-reloading-").unwrap();
        let key = directory.path().join("root.key");
        run(claviger().arg("generate-key").arg(&key)).expect_code(0);
        let file = directory.path().join("claviger.toml");
        fs::write(&file, configuration(&dev.issuer())).unwrap();
        let mut process = Process::spawn(claviger().arg("serve").arg("--config").arg(&file));
        let line = process.error_line(|line| line.contains("serving"));
        let grpc = line.split("grpc.address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        Self { directory, process, grpc }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("claviger.toml")
    }

    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.file()).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from}");
        fs::write(self.file(), text.replace(from, to)).unwrap();
    }

    fn reload(&mut self, until: &str) {
        self.process.signal(Signal::HUP);
        self.process.error_line(|line| line.contains(until));
    }

    /// What asking for the token of `plugin` says.
    fn ask(&self, dev: &Dev<'_>, plugin: &str) -> String {
        let mut command = claviger();
        command.args(["token", plugin, "--endpoint", &format!("http://{}", self.grpc), "--token-file"]);
        run(command.arg(dev.token_file())).stderr
    }

    /// What is on record: the configuration, and what the audit trail says of it.
    async fn end(self) -> (Finished, Configuration, Vec<(AuditResult, Option<u64>)>) {
        let finished = self.process.stop(Signal::TERM);
        let (key, random) = (AuditKey::default(), Random::system());
        let options = SledOptions {
            directory: self.directory.path().join("store"),
            page_cache: 8 << 20,
            row_cache: 1 << 20,
            installation: InstallationId::from_bytes(random.bytes().unwrap()),
            epoch: EntryId::from_bytes(random.bytes().unwrap()),
        };
        let linker = Box::new(Chain::new(key.clone()));
        let store: Arc<dyn Store> = Arc::new(SledStore::open(options, linker).await.unwrap());
        let root = root_key::file::load(&self.directory.path().join("root.key")).unwrap();
        let vault = Vault::open(Arc::clone(&store), root, random, &key).await.unwrap();
        let configuration = vault.configuration().await.unwrap().unwrap().into_value();
        let records = vault.audit(0, usize::MAX).await.unwrap().into_iter().map(|(_, record)| record);
        let changes = records.filter(|record| record.action == AuditAction::ConfigurationChanged);
        let changes = changes.map(|record| (record.result, record.generation)).collect();
        store.close().await;
        (finished, configuration, changes)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_definitions_come_into_force_and_bad_ones_do_not() {
    let place = Place::new();
    let dev = place.start();
    let mut served = Served::start(&dev);
    assert!(served.ask(&dev, "added").contains("PLUGIN_UNKNOWN"));

    served.edit("# end", "[[plugins]]\nid = \"added\"\ndisplay_name = \"Added\"\nprovider = \"dev\"\n# end");
    served.reload("configuration.version=2");
    assert!(served.ask(&dev, "added").contains("CONSENT_REQUIRED"));

    served.edit("id = \"added\"", "id = \"other\"\ncolour = \"red\"");
    served.reload("the old configuration stays in force");
    assert!(served.ask(&dev, "added").contains("CONSENT_REQUIRED"));
    assert!(served.ask(&dev, "other").contains("PLUGIN_UNKNOWN"));

    let (finished, configuration, changes) = served.end().await;
    finished.expect_code(0);
    let told = finished.stderr.lines().find(|line| line.contains("colour")).unwrap();
    assert!(told.contains("claviger.toml:") && told.contains("plugins.other.colour: there is no such key"), "{told}");
    assert_eq!(configuration.version, 2);
    let expected = [(AuditResult::Allowed, Some(1)), (AuditResult::Allowed, Some(2)), (AuditResult::Refused, Some(2))];
    assert_eq!(changes, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_follows_and_what_needs_a_restart_is_named() {
    let place = Place::new();
    let dev = place.start();
    let mut served = Served::start(&dev);
    served.edit("rate = 100", "rate = 200");
    served.edit("level = \"info\"", "level = \"warn\"");
    served.reload("sections=\"grpc\"");
    served.edit("window = \"10s\"", "window = \"20s\"");
    served.edit("level = \"warn\"", "level = \"info\"");
    served.reload("sections=\"grpc, audit\"");
    served.edit("window = \"20s\"", "window = \"10s\"");
    served.reload("configuration.version=4");
    let (finished, configuration, _) = served.end().await;
    assert!(finished.stderr.contains("configuration.version=2"), "{}", finished.stderr);
    assert!(!finished.stderr.contains("configuration.version=3"), "the level was warn: {}", finished.stderr);
    assert_eq!(configuration.version, 4);
}

fn configuration(issuer: &str) -> String {
    format!(
        r#"
[grpc]
listen = "127.0.0.1:0"
rate = 100
[http]
listen = "127.0.0.1:0"
[store]
directory = "store"
[sealing]
root_keys = ["root.key"]
[outbound]
allow_http_loopback = true
[audit]
window = "10s"
[log]
level = "info"
[[identity]]
id = "platform"
[[identity.issuers]]
issuer = "{issuer}/platform"
audiences = ["claviger"]
tenant = {{ fixed = "acme" }}
[[tenants]]
id = "acme"
redirect_uris = [{{ loopback = "/callback" }}]
[[providers]]
id = "dev"
definition = "oidc"
issuer = "{issuer}"
client_id = "claviger"
[[plugins]]
id = "calendar"
display_name = "Calendar"
provider = "dev"
# end
"#
    )
}
