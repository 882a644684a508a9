//! How providers are asked: how often, in what order, and not at all while they are away. In virtual time.

#![expect(clippy::unwrap_used, reason = "set-up that fails fails the test")]

#[path = "../simulation/draw.rs"]
#[expect(dead_code, reason = "simulations draw more than bytes")]
mod draw;
#[path = "../support/memory_store.rs"]
mod memory_store;
#[path = "../simulation/time.rs"]
#[expect(dead_code, reason = "here no clock is set and no process dies")]
mod time;
mod world;

use claviger::{
    broker::{Broker, BrokerError},
    domain::{CredentialState, Rotation},
};

use world::{Asked, HOUR, MINUTE, Mood, SECOND, Terms, World, connection, every, live, most_in_a_second, token};

const DAY: u64 = 24 * HOUR;

async fn states(broker: &Broker, people: u16) -> Vec<(CredentialState, u64)> {
    let mut states = Vec::new();
    for person in 0..people {
        let credential = connection(broker, person).await.credential;
        states.push((credential.state, credential.generation));
    }
    states
}

#[test]
fn a_dead_connection_costs_its_provider_sixty_requests_a_day_whoever_asks() {
    live(Terms { lifetime: Some(3600), ..Terms::default() }, async |world| {
        let broker = world.start().await;
        world.connect(&broker, [0]).await;
        world.server.is(Mood::Blocks(|_| true));
        world.pass(HOUR).await;
        let begun = world.server.refreshes_since(0)[0];
        let ask = || async { drop(token(&broker, 0).await) };
        every(&world, SECOND, begun + 10 * MINUTE, ask).await;
        every(&world, 30 * SECOND, begun + DAY, ask).await;
        let asked = world.server.refreshes_since(begun).len();
        assert!((24..=60).contains(&asked), "{asked} refreshes in a day");
        let probes = world.server.seen_since(begun).len() - asked;
        assert!(probes <= 3, "{probes} probes of a provider that is there");
        assert_eq!(connection(&broker, 0).await.credential.state, CredentialState::RefreshFailing);
    });
}

#[test]
fn a_dead_connection_that_nobody_asks_for_costs_no_more() {
    live(Terms { lifetime: Some(3600), rotation: Rotation::Reuse, ..Terms::default() }, async |world| {
        let broker = world.start().await;
        world.connect(&broker, [0]).await;
        world.server.is(Mood::Blocks(|_| true));
        world.pass(HOUR).await;
        let begun = world.server.refreshes_since(0)[0];
        world.pass(begun + DAY - world.time.elapsed()).await;
        let asked = world.server.refreshes_since(begun).len();
        assert!((24..=60).contains(&asked), "{asked} refreshes in a day");
    });
}

/// The provider is away for an hour, in which every token lapses.
async fn outage(world: World, people: u16) {
    let broker = world.start().await;
    world.connect(&broker, 0..people).await;
    let away_at = world.time.elapsed();
    world.server.is(Mood::Away);
    every(&world, 20 * SECOND, away_at + HOUR, || async {
        for person in 0..people.min(3) {
            let _ = token(&broker, person).await;
        }
    })
    .await;
    let seen = world.server.seen_since(away_at);
    let refreshes = world.server.refreshes_since(away_at).len();
    assert!(refreshes <= 40, "{refreshes} refresh tokens were sent to a provider that is away");
    assert!(seen.len() - refreshes <= 250, "{} probes in an hour", seen.len() - refreshes);
    for (state, generation) in states(&broker, people).await {
        assert!(state.serves() && generation == 1, "{state:?}");
    }

    let back_at = world.time.elapsed();
    world.server.is(Mood::Well);
    world.pass(MINUTE).await;
    for state in states(&broker, people).await {
        assert_eq!(state, (CredentialState::Connected, 2));
    }
    let recovered = world.server.refreshes_since(back_at);
    assert_eq!(recovered.len(), usize::from(people), "each is refreshed once");
    assert!(most_in_a_second(&recovered) <= 50, "they do not come all at once");
}

#[test]
fn an_hour_without_the_provider_kills_nothing_and_all_are_back_within_a_minute() {
    for (rotation, people) in [
        (Rotation::Strict, 1),
        (Rotation::Strict, 2),
        (Rotation::Strict, 60),
        (Rotation::Grace { seconds: 30 }, 20),
        (Rotation::Reuse, 20),
    ] {
        live(Terms { rotation, ..Terms::default() }, async |world| outage(world, people).await);
    }
}

/// For an hour the provider answers probes and fails every refresh.
async fn half_an_outage(world: &World, people: u16) -> Broker {
    let broker = world.start().await;
    world.connect(&broker, 0..people).await;
    let begun = world.time.elapsed();
    world.server.is(Mood::Fails);
    every(world, 20 * SECOND, begun + HOUR, || async {
        for person in 0..people.min(3) {
            let _ = token(&broker, person).await;
        }
    })
    .await;
    for (state, generation) in states(&broker, people).await {
        assert!(state.serves() && generation == 1, "{state:?} of {people}");
    }
    world.server.is(Mood::Well);
    broker
}

#[test]
fn an_hour_in_which_only_probes_are_answered_kills_nothing_and_all_are_back_within_minutes() {
    live(Terms::default(), async |world| {
        let broker = half_an_outage(&world, 60).await;
        let back_at = world.time.elapsed();
        world.pass(3 * MINUTE).await;
        assert_eq!(states(&broker, 60).await, [(CredentialState::Connected, 2); 60]);
        assert_eq!(world.server.refreshes_since(back_at).len(), 60, "each is refreshed once");
    });
}

#[test]
fn where_none_is_left_that_surely_holds_a_live_token_all_wait_and_none_dies() {
    for people in [8, 20] {
        live(Terms::default(), async |world| {
            let broker = half_an_outage(&world, people).await;
            world.pass(2 * HOUR + 5 * MINUTE).await;
            for state in states(&broker, people).await {
                assert_eq!(state.0, CredentialState::Connected);
            }
        });
    }
}

#[test]
fn a_probe_that_nobody_waits_for_any_more_holds_up_nobody() {
    live(Terms::default(), async |world| {
        let broker = world.start().await;
        world.connect(&broker, [0]).await;
        let connected_at = world.time.elapsed();
        world.server.is(Mood::Fails);
        world.pass(9 * MINUTE).await;
        // The token is tried once more half a minute before the other one lapses; who waits for that turns away then.
        world.server.is(Mood::Late(MINUTE));
        world.pass(45 * SECOND).await;
        world.server.is(Mood::Well);
        world.pass(connected_at + 10 * MINUTE + 5 * SECOND - world.time.elapsed()).await;
        let credential = connection(&broker, 0).await.credential;
        assert_eq!((credential.state, credential.generation), (CredentialState::Connected, 2));
    });
}

#[test]
fn connections_that_fail_take_no_turn_from_those_that_work() {
    live(Terms { rate: 1, ..Terms::default() }, async |world| {
        let broker = world.start().await;
        world.connect(&broker, 0..66).await;
        world.server.is(Mood::Blocks(|person| person < 60));
        // A first round for all, and failures that come back again and again.
        world.pass(10 * MINUTE).await;
        let begun = world.time.elapsed();
        world.pass(20 * MINUTE).await;
        for person in 60..66 {
            let credential = connection(&broker, person).await.credential;
            assert_eq!(credential.state, CredentialState::Connected, "person {person}");
        }
        let failing = |asked: &Asked| matches!(asked, Asked::Refresh(person) if *person < 60);
        let asked = world.server.seen_since(begun);
        assert!(asked.iter().any(|(_, asked)| failing(asked)), "those that fail have their turns, too");
        assert!(most_in_a_second(&world.server.refreshes_since(begun)) <= 1);
    });
}

#[test]
fn what_became_due_while_nothing_ran_is_spread_out() {
    live(Terms { rate: 10, ..Terms::default() }, async |world| {
        let broker = world.start().await;
        world.connect(&broker, 0..200).await;
        broker.stop().await;
        world.pass(HOUR).await;
        let begun = world.time.elapsed();
        let broker = world.start().await;
        world.pass(SECOND).await;
        assert!(token(&broker, 199).await.is_ok(), "who asks goes before those that nobody waits for");
        assert!(world.time.elapsed() < begun + 3 * SECOND);
        world.pass(25 * SECOND).await;
        let refreshes = world.server.refreshes_since(begun);
        assert!(most_in_a_second(&refreshes) <= 10, "{} in a second", most_in_a_second(&refreshes));
        assert_eq!(refreshes.len(), 200);
        assert_eq!(states(&broker, 200).await, [(CredentialState::Connected, 2); 200]);
    });
}

#[test]
fn who_is_told_to_wait_waits_and_holds_up_the_others_for_half_a_minute_at_most() {
    for (asked, kept) in [(7, 7), (1_000_000_000, 3600)] {
        live(Terms::default(), async |world| {
            let broker = world.start().await;
            world.connect(&broker, [0, 1]).await;
            world.pass(8 * MINUTE).await;
            world.server.is(Mood::Limits(asked));
            while world.server.refreshes_since(8 * MINUTE).is_empty() {
                world.pass(100).await;
            }
            world.server.is(Mood::Well);
            let (told_at, first) = *world.server.seen_since(8 * MINUTE).last().unwrap();
            let Asked::Refresh(first) = first else { panic!("{first:?}") };
            let other = 1 - first;
            world.pass(kept * SECOND + MINUTE + 10 * MINUTE).await;
            let of = |person| {
                let seen = world.server.seen_since(told_at + 1).into_iter();
                seen.filter(move |(_, asked)| *asked == Asked::Refresh(person)).map(|(at, _)| at)
            };
            let again = of(first).next().unwrap() - told_at;
            assert!((kept * SECOND..=(kept + 40) * SECOND).contains(&again), "{again} ms after {asked} s");
            assert!(of(other).next().unwrap() - told_at <= 60 * SECOND + 40 * SECOND);
        });
    }
}

#[test]
fn when_a_second_one_is_told_to_wait_all_do_and_then_one_asks_first() {
    live(Terms::default(), async |world| {
        let broker = world.start().await;
        world.connect(&broker, 0..30).await;
        world.server.is(Mood::Limits(600));
        world.pass(10 * MINUTE).await;
        let told = world.server.refreshes_since(0);
        assert!((2..=12).contains(&told.len()), "{} were told to wait", told.len());
        assert!(token(&broker, 0).await.is_err_and(|error| matches!(error, BrokerError::ProviderRateLimited { .. })));
        world.pass(HOUR).await;
        let asked = world.server.refreshes_since(0).len() - told.len();
        assert!(asked <= 10, "{asked} more in an hour of being told to wait ten minutes");
        world.server.is(Mood::Well);
        world.pass(11 * MINUTE).await;
        assert!(states(&broker, 30).await.iter().all(|(state, _)| *state == CredentialState::Connected));
    });
}

#[test]
fn a_refresh_token_that_dies_of_disuse_is_used_in_time() {
    let week = 7 * 24 * 3600;
    for lifetime in [None, Some(30 * 24 * 3600)] {
        live(Terms { lifetime, idle: Some(week), ..Terms::default() }, async |world| {
            let broker = world.start().await;
            world.connect(&broker, [0]).await;
            world.pass(30 * DAY).await;
            let used = world.server.refreshes_since(0);
            assert!((5..=8).contains(&used.len()), "{} uses in thirty days", used.len());
            let gaps = used.windows(2).map(|pair| pair[1] - pair[0]).chain([used[0]]);
            assert!(gaps.max().unwrap() <= week * SECOND * 3 / 4 + MINUTE);
            drop(broker);
        });
    }
}
