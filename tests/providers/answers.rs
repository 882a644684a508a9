//! Every error rule of every definition, with answers as the providers write them.

use std::collections::BTreeMap;

use claviger::{
    dev::{Answer, Endpoint, Fault},
    domain::{ErrorRule, Provider, RefreshToken, ReplyClass},
    oauth::{TokenFailure, definitions::SHIPPED},
};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::world::{World, failure};

/// One answer, and what it means.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    what: String,
    status: u16,
    body: Value,
    class: ReplyClass,
    /// As the log shows it.
    #[serde(default)]
    code: Option<String>,
    /// Whether the next authorization must ask for more.
    #[serde(default)]
    claims: bool,
}

fn cases() -> BTreeMap<String, Vec<Case>> {
    serde_json::from_str(include_str!("answers.json")).unwrap()
}

async fn judged(world: &World, provider: &Provider, answer: Answer) -> TokenFailure {
    world.dev.faults().arm(Endpoint::Token, Fault::Answer(answer), 1);
    failure(world.refresh(provider, &RefreshToken::new("rt".to_owned()), "a").await)
}

fn html(status: u16) -> Answer {
    let page = "<html><title>Blocked</title>invalid_grant token_revoked AADSTS700082</html>";
    Answer::new(StatusCode::from_u16(status).unwrap(), page).with(CONTENT_TYPE, HeaderValue::from_static("text/html"))
}

fn as_json(status: u16, body: &Value) -> Answer {
    Answer::json(StatusCode::from_u16(status).unwrap(), body)
}

fn without(provider: &Provider, nth: usize) -> Provider {
    let mut fewer = provider.clone();
    fewer.definition.error_rules.remove(nth);
    fewer
}

fn is_verdict(class: ReplyClass) -> bool {
    matches!(class, ReplyClass::Terminal | ReplyClass::Reauthorize | ReplyClass::Configuration)
}

#[tokio::test]
async fn every_answer_means_what_its_case_says() {
    let world = World::start().await;
    for (definition, cases) in cases() {
        let provider = world.provider(&definition);
        for case in cases {
            let failed = judged(&world, &provider, as_json(case.status, &case.body)).await;
            assert_eq!(failed.class, case.class, "{definition}: {}", case.what);
            let code = failed.code.as_ref().map(|code| code.as_str().to_owned());
            assert_eq!(code, case.code, "{definition}: {}", case.what);
            let claims = failed.hints.as_ref().is_some_and(|hints| hints.claims.is_some());
            assert_eq!(claims, case.claims, "{definition}: {}", case.what);
            let shown = format!("{failed} {failed:?}");
            assert!(!shown.contains("Trace ID") && !shown.contains("access_token"), "{shown}");
        }
    }
}

#[tokio::test]
async fn no_rule_is_idle() {
    let world = World::start().await;
    let cases = cases();
    for name in ["github", "google", "microsoft", "slack"] {
        let provider = world.provider(name);
        for nth in 0..provider.definition.error_rules.len() {
            let fewer = without(&provider, nth);
            let mut decides = false;
            for case in &cases[name] {
                let class = judged(&world, &fewer, as_json(case.status, &case.body)).await.class;
                decides |= class != case.class;
            }
            assert!(decides, "{name}: nothing changes without {:?}", provider.definition.error_rules[nth]);
        }
    }
}

/// An error as this rule's provider would write it.
fn written(rule: &ErrorRule, value: &str) -> Value {
    match rule.pointer.as_str() {
        "/error_codes" => json!({
            "error": "invalid_grant",
            "error_description": format!("AADSTS{value}: in words."),
            "error_codes": [value.parse::<u32>().unwrap()],
        }),
        "/error" => json!({ "ok": false, "error": value }),
        pointer => json!({ "error": "invalid_grant", pointer.trim_start_matches('/'): value }),
    }
}

#[tokio::test]
async fn every_value_of_every_rule_has_the_rules_class() {
    let world = World::start().await;
    for name in SHIPPED {
        let provider = world.provider(if *name == "oidc" { "github" } else { name });
        for rule in &provider.definition.error_rules {
            for value in &rule.values {
                let failed = judged(&world, &provider, as_json(400, &written(rule, value))).await;
                assert_eq!(failed.class, rule.class, "{name} {value}");
                assert_eq!(failed.code.unwrap().as_str(), value, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_firewall_and_an_error_that_nobody_knows_are_no_verdict() {
    let world = World::start().await;
    let unknown = [
        json!({ "error": "something_new", "error_description": "invalid_grant" }),
        json!({ "ok": false, "error": "something_new" }),
        json!({ "error": "something_new", "error_codes": [123], "suberror": "something_new" }),
        json!({ "error": { "code": 403, "message": "invalid_grant", "status": "PERMISSION_DENIED" } }),
        json!({ "message": "Request blocked", "incident": 7 }),
        json!([{ "error": "invalid_grant" }]),
    ];
    for name in ["github", "google", "microsoft", "slack", "slack-bot"] {
        let provider = world.provider(name);
        for status in [200, 302, 400, 401, 403, 404, 407, 429, 500, 502, 503] {
            let class = judged(&world, &provider, html(status)).await.class;
            assert!(!is_verdict(class), "{name} {status} {class:?}");
            for body in &unknown {
                let class = judged(&world, &provider, as_json(status, body)).await.class;
                assert!(!is_verdict(class), "{name} {status} {body} {class:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_comes_from_a_gateway_in_trouble_is_no_verdict() {
    let world = World::start().await;
    for (name, cases) in cases() {
        let provider = world.provider(&name);
        for case in cases {
            for status in [302, 408, 429, 500, 503] {
                let class = judged(&world, &provider, as_json(status, &case.body)).await.class;
                assert!(!is_verdict(class), "{name} {status}: {} {class:?}", case.what);
            }
        }
    }
}
