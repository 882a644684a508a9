//! Many connections at a provider that rotates refresh tokens and takes the grant of whoever presents one twice, while
//! answers are lost, late and refused, and the broker is killed every few seconds.
//!
//! The provider's log judges: a connection may be dead only where the log shows a rotation whose answer never became
//! durable here, and every other one works.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use claviger::{
    app::SystemClock,
    client::Client,
    domain::{Clock as _, PresentedToken},
    proto::v1::{
        self, CredentialState as State, ErrorReason as Reason, watch_credential_status_request::Start,
        watch_credential_status_response::Body,
    },
};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::json;

use crate::world::{World, ask, code_of, reason, start};

const CONNECTIONS: usize = 200;
/// Seconds. Half of it is left when a token is refreshed.
const LIFETIME: u32 = 10;
/// Seconds; `late` answers take longer, and no other does but of a machine that stands still.
const TIMEOUT: u8 = 10;
/// At least, however slow the machine is.
const KILLS: u64 = 3;
/// Milliseconds. An answer that came so long before the kill is durable, be the disk slow.
const SURELY_DURABLE: i64 = 5000;

#[derive(Deserialize)]
struct Log {
    entries: Vec<Entry>,
    busy: u64,
}

#[derive(Debug, Deserialize)]
struct Entry {
    kind: Kind,
    #[serde(default)]
    user: String,
    /// The how-manieth refresh token of the user's was presented.
    #[serde(default)]
    presented: u64,
    #[serde(default)]
    fate: String,
    /// Of an answer: when it had left, in milliseconds; `None`: it never did. Of a kill: when.
    at: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Rotated,
    Refused,
    Killed,
}

struct User {
    name: String,
    token: PresentedToken,
}

/// How a connection ended up, as the broker says.
#[derive(Debug, PartialEq, Eq)]
struct End {
    generation: u64,
    died_of: Option<Reason>,
}

/// A minute in all, or ten of storm.
#[expect(clippy::disallowed_methods, reason = "how long to test is not the product's configuration")]
fn lasts() -> Duration {
    Duration::from_secs(if std::env::var_os("CLAVIGER_SOAK").is_some() { 600 } else { 20 })
}

#[expect(clippy::disallowed_methods, reason = "what to test is not the product's configuration")]
fn seed() -> u64 {
    let given = std::env::var("CLAVIGER_SEED").ok();
    given.map_or(1, |seed| seed.parse().expect("CLAVIGER_SEED is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_every_connection_works_but_those_whose_answer_was_lost() {
    let Some(mut world) = World::with_timeout(TIMEOUT).await else { return };
    world.provider.set_lifetime(LIFETIME).await;
    let mut users = Vec::new();
    connect(&world, &mut users, CONNECTIONS).await;
    let seed = seed();
    let (began, mut kills) = (SystemClock.now(), 0);
    while kills < KILLS || SystemClock.now() - began < lasts() {
        let odds = json!({ "seed": seed + kills, "busy": 10, "lost": 4, "late": 2, "slow": 60 });
        world.provider.tell("storm", &odds).await;
        // By then, who was interrupted has had the second try: two in a row prove nothing of a provider that saw neither.
        let more = (seed.wrapping_mul(31).wrapping_add(kills * 17)) % 80;
        world.provider.ask(&format!("cycled?more={more}")).await;
        let at = SystemClock.now().as_millis();
        world.kill();
        let ended = world.provider.tell("killed", &json!({ "at": at })).await["ended"].as_u64().unwrap() as usize;
        kills += 1;
        world.provider.tell("storm", &json!({ "seed": 0 })).await;
        world.run();
        let gone = CONNECTIONS + ended - users.len();
        connect(&world, &mut users, gone).await;
    }
    world.provider.set_lifetime(3600).await;

    let mut ends = BTreeMap::new();
    for user in &users {
        ends.insert(user.name.as_str(), settled(&world.client_with(&user.token)).await);
    }
    for user in &users {
        if ends[user.name.as_str()].died_of.is_some() {
            continue;
        }
        let token = world.client_with(&user.token).get_plugin_token(newer()).await.unwrap();
        let of = world.provider.user_of(&token.access_token).await;
        assert_eq!(of.as_deref(), Some(user.name.as_str()), "another user's token, or none's");
        ends.insert(&user.name, End { generation: token.generation, died_of: None });
    }
    let log: Log = serde_json::from_value(world.provider.ask("log").await).unwrap();
    let lost = judge(&log, &ends);
    let count = |fate: &str| log.entries.iter().filter(|entry| entry.fate == fate).count();
    assert!(!lost.is_empty() && lost.len() < ends.len(), "{} of {} connections were lost", lost.len(), ends.len());
    let rotations = log.entries.iter().filter(|entry| entry.kind == Kind::Rotated).count();
    println!(
        "seed {seed}: {kills} kills, {rotations} rotations, {} answers 503, {} lost, {} late, {} delayed; \
         {} connections work, {} lost a rotated token by the provider's log, {} of them dead here",
        log.busy,
        count("lost"),
        count("late"),
        count("slow"),
        ends.values().filter(|end| end.died_of.is_none()).count(),
        lost.len(),
        ends.values().filter(|end| end.died_of.is_some()).count(),
    );
}

/// So many new users connect their accounts.
async fn connect(world: &World, users: &mut Vec<User>, count: usize) {
    let before = users.len();
    for number in before..before + count {
        let name = format!("u{number}");
        let token = world.provider.tell("platform-token", &json!({ "user": name })).await;
        let token = PresentedToken::new(token["token"].as_str().unwrap().to_owned());
        users.push(User { name, token });
    }
    for some in users[before..].chunks(8) {
        join_all(some.iter().map(async |user| {
            let client = world.client_with(&user.token);
            let started = client.start_authorization(start(v1::AuthorizationBinding::Caller)).await.unwrap();
            let approved = json!({ "user": user.name, "url": started.authorization_url });
            let answer = world.provider.tell("approve", &approved).await;
            let code = code_of(&answer["url"].as_str().unwrap().parse().unwrap());
            client.store_auth_code(code).await.unwrap();
        }))
        .await;
    }
}

/// Who is dead by the provider's log, having held the broker's word against it: whose refresh token it replaced in an
/// answer that never became durable here.
fn judge(log: &Log, ends: &BTreeMap<&str, End>) -> BTreeSet<String> {
    let mut lost = BTreeSet::new();
    for (user, end) in ends {
        let of_user = |entry: &&Entry| entry.user == *user || entry.kind == Kind::Killed;
        let entries: Vec<_> = log.entries.iter().filter(of_user).collect();
        let rotations: Vec<_> = entries.iter().filter(|entry| entry.kind == Kind::Rotated).collect();
        for (number, rotation) in rotations.iter().enumerate() {
            assert_eq!(rotation.presented, number as u64, "{user}: each token is presented in its turn");
        }
        let after = entries.iter().rposition(|entry| entry.kind == Kind::Rotated).expect("everybody was refreshed");
        let (last, after) = (entries[after], &entries[after + 1..]);
        let unheard = matches!(last.fate.as_str(), "lost" | "late" | "unheard");
        let killed = after.iter().find(|entry| entry.kind == Kind::Killed).is_some_and(|kill| in_vain(last, kill));
        let refused: Vec<_> = after.iter().filter(|entry| entry.kind == Kind::Refused).collect();
        assert!(refused.len() <= 1, "{user}: a dead refresh token is left alone; {entries:?}");
        for entry in refused {
            assert_eq!(
                (entry.presented, entry.fate.as_str()),
                (last.presented, "invalid_grant"),
                "{user}: {entries:?}"
            );
        }
        let is_lost = unheard || killed;
        let died_of = is_lost.then_some(Reason::RotationLost);
        assert_eq!(end.died_of, died_of, "{user}: by the broker, and by the log; {entries:?}");
        let durable = rotations.len() - usize::from(is_lost);
        assert_eq!(end.generation, 1 + durable as u64, "{user}: every answer that came is a generation; {entries:?}");
        if is_lost {
            lost.insert((*user).to_owned());
        }
    }
    lost
}

/// Whether what the answer brought may have been lost with the broker.
fn in_vain(answer: &Entry, kill: &Entry) -> bool {
    answer.at.is_none_or(|left| kill.at.unwrap() < left + SURELY_DURABLE)
}

/// The connection's end, with no more faults to come: a token that lasts, or none ever again.
async fn settled(client: &Client) -> End {
    let request = v1::WatchCredentialStatusRequest { start: Some(Start::Snapshot(true)), ..Default::default() };
    let mut stream = client.watch_credential_status(request).await.unwrap();
    // Later than any token of the storm lapses, earlier than those after it.
    let soon = SystemClock.now().plus(Duration::from_secs(1800)).as_secs();
    loop {
        let statuses = match stream.message().await.unwrap().expect("the stream goes on").body {
            Some(Body::Snapshot(snapshot)) => snapshot.statuses,
            Some(Body::Batch(batch)) => batch.events.into_iter().filter_map(|event| event.status).collect(),
            _ => continue,
        };
        for status in statuses {
            let lasts = status.state() == State::Connected && status.expires_at.is_some_and(|at| at.seconds > soon);
            if lasts {
                return End { generation: status.generation, died_of: None };
            }
            if status.state() == State::ReauthorizationRequired {
                assert_eq!(reason(client.get_plugin_token(ask()).await), Reason::ReauthorizationRequired);
                return End { generation: status.generation, died_of: Some(status.reason()) };
            }
        }
    }
}

/// So much that no token has it left.
fn newer() -> v1::GetPluginTokenRequest {
    v1::GetPluginTokenRequest { min_remaining: Some(prost_types::Duration { seconds: 24 * 3600, nanos: 0 }), ..ask() }
}
