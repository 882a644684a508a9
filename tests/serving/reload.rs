//! Certificates exchanged while they are served.

use claviger::{
    config::{Config, TlsSection},
    proto::v1::{self, watch_credential_status_response::Body},
};
use tempfile::TempDir;

use crate::{
    pki::{self, Authority, Handshake},
    rig::Rig,
};

#[tokio::test]
async fn new_connections_see_the_new_certificate_and_open_streams_go_on() {
    let (before, after) = (Authority::new(), Authority::new());
    let rig = Rig::over_tls(&before, |_| {}).await;
    let client = rig.tls_client(&before);
    let mut events = client.watch_credential_status(v1::WatchCredentialStatusRequest::default()).await.unwrap();
    assert!(matches!(events.message().await.unwrap().unwrap().body, Some(Body::Opened(_))));

    after.server().write(rig.directory());
    rig.certificates.reload().unwrap();
    assert!(greets(&rig, &after).await);
    assert!(!greets(&rig, &before).await, "the old certificate is no longer shown");
    // Over the connection of before: its authority is trusted by nothing that is shown now.
    client.list_connections(v1::ListConnectionsRequest::default()).await.unwrap();
    rig.begin_shutdown();
    loop {
        if let Some(Body::Drain(_)) = events.message().await.unwrap().unwrap().body {
            break;
        }
    }
}

#[tokio::test]
async fn bad_files_leave_the_old_certificate_in_force() {
    let authority = Authority::new();
    let rig = Rig::over_tls(&authority, |_| {}).await;
    let other = Authority::new().server();
    let certificate = pki::files(rig.directory()).certificate_file;
    for bad in [other.chain.as_str(), "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&certificate, bad).unwrap();
        let refused = rig.certificates.reload().unwrap_err();
        assert!(refused.to_string().contains("grpc.tls"), "{refused}");
        assert!(greets(&rig, &authority).await);
    }
    other.write(rig.directory());
    rig.certificates.reload().unwrap();
    assert!(!greets(&rig, &authority).await);
}

#[tokio::test]
async fn one_listeners_bad_file_keeps_both_as_they_were() {
    let authority = Authority::new();
    let elsewhere = TempDir::new().unwrap();
    authority.server().write(elsewhere.path());
    let files = pki::files(elsewhere.path());
    let rig = Rig::over_tls(&authority, |config: &mut Config| config.http.tls = Some(TlsSection::Files(files))).await;
    Authority::new().server().write(rig.directory());
    std::fs::remove_file(pki::files(elsewhere.path()).private_key_file).unwrap();
    let refused = rig.certificates.reload().unwrap_err();
    assert!(refused.to_string().contains("http.tls"), "{refused}");
    assert!(greets(&rig, &authority).await, "the good half was not taken either");
}

/// Whether the gRPC listener's certificate comes from `authority`.
async fn greets(rig: &Rig, authority: &Authority) -> bool {
    Handshake::of(authority).over(rig.grpc_socket().await).await.is_ok()
}
