//! Key sets, their outages, and what is remembered of verified tokens.

use std::sync::Arc;

use claviger::{
    domain::PresentedToken,
    identity::{Flaw, IdentityError, TokenSource},
};
use serde_json::{Value, json};

use crate::{
    clock::ManualClock,
    issuer::{Fault, SigningKey, TestIssuer, base64},
    platform::{HOUR, MINUTE, Platform, SECOND, invalid},
};

#[tokio::test]
async fn concurrent_first_calls_share_one_fetch() {
    let platform = Platform::start().await;
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..50 {
        let authenticator = Arc::clone(&platform.authenticator);
        let token = platform.p256.token(&platform.claims_but(json!({ "jti": call.to_string() })));
        calls
            .spawn(async move { authenticator.authenticate(&PresentedToken::new(token), TokenSource::Metadata).await });
    }
    while let Some(answer) = calls.join_next().await {
        assert!(answer.unwrap().is_ok());
    }
    assert_eq!((platform.issuer.discoveries(), platform.issuer.key_fetches()), (1, 1));
}

#[tokio::test]
async fn a_flood_of_invented_key_ids_costs_three_fetches_and_hurts_nobody() {
    let platform = Platform::start().await;
    let payload = base64(platform.claims().to_string());
    let (mut unknown, mut unavailable) = (0, 0);
    for number in 0..10_000 {
        let header = base64(json!({ "alg": "RS256", "kid": format!("kid-{number}") }).to_string());
        match platform.refusal(&format!("{header}.{payload}.AAAA")).await {
            Some(IdentityError::TokenInvalid(Flaw::KeyUnknown)) => unknown += 1,
            Some(IdentityError::JwksUnavailable { retry_after }) => {
                assert_eq!(retry_after, MINUTE);
                unavailable += 1;
            }
            other => assert_eq!(other, None, "neither unknown nor unavailable"),
        }
    }
    assert_eq!((unknown, unavailable, platform.issuer.key_fetches()), (3, 9997, 3));
    assert!(platform.ask(&platform.token()).await.is_ok());
    assert!(platform.ask(&platform.p256.token(&platform.claims())).await.is_ok());
    assert_eq!(platform.issuer.key_fetches(), 3);
}

#[tokio::test]
async fn the_budget_of_fetches_fills_by_one_a_minute() {
    let platform = Platform::start().await;
    let fresh = SigningKey::p256("fresh");
    let invented = async |kid: &str| {
        let header = json!({ "alg": "RS256", "kid": kid }).to_string();
        platform.refusal(&platform.rsa.compact(&header, &platform.claims().to_string())).await
    };
    for kid in ["a", "b", "c"] {
        assert_eq!(invented(kid).await, invalid(Flaw::KeyUnknown));
    }
    assert_eq!(invented("a").await, invalid(Flaw::KeyUnknown), "known to be absent: nothing is asked");
    platform.clock.advance(20 * SECOND);
    let wait = IdentityError::JwksUnavailable { retry_after: 40 * SECOND };
    assert_eq!(invented("d").await, Some(wait));
    platform.issuer.publish(vec![platform.rsa.jwk(), fresh.jwk()]);
    assert_eq!(platform.refusal(&fresh.token(&platform.claims())).await, Some(wait));
    platform.clock.advance(40 * SECOND);
    assert!(platform.ask(&fresh.token(&platform.claims())).await.is_ok());
    assert_eq!(platform.issuer.key_fetches(), 4);
    platform.clock.advance(HOUR - MINUTE - SECOND);
    for kid in ["e", "f", "g"] {
        assert_eq!(invented(kid).await, invalid(Flaw::KeyUnknown));
    }
    assert!(
        matches!(invented("h").await, Some(IdentityError::JwksUnavailable { .. })),
        "never more than three at once"
    );
}

#[tokio::test]
async fn a_key_that_was_absent_is_found_a_minute_later() {
    let platform = Platform::start().await;
    let early = SigningKey::rsa("early");
    let token = early.token(&platform.claims());
    assert_eq!(platform.refusal(&token).await, invalid(Flaw::KeyUnknown));
    platform.issuer.publish(vec![early.jwk()]);
    platform.clock.advance(59 * SECOND);
    assert_eq!(platform.refusal(&token).await, invalid(Flaw::KeyUnknown));
    platform.clock.advance(SECOND);
    assert!(platform.ask(&token).await.is_ok());
}

#[tokio::test]
async fn a_warm_validation_asks_nobody_and_verifies_nothing() {
    let mut platform = Platform::start().await;
    let token = platform.token();
    let first = platform.ask(&token).await.unwrap();
    platform.issuer.stop().await;
    for _ in 0..100 {
        assert!(Arc::ptr_eq(&first, &platform.ask(&token).await.unwrap()));
    }
    assert_eq!((platform.judged(), platform.issuer.key_fetches()), (1, 1));
}

#[tokio::test]
async fn a_verified_token_ends_with_its_time() {
    let platform = Platform::start().await;
    let token = platform.token();
    platform.ask(&token).await.unwrap();
    platform.clock.advance(HOUR + 59 * SECOND);
    assert!(platform.ask(&token).await.is_ok());
    platform.clock.advance(SECOND);
    for _ in 0..2 {
        assert_eq!(platform.refusal(&token).await, Some(IdentityError::TokenExpired));
    }
}

#[tokio::test]
async fn a_verified_token_dies_with_its_key() {
    let platform = Platform::start().await;
    let (by_rsa, by_p256) = (platform.token(), platform.p256.token(&platform.claims()));
    platform.ask(&by_rsa).await.unwrap();
    platform.ask(&by_p256).await.unwrap();
    platform.issuer.publish(vec![platform.p256.jwk()]);
    platform.clock.advance(HOUR);
    platform.authenticator.refresh_due().await;
    assert_eq!(platform.refusal(&by_rsa).await, invalid(Flaw::KeyUnknown));
    assert!(platform.ask(&by_p256).await.is_ok());
    assert_eq!(platform.judged(), 2);
}

#[tokio::test]
async fn another_key_under_the_same_name_does_not_keep_a_token_alive() {
    let platform = Platform::start().await;
    let token = platform.token();
    platform.ask(&token).await.unwrap();
    platform.issuer.publish(vec![SigningKey::rsa("rsa-1").jwk()]);
    platform.clock.advance(HOUR);
    platform.authenticator.refresh_due().await;
    assert_eq!(platform.refusal(&token).await, invalid(Flaw::Signature));
}

#[tokio::test]
async fn a_forgotten_subject_is_judged_again_and_nobody_else_is() {
    let platform = Platform::start().await;
    let (alice, bob) = (platform.token(), platform.rsa.token(&platform.claims_but(json!({ "sub": "bob" }))));
    let subject = platform.ask(&alice).await.unwrap().subject;
    platform.ask(&bob).await.unwrap();
    platform.authenticator.forget_subject(&subject);
    platform.ask(&bob).await.unwrap();
    assert_eq!(platform.judged(), 2);
    platform.ask(&alice).await.unwrap();
    assert_eq!(platform.judged(), 3);
}

#[tokio::test]
async fn the_last_good_keys_serve_a_day_of_outage_and_no_longer() {
    let platform = Platform::start().await;
    let token = |number: u32| {
        let exp = ManualClock::START.as_secs() + 48 * 3600;
        platform.rsa.token(&platform.claims_but(json!({ "exp": exp, "jti": number.to_string() })))
    };
    platform.ask(&token(0)).await.unwrap();
    platform.issuer.misbehave(Fault::Status(503));
    for hour in 1..24 {
        platform.clock.advance(HOUR);
        platform.authenticator.refresh_due().await;
        assert!(platform.ask(&token(hour)).await.is_ok(), "{hour}");
    }
    assert_eq!(platform.issuer.discoveries(), 24);
    platform.clock.advance(HOUR);
    for number in [0, 99] {
        assert!(matches!(platform.refusal(&token(number)).await, Some(IdentityError::JwksUnavailable { .. })));
    }
    platform.issuer.misbehave(Fault::None);
    assert!(platform.ask(&token(99)).await.is_ok());
}

#[tokio::test]
async fn a_document_that_is_not_the_issuers_gives_no_keys() {
    let own_keys = |key: &SigningKey| json!({ "keys": [key.jwk()] }).to_string();
    let mallory = SigningKey::rsa("rsa-1");
    let elsewhere = TestIssuer::start(&[&mallory]).await;
    let many: Vec<Value> = (0..201).map(|_| mallory.jwk()).collect();
    for (what, fault) in [
        ("another issuer's discovery", Fault::OtherIssuer("https://evil.example".to_owned())),
        ("a slash more", Fault::OtherIssuer("https://evil.example/".to_owned())),
        ("a redirect", Fault::Redirect(format!("{}/keys", elsewhere.url()))),
        ("an error page", Fault::Status(404)),
        ("a page", Fault::KeySet("<html>".to_owned())),
        ("an array", Fault::KeySet("[]".to_owned())),
        ("no keys member", Fault::KeySet("{}".to_owned())),
        ("two keys members", Fault::KeySet(format!("{{\"keys\":[],{}", &own_keys(&mallory)[1..]))),
        ("201 keys", Fault::KeySet(json!({ "keys": many }).to_string())),
        ("257 KiB", Fault::KeySet(own_keys(&mallory) + &" ".repeat(257 * 1024))),
    ] {
        let platform = Platform::start().await;
        platform.issuer.misbehave(fault);
        let refusal = platform.refusal(&platform.token()).await;
        assert!(
            matches!(refusal, Some(IdentityError::JwksUnavailable { retry_after }) if retry_after >= SECOND),
            "{what}"
        );
    }
    assert_eq!(elsewhere.key_fetches(), 0);
}

#[tokio::test]
async fn keys_are_fetched_at_start_and_hourly_and_after_a_failure_each_minute() {
    let platform = Platform::start().await;
    let authenticator = Arc::clone(&platform.authenticator);
    let keeping = tokio::spawn(async move { authenticator.keep_keys_fresh().await });
    for hour in 1..4 {
        platform.clock.someone_sleeps_until(ManualClock::START.plus(HOUR * hour)).await;
        assert_eq!(platform.issuer.key_fetches(), hour as usize);
        platform.clock.advance(HOUR - SECOND);
        assert_eq!(platform.issuer.key_fetches(), hour as usize);
        platform.clock.advance(SECOND);
    }
    platform.clock.someone_sleeps_until(ManualClock::START.plus(HOUR * 4)).await;
    platform.issuer.misbehave(Fault::Status(500));
    platform.clock.advance(HOUR);
    platform.clock.someone_sleeps_until(ManualClock::START.plus(HOUR * 4 + MINUTE)).await;
    keeping.abort();
}

#[tokio::test]
async fn a_caller_who_gives_up_does_not_stop_the_fetch() {
    let platform = Platform::start().await;
    let token = PresentedToken::new(platform.token());
    {
        let mut call = std::pin::pin!(platform.authenticator.authenticate(&token, TokenSource::Metadata));
        assert!(std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context).is_pending())).await);
    }
    platform.issuer.asked_for_keys(1).await;
    platform.ask(&platform.token()).await.unwrap();
    assert_eq!(platform.issuer.key_fetches(), 1);
}
