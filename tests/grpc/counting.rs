//! Calls are counted by method and status, strangers' too, under no names of theirs.

use claviger::proto::v1;

use crate::rig::{Rig, VALIDATE};

#[tokio::test]
async fn calls_are_counted_by_method_and_status() {
    let rig = Rig::start().await;
    let alice = rig.bearer("alice");
    for _ in 0..2 {
        rig.call(VALIDATE, &[("authorization", &alice)]).await.unwrap();
    }
    rig.call(VALIDATE, &[]).await.unwrap_err();
    rig.call("/whatever.Service/Invented", &[("authorization", &alice)]).await.unwrap_err();
    let watch = v1::WatchCredentialStatusRequest::default();
    drop(rig.tokens().watch_credential_status(rig.by_alice(watch)).await.unwrap());
    let text = rig.broker.metrics_text();
    let broker = "/claviger.v1.TokenBrokerService";
    for line in [
        format!(r#"claviger_rpcs_total{{method="{VALIDATE}",code="OK"}} 2"#),
        format!(r#"claviger_rpcs_total{{method="{VALIDATE}",code="UNAUTHENTICATED"}} 1"#),
        r#"claviger_rpcs_total{method="_OTHER",code="UNIMPLEMENTED"} 1"#.to_owned(),
        format!(r#"claviger_rpcs_total{{method="{broker}/WatchCredentialStatus",code="OK"}} 1"#),
        format!(r#"claviger_rpcs_total{{method="{broker}/Revoke",code="OK"}} 0"#),
        "claviger_ready 1".to_owned(),
    ] {
        assert!(text.lines().any(|written| written == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("Invented") && !text.contains("alice"), "{text}");
}
