//! What an answer without tokens means: the definition's rules first, then the standard table.

use std::{borrow::Cow, slice, time::Duration};

use serde_json::Value;

use super::{
    failure::{ErrorCode, Evidence, TokenFailure, hints},
    json::Document,
};
use crate::domain::{Definition, ErrorRule, ReplyClass};

/// What was asked for; some errors blame the request alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Exchange,
    /// `narrowed`: fewer scopes than granted were asked for. `excused`: how many answers in a row, up to now, were judged
    /// by a rule that does so only a few times.
    Refresh {
        narrowed: bool,
        excused: u32,
    },
}

/// Judges an answer that brought no tokens. `document` is its body, where that is a JSON object.
pub(super) fn classify(
    definition: &Definition,
    asked: Asked,
    status: u16,
    document: Option<&Document>,
    retry_after: Option<Duration>,
) -> TokenFailure {
    let unverified_code = document.and_then(|document| document.text("/error"));
    let standard = unverified_code.and_then(|code| STANDARD.iter().find(|(known, _)| *known == code));
    let rule = document
        .and_then(|document| definition.error_rules.iter().find_map(|rule| apply(rule, asked, status, document)));
    let class = match &rule {
        Some((rule, _)) => rule.class,
        None => by_standard(asked, status, document, standard.map(|(_, meaning)| *meaning), retry_after.is_some()),
    };
    // What a rule found tells more: `invalid_grant` stands beside most of what Entra says.
    let excused = rule.is_some_and(|(rule, _)| rule.at_most.is_some());
    let code = rule
        .and_then(|(_, value)| ErrorCode::of_rules(definition, value?))
        .or_else(|| standard.map(|(code, _)| ErrorCode::standard(code)))
        .or_else(|| ErrorCode::of_rules(definition, unverified_code?));
    let hints = document.filter(|_| class == ReplyClass::Reauthorize).and_then(hints);
    TokenFailure { class, evidence: Evidence::Answered { status }, code, retry_after, hints, excused, spent: false }
}

/// The rule itself, and the listed value that matched.
fn apply<'a>(
    rule: &'a ErrorRule,
    asked: Asked,
    status: u16,
    document: &Document,
) -> Option<(&'a ErrorRule, Option<&'a str>)> {
    let excused = match asked {
        Asked::Exchange => 0,
        Asked::Refresh { excused, .. } => excused,
    };
    if rule.at_most.is_some_and(|most| excused >= most) {
        return None;
    }
    if !rule.status.map_or_else(|| is_verdict(status), |wanted| wanted == status) {
        return None;
    }
    let found = document.at(&rule.pointer)?;
    if rule.contains.as_ref().is_some_and(|part| !text_of(found).contains(part)) {
        return None;
    }
    if rule.values.is_empty() {
        return (!matches!(found, Value::Null | Value::Bool(false))).then_some((rule, None));
    }
    let found = found.as_array().map_or(slice::from_ref(found), Vec::as_slice);
    let matching = rule.values.iter().find(|value| found.iter().any(|found| text_of(found) == value.as_str()));
    matching.map(|value| (rule, Some(value.as_str())))
}

fn text_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// The statuses with which authorization servers judge. With any other one a gateway may be speaking, whatever the
/// body looks like.
fn is_verdict(status: u16) -> bool {
    matches!(status, 200..=299 | 400 | 401 | 403)
}

/// The status decides first: a gateway in trouble may send any body. Only a structured OAuth error, with a status that
/// RFC 6749 §5.2 or common practice gives it, is terminal.
fn by_standard(
    asked: Asked,
    status: u16,
    document: Option<&Document>,
    meaning: Option<Meaning>,
    told_when: bool,
) -> ReplyClass {
    match status {
        429 => ReplyClass::RateLimited,
        503 if told_when => ReplyClass::RateLimited,
        408 | 425 | 500..=599 => ReplyClass::Ambiguous,
        200..=299 | 400..=499 => match (meaning, document) {
            (Some(meaning), Some(_)) => by_code(asked, status, meaning),
            (None, Some(document)) if status < 300 && !has_error(document) => ReplyClass::Ambiguous,
            (_, None) if status < 300 => ReplyClass::Ambiguous,
            _ => ReplyClass::Unknown,
        },
        _ => ReplyClass::Unknown,
    }
}

fn by_code(asked: Asked, status: u16, meaning: Meaning) -> ReplyClass {
    match (meaning, asked) {
        (Meaning::Is(class), _) => class,
        (Meaning::Dead, _) if is_verdict(status) => ReplyClass::Terminal,
        (Meaning::Dead, _) => ReplyClass::Unknown,
        // Anybody can hand in a malformed code: that must not suspend the provider for everybody.
        (Meaning::BadRequest | Meaning::BadScope, Asked::Exchange) => ReplyClass::Terminal,
        (Meaning::BadRequest, Asked::Refresh { .. }) => ReplyClass::Configuration,
        // The narrower scope was refused, not the refresh token.
        (Meaning::BadScope, Asked::Refresh { narrowed: true, .. }) => ReplyClass::Transient,
        (Meaning::BadScope, Asked::Refresh { narrowed: false, .. }) => ReplyClass::Reauthorize,
    }
}

fn has_error(document: &Document) -> bool {
    document.at("/error").is_some_and(|error| !matches!(error, Value::Null | Value::Bool(false)))
}

#[derive(Clone, Copy)]
enum Meaning {
    Is(ReplyClass),
    /// `invalid_grant`.
    Dead,
    BadRequest,
    BadScope,
}

/// RFC 6749 §5.2, RFC 8628 §3.5, RFC 8707 §2, RFC 9449 §8, RFC 9470 §3, OpenID Connect Core §3.1.2.6.
const STANDARD: &[(&str, Meaning)] = &[
    ("invalid_grant", Meaning::Dead),
    ("invalid_request", Meaning::BadRequest),
    ("invalid_target", Meaning::BadRequest),
    ("invalid_scope", Meaning::BadScope),
    ("invalid_client", Meaning::Is(ReplyClass::Configuration)),
    ("unauthorized_client", Meaning::Is(ReplyClass::Configuration)),
    ("unsupported_grant_type", Meaning::Is(ReplyClass::Configuration)),
    ("use_dpop_nonce", Meaning::Is(ReplyClass::Configuration)),
    ("interaction_required", Meaning::Is(ReplyClass::Reauthorize)),
    ("consent_required", Meaning::Is(ReplyClass::Reauthorize)),
    ("login_required", Meaning::Is(ReplyClass::Reauthorize)),
    ("account_selection_required", Meaning::Is(ReplyClass::Reauthorize)),
    ("insufficient_user_authentication", Meaning::Is(ReplyClass::Reauthorize)),
    ("insufficient_claims", Meaning::Is(ReplyClass::Reauthorize)),
    ("insufficient_scope", Meaning::Is(ReplyClass::Reauthorize)),
    ("slow_down", Meaning::Is(ReplyClass::RateLimited)),
    ("temporarily_unavailable", Meaning::Is(ReplyClass::Ambiguous)),
    ("server_error", Meaning::Is(ReplyClass::Ambiguous)),
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Asked, classify};
    use crate::{
        domain::{
            Definition,
            ReplyClass::{self, Ambiguous, Configuration, RateLimited, Reauthorize, Terminal, Transient, Unknown},
        },
        oauth::{TokenFailure, definitions::shipped, json::Document},
    };

    const REFRESH: Asked = Asked::Refresh { narrowed: false, excused: 0 };

    fn judge(definition: &Definition, asked: Asked, status: u16, body: &str) -> TokenFailure {
        classify(definition, asked, status, Document::parse(body.as_bytes()).as_ref(), None)
    }

    fn class(name: &str, status: u16, body: &str) -> ReplyClass {
        judge(&shipped(name).unwrap(), REFRESH, status, body).class
    }

    fn error(code: &str) -> String {
        format!(r#"{{"error":"{code}","error_description":"x"}}"#)
    }

    fn with_rules(rules: &str) -> Definition {
        #[derive(serde::Deserialize)]
        struct Rules {
            error_rules: Vec<crate::domain::ErrorRule>,
        }
        Definition { error_rules: toml::from_str::<Rules>(rules).unwrap().error_rules, ..shipped("oidc").unwrap() }
    }

    #[test]
    fn every_standard_code_has_its_class() {
        for (code, wanted) in [
            ("invalid_grant", Terminal),
            ("invalid_client", Configuration),
            ("unauthorized_client", Configuration),
            ("unsupported_grant_type", Configuration),
            ("invalid_request", Configuration),
            ("invalid_target", Configuration),
            ("use_dpop_nonce", Configuration),
            ("invalid_scope", Reauthorize),
            ("interaction_required", Reauthorize),
            ("consent_required", Reauthorize),
            ("login_required", Reauthorize),
            ("account_selection_required", Reauthorize),
            ("insufficient_user_authentication", Reauthorize),
            ("insufficient_claims", Reauthorize),
            ("insufficient_scope", Reauthorize),
            ("slow_down", RateLimited),
            ("temporarily_unavailable", Ambiguous),
            ("server_error", Ambiguous),
            ("something_new", Unknown),
        ] {
            for status in [200, 400, 401, 403] {
                assert_eq!(class("oidc", status, &error(code)), wanted, "{status} {code}");
            }
        }
    }

    #[test]
    fn the_status_decides_before_the_code() {
        let body = error("invalid_grant");
        for (status, wanted) in [
            (301, Unknown),
            (302, Unknown),
            (307, Unknown),
            (404, Unknown),
            (405, Unknown),
            (408, Ambiguous),
            (418, Unknown),
            (425, Ambiguous),
            (429, RateLimited),
            (500, Ambiguous),
            (502, Ambiguous),
            (503, Ambiguous),
            (504, Ambiguous),
        ] {
            assert_eq!(class("oidc", status, &body), wanted, "{status}");
        }
        let definition = shipped("oidc").unwrap();
        let wait = Some(Duration::from_secs(7));
        let limited = classify(&definition, REFRESH, 503, None, wait);
        assert_eq!((limited.class, limited.retry_after), (RateLimited, wait));
    }

    #[test]
    fn only_a_structured_oauth_error_is_terminal() {
        for body in [
            "<html>invalid_grant</html>",
            "",
            "invalid_grant",
            "\"invalid_grant\"",
            "error=invalid_grant",
            r#"["invalid_grant"]"#,
            r#"{"error":{"code":"invalid_grant"}}"#,
            r#"{"error":["invalid_grant"]}"#,
            r#"{"message":"invalid_grant"}"#,
            r#"{"error":"invalid_grant","error":"invalid_grant"}"#,
        ] {
            for status in 200..=599 {
                let class = class("oidc", status, body);
                assert!(!matches!(class, Terminal | Reauthorize | Configuration), "{status} {body}");
            }
            assert_eq!(class("oidc", 403, body), Unknown, "{body}");
        }
    }

    #[test]
    fn success_without_tokens_and_without_an_error_is_ambiguous() {
        for body in ["", "<html>", "{}", r#"{"error":null}"#, r#"{"error":false}"#, r#"{"access_token":"to"#] {
            assert_eq!(class("oidc", 200, body), Ambiguous, "{body}");
        }
    }

    #[test]
    fn a_malformed_code_or_scope_is_the_requests_own_fault() {
        let definition = shipped("oidc").unwrap();
        let narrowed = Asked::Refresh { narrowed: true, excused: 0 };
        for (asked, code, wanted) in [
            (Asked::Exchange, "invalid_request", Terminal),
            (Asked::Exchange, "invalid_scope", Terminal),
            (Asked::Exchange, "invalid_target", Terminal),
            (Asked::Exchange, "invalid_grant", Terminal),
            (Asked::Exchange, "invalid_client", Configuration),
            (narrowed, "invalid_scope", Transient),
            (narrowed, "invalid_grant", Terminal),
        ] {
            assert_eq!(judge(&definition, asked, 400, &error(code)).class, wanted, "{asked:?} {code}");
        }
    }

    #[test]
    fn a_dead_grant_that_the_user_can_cure_keeps_its_hints() {
        let body = r#"{"error":"invalid_grant","suberror":"basic_action","claims":"{\"access_token\":{}}",
            "acr_values":"c1 c2","max_age":"300"}"#;
        let failure = judge(&shipped("microsoft").unwrap(), REFRESH, 400, body);
        assert_eq!(failure.class, Reauthorize);
        let hints = failure.hints.unwrap();
        assert_eq!(hints.claims.as_deref(), Some(r#"{"access_token":{}}"#));
        assert_eq!(hints.acr_values.as_deref(), Some("c1 c2"));
        assert_eq!(hints.max_age, Some(300));
        assert_eq!(class("google", 400, r#"{"error":"invalid_grant","error_subtype":"invalid_rapt"}"#), Reauthorize);
        assert_eq!(class("microsoft", 400, r#"{"error":"invalid_grant","suberror":"bad_token"}"#), Terminal);
        let odd = r#"{"error":"login_required","claims":"<script>","acr_values":"a\nb","max_age":-1}"#;
        assert_eq!(judge(&shipped("oidc").unwrap(), REFRESH, 400, odd).hints, None);
    }

    #[test]
    fn github_errors_arrive_with_success() {
        for (code, wanted) in [
            ("bad_verification_code", Terminal),
            ("bad_refresh_token", Terminal),
            ("incorrect_client_credentials", Configuration),
            ("redirect_uri_mismatch", Configuration),
            ("unverified_user_email", Reauthorize),
        ] {
            let failure = judge(&shipped("github").unwrap(), REFRESH, 200, &error(code));
            assert_eq!(failure.class, wanted, "{code}");
            assert_eq!(failure.code.unwrap().as_str(), code);
        }
    }

    #[test]
    fn the_first_matching_rule_wins_over_the_table() {
        let definition = with_rules(
            r#"
            [[error_rules]]
            pointer = "/error_description"
            contains = "AADSTS50196"
            class = "transient"
            [[error_rules]]
            status = 400
            pointer = "/status"
            values = ["BAD_REFRESH_TOKEN"]
            class = "terminal"
            [[error_rules]]
            pointer = "/failed"
            class = "reauthorize"
            [[error_rules]]
            pointer = "/ok"
            values = ["false"]
            class = "unknown"
            "#,
        );
        for (status, body, wanted) in [
            (400, r#"{"error":"invalid_grant","error_description":"AADSTS50196: loop"}"#, Transient),
            (400, r#"{"error":"invalid_grant","error_description":"AADSTS70000: no"}"#, Terminal),
            (400, r#"{"status":"BAD_REFRESH_TOKEN"}"#, Terminal),
            (404, r#"{"status":"BAD_REFRESH_TOKEN"}"#, Unknown),
            (400, r#"{"failed":true}"#, Reauthorize),
            (400, r#"{"failed":false}"#, Unknown),
            (400, r#"{"failed":null}"#, Unknown),
            (200, r#"{"ok":false}"#, Unknown),
            (200, r#"{"ok":true}"#, Ambiguous),
        ] {
            assert_eq!(judge(&definition, REFRESH, status, body).class, wanted, "{status} {body}");
        }
        let known = judge(&definition, REFRESH, 400, r#"{"status":"BAD_REFRESH_TOKEN"}"#);
        assert_eq!(known.code.unwrap().as_str(), "BAD_REFRESH_TOKEN");
    }

    #[test]
    fn a_rule_finds_its_value_in_an_array() {
        let body = r#"{"error":"invalid_grant","error_codes":[50000,50196]}"#;
        let failure = judge(&shipped("microsoft").unwrap(), REFRESH, 400, body);
        assert_eq!((failure.class, failure.code.unwrap().to_string().as_str()), (Transient, "50196"));
        let other = r#"{"error":"invalid_grant","error_codes":[501960]}"#;
        assert_eq!(class("microsoft", 400, other), Terminal);
    }

    #[test]
    fn a_gateway_makes_no_rule_apply() {
        let body = r#"{"ok":false,"error":"token_revoked"}"#;
        for status in 100..=599 {
            let judges = matches!(status, 200..=299 | 400 | 401 | 403);
            assert_eq!(class("slack", status, body) == Terminal, judges, "{status}");
        }
    }

    #[test]
    fn nothing_that_the_server_wrote_reaches_an_error() {
        let canary = "c4n4ry-refresh-token";
        let body = format!(
            r#"{{"error":"{canary}","error_description":"{canary}","claims":"{{\"x\":\"{canary}\"}}","acr_values":"{canary}"}}"#
        );
        let rules = with_rules("[[error_rules]]\nclass = \"reauthorize\"\n");
        for definition in [&rules, &shipped("oidc").unwrap()] {
            let failure = judge(definition, REFRESH, 400, &body);
            assert_eq!(failure.code, None);
            let shown = format!("{failure} {failure:?} {:?}", failure.hints);
            assert!(!shown.contains("c4n4ry"), "{shown}");
        }
    }
}
