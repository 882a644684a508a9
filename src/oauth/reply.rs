//! The token endpoint's answer (RFC 6749 §5.1), read as leniently as providers are odd.

use std::time::Duration;

use serde_json::Value;

use super::{
    classify::{Asked, classify},
    failure::{Evidence, TokenFailure},
    json::Document,
    retry_after::retry_after,
};
use crate::{
    domain::{AccessToken, Definition, IdToken, RefreshToken, ReplyClass, Scope, ScopeSet, Timestamp},
    outbound::Reply,
};

/// What a token request brought. Of a type that its possession makes usable, or of none said.
pub struct Tokens {
    /// When the request was sent. Lifetimes count from here: the provider's count began later, so a token is never
    /// taken to live longer than it does.
    pub asked_at: Timestamp,
    pub access: AccessToken,
    /// `None`: absent, null or empty; whoever has an older one keeps it.
    pub refresh: Option<RefreshToken>,
    pub id_token: Option<IdToken>,
    /// Until the access token lapses, at most ten years. `None`: the provider did not say, said so
    /// illegibly, or said zero or less. No provider issues a token that is dead on arrival; those that write 0 or -1
    /// mean "never".
    pub expires_in: Option<Duration>,
    /// Until the refresh token or the whole authorization lapses, whichever is first. `None`: as above.
    pub refresh_expires_in: Option<Duration>,
    /// What was granted. `None`: the provider did not say, so it is what was asked for (RFC 6749 §5.1).
    pub scopes: Option<ScopeSet>,
}

/// Judges an answer. Tokens win over an `error` beside them: a fresh refresh token is never thrown away.
pub(super) fn judge(
    definition: &Definition,
    asked: Asked,
    reply: &Reply,
    asked_at: Timestamp,
    now: Timestamp,
) -> Result<Tokens, TokenFailure> {
    let status = reply.status.as_u16();
    let mut document = Document::parse(&reply.body);
    let successful = document.as_mut().filter(|_| reply.status.is_success());
    if let Some(tokens) = successful.and_then(|document| read_tokens(document, definition, asked_at)) {
        let refused = TokenFailure::bare(ReplyClass::Configuration, Evidence::Answered { status });
        return tokens.map_err(|UnusableType| TokenFailure { spent: true, ..refused });
    }
    Err(classify(definition, asked, status, document.as_ref(), retry_after(&reply.headers, now)))
}

/// Whether an authorization server wrote this, and not a gateway in its absence: an OAuth error that does not speak of
/// trouble, by the provider's own rules too.
pub(super) fn is_sign_of_life(definition: &Definition, reply: &Reply) -> bool {
    let Some(document) = Document::parse(&reply.body) else { return false };
    let asked = Asked::Refresh { narrowed: false, excused: 0 };
    let failure = classify(definition, asked, reply.status.as_u16(), Some(&document), None);
    let in_trouble = matches!(failure.class, ReplyClass::Ambiguous | ReplyClass::RateLimited);
    !in_trouble && document.text("/error").is_some()
}

/// The token is bound to something other than its possession (RFC 6749 §7.1): it must not be used.
struct UnusableType;

/// `None`: there is no access token.
fn read_tokens(
    document: &mut Document,
    definition: &Definition,
    asked_at: Timestamp,
) -> Option<Result<Tokens, UnusableType>> {
    let nested = document.text(&format!("{}/access_token", definition.token_object)).is_some();
    let object = if nested { definition.token_object.as_str() } else { "" };
    let member = |name: &str| format!("{object}/{name}");
    document.text(&member("access_token")).filter(|token| is_access_token(token))?;
    if !is_usable(definition, document.at(&member("token_type"))) {
        return Some(Err(UnusableType));
    }
    let expires_in = document.at(&member("expires_in")).and_then(lifetime);
    let ends = REFRESH_ENDS.iter().filter_map(|name| document.at(&member(name)).and_then(lifetime));
    let refresh_expires_in = ends.min();
    let scopes = document.at(&member("scope")).and_then(|scope| scopes(scope, definition));
    Some(Ok(Tokens {
        asked_at,
        access: AccessToken::new(document.take_text(&member("access_token"))?),
        refresh: document.take_text(&member("refresh_token")).map(RefreshToken::new),
        id_token: document.take_text(&member("id_token")).map(IdToken::new),
        expires_in,
        refresh_expires_in,
        scopes,
    }))
}

/// RFC 6749 appendix A.12. It becomes a header's value: a line break in it would be the start of another header.
fn is_access_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
}

fn is_usable(definition: &Definition, token_type: Option<&Value>) -> bool {
    match token_type {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) if text.is_empty() => true,
        Some(Value::String(text)) if definition.token_types.is_empty() => text.eq_ignore_ascii_case("bearer"),
        Some(Value::String(text)) => definition.token_types.iter().any(|listed| listed.eq_ignore_ascii_case(text)),
        Some(_) => false,
    }
}

/// A number, or a text that is one, in seconds.
fn lifetime(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    let sane = seconds > 0.0;
    sane.then(|| Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST))
}

/// A text, or a list of texts. What is no scope is left out: it cannot have been granted.
fn scopes(value: &Value, definition: &Definition) -> Option<ScopeSet> {
    let words = |text: &str| -> Vec<Scope> {
        let words = text.split([definition.response_scope_separator, ' ']);
        words.filter_map(|word| Some(definition.spelled(word.parse().ok()?))).collect()
    };
    match value {
        Value::String(text) => Some(words(text).into_iter().collect()),
        Value::Array(texts) => Some(texts.iter().filter_map(Value::as_str).flat_map(words).collect()),
        _ => None,
    }
}

/// The names under which answers say when a refresh token ends: GitHub's and Google's, Keycloak's, Intuit's, and those of
/// draft-ietf-oauth-refresh-token-expiration.
const REFRESH_ENDS: [&str; 5] = [
    "refresh_token_expires_in",
    "refresh_expires_in",
    "x_refresh_token_expires_in",
    "refresh_token_timeout",
    "authorization_expires_in",
];

const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, StatusCode};
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::{LONGEST, Tokens, judge};
    use crate::{
        domain::{Definition, ReplyClass, ScopeSet, Timestamp},
        oauth::{TokenFailure, classify::Asked, definitions::shipped},
        outbound::Reply,
    };

    fn read(definition: &Definition, status: StatusCode, body: &[u8]) -> Result<Tokens, TokenFailure> {
        let reply = Reply { status, headers: HeaderMap::new(), body: Zeroizing::new(body.to_vec()) };
        judge(definition, Asked::Exchange, &reply, Timestamp::EPOCH, Timestamp::EPOCH)
    }

    fn tokens(body: &str) -> Tokens {
        read(&shipped("oidc").unwrap(), StatusCode::OK, body.as_bytes())
            .unwrap_or_else(|failure| panic!("{failure}: {body}"))
    }

    fn refused(body: &str) -> ReplyClass {
        match read(&shipped("oidc").unwrap(), StatusCode::OK, body.as_bytes()) {
            Ok(_) => panic!("tokens from {body}"),
            Err(failure) => failure.class,
        }
    }

    fn lifetime(expires_in: &str) -> Option<Duration> {
        tokens(&format!(r#"{{"access_token":"a","expires_in":{expires_in}}}"#)).expires_in
    }

    #[test]
    fn a_full_answer_is_read_whole() {
        let tokens = tokens(
            r#"{"access_token":"at","refresh_token":"rt","id_token":"it","token_type":"BEARER","expires_in":3600,"scope":"b a"}"#,
        );
        assert_eq!(tokens.access.expose(), "at");
        assert_eq!(tokens.refresh.unwrap().expose(), "rt");
        assert_eq!(tokens.id_token.unwrap().expose(), "it");
        assert_eq!(tokens.expires_in, Some(Duration::from_secs(3600)));
        assert_eq!(tokens.scopes, Some(ScopeSet::parse("a b", ' ').unwrap()));
    }

    #[test]
    fn a_lifetime_is_a_number_however_it_is_written() {
        for (written, wanted) in [
            ("3600", Some(3600.0)),
            ("\"3600\"", Some(3600.0)),
            ("\" 3600 \"", Some(3600.0)),
            ("3600.5", Some(3600.5)),
            ("\"3600.5\"", Some(3600.5)),
            ("3.6e3", Some(3600.0)),
            ("0.5", Some(0.5)),
            ("1e18", Some(315_360_000.0)),
            ("315360001", Some(315_360_000.0)),
            ("18446744073709551615", Some(315_360_000.0)),
            ("\"1e999\"", Some(315_360_000.0)),
            ("\"inf\"", Some(315_360_000.0)),
            ("0", None),
            ("-1", None),
            ("-1e300", None),
            ("\"0\"", None),
            ("\"\"", None),
            ("\"NaN\"", None),
            ("\"never\"", None),
            ("null", None),
            ("true", None),
            ("[3600]", None),
            ("{}", None),
        ] {
            assert_eq!(lifetime(written), wanted.map(Duration::from_secs_f64), "{written}");
        }
        assert_eq!(tokens(r#"{"access_token":"a"}"#).expires_in, None);
    }

    #[test]
    fn the_earliest_end_of_the_refresh_token_that_is_said_counts() {
        for (members, wanted) in [
            ("", None),
            (r#","refresh_token_expires_in":15897600"#, Some(15_897_600)),
            (r#","refresh_expires_in":"1800""#, Some(1800)),
            (r#","refresh_expires_in":0"#, None),
            (r#","x_refresh_token_expires_in":8726400"#, Some(8_726_400)),
            (r#","refresh_token_timeout":3600,"authorization_expires_in":86400"#, Some(3600)),
            (r#","refresh_token_timeout":-1,"authorization_expires_in":86400"#, Some(86_400)),
        ] {
            let ends = tokens(&format!(r#"{{"access_token":"a"{members}}}"#)).refresh_expires_in;
            assert_eq!(ends, wanted.map(Duration::from_secs), "{members}");
        }
    }

    #[test]
    fn an_absent_null_or_empty_refresh_token_is_none() {
        for member in ["", r#","refresh_token":null"#, r#","refresh_token":"""#, r#","refresh_token":7"#] {
            assert!(tokens(&format!(r#"{{"access_token":"a"{member}}}"#)).refresh.is_none(), "{member}");
        }
    }

    #[test]
    fn an_access_token_is_text_that_fits_into_a_header() {
        for token in ["null", "7", "\"\"", "{}", "[\"a\"]", r#""a\r\nx: y""#, "\"\u{e4}\"", r#""a\u0000""#] {
            assert_eq!(refused(&format!(r#"{{"access_token":{token}}}"#)), ReplyClass::Ambiguous, "{token}");
        }
    }

    #[test]
    fn duplicate_members_are_refused() {
        assert_eq!(refused(r#"{"access_token":"a","access_token":"b"}"#), ReplyClass::Ambiguous);
    }

    #[test]
    fn only_bearer_tokens_are_used() {
        for token_type in ["\"bearer\"", "\"Bearer\"", "\"BEARER\"", "null", "\"\""] {
            tokens(&format!(r#"{{"access_token":"a","token_type":{token_type}}}"#));
        }
        for token_type in ["\"DPoP\"", "\"mac\"", "\"N_A\"", "7"] {
            let body = format!(r#"{{"access_token":"a","token_type":{token_type}}}"#);
            assert_eq!(refused(&body), ReplyClass::Configuration, "{token_type}");
        }
    }

    #[test]
    fn slack_answers_a_code_with_two_tokens_and_a_refresh_with_one() {
        let (user, bot) = (shipped("slack").unwrap(), shipped("slack-bot").unwrap());
        let both = br#"{"ok":true,"access_token":"xoxb","token_type":"bot","scope":"commands,chat:write",
            "authed_user":{"id":"U1","scope":"search:read,chat:write","access_token":"xoxp","token_type":"user",
            "refresh_token":"xoxe-1","expires_in":43200}}"#;
        let of_user = read(&user, StatusCode::OK, both).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(of_user.access.expose(), "xoxp");
        assert_eq!(of_user.refresh.unwrap().expose(), "xoxe-1");
        assert_eq!(of_user.expires_in, Some(Duration::from_secs(43200)));
        assert_eq!(of_user.scopes, Some(ScopeSet::parse("chat:write search:read", ' ').unwrap()));
        let of_bot = read(&bot, StatusCode::OK, both).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(of_bot.access.expose(), "xoxb");
        assert!(of_bot.refresh.is_none());
        let refreshed = br#"{"ok":true,"access_token":"xoxe.xoxp-2","token_type":"user","refresh_token":"xoxe-2"}"#;
        let of_user = read(&user, StatusCode::OK, refreshed).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(of_user.access.expose(), "xoxe.xoxp-2");
    }

    #[test]
    fn a_token_of_the_other_kind_is_not_used() {
        let bot = br#"{"ok":true,"access_token":"xoxb","token_type":"bot","authed_user":{"id":"U1"}}"#;
        let refused =
            |name: &str, body: &[u8]| read(&shipped(name).unwrap(), StatusCode::OK, body).err().unwrap().class;
        assert_eq!(refused("slack", bot), ReplyClass::Configuration);
        assert_eq!(refused("slack-bot", br#"{"access_token":"xoxp","token_type":"user"}"#), ReplyClass::Configuration);
        assert_eq!(refused("slack", br#"{"access_token":"a","token_type":"Bearer"}"#), ReplyClass::Configuration);
    }

    #[test]
    fn a_scope_is_named_as_it_was_asked_for() {
        for (name, answered, wanted) in [
            ("google", "openid https://www.googleapis.com/auth/userinfo.email", "email openid"),
            ("google", "https://www.googleapis.com/auth/drive", "https://www.googleapis.com/auth/drive"),
            ("microsoft", "https://graph.microsoft.com/Mail.Read User.Read profile", "Mail.Read User.Read profile"),
            (
                "microsoft",
                "https://graph.microsoft.com/ api://app/Mail.Read",
                "https://graph.microsoft.com/ api://app/Mail.Read",
            ),
        ] {
            let body = format!(r#"{{"access_token":"a","scope":"{answered}"}}"#);
            let read = read(&shipped(name).unwrap(), StatusCode::OK, body.as_bytes());
            let scopes = read.unwrap_or_else(|failure| panic!("{failure}")).scopes;
            assert_eq!(scopes, Some(ScopeSet::parse(wanted, ' ').unwrap()), "{name} {answered}");
        }
    }

    #[test]
    fn scopes_are_read_with_the_definitions_separator() {
        let github = shipped("github").unwrap();
        let read_scopes = |definition: &Definition, scope: &str| {
            let body = format!(r#"{{"access_token":"a","scope":{scope}}}"#);
            read(definition, StatusCode::OK, body.as_bytes()).unwrap_or_else(|failure| panic!("{failure}")).scopes
        };
        let wanted = ScopeSet::parse("gist repo", ' ').unwrap();
        assert_eq!(read_scopes(&github, "\"repo,gist\""), Some(wanted.clone()));
        assert_eq!(read_scopes(&github, r#"["repo","gist"]"#), Some(wanted.clone()));
        assert_eq!(read_scopes(&github, "\"\""), Some(ScopeSet::default()));
        assert_eq!(read_scopes(&github, "null"), None);
        assert_eq!(read_scopes(&shipped("oidc").unwrap(), "\"repo gist  n\u{e4}h\""), Some(wanted));
    }

    #[test]
    fn tokens_beside_an_error_are_kept_and_tokens_in_an_error_status_are_not() {
        tokens(r#"{"access_token":"a","error":"invalid_grant"}"#);
        let body = br#"{"access_token":"a"}"#;
        assert!(read(&shipped("oidc").unwrap(), StatusCode::BAD_REQUEST, body).is_err());
    }

    proptest! {
        #[test]
        fn no_lifetime_is_negative_zero_or_longer_than_ten_years(number in any::<f64>(), quoted in any::<bool>()) {
            let written = if number.is_finite() { format!("{number:?}") } else { "null".to_owned() };
            let expires_in = lifetime(&if quoted { format!("\"{written}\"") } else { written });
            prop_assert_eq!(expires_in.is_some(), number.is_finite() && number > 0.0);
            prop_assert!(expires_in.is_none_or(|lifetime| lifetime <= LONGEST));
        }

        #[test]
        fn any_bytes_are_judged(status in 100_u16..600, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&shipped("github").unwrap(), StatusCode::from_u16(status).unwrap(), &body);
        }

        #[test]
        fn any_members_are_judged(
            status in 100_u16..600,
            access in ".{0,40}", error in ".{0,40}", expires in ".{0,12}", scope in ".{0,40}", kind in ".{0,8}",
        ) {
            let body = serde_json::json!({
                "access_token": access, "error": error, "expires_in": expires, "scope": scope, "token_type": kind,
            });
            let read = read(&shipped("github").unwrap(), StatusCode::from_u16(status).unwrap(), body.to_string().as_bytes());
            prop_assert!(read.is_err() || (200..300).contains(&status));
            prop_assert!(read.is_err() || !access.is_empty());
        }
    }
}
