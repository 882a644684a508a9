//! What a broker refuses to start with, and what its error says to do.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use claviger::{
    app::App,
    config::{Config, Fault, Period},
    identity::TenantRule,
    sealing::{Random, root_key},
};

use crate::world::{PLUGIN, World, ask};

/// The error of a start that must fail, with its causes.
async fn refused(world: &World, config: Config) -> String {
    match App::build(config, Arc::new(world.clock.clone()), Random::system()).await {
        Ok(_) => panic!("it was built"),
        Err(error) => format!("{error:#}"),
    }
}

fn faults(config: &Config) -> Vec<Fault> {
    config.check().into_iter().map(|problem| problem.fault).collect()
}

type Edit = fn(&mut Config);

fn table() -> toml::Value {
    toml::Value::Table(toml::Table::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_served_yet_is_not_silently_left_out() {
    let world = World::start().await;
    let cases: [(&str, Edit); 4] = [
        ("agents", |config| config.agents.push(table())),
        ("toolboxes", |config| config.toolboxes.push(table())),
        ("grants", |config| config.grants.push(table())),
        ("tenants[0].require_agent", |config| config.tenants[0].require_agent = true),
    ];
    for (section, edit) in cases {
        let mut config = world.config();
        edit(&mut config);
        let error = refused(&world, config).await;
        assert!(error.contains(&format!("{section}: agents, toolboxes and grants are not served")), "{error}");
        assert!(error.contains("remove the setting"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_problem_is_told_at_once_and_nothing_is_opened() {
    let world = World::start().await;
    let mut config = world.config();
    config.store.directory = world.directory().join("never-made");
    config.agents.push(table());
    config.tenants.push(config.tenants[0].clone());
    config.providers.push(config.providers[0].clone());
    config.plugins.push(config.plugins[0].clone());
    config.plugins[1].provider = "nowhere".parse().unwrap();
    config.providers[1].definition = "unheard-of".to_owned();
    config.identity[0].issuers[0].tenant = TenantRule::Fixed("elsewhere".parse().unwrap());
    config.outbound.timeout = Period::from_secs(0);
    let error = refused(&world, config.clone()).await;
    for part in [
        "8 problems",
        "agents: ",
        "tenants[1].id: \"acme\" is there twice",
        "providers[1].id: \"dev\" is there twice",
        "].id: \"calendar\" is there twice",
        "plugins[1].provider: there is no provider \"nowhere\"",
        "providers[1].definition: there is no definition \"unheard-of\"",
        "tenant elsewhere, which is not configured",
        "outbound.timeout: must be from 1s to 1m",
    ] {
        assert!(error.contains(part), "{part}\n{error}");
    }
    assert!(!config.store.directory.exists());
    let mut open = world.config();
    open.identity.clear();
    assert_eq!(faults(&open), [Fault::NoIssuer]);
    assert_eq!(faults(&world.config()), []);
    let mut incomplete = world.config();
    incomplete.providers[0].issuer = None;
    assert!(refused(&world, incomplete).await.contains("providers[0].issuer: "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_key_that_is_missing_or_exposed_is_named_with_its_cure() {
    let world = World::start().await;
    let mut config = world.config();
    config.store.directory = world.directory().join("never-made");
    config.sealing.root_keys = vec![world.directory().join("other.key")];
    let path = config.sealing.root_keys[0].display().to_string();
    let error = refused(&world, config.clone()).await;
    assert!(error.contains(&path) && error.contains("claviger generate-key"), "{error}");
    root_key::file::create(&config.sealing.root_keys[0], &Random::system()).unwrap();
    for mode in [0o644, 0o640, 0o604, 0o700] {
        fs::set_permissions(&config.sealing.root_keys[0], fs::Permissions::from_mode(mode)).unwrap();
        let error = refused(&world, config.clone()).await;
        assert!(error.contains(&path) && error.contains(&format!("chmod 600 {path}")), "{error}");
    }
    assert!(!config.store.directory.exists(), "no store is made that could not be opened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_use_is_named_with_its_cure() {
    let world = World::start().await;
    let error = refused(&world, world.config()).await;
    let directory = world.config().store.directory.display().to_string();
    assert!(error.contains(&directory) && error.contains("in use by another process; stop it"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_root_key_opens_nothing_and_holds_nothing() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    world.stop().await;
    let mut config = world.config();
    config.sealing.root_keys = vec![world.directory().join("other.key")];
    root_key::file::create(&config.sealing.root_keys[0], &Random::system()).unwrap();
    let error = refused(&world, config).await;
    let directory = world.config().store.directory.display().to_string();
    assert!(error.contains(&directory) && error.contains("is sealed under root key"), "{error}");
    // At once, and unharmed.
    world.run().await;
    assert!(world.client("alice").get_plugin_token(ask(PLUGIN)).await.is_ok());
}

#[test]
fn a_key_that_is_not_known_is_refused() {
    let known = "[store]\ndirectory = \"/store\"\n[sealing]\nroot_keys = [\"/root.key\"]\n";
    assert!(toml::from_str::<Config>(known).is_ok());
    for unknown in
        ["[store]\ndirectory = \"/store\"\nfast = true\n[sealing]\nroot_keys = [\"/k\"]\n", &format!("{known}[gprc]\n")]
    {
        assert!(toml::from_str::<Config>(unknown).is_err(), "{unknown}");
    }
    let agents: Config = toml::from_str(&format!("{known}[[agents]]\nid = \"helper\"\n")).unwrap();
    assert!(faults(&agents).contains(&Fault::NotServed));
    let secret = format!(
        "{known}[[providers]]\nid = \"dev\"\ndefinition = \"oidc\"\nclient_id = \"c\"\nclient_secret = \"in the file\"\n"
    );
    assert!(toml::from_str::<Config>(&secret).is_err(), "a secret does not stand in a configuration file");
}
