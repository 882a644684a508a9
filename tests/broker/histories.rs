//! Random lives of a broker and its watchers, held against the log: W1 to W9 over sockets, restarts and all.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex},
    time::Duration,
};

use claviger::proto::v1::{
    self, CredentialEventKind as Kind, Delivery, OnLost, WatchCredentialStatusRequest as Request,
    watch_credential_status_request::Start, watch_credential_status_response::Body, watch_scope::Target,
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    access::without_the_provider,
    event_log,
    heard::Client,
    observer::in_time,
    records_support::Records,
    watch_validator::{History, assert_valid},
    world::{MINUTE, PLUGIN, World, ask},
};

const LIVES: u32 = 3;
const STEPS: u32 = 30;
/// Enough happens in each of them.
const SEEDS: [u64; 3] = [1, 2, 3];

/// Numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn of<'a, T>(&mut self, some: &'a [T]) -> &'a T {
        &some[self.below(some.len())]
    }
}

/// The same each time; another in a soak. `CLAVIGER_SEED` draws the steps of that one again.
#[expect(clippy::disallowed_methods, reason = "which seed to test is not the product's configuration")]
fn seeds() -> Vec<u64> {
    if let Ok(told) = std::env::var("CLAVIGER_SEED") {
        return vec![told.parse().expect("a seed is a number")];
    }
    let drawn = std::env::var_os("CLAVIGER_SOAK").map(|_| RandomState::new().hash_one(std::process::id()));
    SEEDS.into_iter().chain(drawn).collect()
}

/// Streams under way, and what was heard on all that ever were.
#[derive(Default)]
struct Streams {
    histories: Arc<Mutex<Vec<History>>>,
    /// Each ends when its client leaves or the broker does; some do not read before they are told to.
    reading: JoinSet<()>,
    leaving: Vec<tokio::task::AbortHandle>,
}

impl Streams {
    async fn open(&mut self, client: &Client, subject: &str, request: Request, mut go: watch::Receiver<bool>) {
        // Not on the world's record, which is held against each life's log as it ends: of a provider that was taken out at
        // the very end, that log does not say it yet.
        let client: &claviger::client::Client = client;
        let mut stream = client.watch_credential_status(request.clone()).await.unwrap();
        let number = {
            let mut histories = self.histories.lock().unwrap();
            histories.push(History { subject: subject.to_owned(), request, messages: Vec::new(), must_reach: None });
            histories.len() - 1
        };
        let histories = Arc::clone(&self.histories);
        self.leaving.push(self.reading.spawn(async move {
            if go.wait_for(|go| *go).await.is_err() {
                return;
            }
            while let Ok(Some(message)) = stream.message().await {
                histories.lock().unwrap()[number].messages.push(message);
            }
        }));
    }

    /// Of those who read until the broker said goodbye: whoever else did not read, they have come this far.
    fn must_have_reached(&self, head: u64, since: usize) {
        for history in &mut self.histories.lock().unwrap()[since..] {
            let last = history.messages.last().and_then(|message| message.body.clone());
            if matches!(last, Some(Body::Drain(drain)) if drain.cause() == v1::DrainCause::Shutdown) {
                history.must_reach = Some(head);
            }
        }
    }

    fn tokens(&self, subject: &str) -> Vec<(Vec<u8>, Request)> {
        let histories = self.histories.lock().unwrap();
        let hers = histories.iter().filter(|history| history.subject == subject);
        hers.flat_map(|history| {
            history.messages.iter().map(|message| (message.resume_token.clone(), history.request.clone()))
        })
        .filter(|(token, _)| !token.is_empty())
        .collect()
    }

    fn credentials(&self, subject: &str) -> Vec<String> {
        let histories = self.histories.lock().unwrap();
        let hers = histories.iter().filter(|history| history.subject == subject);
        let batches = hers.flat_map(|history| &history.messages).filter_map(|message| match &message.body {
            Some(Body::Batch(batch)) => Some(batch.events.clone()),
            _ => None,
        });
        batches.flatten().filter_map(|event| event.status).map(|status| status.credential_id).collect()
    }

    fn request(&self, subject: &str, dice: &mut Dice) -> Request {
        let tokens = self.tokens(subject);
        if !tokens.is_empty() && dice.below(2) == 0 {
            let (token, request) = dice.of(&tokens).clone();
            return Request { start: Some(Start::ResumeToken(token)), ..request };
        }
        let (credentials, mut scopes, mut kinds) = (self.credentials(subject), Vec::new(), Vec::new());
        if !credentials.is_empty() && dice.below(3) == 0 {
            let target = Some(Target::CredentialId(dice.of(&credentials).clone()));
            scopes.push(v1::WatchScope { target });
        }
        if dice.below(3) == 0 {
            kinds.push(Kind::Refreshed.into());
        }
        let delivery = *dice.of(&[Delivery::EveryEvent, Delivery::LatestPerCredential]);
        let start = dice.of(&[Start::Snapshot(true), Start::Now(true)]).clone();
        let on_lost = OnLost::Resync.into();
        Request { start: Some(start), scopes, kinds, delivery: delivery.into(), on_lost, ..Request::default() }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_watchers_hear_what_the_log_has() {
    for seed in seeds() {
        println!("CLAVIGER_SEED={seed}");
        let (mut dice, mut world, mut streams) = (Dice(seed), World::start().await, Streams::default());
        for life in 0..LIVES {
            if life > 0 {
                world.run().await;
            }
            let since = streams.histories.lock().unwrap().len();
            let head = live(&mut world, &mut dice, &mut streams).await;
            world.stop().await;
            // Every stream ends with the broker, after all that was committed.
            in_time(async { while streams.reading.join_next().await.is_some() {} }).await;
            streams.leaving.clear();
            streams.must_have_reached(head, since);
        }
        let records = Records::open(&world).await;
        let log = event_log::read(&records.vault).await;
        records.close().await;
        let histories = streams.histories.lock().unwrap();
        let long = histories.iter().filter(|history| history.messages.len() > 2).count();
        println!("{} revisions, {long} histories with more than two messages", log.revisions.len());
        assert!(!SEEDS.contains(&seed) || log.revisions.len() > 10 && long > 5);
        assert_valid(&log, &histories);
    }
}

/// Gives the log's head before the end.
async fn live(world: &mut World, dice: &mut Dice, streams: &mut Streams) -> u64 {
    let (go, going) = watch::channel(false);
    let (_, read_at_once) = watch::channel(true);
    let people = ["alice", "bob"];
    let mut clients = BTreeMap::new();
    for person in people {
        let client = world.client(person);
        let said = client.validate_platform_token(v1::ValidatePlatformTokenRequest::default()).await.unwrap();
        clients.insert(person, (client, said.subject));
    }
    for _ in 0..STEPS {
        let person = *dice.of(&people);
        let (client, subject) = &clients[person];
        match dice.below(9) {
            0 | 1 => {
                // What has been heard by now is up to the machine, and must not decide the steps that follow.
                let mut apart = Dice(dice.below(usize::MAX) as u64);
                let request = streams.request(subject, &mut apart);
                let reads = if dice.below(4) == 0 { going.clone() } else { read_at_once.clone() };
                streams.open(client, subject, request, reads).await;
            }
            2 => {
                if let Some(leaving) = streams.leaving.pop() {
                    leaving.abort();
                }
            }
            3 => drop(world.connect(client, person).await),
            // A provider goes and comes back; some are told of both, and some before they have heard of the first.
            8 => {
                world.reload(without_the_provider).await;
                let _ = client.get_plugin_token(ask(PLUGIN)).await;
                world.reload(|_| {}).await;
            }
            4 if dice.below(2) == 0 => drop(client.revoke(crate::world::revoke_all()).await.unwrap()),
            _ => {
                world.clock.advance(9 * MINUTE + Duration::from_secs(30));
                for (client, _) in clients.values() {
                    // Nothing may be connected, or nothing to be had.
                    let _ = client.get_plugin_token(ask(PLUGIN)).await;
                }
            }
        }
    }
    go.send_replace(true);
    let request = Request { start: Some(Start::Now(true)), ..Request::default() };
    let first = clients["alice"].0.watch_credential_status(request).await.unwrap().message().await.unwrap();
    let Some(Body::Opened(opened)) = first.and_then(|message| message.body) else { panic!("it opened") };
    opened.head_revision
}
