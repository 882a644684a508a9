//! What was acknowledged is there after `kill -9`, every time.

use claviger::{
    outbound::Request,
    proto::v1::{self, store_auth_code_request::Flow},
};
use http::HeaderValue;

use crate::dev::{Dev, Place, ask, ask_for_a_new_one, outbound};

/// Half a minute of them, or many minutes under `make soak`.
#[expect(clippy::disallowed_methods, reason = "how long to test is not the product's configuration")]
fn rounds() -> u32 {
    if std::env::var_os("CLAVIGER_SOAK").is_some() { 500 } else { 20 }
}

/// What the broker said last, and so must still know.
struct Acknowledged {
    connection: String,
    generation: u64,
    /// The token of that generation, where it was handed out.
    access_token: Option<String>,
    code: Option<v1::FlowCode>,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill() {
    let place = Place::new();
    let mut acknowledged: Option<Acknowledged> = None;
    for round in 0..rounds() {
        // Nothing is refreshed but by this test.
        let dev = place.start_as(place.command().args(["--access-token-lifetime", "3600"]));
        if let Some(acknowledged) = &acknowledged {
            check(&dev, acknowledged).await;
        }
        let before = acknowledged.as_ref().map_or(0, |acknowledged| acknowledged.generation);
        let after = if round % 2 == 0 { store(&dev).await } else { refresh(&dev).await };
        assert!(after.generation > before, "round {round}: {} after {before}", after.generation);
        if let Some(before) = &acknowledged {
            assert_eq!(after.connection, before.connection);
        }
        acknowledged = Some(after);
        let killed = dev.kill();
        assert_eq!(killed.status.code(), None, "round {round}: it ended before it was killed");
    }
}

async fn store(dev: &Dev<'_>) -> Acknowledged {
    let code = dev.printed_code();
    let connection = dev.connect().await;
    Acknowledged {
        connection: connection.connection_id,
        generation: connection.generation,
        access_token: None,
        code: Some(code),
    }
}

async fn refresh(dev: &Dev<'_>) -> Acknowledged {
    let token = dev.client().get_plugin_token(ask_for_a_new_one()).await.unwrap();
    Acknowledged {
        connection: token.connection_id,
        generation: token.generation,
        access_token: Some(token.access_token),
        code: None,
    }
}

async fn check(dev: &Dev<'_>, acknowledged: &Acknowledged) {
    let token = dev.client().get_plugin_token(ask()).await.unwrap();
    assert_eq!((&token.connection_id, token.generation), (&acknowledged.connection, acknowledged.generation));
    if let Some(expected) = &acknowledged.access_token {
        assert!(*expected == token.access_token, "generation {} has another token", token.generation);
    }
    let bearer = HeaderValue::from_str(&format!("Bearer {}", token.access_token)).unwrap();
    let api = token.usage.unwrap().base_url.parse().unwrap();
    assert_eq!(outbound().send(Request::get(api).authorization(bearer)).await.unwrap().status, 200);
    if let Some(code) = &acknowledged.code {
        let again = v1::StoreAuthCodeRequest { flow: Some(Flow::FlowCode(code.clone())) };
        let stored = dev.client().store_auth_code(again).await.unwrap().connection.unwrap();
        assert_eq!((stored.connection_id, stored.generation), (token.connection_id, token.generation));
    }
    // The stored refresh token is the one that the provider takes.
    let refreshed = dev.client().get_plugin_token(ask_for_a_new_one()).await.unwrap();
    assert_eq!(refreshed.generation, acknowledged.generation + 1);
}
