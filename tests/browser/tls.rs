//! The same over TLS, under a name: the cookies are such as only this host can set.

use claviger::config::TlsSection;
use tempfile::TempDir;

use crate::{
    browser::Browser,
    person::{APPROVE, Link, nothing_is_stored},
    pki::{Authority, files},
    world::{PLUGIN, Pages, Settings, World, ask},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_only_host_cookies_open_anything() {
    let (authority, directory) = (Authority::new(), TempDir::new().unwrap());
    authority.server().write(directory.path());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let pages = Some(Pages { listener, public_url: format!("https://localhost:{port}").parse().unwrap() });
    let tls = files(directory.path());
    let configure = move |config: &mut claviger::config::Config| config.http.tls = Some(TlsSection::Files(tls.clone()));
    let settings = Settings { pages, configure: Box::new(configure), ..Settings::default() };
    let world = World::start_with(settings).await;
    assert!(world.provider.issuer().starts_with("http://127.0.0.1:"), "another site than localhost");

    let alice = world.client("alice");
    let link = Link::of(&alice).await;
    assert_eq!(link.url.host_str(), Some("localhost"));
    let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let mut browser = Browser::trusting(Some(root));
    let consent = browser.signed_in(&link, "alice").await;
    assert!(browser.cookie_names().contains(&format!("__Host-session-{}", link.flow).as_str()));
    let answer = browser.answer(&consent, "alice", APPROVE).await;
    assert!(browser.cookie_names().contains(&format!("__Host-flow-{}", link.flow).as_str()));

    // A neighbour's cookies, with the right secrets under names that a neighbour can set.
    let mut planted = browser.fresh();
    planted.plant(&browser, "__Host-", "");
    assert_eq!(planted.open(&answer).await.status, reqwest::StatusCode::FORBIDDEN);
    assert_eq!(browser.fresh().open(&answer).await.status, reqwest::StatusCode::FORBIDDEN);
    nothing_is_stored(&world).await;

    assert!(browser.open(&answer).await.shows("Connected"));
    let token = alice.get_plugin_token(ask(PLUGIN)).await.unwrap();
    assert!(world.accepts(&token));
}
