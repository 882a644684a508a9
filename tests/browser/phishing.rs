//! Whoever opens a link need not be whoever it was made for, and whoever comes back from the provider need not be whoever
//! was sent there.

use claviger::{
    dev::{Endpoint, Fault},
    domain::{AuditAction, AuditResult, Reason},
    proto::v1::{AuthorizationState, ErrorReason},
};
use reqwest::StatusCode;
use serde_json::json;
use url::Url;

use crate::{
    browser::{Browser, Page, Sent},
    person::{
        APPROVE, DENY, Link, OAUTH_CALLBACK, browser_start, exchanges, nothing_is_stored, refusals, trail, world,
    },
    world::{World, code_of, parameter, reason, start},
};

const STRANGER: (AuditResult, Option<Reason>) = (AuditResult::Refused, Some(Reason::FlowNotFound));
const OPEN: (AuthorizationState, ErrorReason) = (AuthorizationState::Pending, ErrorReason::Unspecified);

/// A flow of alice's that is at the provider, and the answer that the provider wants her browser to bring.
struct Underway {
    world: World,
    link: Link,
    browser: Browser,
    answer: Url,
}

impl Underway {
    async fn start() -> Self {
        Self::in_world(world().await).await
    }

    async fn in_world(world: World) -> Self {
        let link = Link::of(&world.client("alice")).await;
        let mut browser = Browser::new();
        let consent = browser.signed_in(&link, "alice").await;
        let answer = browser.answer(&consent, "alice", APPROVE).await;
        Self { world, link, browser, answer }
    }

    /// The answer with other parameters.
    fn answer_with(&self, edit: impl Fn(&str, String) -> Option<String>) -> Url {
        let pairs =
            self.answer.query_pairs().map(|(name, value)| (name.clone().into_owned(), edit(&name, value.into())));
        let kept: Vec<_> = pairs.filter_map(|(name, value)| Some((name, value?))).collect();
        let mut url = self.answer.clone();
        url.query_pairs_mut().clear().extend_pairs(kept);
        url
    }

    async fn is_untouched(&self) {
        nothing_is_stored(&self.world).await;
        assert_eq!(self.link.state(&self.world.client("alice")).await, OPEN);
    }

    /// The right answer from the right browser is still taken.
    async fn can_still_finish(&mut self) {
        let done = self.browser.open(&self.answer).await;
        assert!(done.shows("Connected"), "{}", done.body);
    }
}

fn is_refused(page: &Page, status: StatusCode) {
    assert_eq!(page.status, status, "{}", page.body);
    assert!(page.headers.get("set-cookie").is_none());
}

// Who opens the link.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_link_shows_nothing_and_connects_nothing() {
    let mut world = world().await;
    let link = Link::of(&world.client("alice")).await;
    let mut bobs = Browser::new();
    let refused = bobs.signed_in(&link, "bob").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.url.path(), format!("/connect/{}/wrong-user", link.flow));
    assert_eq!(refused.url.query(), None);
    assert!(refused.shows("somebody else"), "{}", refused.body);
    assert!(!refused.shows("Calendar") && !refused.shows("calendar.read"), "bob learns nothing of what alice began");
    assert_eq!(bobs.cookie_names().iter().filter(|name| name.contains(&link.flow)).count(), 0);
    let again = bobs.open(&link.url).await;
    assert!(again.shows("Log in"), "there is no session of his: {}", again.body);
    is_refused(&bobs.send(Sent::post(&link.url, "token=x&decision=approve".into())).await, StatusCode::FORBIDDEN);
    nothing_is_stored(&world).await;
    assert_eq!(link.state(&world.client("alice")).await, OPEN);

    let records = trail(&mut world).await;
    let refused: Vec<_> = records.iter().filter(|record| record.action == AuditAction::SignedIn).collect();
    let [refused] = refused.as_slice() else { panic!("{refused:?}") };
    assert_eq!((refused.result, refused.reason), STRANGER);
    let owner = records.iter().find(|record| record.action == AuditAction::AuthorizationStarted).unwrap();
    assert_ne!(refused.subject, owner.subject, "it is bob who was refused");
    assert_eq!(refused.peer, Some("127.0.0.1".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_signed_in_as_somebody_else_can_sign_in_as_themselves() {
    let world = world().await;
    let link = Link::of(&world.client("alice")).await;
    let mut browser = Browser::new();
    let refused = browser.signed_in(&link, "bob").await;
    let login = browser.open(&refused.link("Sign in as somebody else").unwrap()).await;
    assert_eq!(parameter(&login.url, "prompt"), "login", "or the issuer would sign bob in again");
    let consent = browser.press(&login, "user", "alice").await;
    assert!(consent.shows("Calendar"), "{}", consent.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_session_there_is_only_the_way_to_sign_in() {
    let world = world().await;
    let link = Link::of(&world.client("alice")).await;
    let mut nobody = Browser::new();
    let seen = nobody.send(Sent::get(&link.url)).await;
    assert_eq!(seen.status, StatusCode::SEE_OTHER);
    assert!(!seen.shows("Calendar"));
    for decision in ["approve", "deny"] {
        let body = format!("token=x&decision={decision}");
        is_refused(&nobody.send(Sent::post(&link.url, body)).await, StatusCode::FORBIDDEN);
    }
    nothing_is_stored(&world).await;
    assert_eq!(link.state(&world.client("alice")).await, OPEN);
}

// Who brings the answer.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_victim_who_is_sent_to_the_provider_connects_nothing() {
    let mut world = world().await;
    let link = Link::of(&world.client("alice")).await;
    let mut attacker = Browser::new();
    let consent = attacker.signed_in(&link, "alice").await;
    let leaving = attacker.press(&consent, APPROVE.0, APPROVE.1).await;
    let bait = leaving.link("Continue to").unwrap();

    let mut victim = Browser::new();
    let login = victim.open(&bait).await;
    let page = victim.press(&login, "user", "bob").await;
    let refused = victim.press(&page, APPROVE.0, APPROVE.1).await;
    is_refused(&refused, StatusCode::FORBIDDEN);
    nothing_is_stored(&world).await;
    assert_eq!(link.state(&world.client("alice")).await, OPEN);
    assert_eq!(refusals(&mut world, AuditAction::AuthorizationAnswered).await, [STRANGER]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_taken_only_with_both_cookies_of_its_own_browser() {
    let mut underway = Underway::start().await;
    let (link, answer) = (&underway.link, underway.answer.clone());
    let mut other = Browser::new();
    is_refused(&other.open(&answer).await, StatusCode::FORBIDDEN);
    other.steal(&underway.browser, "session-");
    is_refused(&other.open(&answer).await, StatusCode::FORBIDDEN);
    let mut other = Browser::new();
    other.steal(&underway.browser, "flow-");
    is_refused(&other.open(&answer).await, StatusCode::FORBIDDEN);

    // Another browser of the owner's, with an attempt of its own.
    let mut second = Browser::new();
    let consent = second.signed_in(link, "alice").await;
    second.provider_consent(&consent, "alice").await;
    is_refused(&second.open(&answer).await, StatusCode::FORBIDDEN);
    underway.is_untouched().await;
    // One record covers what is alike within its window, and all of it is alike.
    assert_eq!(refusals(&mut underway.world, AuditAction::AuthorizationAnswered).await, [STRANGER]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_taken_before_the_owner_agreed() {
    let mut world = world().await;
    let alice = world.client("alice");
    let link = Link::of(&alice).await;
    let mut browser = Browser::new();
    let consent = browser.signed_in(&link, "alice").await;
    assert!(browser.cookie_names().iter().all(|name| !name.contains("flow-flw")), "{:?}", browser.cookie_names());
    let callback = consent.url.join(OAUTH_CALLBACK).unwrap();
    let mut guessed = callback.clone();
    guessed.query_pairs_mut().append_pair("code", "c").append_pair("state", &link.flow);
    is_refused(&browser.open(&guessed).await, StatusCode::NOT_FOUND);
    // An attempt of binding CALLER knows no browser, and ours takes none of its answers.
    let started = alice.start_authorization(start("calendar")).await.unwrap();
    let mut foreign = callback;
    let state = parameter(&started.authorization_url.parse().unwrap(), "state");
    foreign.query_pairs_mut().append_pair("code", "c").append_pair("state", &state);
    is_refused(&browser.open(&foreign).await, StatusCode::NOT_FOUND);
    nothing_is_stored(&world).await;
    assert_eq!(refusals(&mut world, AuditAction::AuthorizationAnswered).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_for_a_browser_is_not_taken_from_an_application() {
    let mut underway = Underway::start().await;
    let alice = underway.world.client("alice");
    let stored = alice.store_auth_code(code_of(&underway.answer)).await;
    assert_eq!(reason(stored), ErrorReason::FlowNotFound);
    underway.is_untouched().await;
    underway.can_still_finish().await;
}

// How often.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_taken_once() {
    let mut underway = Underway::start().await;
    let mut copy = underway.browser.clone();
    underway.can_still_finish().await;
    let connections = underway.world.live_refresh_tokens();
    for browser in [&mut copy, &mut underway.browser] {
        let again = browser.open(&underway.answer).await;
        assert!(again.status.is_client_error(), "{}", again.body);
    }
    assert_eq!(exchanges(&underway.world), 1);
    assert_eq!(underway.world.live_refresh_tokens(), connections, "the connection lives on");
    let consumed = (AuditResult::Failed, Some(Reason::FlowConsumed));
    assert_eq!(
        refusals(&mut underway.world, AuditAction::AuthorizationAnswered).await,
        [consumed, STRANGER],
        "the copy has the flow cookie still, the browser itself has not"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_answers_at_once_one_is_taken() {
    let mut underway = Underway::start().await;
    let mut racing = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (mut browser, answer) = (underway.browser.clone(), underway.answer.clone());
        racing.spawn(async move { browser.send(Sent::get(&answer)).await.status });
    }
    let statuses = racing.join_all().await;
    let taken = statuses.iter().filter(|status| **status == StatusCode::SEE_OTHER).count();
    let refused = statuses.iter().filter(|status| **status == StatusCode::CONFLICT).count();
    assert_eq!((taken, refused), (1, 5), "{statuses:?}");
    assert_eq!(exchanges(&underway.world), 1);
    let consumed = (AuditResult::Failed, Some(Reason::FlowConsumed));
    assert!(refusals(&mut underway.world, AuditAction::AuthorizationAnswered).await.contains(&consumed));
}

// Which state, which issuer, which parameters.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_another_state_connects_nothing() {
    let mut underway = Underway::start().await;
    let unknown = underway.answer_with(|name, value| Some(if name == "state" { "A".repeat(43) } else { value }));
    is_refused(&underway.browser.open(&unknown).await, StatusCode::NOT_FOUND);
    underway.is_untouched().await;

    // The state of another flow of the same person in the same browser: PKCE refuses the code.
    let alice = underway.world.client("alice");
    let notes = Link::started(&alice, browser_start("notes")).await;
    let consent = underway.browser.signed_in(&notes, "alice").await;
    let other = underway.browser.answer(&consent, "alice", APPROVE).await;
    let state = parameter(&other, "state");
    let swapped = underway.answer_with(|name, value| Some(if name == "state" { state.clone() } else { value }));
    let failed = underway.browser.open(&swapped).await;
    assert!(failed.shows("Not connected"), "{}", failed.body);
    let ended = (AuthorizationState::Failed, ErrorReason::ExchangeRefused);
    assert_eq!(notes.state(&alice).await, ended);
    assert_eq!(underway.world.live_refresh_tokens(), 0);
}

/// RFC 9207 §2.4: whether the server announces `iss`, what comes, and whether it is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_another_issuer_is_refused() {
    for announced in [true, false] {
        let world = world().await;
        let member = "authorization_response_iss_parameter_supported".to_owned();
        let fault = Fault::Edit { set: [(member, json!(announced))].into_iter().collect(), remove: Vec::new() };
        world.provider.faults().arm(Endpoint::Metadata, fault, 9);
        let mut underway = Underway::in_world(world).await;
        let honest = underway.world.provider.issuer();
        assert_eq!(parameter(&underway.answer, "iss"), honest);
        let elsewhere = |name: &str, value| Some(if name == "iss" { "https://evil.example".to_owned() } else { value });
        let slashed = |name: &str, value: String| Some(if name == "iss" { value + "/" } else { value });
        let mut refused = vec![underway.answer_with(elsewhere), underway.answer_with(slashed)];
        let silent = underway.answer_with(|name, value| (name != "iss").then_some(value));
        if announced {
            refused.push(silent.clone());
        }
        for url in refused {
            // The same answer as an error is not believed either.
            let mut error = url.clone();
            let kept = url.query_pairs().filter(|(name, _)| name != "code");
            error.query_pairs_mut().clear().extend_pairs(kept).append_pair("error", "access_denied");
            for url in [url, error] {
                let page = underway.browser.open(&url).await;
                is_refused(&page, StatusCode::FORBIDDEN);
                assert!(!page.shows("access_denied") && !page.shows("evil.example"), "{}", page.body);
            }
        }
        underway.is_untouched().await;
        if announced {
            underway.can_still_finish().await;
        } else {
            let done = underway.browser.open(&silent).await;
            assert!(done.shows("Connected"), "{}", done.body);
        }
        let mismatch = (AuditResult::Failed, Some(Reason::IssuerMismatch));
        assert_eq!(refusals(&mut underway.world, AuditAction::AuthorizationAnswered).await, [mismatch]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parameter_that_stands_twice_is_refused() {
    let mut underway = Underway::start().await;
    let query = underway.answer.query().unwrap().to_owned();
    for more in ["code=x", "state=x", "iss=https://evil.example", "error=access_denied", "state="] {
        for doubled in [format!("{query}&{more}"), format!("{more}&{query}")] {
            let mut url = underway.answer.clone();
            url.set_query(Some(&doubled));
            is_refused(&underway.browser.open(&url).await, StatusCode::BAD_REQUEST);
        }
    }
    underway.is_untouched().await;
    underway.can_still_finish().await;
    let malformed = (AuditResult::Failed, Some(Reason::InvalidArgument));
    assert_eq!(refusals(&mut underway.world, AuditAction::AuthorizationAnswered).await, [malformed]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_cannot_fill_the_disk() {
    let mut underway = Underway::start().await;
    let before = {
        let all = trail(&mut underway.world).await;
        underway.world.run().await;
        all.len()
    };
    let mut stranger = Browser::new();
    for number in 0..20 {
        let query = format!("code=c{number}&state={}", "A".repeat(43));
        let at = |path: &str| underway.link.url.join(&format!("{path}?{query}")).unwrap();
        let callback = underway.link.url.join(OAUTH_CALLBACK).unwrap();
        stranger.send(Sent::get(&underway.link.url)).await;
        stranger.send(Sent::get(&at(OAUTH_CALLBACK))).await;
        stranger.send(Sent::get(&at("/login/callback"))).await;
        stranger.send(Sent::post(&callback, query)).await;
        stranger.send(Sent::post(&underway.link.url, "token=x&decision=deny".into())).await;
    }
    assert_eq!(trail(&mut underway.world).await.len(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_by_the_user_is_brought_by_their_browser_alone() {
    let world = world().await;
    let link = Link::of(&world.client("alice")).await;
    let mut browser = Browser::new();
    let consent = browser.signed_in(&link, "alice").await;
    let refusal = browser.answer(&consent, "alice", DENY).await;
    is_refused(&Browser::new().open(&refusal).await, StatusCode::FORBIDDEN);
    assert_eq!(link.state(&world.client("alice")).await, OPEN);
}
