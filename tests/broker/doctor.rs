//! What `claviger doctor` finds: nothing where nothing is, and each thing that is.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    time::Duration,
};

use claviger::{
    app::{Finding, SystemClock, Verdict, examine},
    config::{Config, TlsSection},
    domain::{AuditLinker, BoxFuture, Clock, EntryId, InstallationId, Sealed, Timestamp},
    identity::IssuerName,
    listener::TlsFiles,
    sealing::{Random, root_key},
    store::{
        ChangeSet, NewEntry, Store as _,
        sled::{SledOptions, SledStore},
    },
};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tokio::net::TcpListener;

use crate::world::World;

const DAY: Duration = Duration::from_secs(24 * 3600);

const CHECKS: [&str; 8] =
    ["root key", "data directory", "store", "audit chain", "certificate", "issuer", "provider", "clock"];

/// This machine's time, and so much more.
struct Ahead(Duration);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(self.0)
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        SystemClock.sleep_until(at)
    }
}

async fn examined(config: &Config, ahead: Duration) -> Vec<Finding> {
    examine(config, Arc::new(Ahead(ahead)), &Random::system()).await
}

/// At the time that the servers have.
async fn now(config: &Config) -> Vec<Finding> {
    examined(config, Duration::ZERO).await
}

#[track_caller]
fn told(findings: &[Finding], check: &str, verdict: Verdict, parts: &[&str]) {
    let of_check = |finding: &&Finding| finding.check == check && finding.verdict == verdict;
    let finding = findings.iter().find(of_check).unwrap_or_else(|| panic!("no {verdict} of {check}: {findings:#?}"));
    let text = format!("{} {}", finding.detail, finding.cure.as_deref().unwrap_or_default());
    for part in parts {
        assert!(text.contains(part), "{part} is not in {finding:#?}");
    }
    assert_eq!(finding.cure.is_none(), verdict == Verdict::Ok, "who complains says what to do: {finding:#?}");
}

/// A world whose broker has been used and stopped.
async fn stopped() -> World {
    let mut world = World::start().await;
    world.connect(&world.client("alice"), "alice").await;
    world.stop().await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_installation_has_nothing() {
    let world = stopped().await;
    let findings = now(&world.config()).await;
    assert!(findings.iter().all(|finding| finding.verdict == Verdict::Ok && finding.cure.is_none()), "{findings:#?}");
    for check in CHECKS {
        assert!(findings.iter().any(|finding| finding.check == check), "{check}");
    }
    told(&findings, "audit chain", Verdict::Ok, &["records hold together"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_broker_is_left_alone() {
    let world = World::start().await;
    let findings = now(&world.config()).await;
    told(&findings, "store", Verdict::Ok, &["running broker"]);
    told(&findings, "audit chain", Verdict::Warn, &["not checked", "stop the broker"]);
    assert!(findings.iter().all(|finding| finding.verdict != Verdict::Fail), "{findings:#?}");
    world.client("alice").list_connections(Default::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_key_that_cannot_be_used_is_named_and_opens_nothing() {
    let world = stopped().await;
    let key = world.config().sealing.root_keys.remove(0);
    fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    let findings = now(&world.config()).await;
    told(&findings, "root key", Verdict::Fail, &["0640", "chmod 600"]);
    told(&findings, "store", Verdict::Warn, &["root key"]);
    fs::remove_file(&key).unwrap();
    told(&now(&world.config()).await, "root key", Verdict::Fail, &["there is no root key file", "generate-key"]);
    root_key::file::create(&key, &Random::system()).unwrap();
    let findings = now(&world.config()).await;
    told(&findings, "root key", Verdict::Ok, &[]);
    told(&findings, "store", Verdict::Fail, &["root key"]);
    let next_year = examined(&world.config(), 400 * DAY).await;
    told(&next_year, "root key", Verdict::Warn, &["400 days old", "copy"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_is_open_or_missing_is_told() {
    let world = stopped().await;
    let directory = world.config().store.directory;
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    told(&now(&world.config()).await, "data directory", Verdict::Fail, &["0755", "chmod 700"]);
    let mut config = world.config();
    config.store.directory = directory.join("not-there");
    let findings = now(&config).await;
    told(&findings, "data directory", Verdict::Warn, &["not there"]);
    told(&findings, "store", Verdict::Ok, &["none yet"]);
    assert!(!config.store.directory.exists(), "who looks makes nothing");
}

/// Writes what no broker would.
struct Forger;

impl AuditLinker for Forger {
    fn link(&self, _: u64, _: Option<&[u8]>, _: &Sealed) -> Vec<u8> {
        b"nothing happened".to_vec()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_audit_record_breaks_the_chain() {
    let world = stopped().await;
    let store = world.config().store;
    let options = SledOptions {
        directory: store.directory,
        page_cache: 8 << 20,
        row_cache: 1 << 20,
        installation: InstallationId::from_bytes([1; 16]),
        epoch: EntryId::from_bytes([2; 16]),
    };
    let store = SledStore::open(options, Box::new(Forger)).await.unwrap();
    let body = Sealed::from_bytes(b"nothing".to_vec().into());
    let audit = vec![NewEntry { id: EntryId::from_bytes([3; 16]), body }];
    store.commit(ChangeSet { audit, ..ChangeSet::default() }).await.unwrap();
    store.close().await;
    told(&now(&world.config()).await, "audit chain", Verdict::Fail, &["not what was recorded", "backup"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_or_another_is_told() {
    let world = stopped().await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = elsewhere.local_addr().unwrap();
    drop(elsewhere);
    let mut config = world.config();
    config.providers[0].issuer = Some(format!("http://{address}").parse().unwrap());
    let findings = now(&config).await;
    told(&findings, "provider", Verdict::Fail, &["was not sent", "firewall"]);
    told(&findings, "issuer", Verdict::Ok, &["keys"]);

    let mut config = world.config();
    let provider = world.provider.issuer();
    config.identity[0].issuers[0].issuer = IssuerName::Exact(format!("{provider}/nobody"));
    config.providers[0].issuer = Some(format!("{provider}/nobody").parse().unwrap());
    let findings = now(&config).await;
    told(&findings, "issuer", Verdict::Fail, &["keys cannot be used"]);
    told(&findings, "provider", Verdict::Fail, &["nobody can be sent there"]);

    config.identity[0].issuers[0].issuer = IssuerName::Exact(format!("http://{address}"));
    config.providers[0].issuer = Some(format!("http://{address}").parse().unwrap());
    let findings = now(&config).await;
    told(&findings, "issuer", Verdict::Fail, &["was not sent"]);
    told(&findings, "clock", Verdict::Warn, &["no server said"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_wrong_by_more_than_half_a_minute_is_told() {
    let world = stopped().await;
    let config = world.config();
    told(&examined(&config, Duration::from_secs(10)).await, "clock", Verdict::Ok, &["ahead of the Date of 2"]);
    told(&examined(&config, Duration::from_secs(90)).await, "clock", Verdict::Fail, &["ahead of", "NTP"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_looked_at_for_its_time_and_its_name() {
    let world = stopped().await;
    let mut config = world.config();
    config.http.public_url = Some("https://broker.example".parse().unwrap());
    let this_year = i32::try_from(SystemClock.now().as_secs() / 31_556_952).unwrap() + 1970;
    let certificate = |name: &str, from: i32, to: i32| {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        let (chain, private) = (world.directory().join("tls.crt"), world.directory().join("tls.key"));
        fs::write(&chain, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&private, key.serialize_pem()).unwrap();
        fs::set_permissions(&private, Permissions::from_mode(0o600)).unwrap();
        let files = TlsFiles {
            certificate_file: chain,
            private_key_file: private,
            client_ca_file: None,
            client_certificates: None,
        };
        Some(TlsSection::Files(files))
    };
    for (name, from, to, verdict, parts) in [
        ("broker.example", 2000, this_year + 3, Verdict::Ok, &["valid for more"][..]),
        ("broker.example", 2000, 2001, Verdict::Fail, &["expired", "new one"]),
        ("broker.example", this_year + 2, this_year + 3, Verdict::Fail, &["not valid yet"]),
        ("another.example", 2000, this_year + 3, Verdict::Fail, &["not for broker.example", "public_url"]),
    ] {
        config.http.tls = certificate(name, from, to);
        let mut findings = now(&config).await;
        findings.retain(|finding| finding.subject != "grpc");
        told(&findings, "certificate", verdict, parts);
    }
    fs::write(world.directory().join("tls.key"), "none").unwrap();
    told(&now(&config).await, "certificate", Verdict::Fail, &["no PEM private key"]);
    config.http.tls = Some(TlsSection::Off);
    told(&now(&config).await, "certificate", Verdict::Warn, &["plaintext", "in front"]);
}
