//! A broker over a store in memory, in virtual time, beside an authorization server that fails as it is told.

use std::{
    collections::BTreeMap,
    future::Future,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use claviger::{
    audit::Chain,
    broker::{
        Binding, Broker, BrokerError, Catalog, GetPluginToken, Parts, PluginToken, Retention, Settings,
        StartAuthorization, StoreAuthCode, Target, Tenant, UrlRule, WatchQuotas,
    },
    domain::{
        AuthorizationCode, BoxFuture, Call, CallContext, Caller, ClientSecret, Connection, Definition, Endpoints,
        EntryId, FlowSecret, InstallationId, Plugin, Provider, RefreshTokenLifetime, Role, Rotation, ScopeSet,
        SubjectId, Timestamp, TokenUsage,
    },
    events::Hub,
    grpc::WIRE,
    identity::Authenticator,
    oauth::{AuthorizationServers, definitions::shipped},
    outbound::{Outbound, OutboundError, Policy, Reply, Request, Wire},
    sealing::{AuditKey, Random, RootKey},
    store::Store,
    vault::{ErasureList, Vault},
};
use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};
use tokio::runtime::Builder;
use zeroize::Zeroizing;

use crate::{draw::Draw, memory_store::MemoryStore, time::Time};

pub(crate) const SECOND: u64 = 1000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
pub(crate) const HOUR: u64 = 60 * MINUTE;
const PLUGIN: &str = "calendar";
const CALLBACK: &str = "http://127.0.0.1:1/callback";

/// What is the same for a whole test.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) rotation: Rotation,
    /// Seconds; `None`: the server does not say.
    pub(crate) lifetime: Option<u64>,
    /// Seconds.
    pub(crate) idle: Option<u64>,
    pub(crate) rate: u32,
}

/// What the server does with a refresh.
#[derive(Clone, Copy)]
pub(crate) enum Mood {
    Well,
    /// A gateway stands in for it, and answers 503 to everything.
    Away,
    /// 500 to every refresh, while probes are answered as ever.
    Fails,
    /// Every answer comes so many milliseconds late.
    Late(u64),
    /// These people's requests meet a firewall's page; everybody else's do not.
    Blocks(fn(u16) -> bool),
    /// 429, with seconds to wait.
    Limits(u64),
}

/// A request, as the server saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Exchange,
    Refresh(u16),
    Probe,
}

pub(crate) struct Server {
    time: Time,
    terms: Terms,
    state: Mutex<State>,
}

struct State {
    mood: Mood,
    /// Of each person: the newest refresh token's number; `None`: a spent one was used again, and the grant is dead.
    newest: BTreeMap<u16, Option<u32>>,
    seen: Vec<(u64, Asked)>,
}

/// The world of one test. Its time goes on whenever nothing can happen.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) time: Time,
    pub(crate) server: Arc<Server>,
    terms: Terms,
    store: Arc<dyn Store>,
    audit_key: AuditKey,
    random: Random,
}

impl Default for Terms {
    fn default() -> Self {
        Self { rotation: Rotation::Strict, lifetime: Some(600), idle: None, rate: 50 }
    }
}

/// Lives through a test in virtual time.
pub(crate) fn live<T>(terms: Terms, test: impl AsyncFnOnce(World) -> T) -> T {
    let time = Time::default();
    let world = World::new(terms, time.clone());
    let idle = move || assert!(time.advance(), "nothing can happen any more");
    Builder::new_current_thread().on_thread_park(idle).build().unwrap().block_on(test(world))
}

impl World {
    fn new(terms: Terms, time: Time) -> Self {
        let (draw, audit_key) = (Draw::new(1, 1), AuditKey::default());
        let fill = move |bytes: &mut [u8]| {
            draw.fill(bytes);
            Ok(())
        };
        let linker = Box::new(Chain::new(audit_key.clone()));
        let ids = (InstallationId::from_bytes([1; 16]), EntryId::from_bytes([2; 16]));
        let store = Arc::new(MemoryStore::new(ids.0, ids.1, linker));
        let state = State { mood: Mood::Well, newest: BTreeMap::new(), seen: Vec::new() };
        let server = Arc::new(Server { time: time.clone(), terms, state: Mutex::new(state) });
        Self { time, server, terms, store, audit_key, random: Random::from_fill(Arc::new(fill)) }
    }

    /// A process: it finds what the one before left in the store.
    pub(crate) async fn start(&self) -> Broker {
        let (clock, policy) = (Arc::new(self.time.clone()), Policy::default());
        let root = RootKey::from_secret(&Zeroizing::new([7; 32]));
        let vault = Vault::open(Arc::clone(&self.store), root, self.random.clone(), &self.audit_key).await.unwrap();
        let outbound = Outbound::over(Arc::clone(&self.server) as Arc<dyn Wire>, &policy);
        let nobody = Box::new(|_: &_, _: &str, _: &[&str]| unreachable!("no token is presented"));
        let secret = self.random.secret().unwrap();
        let authenticator = Authenticator::new(Vec::new(), &outbound, clock.clone(), nobody, &secret);
        let broker = Broker::start(Parts {
            hub: Hub::new(vault.clone(), WIRE, clock.clone()),
            vault,
            servers: AuthorizationServers::new(outbound, clock.clone()),
            authenticator: Arc::new(authenticator.unwrap()),
            catalog: Arc::new(self.catalog()),
            clock,
            settings: Settings {
                provider_timeout: policy.timeout,
                audit_window: Duration::from_secs(10),
                retention: Retention::default(),
                watch: WatchQuotas::default(),
                held_directory: None,
                erasures: ErasureList::in_memory(),
                public_url: None,
            },
        })
        .await
        .unwrap();
        tokio::spawn(broker.clone().run_scheduler());
        broker
    }

    pub(crate) async fn connect(&self, broker: &Broker, people: impl IntoIterator<Item = u16>) {
        for person in people {
            let request = StartAuthorization {
                target: Target::Plugin(PLUGIN.parse().unwrap()),
                scopes: ScopeSet::default(),
                account: None,
                binding: Binding::Caller { redirect_uri: CALLBACK.parse().unwrap() },
                return_url: None,
            };
            let started = broker.start_authorization(&call(person), request).await.unwrap();
            let state =
                started.authorization_url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
            let code = AuthorizationCode::new(format!("code-{person}"));
            let answer = StoreAuthCode::Flow { state: FlowSecret::new(state), code, iss: None };
            broker.store_auth_code(&call(person), answer).await.unwrap();
        }
    }

    pub(crate) async fn pass(&self, millis: u64) {
        self.time.pause(millis).await;
    }

    fn catalog(&self) -> Catalog {
        let at = |path: &str| Some(format!("https://as.example{path}").parse().unwrap());
        let definition = Definition {
            rotation: self.terms.rotation,
            refresh_token_lifetime: RefreshTokenLifetime { idle: self.terms.idle, absolute: None },
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
            id: "as".parse().unwrap(),
            definition,
            client_id: "broker".to_owned(),
            client_secret: Some(ClientSecret::new("secret".to_owned())),
            refreshes_per_second: NonZeroU32::new(self.terms.rate).unwrap(),
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
            tenants: [("acme".parse().unwrap(), tenant)].into(),
            providers: [(provider.id.clone(), Arc::new(provider))].into(),
            plugins: [(plugin.id.clone(), plugin)].into(),
        }
    }
}

pub(crate) async fn token(broker: &Broker, person: u16) -> Result<PluginToken, BrokerError> {
    let request = GetPluginToken {
        plugin: PLUGIN.parse().unwrap(),
        account: None,
        scopes: None,
        min_remaining: None,
        min_generation: None,
        rejected_token_sha256: None,
        return_url: None,
    };
    broker.get_plugin_token(&call(person), request).await
}

pub(crate) async fn connection(broker: &Broker, person: u16) -> Connection {
    let listed = broker.list_connections(&call(person), None).await.unwrap();
    listed.into_iter().next().unwrap().connection
}

fn call(person: u16) -> Call {
    let mut subject = [0; 32];
    subject[..2].copy_from_slice(&person.to_be_bytes());
    let caller = Caller {
        tenant: "acme".parse().unwrap(),
        subject: SubjectId::from_bytes(subject),
        family: "platform".parse().unwrap(),
        external_id: format!("person-{person}"),
        agent: None,
        audience: vec!["claviger".to_owned()],
        scopes: ScopeSet::default(),
        roles: [Role::User].into(),
        issued_at: Timestamp::EPOCH,
        expires_at: Timestamp::NEVER,
    };
    Call {
        caller: Arc::new(caller),
        request_id: "request".parse().unwrap(),
        peer: None,
        user_agent: None,
        context: CallContext::default(),
    }
}

impl Server {
    pub(crate) fn is(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// What was asked since then, and when.
    pub(crate) fn seen_since(&self, elapsed: u64) -> Vec<(u64, Asked)> {
        self.state().seen.iter().filter(|(at, _)| *at >= elapsed).copied().collect()
    }

    pub(crate) fn refreshes_since(&self, elapsed: u64) -> Vec<u64> {
        let seen = self.seen_since(elapsed).into_iter();
        seen.filter(|(_, asked)| matches!(asked, Asked::Refresh(_))).map(|(at, _)| at).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn answer(&self, form: &BTreeMap<String, String>) -> Reply {
        let mut state = self.state();
        let number = |text: &str, nth| text.split('-').nth(nth).unwrap().parse::<u32>().unwrap();
        let refreshed = form.get("refresh_token").map(|token| (number(token, 1) as u16, number(token, 2)));
        let asked = match (form.get("code"), refreshed) {
            (Some(_), _) => Asked::Exchange,
            (None, Some((person, _))) => Asked::Refresh(person),
            (None, None) => Asked::Probe,
        };
        state.seen.push((self.time.elapsed(), asked));
        match (state.mood, asked) {
            (Mood::Away, _) => return reply(503, "<html>no upstream</html>".to_owned()),
            (Mood::Fails, Asked::Refresh(_)) => return reply(500, "<html>no database</html>".to_owned()),
            (Mood::Limits(seconds), Asked::Refresh(_)) => {
                let mut reply = reply(429, String::new());
                reply.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
                return reply;
            }
            (Mood::Blocks(whom), Asked::Refresh(person)) if whom(person) => {
                return reply(403, "<html>Request blocked</html>".to_owned());
            }
            _ => {}
        }
        match (form.get("code"), refreshed) {
            (Some(code), _) => {
                let person = number(code, 1) as u16;
                state.newest.insert(person, Some(0));
                self.tokens(person, 0)
            }
            (None, Some((person, presented))) => match state.newest.get(&person).copied().flatten() {
                Some(newest) if presented == newest || self.terms.rotation == Rotation::Reuse => {
                    state.newest.insert(person, Some(newest + 1));
                    self.tokens(person, newest + 1)
                }
                _ => {
                    state.newest.insert(person, None);
                    reply(400, json!({ "error": "invalid_grant" }).to_string())
                }
            },
            (None, None) => reply(400, json!({ "error": "invalid_request" }).to_string()),
        }
    }

    fn tokens(&self, person: u16, nth: u32) -> Reply {
        let lifetime = self.terms.lifetime.map_or(Value::Null, Value::from);
        let (access, refresh) = (format!("at-{person}-{nth}"), format!("rt-{person}-{nth}"));
        let tokens = json!({ "access_token": access, "refresh_token": refresh, "expires_in": lifetime });
        reply(200, tokens.to_string())
    }
}

impl Wire for Server {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Reply, OutboundError>> {
        let body = request.body.as_ref().map(|body| body.as_slice()).unwrap_or_default();
        let form: BTreeMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
        Box::pin(async move {
            let late = match self.state().mood {
                Mood::Late(millis) => millis,
                _ => 0,
            };
            self.time.pause(late + 40).await;
            let reply = self.answer(&form);
            self.time.pause(40).await;
            Ok(reply)
        })
    }
}

fn reply(status: u16, body: String) -> Reply {
    Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Zeroizing::new(body.into_bytes()),
    }
}

/// The most of these moments that fall into one second.
pub(crate) fn most_in_a_second(moments: &[u64]) -> usize {
    let within = |nth: usize| moments[nth..].iter().take_while(|at| **at < moments[nth] + SECOND).count();
    (0..moments.len()).map(within).max().unwrap_or(0)
}

/// Repeats it every so often until that time.
pub(crate) async fn every<F: Future<Output = ()>>(world: &World, millis: u64, until: u64, mut act: impl FnMut() -> F) {
    while world.time.elapsed() < until {
        act().await;
        world.pass(millis).await;
    }
}
