//! The connect pages in Chromium: what people see at phone and desktop size, what axe finds, and what they can do with
//! the keyboard alone and without scripts. The screenshots stay beside the build, in `target/tmp/pages`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "set-up that fails fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use claviger::{
    client::Client,
    config::{Config, PluginSection},
    proto::v1::{self, AuthorizationState as State},
};

use tools::{search_path, there_is};
use world::{Pages, Settings, World, start};

#[path = "../support/clock.rs"]
#[expect(dead_code, reason = "shared with tests that wait for sleepers")]
mod clock;
#[path = "../support/emitted/mod.rs"]
mod emitted;
#[path = "../support/event_log.rs"]
mod event_log;
#[path = "../support/heard.rs"]
#[expect(dead_code, reason = "shared with the tests of the gRPC interface")]
mod heard;
#[path = "../support/recorded.rs"]
mod recorded;
#[path = "../support/records.rs"]
#[expect(dead_code, reason = "shared with the tests of the gRPC interface")]
mod records;
#[path = "../support/tools.rs"]
mod tools;
#[path = "../support/watch_validator.rs"]
#[expect(dead_code, reason = "shared with the tests of the gRPC interface")]
mod watch_validator;
#[path = "../broker/world.rs"]
#[expect(dead_code, reason = "shared with the tests of the gRPC interface")]
mod world;

mod support {
    pub(crate) use super::{clock, heard, records};
}

const NODE: &str = "node-pages";
/// The visits of `visit.mjs`, each to a plugin of its own, and what becomes of their flows. The one that expires is first.
const VISITS: [(&str, State); 7] = [
    ("expired", State::Expired),
    ("completed", State::Completed),
    ("denied", State::Denied),
    ("deniedThere", State::Denied),
    ("foreign", State::Pending),
    ("leaving", State::Pending),
    ("scriptless", State::Completed),
];

fn plugin_of(visit: &str) -> String {
    visit.to_lowercase()
}

fn add_plugins(config: &mut Config) {
    let model = config.plugins[0].clone();
    let plugin = |visit| PluginSection { id: plugin_of(visit).parse().unwrap(), ..model.clone() };
    config.plugins.extend(VISITS.map(|(visit, _)| plugin(visit)));
}

/// Broker and provider stand on different sites: a browser takes each loopback address for a site of its own.
async fn world() -> World {
    let listener = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let public_url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let pages = Some(Pages { listener, public_url });
    World::start_with(Settings { pages, configure: Box::new(add_plugins), ..Settings::default() }).await
}

async fn begin(client: &Client, visit: &str) -> v1::StartAuthorizationResponse {
    let binding = v1::AuthorizationBinding::Browser.into();
    let request = v1::StartAuthorizationRequest { binding, redirect_uri: String::new(), ..start(&plugin_of(visit)) };
    client.start_authorization(request).await.unwrap()
}

/// `links`: where each visit begins, by its name.
fn visit(broker: &str, links: &BTreeMap<&str, String>) -> Output {
    let screenshots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    fs::create_dir_all(&screenshots).unwrap();
    let mut command = Command::new(NODE);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pages/visit.mjs")).arg(broker).arg(screenshots);
    command.env("PATH", search_path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(links).unwrap()).unwrap();
    child.wait_with_output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_can_see_and_do_what_the_pages_ask_of_them() {
    if ![NODE, "chromium"].into_iter().all(there_is) {
        return;
    }
    let world = world().await;
    let alice = world.client("alice");
    let mut flows = Vec::new();
    let mut links = BTreeMap::new();
    for (name, state) in VISITS {
        let begun = begin(&alice, name).await;
        links.insert(name, begun.authorization_url);
        flows.push((name, begun.flow_id, state));
        if state == State::Expired {
            world.clock.advance(Duration::from_secs(11 * 60));
        }
    }
    let completed: url::Url = links["completed"].parse().unwrap();
    links.insert("unknown", completed.join("/connect/flw_00000000000000000000000000000000").unwrap().into());
    let broker = completed.origin().ascii_serialization();

    let seen = tokio::task::spawn_blocking(move || visit(&broker, &links)).await.unwrap();
    let [said, failed] = [seen.stdout, seen.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(seen.status.success(), "{said}{failed}");

    for (name, flow_id, state) in flows {
        let request = v1::GetAuthorizationRequest { flow_id, wait: None };
        assert_eq!(alice.get_authorization(request).await.unwrap().state(), state, "{name}");
    }
}
