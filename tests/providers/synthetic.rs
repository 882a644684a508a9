//! Error shapes that no shipped provider has, each as a definition that nobody ships: what a definition can say is enough
//! for them, and none of them makes a firewall's page a verdict.

use claviger::{
    dev::{Answer, Endpoint, Fault, Realm},
    domain::{
        Definition, Provider, RefreshToken,
        ReplyClass::{self, Ambiguous, Configuration, RateLimited, Reauthorize, Terminal, Transient, Unknown},
        Rotation, ScopeSet,
    },
    oauth::definitions,
};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};

use crate::world::{World, failure};

const COMMON: &str = r#"
display_name = "Synthetic"
client_authentication = "post"
revocation = "none"
"#;

/// A definition's own lines, its rotation, and what its provider's answers mean; the number is how many answers before
/// this one were excused.
struct Case {
    rotation: &'static str,
    parsed: Rotation,
    rules: &'static str,
    answers: Vec<(u16, Value, u32, ReplyClass)>,
}

fn cases() -> [Case; 4] {
    [
        errors_without_their_member(),
        races_that_look_like_ends(),
        errors_in_an_envelope(),
        standard_codes_otherwise_meant(),
    ]
}

/// No `error` at all; an error of the same words where none belongs says nothing.
fn errors_without_their_member() -> Case {
    Case {
        rotation: r#""reuse""#,
        parsed: Rotation::Reuse,
        rules: r#"
                [[error_rules]]
                pointer = "/status"
                values = ["BAD_REFRESH_TOKEN", "EXPIRED_REFRESH_TOKEN"]
                class = "terminal"
                [[error_rules]]
                pointer = "/status"
                values = ["BAD_CLIENT_ID", "BAD_CLIENT_SECRET"]
                class = "configuration"
            "#,
        answers: vec![
            (400, json!({ "status": "BAD_REFRESH_TOKEN", "message": "missing or unknown refresh token" }), 0, Terminal),
            (400, json!({ "status": "BAD_CLIENT_SECRET" }), 0, Configuration),
            (400, json!({ "status": "SOMETHING_NEW" }), 0, Unknown),
            (502, json!({ "status": "BAD_REFRESH_TOKEN" }), 0, Ambiguous),
            (200, json!({ "message": "BAD_REFRESH_TOKEN" }), 0, Ambiguous),
        ],
    }
}

/// A race of two refreshes looks like a dead grant; the third time it is one.
fn races_that_look_like_ends() -> Case {
    let says = |text: &str| json!({ "error": "invalid_grant", "error_description": text });
    Case {
        rotation: r#""strict""#,
        parsed: Rotation::Strict,
        rules: r#"
                [[error_rules]]
                pointer = "/error_description"
                contains = "already being processed"
                class = "transient"
                at_most = 3
                [[error_rules]]
                pointer = "/error_description"
                contains = "expired authorization code"
                class = "transient"
                at_most = 3
            "#,
        answers: vec![
            (400, says("token request is already being processed"), 0, Transient),
            (400, says("token request is already being processed"), 2, Transient),
            (400, says("token request is already being processed"), 3, Terminal),
            (400, says("expired authorization code"), 1, Transient),
            (400, says("expired authorization code"), 4, Terminal),
            (400, says("expired access/refresh token"), 0, Terminal),
            (503, says("token request is already being processed"), 0, Ambiguous),
        ],
    }
}

/// Errors in an envelope, as numbers, with success.
fn errors_in_an_envelope() -> Case {
    Case {
        rotation: "{ grace = { seconds = 30 } }",
        parsed: Rotation::Grace { seconds: 30 },
        rules: r#"
                token_object = "/data"
                [[error_rules]]
                pointer = "/data/error_code"
                values = ["10010", "2190008"]
                class = "terminal"
                [[error_rules]]
                pointer = "/data/error_code"
                values = ["10003"]
                class = "configuration"
                [[error_rules]]
                pointer = "/data/error_code"
                values = ["6"]
                class = "rate_limited"
                [[error_rules]]
                pointer = "/data/error_code"
                class = "unknown"
            "#,
        answers: vec![
            (200, json!({ "data": { "error_code": 10010, "description": "refresh_token expired" } }), 0, Terminal),
            (200, json!({ "data": { "error_code": 10003 } }), 0, Configuration),
            (200, json!({ "data": { "error_code": 6 } }), 0, RateLimited),
            (200, json!({ "data": { "error_code": 77 } }), 0, Unknown),
            (200, json!({ "data": {} }), 0, Ambiguous),
            (200, json!({ "error_code": 10010 }), 0, Ambiguous),
        ],
    }
}

/// Standard codes with meanings, and statuses, of their own.
fn standard_codes_otherwise_meant() -> Case {
    Case {
        rotation: r#""none""#,
        parsed: Rotation::None,
        rules: r#"
                [[error_rules]]
                pointer = "/error"
                values = ["unauthorized_client"]
                class = "terminal"
                [[error_rules]]
                pointer = "/error"
                values = ["invalid_code"]
                class = "terminal"
                [[error_rules]]
                pointer = "/error"
                values = ["mfa_enrollment_required"]
                class = "reauthorize"
                [[error_rules]]
                status = 404
                pointer = "/error"
                values = ["token_not_found"]
                class = "terminal"
            "#,
        answers: vec![
            (400, json!({ "error": "unauthorized_client" }), 0, Terminal),
            (200, json!({ "error": "invalid_code" }), 0, Terminal),
            (403, json!({ "error": "mfa_enrollment_required" }), 0, Reauthorize),
            (
                403,
                json!({ "error": "invalid_grant", "error_description": "Unknown or invalid refresh token." }),
                0,
                Terminal,
            ),
            (404, json!({ "error": "token_not_found" }), 0, Terminal),
            (400, json!({ "error": "token_not_found" }), 0, Unknown),
            (401, json!({ "error": "invalid_client" }), 0, Configuration),
            (400, json!({ "error": "invalid_target" }), 0, Configuration),
            (400, json!({ "error": "slow_down" }), 0, RateLimited),
            (400, json!({ "error": "temporarily_unavailable" }), 0, Ambiguous),
        ],
    }
}

fn provider(world: &World, case: &Case) -> Provider {
    let text = format!("{COMMON}rotation = {}\n{}", case.rotation, case.rules);
    let mut definition: Definition = toml::from_str(&text).unwrap();
    let at = |path| Some(world.dev.url_of(Realm::Provider, path).parse().unwrap());
    definition.endpoints.authorization = at("/authorize");
    definition.endpoints.token = at("/token");
    definitions::check(&definition).unwrap();
    Provider { definition, ..world.provider("github") }
}

async fn judged(world: &World, provider: &Provider, answer: Answer, excused: u32) -> ReplyClass {
    world.dev.faults().arm(Endpoint::Token, Fault::Answer(answer), 1);
    let (token, scopes) = (RefreshToken::new("rt".to_owned()), ScopeSet::default());
    failure(world.servers.refresh(provider, &token, &scopes, None, excused).await).class
}

#[tokio::test]
async fn a_definition_can_say_what_each_error_shape_means() {
    let world = World::start().await;
    for case in cases() {
        let provider = provider(&world, &case);
        assert_eq!(provider.definition.rotation, case.parsed);
        for (status, body, excused, class) in &case.answers {
            let answer = Answer::json(StatusCode::from_u16(*status).unwrap(), body);
            assert_eq!(judged(&world, &provider, answer, *excused).await, *class, "{status} {body} after {excused}");
        }
    }
}

#[tokio::test]
async fn no_definition_makes_a_page_a_verdict() {
    let world = World::start().await;
    for case in cases() {
        let provider = provider(&world, &case);
        for (_, body, ..) in &case.answers {
            let page = format!("<html><body>Blocked<pre>{body}</pre></body></html>");
            for status in [200, 302, 400, 401, 403, 404, 429, 500, 503] {
                let html = HeaderValue::from_static("text/html");
                let answer = Answer::new(StatusCode::from_u16(status).unwrap(), page.clone()).with(CONTENT_TYPE, html);
                let class = judged(&world, &provider, answer, 0).await;
                let verdict = matches!(class, Terminal | Reauthorize | Configuration);
                assert!(!verdict, "{status} {page} {class:?}");
            }
        }
    }
}
