//! The end of a broker with many watchers, by a clock that moves when the test says so.

use std::{sync::Arc, time::Duration};

use claviger::{
    app::{App, Listeners},
    broker::{self, Broker, BrokerError, Delivery, DrainReason, OnLost, Watch, WatchFilter, WatchMessage},
    domain::{Call, CallContext, Caller, Clock as _, Role, ScopeSet, SubjectId, Timestamp},
    sealing::Random,
};
use futures_util::{StreamExt as _, poll, stream::BoxStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    installation::{self, Installation},
    observer::in_time,
    world::{MINUTE, World},
};

const STREAMS: u32 = 600;
/// 500 a second.
const WINDOW: Duration = Duration::from_millis(1200);
const TURN: Duration = Duration::from_millis(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_told_one_after_the_other_and_return_one_after_the_other_when_it_is_gone() {
    let mut world = World::start().await;
    world.stop().await;
    let mut config = world.config();
    config.watch.streams_per_principal = STREAMS;
    let app = App::build(config, Arc::new(world.clock.clone()), Random::system()).await.unwrap();
    let (call, broker, start) = (call(&world), app.broker(), world.now());
    let (tell, mut told) = mpsc::unbounded_channel();
    for _ in 0..STREAMS {
        let (clock, tell) = (world.clock.clone(), tell.clone());
        let mut stream = Box::pin(broker.watch(&call, from_now()).await.unwrap());
        tokio::spawn(async move {
            while let Some(message) = stream.next().await {
                if let Ok(WatchMessage::Drain { reason, reconnect_after, .. }) = message {
                    assert_eq!(reason, DrainReason::Shutdown);
                    tell.send((clock.now(), reconnect_after)).unwrap();
                }
            }
        });
    }
    let draining = tokio::spawn({
        let broker = broker.clone();
        async move { broker.drain_watchers(MINUTE).await }
    });
    for turn in 1..STREAMS {
        in_time(world.clock.someone_sleeps_until(start.plus(TURN * turn))).await;
    }
    assert!(matches!(broker.watch(&call, from_now()).await.err(), Some(BrokerError::ShuttingDown)));

    let mut returns: Vec<Timestamp> = Vec::new();
    let parts = 4;
    for part in 1..=parts {
        let so_far = usize::try_from(STREAMS * part / parts).unwrap();
        // The first is told at once.
        world.clock.advance(if part == 1 { WINDOW / parts - TURN } else { WINDOW / parts });
        while returns.len() < so_far {
            let (at, after) = in_time(told.recv()).await.unwrap();
            returns.push(at.plus(after));
        }
        assert!(told.is_empty(), "{part}: somebody is told before their turn");
    }
    world.clock.advance(TURN);
    in_time(draining).await.unwrap();
    let gone = start.plus(WINDOW);
    assert!(returns.iter().all(|at| *at > gone.plus(Duration::from_secs(3))), "nobody returns before it is gone");
    returns.sort_unstable();
    let mean = f64::from(STREAMS) / (*returns.last().unwrap() - returns[0]).as_secs_f64();
    let second = Duration::from_secs(1);
    let most = returns.iter().map(|from| returns.iter().filter(|at| (*from..from.plus(second)).contains(at)).count());
    assert!((most.max().unwrap() as f64) < 1.5 * mean, "{mean} a second in the mean");
}

/// As those of peers that take nothing: asked for what follows `opened`, and then never again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_not_asked_again_keep_nobody_from_a_snapshot() {
    let mut world = World::start().await;
    world.stop().await;
    let config = world.config();
    let listeners = Listeners::bind(&config).await.unwrap();
    let app = App::build(config, Arc::new(world.clock.clone()), Random::system()).await.unwrap();
    let (broker, call, shutdown) = (app.broker().clone(), call(&world), CancellationToken::new());
    // Nothing is announced yet, so each of them waits in the middle of its snapshot.
    let mut unasked = Vec::new();
    for _ in 0..60 {
        unasked.push(waiting(&broker, &call).await);
    }
    let mut healthy = waiting(&broker, &call).await;
    let serving = tokio::spawn(app.serve(listeners, shutdown.clone()));
    let message = in_time(healthy.next()).await;
    assert!(matches!(message, Some(Ok(WatchMessage::SnapshotEnd { .. }))), "{message:?}");
    drop((unasked, healthy));
    shutdown.cancel();
    in_time(serving).await.unwrap().unwrap();
}

/// Over a log that nobody announces, so that no snapshot comes about.
#[tokio::test]
async fn who_waits_for_a_snapshot_is_told_when_there_will_be_none() {
    let installation = Installation::new().await;
    let clock = &installation.world.clock;
    let second = Duration::from_secs(1);

    let (broker, _) = installation.start().await;
    let lasting = installation::call(7);
    let caller = Caller { expires_at: clock.now().plus(MINUTE / 2), ..Caller::clone(&lasting.caller) };
    let mut brief = waiting(&broker, &Call { caller: Arc::new(caller), ..installation::call(7) }).await;
    let mut patient = waiting(&broker, &lasting).await;
    clock.advance(MINUTE / 2);
    let told = in_time(brief.next()).await;
    assert!(matches!(told, Some(Ok(WatchMessage::Drain { reason: DrainReason::Authorization, .. }))), "{told:?}");
    assert!(poll!(patient.next()).is_pending());
    // Two intervals of its own, which are a tenth longer or shorter.
    clock.advance(MINUTE / 2 + MINUTE / 8);
    let told = in_time(patient.next()).await;
    assert!(matches!(told, Some(Err(BrokerError::StoreUnavailable))), "{told:?}");
    assert!(in_time(patient.next()).await.is_none());

    let mut late = waiting(&broker, &lasting).await;
    broker.drain_watchers(MINUTE).await;
    assert!(poll!(late.next()).is_pending(), "it may yet come");
    clock.advance(second);
    let told = in_time(late.next()).await;
    assert!(matches!(told, Some(Ok(WatchMessage::Drain { reason: DrainReason::Shutdown, .. }))), "{told:?}");
}

/// A stream that has said `opened` and no more.
async fn waiting(broker: &Broker, call: &Call) -> BoxStream<'static, Result<WatchMessage, BrokerError>> {
    let watch = Watch { start: broker::Start::Snapshot, ..from_now() };
    let mut stream = broker.watch(call, watch).await.unwrap().boxed();
    assert!(matches!(in_time(stream.next()).await, Some(Ok(WatchMessage::Opened { .. }))));
    assert!(poll!(stream.next()).is_pending());
    stream
}

fn call(world: &World) -> Call {
    let caller = Caller {
        tenant: "acme".parse().unwrap(),
        subject: SubjectId::from_bytes([7; 32]),
        family: "platform".parse().unwrap(),
        external_id: "alice".to_owned(),
        agent: None,
        audience: Vec::new(),
        scopes: ScopeSet::default(),
        roles: [Role::User].into(),
        issued_at: world.now(),
        expires_at: world.now().plus(MINUTE),
    };
    let (request_id, context) = ("goodbye".parse().unwrap(), CallContext::default());
    Call { caller: Arc::new(caller), request_id, peer: None, user_agent: None, context }
}

fn from_now() -> Watch {
    Watch {
        filter: WatchFilter::default(),
        start: broker::Start::Now,
        on_lost: OnLost::Fail,
        delivery: Delivery::EveryEvent,
        progress_interval: None,
        connection: None,
    }
}
