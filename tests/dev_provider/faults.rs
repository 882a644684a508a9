//! What goes wrong on demand.

use super::*;

#[tokio::test]
async fn an_answer_comes_instead_and_nothing_happens() {
    let dev = Dev::start().await;
    let first = dev.tokens().await;
    let busy = Answer::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "temporarily_unavailable" }))
        .with(RETRY_AFTER, HeaderValue::from_static("7"));
    let firewall = Answer::new(StatusCode::BAD_REQUEST, "<html>blocked</html>")
        .with(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    let false_success = Answer::json(StatusCode::OK, &json!({ "error": "bad_verification_code" }));
    dev.provider.faults().arm(Endpoint::Token, Fault::Answer(busy), 2);
    dev.provider.faults().arm(Endpoint::Token, Fault::Answer(firewall), 1);
    dev.provider.faults().arm(Endpoint::Token, Fault::Answer(false_success), 1);
    for _ in 0..2 {
        let reply = dev.refresh(text(&first, "refresh_token")).await.unwrap();
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(reply.headers[RETRY_AFTER], "7");
    }
    let reply = dev.refresh(text(&first, "refresh_token")).await.unwrap();
    assert_eq!((reply.status, &reply.body[..]), (StatusCode::BAD_REQUEST, &b"<html>blocked</html>"[..]));
    assert_eq!(reply.headers.get_all(CONTENT_TYPE).iter().count(), 1);
    let reply = dev.refresh(text(&first, "refresh_token")).await.unwrap();
    assert_eq!(error_of(&reply), (StatusCode::OK, "bad_verification_code".to_owned()));
    assert_eq!(dev.provider.token_requests().pop().unwrap().outcome, TokenOutcome::Fault);
    assert_eq!(dev.provider.faults().armed(), 0);
    dev.refreshed(text(&first, "refresh_token")).await;
    assert_eq!(dev.provider.stats().token_requests(GrantType::RefreshToken), 5);
    assert_eq!(dev.provider.stats().requests(Endpoint::Token), 6);
}

#[tokio::test]
async fn a_drop_loses_the_request() {
    let dev = Dev::start().await;
    let first = dev.tokens().await;
    dev.provider.faults().arm(Endpoint::Token, Fault::Drop, 1);
    let lost = dev.refresh(text(&first, "refresh_token")).await;
    assert!(matches!(lost, Err(OutboundError::AnswerLost { .. })));
    assert!(dev.provider.is_refresh_token_live(&refresh_token(&first)));
}

#[tokio::test]
async fn a_lost_answer_was_an_answer() {
    let dev = Dev::start().await;
    for fault in [Fault::CommitThenDrop, Fault::CommitThenTruncate] {
        let first = dev.tokens().await;
        dev.provider.faults().arm(Endpoint::Token, fault.clone(), 1);
        let lost = dev.refresh(text(&first, "refresh_token")).await;
        assert!(matches!(lost, Err(OutboundError::AnswerLost { .. })), "{fault:?}");
        assert!(!dev.provider.is_refresh_token_live(&refresh_token(&first)), "{fault:?}");
        let last = dev.provider.token_requests().pop().unwrap();
        let TokenOutcome::Issued(grant) = last.outcome else { panic!("nothing was issued") };
        assert_eq!(dev.provider.live_refresh_tokens(&grant), 1);
    }
}

#[tokio::test]
async fn a_truncated_answer_arrives_in_part() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dev = Dev::start().await;
    dev.provider.faults().arm(Endpoint::Jwks, Fault::CommitThenTruncate, 1);
    let mut stream = tokio::net::TcpStream::connect(dev.provider.address()).await.unwrap();
    let request = format!("GET /jwks HTTP/1.1\r\nhost: {}\r\n\r\n", dev.provider.address());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let whole = dev.get("/jwks").await.body;
    assert!(head.to_lowercase().contains(&format!("content-length: {}", whole.len())));
    assert_eq!(body.as_bytes(), &whole[..whole.len() / 2]);
}

#[tokio::test]
async fn a_proxys_error_can_hide_a_success() {
    let dev = Dev::start().await;
    let first = dev.tokens().await;
    let gateway = Answer::new(StatusCode::BAD_GATEWAY, "bad gateway");
    dev.provider.faults().arm(Endpoint::Token, Fault::CommitThenAnswer(gateway), 1);
    let reply = dev.refresh(text(&first, "refresh_token")).await.unwrap();
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    assert!(!dev.provider.is_refresh_token_live(&refresh_token(&first)));
}

#[tokio::test]
async fn answers_are_edited_as_asked() {
    let dev = Dev::start().await;
    let odd = [json!(0), json!(-1), json!("3600"), json!(3600.5), json!(1e18), Value::Null];
    for expires_in in odd {
        let set = Map::from_iter([("expires_in".to_owned(), expires_in.clone())]);
        dev.provider.faults().arm(Endpoint::Token, Fault::Edit { set, remove: vec!["scope".to_owned()] }, 1);
        let answer = dev.tokens().await;
        assert_eq!((&answer["expires_in"], answer.get("scope")), (&expires_in, None));
        assert_eq!(dev.api("/api/calendar", &answer["access_token"]).await, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_refresh_token_that_is_not_renewed_stays_live() {
    let dev = Dev::start().await;
    let first = dev.tokens().await;
    for (how, expected) in [
        (MissingRefreshToken::Omit, None),
        (MissingRefreshToken::Empty, Some(json!(""))),
        (MissingRefreshToken::Null, Some(Value::Null)),
    ] {
        dev.provider.faults().arm(Endpoint::Token, Fault::RefreshToken(how), 1);
        let answer = dev.refreshed(text(&first, "refresh_token")).await;
        assert_eq!(answer.get("refresh_token"), expected.as_ref());
        assert!(dev.provider.is_refresh_token_live(&refresh_token(&first)));
    }
}

#[tokio::test]
async fn scopes_shrink_in_earnest() {
    let dev = Dev::start().await;
    dev.provider.faults().arm(Endpoint::Token, Fault::Scope("notes.read".parse().into_iter().collect()), 1);
    let answer = dev.tokens().await;
    assert_eq!(answer["scope"], "notes.read");
    assert_eq!(dev.api("/api/calendar", &answer["access_token"]).await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_id_token_can_name_somebody_else() {
    let dev = Dev::start().await;
    dev.provider.faults().arm(Endpoint::Token, Fault::IdTokenSubject("mallory".to_owned()), 1);
    let answer = dev.tokens().await;
    let (_, claims) = dev.verified("/jwks", CLIENT_ID, text(&answer, "id_token")).await.unwrap();
    assert_eq!(claims["sub"], "mallory");
}

#[tokio::test]
async fn a_hold_keeps_requests_until_they_are_released() {
    let dev = Dev::start().await;
    let first = dev.tokens().await;
    let hold = dev.provider.faults().hold(Endpoint::Token, HoldPoint::Request);
    let (reply, ()) = tokio::join!(dev.refresh(text(&first, "refresh_token")), async {
        hold.arrived(1).await;
        assert!(dev.provider.is_refresh_token_live(&refresh_token(&first)), "it has not taken effect");
        hold.release();
    });
    let second = json_of(&reply.unwrap());
    let hold = dev.provider.faults().hold(Endpoint::Token, HoldPoint::Answer);
    let (reply, ()) = tokio::join!(dev.refresh(text(&second, "refresh_token")), async {
        hold.arrived(1).await;
        assert!(!dev.provider.is_refresh_token_live(&refresh_token(&second)), "it has taken effect");
        drop(hold);
    });
    assert_eq!(reply.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_gives_up_does_not_undo_a_held_answer() {
    let dev = Dev::start().await;
    let first = dev.tokens().await;
    let hold = dev.provider.faults().hold(Endpoint::Token, HoldPoint::Answer);
    tokio::select! {
        _ = dev.refresh(text(&first, "refresh_token")) => panic!("the answer was held"),
        () = hold.arrived(1) => {}
    }
    assert!(!dev.provider.is_refresh_token_live(&refresh_token(&first)));
}

#[tokio::test]
async fn a_request_that_its_client_gave_up_still_takes_effect() {
    let dev = Dev::start().await;
    let first = dev.tokens().await;
    let hold = dev.provider.faults().hold(Endpoint::Token, HoldPoint::Request);
    tokio::select! {
        _ = dev.refresh(text(&first, "refresh_token")) => panic!("the request was held"),
        () = hold.arrived(1) => {}
    }
    assert!(dev.provider.is_refresh_token_live(&refresh_token(&first)));
    let done = dev.provider.faults().hold(Endpoint::Token, HoldPoint::Answer);
    hold.release();
    done.arrived(1).await;
    assert!(!dev.provider.is_refresh_token_live(&refresh_token(&first)));
    assert!(matches!(dev.provider.token_requests().pop().unwrap().outcome, TokenOutcome::Issued(_)));
}

#[tokio::test]
async fn authorization_responses_lie_as_asked() {
    let dev = Dev::start().await;
    let lie = |set: &[(&str, &str)], remove: &[&str]| Fault::EditRedirect {
        set: set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        remove: remove.iter().map(|name| (*name).to_owned()).collect(),
    };
    dev.provider.faults().arm(Endpoint::Consent, lie(&[("iss", "https://honest.example")], &["state"]), 1);
    let end = dev.visit(&dev.authorization_url(&[]), "alice", Decision::Approve).await.unwrap();
    let query = query_of(&end);
    assert_eq!((query["iss"].as_str(), query.get("state")), ("https://honest.example", None));
    assert_eq!(dev.exchange(&query["code"]).await.unwrap().status, StatusCode::OK);
    dev.provider.faults().arm(Endpoint::Consent, lie(&[], &["iss"]), 1);
    let end = dev.visit(&dev.authorization_url(&[]), "alice", Decision::Deny).await.unwrap();
    assert_eq!(query_of(&end).get("iss"), None);
}

#[tokio::test]
async fn are_armed_over_http_too() {
    let dev = Dev::start().await;
    let arm = async |fault: Value| {
        let body = json!({ "endpoint": "token", "fault": fault });
        dev.remote(Method::POST, "/dev/faults", Some(body)).await.status
    };
    assert_eq!(arm(json!({ "answer": { "status": 429, "headers": { "retry-after": "1" } } })).await, 204);
    assert_eq!(arm(json!("commit_then_drop")).await, 204);
    assert_eq!(arm(json!({ "edit": { "set": { "expires_in": "60" } } })).await, 204);
    assert_eq!(arm(json!({ "refresh_token": "omit" })).await, 204);
    assert_eq!(arm(json!({ "scope": "notes.read" })).await, 204);
    assert_eq!(arm(json!({ "answer": { "status": 101 } })).await, 422);
    assert_eq!(arm(json!("explode")).await, 422);
    assert_eq!(dev.provider.faults().armed(), 5);
    assert_eq!(dev.refresh("unknown").await.unwrap().status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(dev.remote(Method::DELETE, "/dev/faults", None).await.status, 204);
    assert_eq!(error_of(&dev.refresh("unknown").await.unwrap()), invalid_grant());
    let stats = json_of(&dev.get("/dev/stats").await);
    assert_eq!(stats, json!({ "requests": { "token": 2 }, "token_requests": { "refresh_token": 2 } }));
}

#[tokio::test]
async fn requests_are_held_over_http_too() {
    let dev = Dev::start().await;
    let body = json!({ "endpoint": "jwks", "point": "request" });
    assert_eq!(dev.remote(Method::POST, "/dev/holds", Some(body)).await.status, 204);
    let (reply, ()) = tokio::join!(dev.get("/jwks"), async {
        while json_of(&dev.get("/dev/holds").await) != json!([1]) {}
        assert_eq!(dev.remote(Method::DELETE, "/dev/holds", None).await.status, 204);
    });
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test]
async fn every_named_fault_is_suffered_by_a_refresh_and_by_no_code() {
    for named in NAMED_FAULTS {
        let dev = Dev::start().await;
        let fault: Fault = named.name.parse().unwrap();
        dev.provider.faults().add(Arm::refresh(fault.clone()));
        let first = dev.tokens().await;
        assert_eq!(dev.provider.faults().armed(), 1, "{}: the code's exchange is no refresh", named.name);
        let usual = dev.tokens().await;
        let refreshing = dev.refresh(text(&first, "refresh_token"));
        if let Fault::Slow { point, .. } = fault {
            let reached = async {
                while dev.provider.faults().armed() > 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                _ = refreshing => panic!("time stands still here, and it was answered"),
                () = reached => {}
            }
            assert!(point == HoldPoint::Answer || dev.provider.is_refresh_token_live(&refresh_token(&first)));
            continue;
        }
        match refreshing.await {
            Err(error) => assert!(matches!(error, OutboundError::AnswerLost { .. }), "{}: {error}", named.name),
            // The ID token's subject is looked at elsewhere.
            Ok(reply) => assert!(!is_usual(&reply, &usual) || named.name == "other_subject", "{}", named.name),
        }
        assert_eq!(dev.provider.faults().armed(), 0, "{}", named.name);
    }
}

/// Whether tokens came, in the shape in which they come.
fn is_usual(reply: &Reply, usual: &Value) -> bool {
    let Ok(mut answer) = serde_json::from_slice::<Map<_, _>>(&reply.body) else { return false };
    let mut usual = usual.as_object().unwrap().clone();
    let tokens = ["access_token", "refresh_token", "id_token"].map(|name| (answer.remove(name), usual.remove(name)));
    let came = tokens
        .iter()
        .all(|(token, _)| token.as_ref().is_some_and(|token| token.as_str().is_some_and(|text| !text.is_empty())));
    reply.status == StatusCode::OK && came && answer == usual
}

#[tokio::test]
async fn a_fault_falls_on_the_requests_that_it_is_armed_for() {
    let dev = Dev::start().await;
    let suffers = async |arm: Value, requests: usize| {
        assert_eq!(dev.remote(Method::POST, "/dev/faults", Some(arm)).await.status, 204);
        let mut which = Vec::new();
        for request in 1..=requests {
            if dev.get("/jwks").await.status == StatusCode::IM_A_TEAPOT {
                which.push(request);
            }
        }
        let left = json_of(&dev.get("/dev/faults").await)["armed"].as_u64().unwrap();
        assert_eq!(dev.remote(Method::DELETE, "/dev/faults", None).await.status, 204);
        (which, left)
    };
    let arm = |more: Value| {
        let mut arm = json!({ "endpoint": "jwks", "fault": { "answer": { "status": 418 } } });
        arm.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        arm
    };
    assert_eq!(suffers(arm(json!({})), 3).await, (vec![1], 0));
    assert_eq!(suffers(arm(json!({ "skip": 2 })), 4).await, (vec![3], 0));
    assert_eq!(suffers(arm(json!({ "skip": 1, "count": 2 })), 5).await, (vec![2, 3], 0));
    assert_eq!(suffers(arm(json!({ "count": 3 })), 1).await, (vec![1], 2));
    assert_eq!(suffers(arm(json!({ "count": "always" })), 3).await, (vec![1, 2, 3], u64::from(u32::MAX)));
    assert_eq!(suffers(arm(json!({ "grant_type": "refresh_token" })), 2).await, (vec![], 1));
    // 2^-200 of all runs see none or all.
    let (some, _) = suffers(arm(json!({ "count": "always", "chance": 50 })), 200).await;
    assert!((1..200).contains(&some.len()), "{some:?}");
    for wrong in [json!({ "chance": 0 }), json!({ "chance": 101 }), json!({ "count": "often" }), json!({ "x": 1 })] {
        assert_eq!(dev.remote(Method::POST, "/dev/faults", Some(arm(wrong))).await.status, 422);
    }
}

#[tokio::test]
async fn the_second_in_line_waits_for_what_the_first_leaves() {
    let dev = Dev::start().await;
    let busy = |status| Fault::Busy { status, retry_after: RetryAfter::Absent };
    dev.provider.faults().add(Arm { skip: 1, ..Arm::once(Endpoint::Jwks, busy(StatusCode::TOO_MANY_REQUESTS)) });
    dev.provider.faults().arm(Endpoint::Jwks, busy(StatusCode::SERVICE_UNAVAILABLE), 2);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(dev.get("/jwks").await.status.as_u16());
    }
    assert_eq!(seen, [503, 429, 503, 200]);
}

#[test]
fn a_fault_is_written_short_or_as_json() {
    let lost = Arm::refresh(Fault::CommitThenDrop);
    for (text, arm) in [
        ("commit_then_drop", lost.clone()),
        ("commit_then_drop:3", Arm { count: Count::Times(3), ..lost.clone() }),
        ("commit_then_drop:always", Arm { count: Count::Always, ..lost.clone() }),
        ("commit_then_drop:5%", Arm { count: Count::Always, chance: 5, ..lost.clone() }),
        (r#"{"fault": "commit_then_drop"}"#, Arm { grant_type: None, ..lost.clone() }),
        (r#"{"fault": "commit_then_drop", "grant_type": "refresh_token", "skip": 2}"#, Arm { skip: 2, ..lost }),
    ] {
        assert_eq!(text.parse::<Arm>().unwrap(), arm, "{text}");
    }
    for (text, said) in [
        ("lost", "no fault is named lost; there are: drop, commit_then_drop"),
        ("drop:often", "not often"),
        ("drop:0%", "from 1% to 100%"),
        ("drop:101%", "not 101%"),
        ("{}", "missing field `fault`"),
    ] {
        let error = text.parse::<Arm>().unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_rate_limit_says_when_to_come_back_in_each_way() {
    let dev = Dev::start().await;
    let after = async |name: &str| {
        dev.provider.faults().arm(Endpoint::Token, name.parse().unwrap(), 1);
        let reply = dev.refresh("any").await.unwrap();
        (reply.status.as_u16(), reply.headers.get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned()))
    };
    assert_eq!(after("rate_limited").await, (429, None));
    assert_eq!(after("rate_limited_seconds").await, (429, Some("7".to_owned())));
    assert_eq!(after("rate_limited_date").await, (429, Some("Fri, 15 Jan 2027 08:00:07 GMT".to_owned())));
    assert_eq!(after("rate_limited_forever").await, (429, Some("1000000000".to_owned())));
    assert_eq!(after("unavailable").await, (503, None));
    assert_eq!(after("unavailable_seconds").await, (503, Some("7".to_owned())));
}

#[tokio::test]
async fn a_lifetime_is_told_in_each_shape() {
    let dev = Dev::start().await;
    for (name, member, expected) in [
        ("expires_in_absent", "expires_in", None),
        ("expires_in_zero", "expires_in", Some(json!(0))),
        ("expires_in_negative", "expires_in", Some(json!(-1))),
        ("expires_in_text", "expires_in", Some(json!("60"))),
        ("expires_in_fraction", "expires_in", Some(json!(60.5))),
        ("expires_in_huge", "expires_in", Some(json!(1e18))),
        ("expires_in_milliseconds", "expires_in", Some(json!(60_000))),
        ("expires_at_date", "expires_at", Some(json!("2027-01-15T08:01:00Z"))),
        ("expires_at_seconds", "expires_at", Some(json!(1_800_000_060))),
        ("expires_at_milliseconds", "expires_at", Some(json!(1_800_000_060_000_u64))),
    ] {
        dev.provider.faults().arm(Endpoint::Token, name.parse().unwrap(), 1);
        let answer = dev.tokens().await;
        assert_eq!(answer.get(member), expected.as_ref(), "{name}");
        assert!(member == "expires_in" || answer.get("expires_in").is_none(), "{name}");
    }
}

#[tokio::test]
async fn settings_change_while_the_server_runs() {
    let dev = Dev::start().await;
    let mut token = dev.tokens().await;
    let change = async |change: Value| {
        let reply = dev.remote(Method::PATCH, "/dev/settings", Some(change)).await;
        (reply.status.as_u16(), serde_json::from_slice::<Value>(&reply.body).ok())
    };
    let strict = json!({ "rotation": "strict", "access_token_lifetime": 60 });
    assert_eq!(json_of(&dev.get("/dev/settings").await), strict);
    let none = json!({ "rotation": "none", "access_token_lifetime": 60 });
    assert_eq!(change(json!({ "rotation": "none" })).await, (200, Some(none)));
    assert_eq!(dev.refreshed(text(&token, "refresh_token")).await.get("refresh_token"), None);
    let grace = json!({ "rotation": { "grace": { "seconds": 10 } }, "access_token_lifetime": 5 });
    assert_eq!(change(grace.clone()).await, (200, Some(grace)));
    for _ in 0..2 {
        let next = dev.refreshed(text(&token, "refresh_token")).await;
        assert_eq!(next["expires_in"], 5);
    }
    assert_eq!(change(json!({ "rotation": "strict" })).await.0, 200);
    token = dev.tokens().await;
    dev.refreshed(text(&token, "refresh_token")).await;
    assert_eq!(error_of(&dev.refresh(text(&token, "refresh_token")).await.unwrap()), invalid_grant());
    assert_eq!(change(json!({ "rotation": "sometimes" })).await.0, 422);
}

#[test]
fn the_documentation_lists_every_named_fault() {
    let rows = NAMED_FAULTS.iter().map(|fault| format!("| `{}` | {} |\n", fault.name, fault.about));
    let table = format!("| name | what happens |\n| --- | --- |\n{}", rows.collect::<String>());
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/testing.md")).unwrap();
    assert!(document.contains(&table), "docs/testing.md lacks this table:\n{table}");
}

#[tokio::test]
async fn a_hold_of_refreshes_lets_codes_pass() {
    let dev = Dev::start().await;
    let hold = dev.provider.faults().hold_if(Endpoint::Token, Some(GrantType::RefreshToken), HoldPoint::Request);
    let first = dev.tokens().await;
    assert_eq!(hold.arrivals(), 0);
    let (second, ()) = tokio::join!(dev.refreshed(text(&first, "refresh_token")), async {
        hold.arrived(1).await;
        assert!(dev.provider.is_refresh_token_live(&refresh_token(&first)));
        hold.release();
    });
    assert!(dev.provider.is_refresh_token_live(&refresh_token(&second)));
}

#[tokio::test]
async fn an_answer_that_is_held_and_slow_is_held_first() {
    let dev = Dev::start().await;
    let first = dev.tokens().await;
    dev.provider.faults().arm(Endpoint::Token, "slow_answer".parse().unwrap(), 1);
    let hold = dev.provider.faults().hold(Endpoint::Token, HoldPoint::Answer);
    tokio::select! {
        _ = dev.refresh(text(&first, "refresh_token")) => panic!("the answer was held"),
        () = hold.arrived(1) => {}
    }
    assert!(!dev.provider.is_refresh_token_live(&refresh_token(&first)));
}
