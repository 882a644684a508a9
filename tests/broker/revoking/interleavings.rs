//! Random interleavings of everything that can happen to a connection, against the rules that must survive them.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use claviger::{
    dev::{Answer, Endpoint, Fault, TokenOutcome, TokenRefusal},
    proto::v1,
};
use http::StatusCode;
use tokio::task::JoinSet;

use crate::{
    heard::Client,
    observer::in_time,
    world::{PLUGIN, World, ask, revoke_all},
};

const STEPS: usize = 300;
/// Whose accounts the three users connect at the provider.
const USERS: [(&str, &str); 3] = [("anna", "alice"), ("boris", "bob"), ("clara", "alice")];

/// SplitMix64: the same seed, the same run.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.below(u64::try_from(from.len()).unwrap());
        &from[usize::try_from(at).unwrap()]
    }
}

/// What was promised so far.
#[derive(Default)]
struct Promised {
    generations: HashMap<String, u64>,
    /// Connections whose revocation was acknowledged.
    revoked: HashSet<String>,
    /// Answers of the token endpoint that took effect and were lost.
    lost: u32,
    served: u32,
}

struct Run {
    seed: u64,
    world: World,
    clients: Vec<Client>,
    draws: Draws,
    promised: Promised,
}

impl Run {
    async fn start(seed: u64) -> Self {
        let world = World::start().await;
        let clients = USERS.iter().map(|(user, _)| world.client(user)).collect();
        let mut run = Self { seed, world, clients, draws: Draws(seed), promised: Promised::default() };
        for user in 0..USERS.len() {
            run.connect(user).await;
        }
        run
    }

    async fn step(&mut self) {
        let user = usize::try_from(self.draws.below(3)).unwrap();
        match self.draws.below(20) {
            0..=7 => self.together(user, false).await,
            8 => self.together(user, true).await,
            9..=13 => self.world.clock.advance(Duration::from_secs(1 + self.draws.below(400))),
            14..=16 => self.connect(user).await,
            17..=18 => self.arm(),
            _ => self.restart().await,
        }
    }

    /// Several calls at once, and perhaps a revocation among them.
    async fn together(&mut self, user: usize, revoking: bool) {
        let before = self.promised.revoked.clone();
        let floors = self.promised.generations.clone();
        let mut calls = JoinSet::new();
        for _ in 0..=self.draws.below(4) {
            let (client, longer) = (self.clients[user].clone(), self.draws.below(3) == 0);
            let min_remaining = longer.then_some(prost_types::Duration { seconds: 3600, nanos: 0 });
            let request = v1::GetPluginTokenRequest { min_remaining, ..ask(PLUGIN) };
            calls.spawn(async move { in_time(client.get_plugin_token(request)).await.ok() });
        }
        if revoking {
            let results = in_time(self.clients[user].revoke(revoke_all())).await.unwrap().results;
            self.promised.revoked.extend(results.into_iter().map(|result| result.connection_id));
        }
        for token in calls.join_all().await.into_iter().flatten() {
            let (seed, id) = (self.seed, &token.connection_id);
            self.promised.served += 1;
            assert!(!before.contains(id), "seed {seed}: {id} is served after its revocation");
            let floor = floors.get(id).copied().unwrap_or(0);
            assert!(token.generation >= floor, "seed {seed}: generation {} after {floor}", token.generation);
            let highest = self.promised.generations.entry(id.clone()).or_default();
            *highest = token.generation.max(*highest);
        }
    }

    /// A fault may keep it from succeeding.
    async fn connect(&mut self, user: usize) {
        let (client, account) = (&self.clients[user], USERS[user].1);
        let Ok(started) = client.start_authorization(crate::world::start(PLUGIN)).await else { return };
        let answer = self.world.visit(&started.authorization_url, account, super::Decision::Approve).await;
        if let Ok(connection) = self.world.store(client, &answer).await {
            let (seed, id) = (self.seed, &connection.connection_id);
            assert!(!self.promised.revoked.contains(id), "seed {seed}: {id} was revived");
            let floor = self.promised.generations.insert(id.clone(), connection.generation).unwrap_or(0);
            assert!(
                connection.generation > floor,
                "seed {seed}: connected at {}, not above {floor}",
                connection.generation
            );
        }
    }

    fn arm(&mut self) {
        let answer = |status| Fault::Answer(Answer::new(status, "<html></html>"));
        let faults = [
            (Endpoint::Token, Fault::Drop),
            (Endpoint::Token, answer(StatusCode::SERVICE_UNAVAILABLE)),
            (Endpoint::Token, answer(StatusCode::TOO_MANY_REQUESTS)),
            (Endpoint::Token, answer(StatusCode::BAD_REQUEST)),
            (Endpoint::Token, Fault::CommitThenDrop),
            (Endpoint::Token, Fault::CommitThenTruncate),
            (Endpoint::Revoke, Fault::Drop),
            (Endpoint::Revoke, Fault::CommitThenDrop),
            (Endpoint::Revoke, answer(StatusCode::SERVICE_UNAVAILABLE)),
        ];
        let (endpoint, fault) = self.draws.pick(&faults);
        let loses = matches!(fault, Fault::CommitThenDrop | Fault::CommitThenTruncate);
        self.promised.lost += u32::from(*endpoint == Endpoint::Token && loses);
        self.world.provider.faults().arm(*endpoint, fault.clone(), 1);
    }

    async fn restart(&mut self) {
        self.world.restart().await;
        self.clients = USERS.iter().map(|(user, _)| self.world.client(user)).collect();
    }

    /// What the provider saw of it all.
    async fn end(mut self) {
        for user in 0..USERS.len() {
            self.together(user, true).await;
            self.together(user, false).await;
        }
        let requests = self.world.provider.token_requests();
        let refused =
            |refusal| requests.iter().filter(|request| request.outcome == TokenOutcome::Refused(refusal)).count();
        let (seed, lost) = (self.seed, usize::try_from(self.promised.lost).unwrap());
        let reused = refused(TokenRefusal::ReusedRefreshToken);
        assert!(reused <= lost, "seed {seed}: {reused} refresh tokens were sent twice, {lost} answers were lost");
        assert_eq!(refused(TokenRefusal::GrantEnded), 0, "seed {seed}: a dead grant was asked again");
        let (refreshes, revoked) = (self.world.refreshes(), self.promised.revoked.len());
        let served = self.promised.served;
        assert!(
            served > 30 && refreshes > 10 && revoked > 3,
            "seed {seed}: {served} reads, {refreshes} refreshes, {revoked} revocations: too tame"
        );
        self.world.stop().await;
    }
}

async fn interleave(seed: u64) {
    let mut run = Run::start(seed).await;
    for _ in 0..STEPS {
        run.step().await;
    }
    run.end().await;
}

#[tokio::test]
async fn no_interleaving_serves_what_is_revoked_or_turns_a_generation_back() {
    for seed in 1..=2 {
        interleave(seed).await;
    }
}

/// The same with threads that really run beside each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_parallel_interleaving_does_either() {
    for seed in 3..=4 {
        interleave(seed).await;
    }
}
