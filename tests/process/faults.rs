//! A provider that fails as the command line says.

use claviger::{outbound::Request, proto::v1::ErrorReason};
use serde_json::{Value, json};

use crate::{
    dev::{Place, ask_for_a_new_one, outbound, run},
    process::Finished,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_suffers_the_fault_that_the_command_line_names() {
    let place = Place::new();
    let arguments = [
        "--provider-fault",
        "rate_limited_seconds",
        "--provider-fault",
        "invalid_grant:always",
        "--provider-rotation",
        "grace:30",
        "--access-token-lifetime",
        "3600",
    ];
    let dev = place.start_as(place.command().args(arguments));
    let settings = Request::get(format!("{}/dev/settings", dev.issuer()).parse().unwrap());
    let settings: Value = serde_json::from_slice(&outbound().send(settings).await.unwrap().body).unwrap();
    assert_eq!(settings, json!({ "rotation": { "grace": { "seconds": 30 } }, "access_token_lifetime": 3600 }));
    dev.connect().await;
    // The first is passing, so the token of before is served; the second ends the connection at its next refresh.
    let kept = dev.client().get_plugin_token(ask_for_a_new_one()).await.unwrap();
    assert_eq!(kept.generation, 1);
    drop(dev);

    let dev = place.start_as(place.command().args(&arguments[2..]));
    dev.connect().await;
    let error = dev.client().get_plugin_token(ask_for_a_new_one()).await.err().unwrap();
    assert_eq!(error.reason, Some(ErrorReason::ReauthorizationRequired), "{error:?}");
}

#[test]
fn a_fault_or_a_rotation_that_there_is_not_is_refused_with_what_there_is() {
    let place = Place::new();
    let refused = |option: &str, value: &str| -> Finished { run(place.command().args([option, value])) };
    let fault = refused("--provider-fault", "lost");
    fault.expect_code(2);
    assert!(fault.stderr.contains("no fault is named lost; there are: drop, commit_then_drop,"), "{}", fault.stderr);
    let rotation = refused("--provider-rotation", "sometimes");
    rotation.expect_code(2);
    assert!(rotation.stderr.contains("strict, reuse, none, or grace:SECONDS"), "{}", rotation.stderr);
    let tour = run(place.command().args(["--tour", "--provider-fault", "drop"]));
    tour.expect_code(2);
}
