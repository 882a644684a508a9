//! The life of one process, and of one world: process after process over the same store.

use std::{
    cell::Cell,
    panic::AssertUnwindSafe,
    sync::{Arc, Once},
    time::Duration,
};

use claviger::{
    broker::{
        Binding, Broker, BrokerError, Catalog, GetPluginToken, Parts, Retention, Revoke, RevokeTarget, Settings,
        StartAuthorization, StoreAuthCode, Target, Tenant, UrlRule, WatchQuotas,
    },
    domain::{
        AuthorizationCode, Call, CallContext, Caller, ClientSecret, Definition, Endpoints, FlowSecret, Plugin,
        Provider, Role, ScopeSet, TokenUsage,
    },
    events::Hub,
    grpc::WIRE,
    identity::Authenticator,
    oauth::{AuthorizationServers, definitions::shipped},
    outbound::{Outbound, Policy},
    store::Store,
    vault::Vault,
};
use tokio::runtime::Builder;

use crate::{
    checks::Invariant,
    plan::{Action, MINUTE, Mood, Plan, Read, SECOND},
    store::FaultyStore,
    wire::{FaultyWire, TIMEOUT},
    world::{Broken, World, root, subject},
};

const PROVIDER: &str = "as";
const PLUGIN: &str = "calendar";
const TENANT: &str = "acme";
const CALLBACK: &str = "http://127.0.0.1:1/callback";
/// The longest that everything takes to come to rest once nothing goes wrong any more.
const REST: u64 = 150 * MINUTE;

/// How a world went.
pub(crate) struct Outcome {
    pub(crate) broken: Option<Broken>,
    pub(crate) trace: Vec<String>,
    pub(crate) posts: usize,
    pub(crate) processes: u32,
}

/// How a process ended.
enum End {
    Killed,
    Stopped,
    /// The world is at its end.
    Over,
}

thread_local! {
    /// In the world that this thread lives through, be it in a task whose end nobody waits for.
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            print(panic);
        }));
    });
    PANICS.set(0);
}

/// Lives through the world of a seed.
pub(crate) fn live_through(seed: u64, traced: bool) -> Outcome {
    count_panics();
    let world = World::new(seed, traced);
    let lived = std::panic::catch_unwind(AssertUnwindSafe(|| live(&world)));
    if lived.is_err() || PANICS.get() > 0 {
        world.broken(Invariant::I6, "something panicked");
    }
    let trace = world.take_trace();
    let state = world.state();
    Outcome { broken: state.broken.clone(), trace, posts: state.posts.len(), processes: state.process }
}

fn live(world: &Arc<World>) {
    loop {
        let end = process(world);
        if world.state().broken.is_some() {
            return;
        }
        match end {
            End::Over => return,
            End::Stopped => world.judge_what_is_in_hand(),
            End::Killed => {
                world.bury();
                world.time.pass(1 + world.coin(3) * 20 * SECOND);
            }
        }
    }
}

fn process(world: &Arc<World>) -> End {
    let time = world.time.clone();
    let idle = move || assert!(time.advance(), "nothing can happen any more");
    let runtime = Builder::new_current_thread().on_thread_park(idle).build().unwrap();
    let end = world.begin_process();
    world.trace(|| "a process begins".to_owned());
    let living = Arc::clone(world);
    let ended = runtime.block_on(async {
        tokio::select! {
            biased;
            () = end.notified() => End::Killed,
            ended = run(living) => ended,
        }
    });
    world.state().dead = true;
    drop(runtime);
    ended
}

async fn run(world: Arc<World>) -> End {
    let store = FaultyStore::over(Arc::clone(&world));
    let broker = loop {
        match start(&world, store.clone()).await {
            Ok(started) => break started,
            Err(_) => {
                world.trace(|| "the process cannot start yet".to_owned());
                set_store(&world, &store, true);
                world.time.pause(SECOND).await;
            }
        }
    };
    tokio::spawn(broker.clone().run_scheduler());
    let mut calls = 0;
    while let Some((at, action)) = next_action(&world) {
        world.time.pause_until(at).await;
        world.trace(|| format!("{action:?}"));
        calls += 1;
        match action {
            Action::Store { up } => set_store(&world, &store, up),
            Action::Server(mood) => world.state().mood = mood,
            Action::SetClock(by) => {
                world.state().has_jumped = true;
                world.time.jump(by);
            }
            Action::EndGrant(person) => world.end_grants(person),
            Action::Stop => {
                set_store(&world, &store, true);
                broker.stop().await;
                return End::Stopped;
            }
            Action::Connect(person) => drop(tokio::spawn(connect(world.clone(), broker.clone(), person))),
            Action::Read(read) => drop(tokio::spawn(read_token(world.clone(), broker.clone(), read, calls))),
            Action::Revoke(person) => drop(tokio::spawn(revoke(world.clone(), broker.clone(), person))),
            Action::Erase(person) => drop(tokio::spawn(erase(world.clone(), broker.clone(), person))),
        }
    }
    come_to_rest(&world, &store, &broker).await;
    broker.stop().await;
    world.judge_what_is_in_hand();
    End::Over
}

fn next_action(world: &World) -> Option<(u64, Action)> {
    world.state().actions.pop()
}

fn set_store(world: &World, store: &FaultyStore, up: bool) {
    world.state().store_down = !up;
    store.announce();
}

/// Nothing goes wrong any more: everything must come to its end, and what is connected must work.
async fn come_to_rest(world: &Arc<World>, store: &FaultyStore, broker: &Broker) {
    world.trace(|| "calm".to_owned());
    world.state().calm = true;
    world.state().mood = Mood::Well;
    set_store(world, store, true);
    let until = world.time.elapsed() + REST;
    world.time.pause(MINUTE).await;
    while !world.is_settled() || !is_at_rest(world).await {
        world.time.pause(MINUTE).await;
        if world.time.elapsed() > until {
            return world.broken(Invariant::I1, "the world does not come to rest");
        }
    }
    world.judge_end();
    for person in (0..world.plan.people).filter(|person| world.has_one_that_works(*person)) {
        let read = Read { person, remaining: None, newest: false, rejects: false, patience: None };
        if let Err(error) = broker.get_plugin_token(&call(world, person, Role::User), ask(world, &read)).await {
            world.broken(Invariant::I1, format!("in the end person {person} gets no token: {error}"));
        }
    }
}

/// No job is left to do.
async fn is_at_rest(world: &World) -> bool {
    use claviger::{domain::Timestamp, vault::DueRecord};
    let due = world.inspector.due(Timestamp::NEVER, 1000).await.unwrap();
    due.iter().all(|due| !matches!(due.record, DueRecord::Job(_)))
}

async fn start(world: &Arc<World>, store: Arc<FaultyStore>) -> Result<Broker, BrokerError> {
    let store: Arc<dyn Store> = store;
    let vault = Vault::open(store, root(), world.random.clone(), &world.audit_key).await?;
    let clock = Arc::new(world.time.clone());
    let policy = Policy { timeout: TIMEOUT, ..Policy::default() };
    let outbound = Outbound::over(Arc::new(FaultyWire(Arc::clone(world))), &policy);
    let nobody = Box::new(|_: &_, _: &str, _: &[&str]| unreachable!("no token is presented"));
    let secret = world.random.secret()?;
    let authenticator = Authenticator::new(Vec::new(), &outbound, clock.clone(), nobody, &secret);
    let broker = Broker::start(Parts {
        hub: Hub::new(vault.clone(), WIRE, clock.clone()),
        vault,
        servers: AuthorizationServers::new(outbound, clock.clone()),
        authenticator: Arc::new(authenticator.expect("no family has a problem")),
        catalog: Arc::new(catalog(&world.plan)),
        clock,
        settings: Settings {
            provider_timeout: TIMEOUT + Duration::from_secs(1),
            audit_window: Duration::from_secs(world.plan.audit_window),
            retention: Retention::default(),
            watch: WatchQuotas::default(),
            held_directory: None,
            erasures: world.erasures.clone(),
            public_url: None,
        },
    });
    broker.await
}

fn catalog(plan: &Plan) -> Catalog {
    let at = |path: &str| Some(format!("https://as.example{path}").parse().unwrap());
    let definition = Definition {
        rotation: plan.rotation,
        endpoints: Endpoints {
            authorization: at("/authorize"),
            token: at("/token"),
            revocation: at("/revoke"),
            userinfo: None,
        },
        account: None,
        ..shipped("oidc").unwrap()
    };
    let provider = Provider {
        id: PROVIDER.parse().unwrap(),
        definition,
        client_id: "broker".to_owned(),
        client_secret: Some(ClientSecret::new("secret".to_owned())),
        refreshes_per_second: plan.refreshes_per_second.try_into().unwrap(),
    };
    let plugin = Plugin {
        id: PLUGIN.parse().unwrap(),
        display_name: "Calendar".to_owned(),
        provider: provider.id.clone(),
        scopes: ScopeSet::parse("read", ' ').unwrap(),
        usage: TokenUsage::default(),
        enabled: true,
    };
    let tenant = Tenant { return_urls: Vec::new(), redirect_uris: vec![UrlRule::Exact(CALLBACK.parse().unwrap())] };
    Catalog {
        tenants: [(TENANT.parse().unwrap(), tenant)].into(),
        providers: [(provider.id.clone(), Arc::new(provider))].into(),
        plugins: [(plugin.id.clone(), plugin)].into(),
    }
}

fn call(world: &World, person: usize, role: Role) -> Call {
    let now = world.time.wall();
    let caller = Caller {
        tenant: TENANT.parse().unwrap(),
        subject: subject(person),
        family: "platform".parse().unwrap(),
        external_id: format!("person-{person}"),
        agent: None,
        audience: vec!["claviger".to_owned()],
        scopes: ScopeSet::default(),
        roles: [role].into(),
        issued_at: now,
        expires_at: now.plus(Duration::from_secs(3600)),
    };
    Call {
        caller: Arc::new(caller),
        request_id: "simulated".parse().unwrap(),
        peer: None,
        user_agent: None,
        context: CallContext::default(),
    }
}

fn ask(world: &World, read: &Read) -> GetPluginToken {
    let state = world.state();
    let mut own = state.connections.values().rev();
    let known = own.find(|known| known.person == read.person && known.connection.is_some());
    let last = known.and_then(|known| known.last_access());
    GetPluginToken {
        plugin: PLUGIN.parse().unwrap(),
        account: None,
        scopes: None,
        min_remaining: read.remaining.map(Duration::from_secs),
        min_generation: known.filter(|_| read.newest).map(|known| known.given),
        rejected_token_sha256: last.filter(|_| read.rejects).map(sha256),
        return_url: None,
    }
}

fn sha256(text: &str) -> [u8; 32] {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref().try_into().unwrap()
}

async fn read_token(world: Arc<World>, broker: Broker, read: Read, number: u64) {
    let request = ask(&world, &read);
    let given = world.begin_read(number, &read);
    let call = call(&world, read.person, Role::User);
    let asking = broker.get_plugin_token(&call, request);
    let answer = tokio::select! {
        biased;
        answer = asking => Some(answer),
        () = async {
            match read.patience {
                Some(millis) => world.time.pause(millis).await,
                None => std::future::pending().await,
            }
        } => None,
    };
    world.state().callers.remove(&number);
    match answer {
        Some(Ok(token)) => {
            let before = given.get(&token.connection.value.id).copied().unwrap_or_default();
            world.trace(|| {
                format!("person {} is given generation {}", read.person, token.connection.value.credential.generation)
            });
            world.judge_answer(before, &token);
        }
        Some(Err(error)) => world.trace(|| format!("person {} is told: {error}", read.person)),
        None => world.trace(|| format!("person {} goes away", read.person)),
    }
}

/// A user connects the account, or reconnects it when it is dead.
async fn connect(world: Arc<World>, broker: Broker, person: usize) {
    if world.has_working(person) {
        return;
    }
    let call = call(&world, person, Role::User);
    let target = Target::Plugin(PLUGIN.parse().unwrap());
    let binding = Binding::Caller { redirect_uri: CALLBACK.parse().unwrap() };
    let request = StartAuthorization { target, scopes: ScopeSet::default(), account: None, binding, return_url: None };
    let started = match broker.start_authorization(&call, request).await {
        Ok(started) => started,
        Err(error) => return world.trace(|| format!("person {person} cannot connect: {error}")),
    };
    let mut parameters = started.authorization_url.query_pairs();
    let state = parameters.find(|(name, _)| name == "state").map(|(_, state)| state.into_owned()).unwrap();
    let code = world.with_oracle(|oracle, _| oracle.agree());
    let answer = StoreAuthCode::Flow { state: FlowSecret::new(state), code: AuthorizationCode::new(code), iss: None };
    let outcome = broker.store_auth_code(&call, answer).await;
    world.trace(|| {
        format!(
            "person {person} connects: {:?}",
            outcome.map(|shown| shown.connection.id).map_err(|error| error.to_string())
        )
    });
}

async fn revoke(world: Arc<World>, broker: Broker, person: usize) {
    let request = Revoke { target: RevokeTarget::AllMine, preview: false };
    match broker.revoke(&call(&world, person, Role::User), request).await {
        Ok(revoked) => {
            let (now, mut state) = (world.time.elapsed(), world.state());
            for revoked in &revoked {
                if let Some(known) = state.connections.get_mut(&revoked.connection.id) {
                    known.acknowledged_at.get_or_insert(now);
                }
            }
        }
        Err(error) => world.trace(|| format!("person {person} could not revoke: {error}")),
    }
}

async fn erase(world: Arc<World>, broker: Broker, person: usize) {
    let tenant = TENANT.parse().unwrap();
    match broker.erase_subject(&call(&world, 200, Role::Operator), &tenant, subject(person)).await {
        Ok(_) => {
            let now = world.time.elapsed();
            for known in world.state().connections.values_mut().filter(|known| known.person == person) {
                known.acknowledged_at.get_or_insert(now);
            }
        }
        Err(error) => world.trace(|| format!("person {person} could not be erased: {error}")),
    }
}
