//! One mode, one step at which the broker is killed, one caller.

use std::{fmt, time::Duration};

use claviger::{
    client::{Client, ClientError},
    dev::{Arm, Endpoint, Fault, GrantType, Hold, HoldPoint},
    domain::AccessToken,
    proto::v1::{
        self, CredentialState as State, ErrorReason as Reason, watch_credential_status_request::Start,
        watch_credential_status_response::Body,
    },
};
use rustix::process::Signal;
use tokio::{runtime::Builder, task::JoinHandle, time::timeout};

use crate::{
    modes::{Learns, Mode, Told},
    outcome::{End, expected},
    strace::Strace,
    world::{Broker, World},
};

/// Longer than any end takes to come.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) struct Cell {
    pub(crate) mode: &'static Mode,
    pub(crate) point: Point,
    pub(crate) caller: Caller,
}

/// When the broker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    Never,
    /// The intent is durable, and the request takes no effect.
    Intent,
    /// The request has taken effect, and no answer has left.
    Posted,
    /// The answer is there, and nothing of it is written.
    Answered,
    /// What the answer meant is durable.
    Committed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Waits,
    /// Gives up once the request is at the provider.
    Cancels,
}

type Call = JoinHandle<Result<v1::GetPluginTokenResponse, ClientError>>;

impl Point {
    pub(crate) const ALL: [Self; 5] = [Self::Never, Self::Intent, Self::Posted, Self::Answered, Self::Committed];
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = self.mode.fault.unwrap_or("plain");
        write!(f, "{fault}/{:?}/{:?}/{:?}", self.mode.rotation, self.point, self.caller)
    }
}

impl Cell {
    pub(crate) fn run(&self) {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async { timeout(PATIENCE, self.play()).await.expect("it ends in time") });
    }

    async fn play(&self) {
        let world = World::start(self.mode.provider, self.mode.rotation).await;
        let broker = world.serve();
        let client = world.client(&broker);
        let hold = self.arm(&world);
        let connected = world.connect(&client).await;
        let call: Call = tokio::spawn({
            let client = client.clone();
            async move { client.get_plugin_token(ask_for_a_new_one()).await }
        });
        hold.arrived(1).await;
        let call = match self.caller {
            Caller::Waits => Some(call),
            Caller::Cancels => {
                call.abort();
                assert!(call.await.is_err_and(|error| error.is_cancelled()));
                None
            }
        };
        let (end, refreshes) = expected(self);
        let mut client = client;
        let broker = match self.point {
            Point::Never => {
                hold.release();
                self.check_answer(&client, call).await;
                broker
            }
            Point::Intent | Point::Posted => {
                kill(broker);
                hold.release();
                world.serve()
            }
            Point::Answered => {
                let strace = Strace::kill_at_next_write(&broker.process, &world.store());
                hold.release();
                strace.wait();
                drop(broker);
                world.serve()
            }
            Point::Committed => {
                hold.release();
                self.check_answer(&client, call).await;
                reach(&client, end).await;
                kill(broker);
                world.serve()
            }
        };
        if self.point != Point::Never {
            client = world.client(&broker);
        }
        // A registration that was refused is tried again with the start, and accepted then.
        if end != End::Suspended || self.point != Point::Committed {
            let status = reach(&client, end).await;
            assert_eq!(world.refreshes(), refreshes, "{end:?}, and so many refreshes");
            assert_eq!(status.connection_id, connected.connection_id);
        }
        self.check_end(&world, &client, end).await;
        broker.process.stop(Signal::TERM).expect_code(0);
    }

    /// Arms the faults of this cell, and holds the first refresh where the broker is to be killed.
    fn arm(&self, world: &World) -> Hold {
        let faults = world.provider.faults();
        if self.point == Point::Intent {
            faults.add(Arm::refresh(Fault::Drop));
        }
        if let Some(name) = self.mode.fault {
            let mut fault = name.parse().unwrap();
            // A minute may be less than a cell takes, and the client is long gone by then either way.
            if let Fault::Slow { seconds, .. } = &mut fault {
                *seconds = 3600;
            }
            faults.add(Arm::refresh(fault));
        }
        // What takes effect late has not taken effect when it is at the provider.
        let early = self.mode.fault == Some("slow_request") || self.point == Point::Intent;
        let point = if early { HoldPoint::Request } else { HoldPoint::Answer };
        faults.hold_if(Endpoint::Token, Some(GrantType::RefreshToken), point)
    }

    /// What the caller is told who waited, of a broker that lived.
    async fn check_answer(&self, client: &Client, call: Option<Call>) {
        let Some(call) = call else {
            // Nothing tells of a suspension but its effect: whoever comes next waits for the same flight.
            if self.mode.learns == Learns::Refused {
                drop(client.get_plugin_token(ask_for_a_new_one()).await);
            }
            return;
        };
        let answer = call.await.unwrap().map(|token| token.generation);
        match (self.mode.learns, &answer) {
            (Learns::Tokens, Ok(2)) => {}
            (Learns::Tokens, Err(error)) if self.mode.told == Told::TooFewScopes => lacks_scopes(error),
            (Learns::Dead, Err(error)) => assert_eq!(error.reason, Some(Reason::ReauthorizationRequired)),
            // The token of before lives still, or has lapsed meanwhile; where it is free to, the broker has tried again.
            (Learns::Refused | Learns::Later | Learns::MuchLater | Learns::Nothing, Ok(1 | 2)) => {}
            (Learns::Refused, Err(error)) => assert_eq!(error.reason, Some(Reason::ProviderSuspended)),
            (Learns::Later | Learns::MuchLater | Learns::Nothing, Err(error)) => {
                assert!(error.is_passing() && error.retry_after.is_some(), "{error:?}");
            }
            _ => panic!("{:?} was answered with {answer:?}", self.mode.learns),
        }
    }

    async fn check_end(&self, world: &World, client: &Client, end: End) {
        let seen = world.refreshes();
        match end {
            End::Works if self.mode.told == Told::TooFewScopes => {
                lacks_scopes(&client.get_plugin_token(ask()).await.err().unwrap());
            }
            End::Works => {
                let token = client.get_plugin_token(ask()).await.unwrap();
                assert!(world.provider.is_access_token_live(&AccessToken::new(token.access_token.clone())));
                // Of a first refresh that was answered: later ones had no faults.
                if self.mode.learns == Learns::Tokens && matches!(self.point, Point::Never | Point::Committed) {
                    self.check_shape(&token);
                }
                // Nothing but time makes the broker refresh a token whose end is unknown.
                if token.expires_in.is_none() {
                    return;
                }
                let next = client.get_plugin_token(ask_for_a_new_one()).await.unwrap();
                assert_eq!(next.generation, token.generation + 1, "what is stored is what the provider takes");
                assert!(world.provider.is_access_token_live(&AccessToken::new(next.access_token)));
            }
            End::Dead | End::Lost => {
                let refused = client.get_plugin_token(ask()).await.err().unwrap();
                // Which of the two it is, the status says.
                assert_eq!(refused.reason, Some(Reason::ReauthorizationRequired), "{refused:?}");
                assert!(refused.authentication_required.is_some(), "{refused:?}");
                assert_eq!(world.refreshes(), seen, "a dead refresh token is left alone");
            }
            End::Suspended => {
                // It may have been tried again with the start, and was accepted then.
                match client.get_plugin_token(ask_for_a_new_one()).await {
                    Ok(token) => {
                        assert!(world.provider.is_access_token_live(&AccessToken::new(token.access_token)));
                    }
                    Err(error) => assert_eq!(error.reason, Some(Reason::ProviderSuspended), "{error:?}"),
                }
            }
            End::Waits => {
                let answer = client.get_plugin_token(ask()).await;
                if let Err(error) = answer {
                    let wait = error.retry_after.unwrap();
                    assert!((Duration::from_secs(3000)..=Duration::from_secs(3600)).contains(&wait), "{wait:?}");
                }
                assert_eq!(world.refreshes(), seen, "nobody makes it try before its time");
            }
        }
    }

    fn check_shape(&self, token: &v1::GetPluginTokenResponse) {
        let seconds = token.expires_in.as_ref().map(|lifetime| lifetime.seconds);
        let as_told = match self.mode.told {
            Told::Unknown => seconds.is_none(),
            Told::Usual => seconds.is_some_and(|seconds| (3000..=3600).contains(&seconds)),
            Told::Longer => seconds.is_some_and(|seconds| seconds > 1_000_000),
            Told::TooFewScopes => false,
        };
        assert!(as_told, "{:?}: {seconds:?}", self.mode.told);
        assert!(token.scopes.iter().any(|scope| scope == "calendar.read"), "{:?}", token.scopes);
        assert!(token.token_type.eq_ignore_ascii_case("bearer"));
    }
}

fn lacks_scopes(error: &ClientError) {
    assert_eq!(error.reason, Some(Reason::ScopesMissing), "{error:?}");
    assert_eq!(error.authentication_required.as_ref().unwrap().missing_scopes, ["calendar.read"]);
}

pub(crate) fn kill(broker: Broker) {
    let killed = broker.process.stop(Signal::KILL);
    assert_eq!(killed.status.code(), None, "it ended before it was killed: {}", killed.stderr);
}

/// Waits until the connection's state is that of `end`, and stays so through no other end.
async fn reach(client: &Client, end: End) -> v1::CredentialStatus {
    let request = v1::WatchCredentialStatusRequest { start: Some(Start::Snapshot(true)), ..Default::default() };
    let mut stream = client.watch_credential_status(request).await.unwrap();
    loop {
        let message = stream.message().await.unwrap().expect("the stream goes on");
        let statuses = match message.body {
            Some(Body::Snapshot(snapshot)) => snapshot.statuses,
            Some(Body::Batch(batch)) => batch.events.into_iter().filter_map(|event| event.status).collect(),
            _ => continue,
        };
        for status in statuses {
            let reached = match status.state() {
                State::ReauthorizationRequired if status.reason() == Reason::RotationLost => Some(End::Lost),
                State::ReauthorizationRequired => Some(End::Dead),
                State::Suspended => Some(End::Suspended),
                State::Connected if status.generation > 1 => Some(End::Works),
                State::RefreshFailing if end == End::Waits && status.reason() == Reason::ProviderRateLimited => {
                    Some(End::Waits)
                }
                _ => None,
            };
            if let Some(reached) = reached {
                assert_eq!(reached, end, "{status:?}");
                return status;
            }
        }
    }
}

pub(crate) fn ask() -> v1::GetPluginTokenRequest {
    v1::GetPluginTokenRequest { plugin: "calendar".to_owned(), ..Default::default() }
}

/// A token that lives longer than any of the provider's: it must be fetched.
pub(crate) fn ask_for_a_new_one() -> v1::GetPluginTokenRequest {
    let years = prost_types::Duration { seconds: 20 * 365 * 24 * 3600, nanos: 0 };
    v1::GetPluginTokenRequest { min_remaining: Some(years), ..ask() }
}
