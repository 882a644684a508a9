//! Who is believed, on both sides.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use claviger::{
    client::{ClientCertificate, ClientError, Connect},
    config::{Config, TlsSection},
    listener::{ClientCertificates, TlsError, TlsFiles},
    proto::v1,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    frames::Raw,
    pki::{self, Authority, Certified, Handshake, NAME},
    rig::Rig,
};

#[tokio::test]
async fn a_client_that_trusts_the_authority_is_served() {
    let authority = Authority::new();
    let rig = Rig::over_tls(&authority, |_| {}).await;
    list(&rig, &rig.connect_over_tls(&authority)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_prove_itself_gets_no_token() {
    let (authority, other) = (Authority::new(), Authority::new());
    let rig = Rig::over_tls(&authority, |_| {}).await;
    assert_never_reached(list(&rig, &rig.connect_over_tls(&other)).await);
    let elsewhere = Connect { server_name: Some("other.internal".to_owned()), ..rig.connect_over_tls(&authority) };
    assert_never_reached(list(&rig, &elsewhere).await);
    let named = Connect { server_name: Some(NAME.to_owned()), ..rig.connect_over_tls(&authority) };
    list(&rig, &named).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_reaches_a_server_under_an_authority_of_its_own() {
    let authority = Authority::new();
    let rig = Rig::over_tls(&authority, |_| {}).await;
    let ca = pki::write(rig.directory(), "ca.pem", &authority.pem());
    let other = pki::write(rig.directory(), "other.pem", &Authority::new().pem());
    let token = pki::write(rig.directory(), "token", rig.token().expose());
    let endpoint = format!("https://{}", rig.grpc);
    for (authority, name, code) in [(&ca, NAME, 0), (&ca, "other.internal", 69), (&other, NAME, 69)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        command.args(["connections", "--endpoint", &endpoint, "--server-name", name]);
        command.arg("--token-file").arg(&token).arg("--ca-file").arg(authority);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn both_versions_of_tls_that_are_safe_are_spoken() {
    let authority = Authority::new();
    let rig = Rig::over_tls(&authority, |_| {}).await;
    for handshake in [Handshake::of(&authority), Handshake::of(&authority).in_tls12()] {
        let open = handshake.over(rig.grpc_socket().await).await.unwrap();
        assert_eq!(open.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        assert!(Raw::over(open).await.lives().await);
    }
}

#[tokio::test]
async fn each_listener_speaks_its_own_protocol() {
    let authority = Authority::new();
    let rig = Rig::over_tls(&authority, |_| {}).await;
    let http1 = Handshake { alpn: b"http/1.1", ..Handshake::of(&authority) };
    assert!(http1.over(rig.grpc_socket().await).await.is_err());
    assert!(Handshake::of(&authority).over(rig.http_socket().await).await.is_err());
    let mut browser = http1.over(rig.http_socket().await).await.unwrap();
    browser.write_all(b"GET /healthz HTTP/1.1\r\nhost: broker\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    browser.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn a_client_in_the_clear_gets_nothing_from_an_encrypted_listener() {
    let authority = Authority::new();
    let rig = Rig::over_tls(&authority, |_| {}).await;
    let mut plain = Raw::connect(rig.grpc).await;
    assert!(!plain.lives().await);
    list(&rig, &rig.connect_over_tls(&authority)).await.unwrap();
}

#[tokio::test]
async fn where_clients_must_have_certificates_only_those_of_the_authority_are_served() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let rig = asking(&authority, &clients, ClientCertificates::Required).await;
    assert_never_reached(list(&rig, &rig.connect_over_tls(&authority)).await);
    assert_never_reached(list(&rig, &showing(&rig, &authority, &Authority::new().client())).await);
    // Of the right authority, but not made for clients.
    assert_never_reached(list(&rig, &showing(&rig, &authority, &clients.server())).await);
    list(&rig, &showing(&rig, &authority, &clients.client())).await.unwrap();
}

#[tokio::test]
async fn where_clients_may_have_certificates_a_wrong_one_is_still_refused() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let rig = asking(&authority, &clients, ClientCertificates::Optional).await;
    list(&rig, &rig.connect_over_tls(&authority)).await.unwrap();
    list(&rig, &showing(&rig, &authority, &clients.client())).await.unwrap();
    assert_never_reached(list(&rig, &showing(&rig, &authority, &Authority::new().client())).await);
}

#[test]
fn files_that_cannot_be_used_are_refused_with_their_cure() {
    let directory = TempDir::new().unwrap();
    let authority = Authority::new();
    authority.server().write(directory.path());
    let files = pki::files(directory.path());
    files.check().unwrap();

    let mode = |mode| fs::set_permissions(&files.private_key_file, fs::Permissions::from_mode(mode)).unwrap();
    for open in [0o644, 0o660, 0o604] {
        mode(open);
        let refused = files.check().unwrap_err();
        assert!(matches!(&refused, TlsError::Mode { mode, .. } if *mode == open), "{refused}");
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }
    for closed in [0o400, 0o440, 0o640] {
        mode(closed);
        files.check().unwrap();
    }
    let with = |change: fn(&mut TlsFiles, &TempDir)| {
        let mut files = files.clone();
        change(&mut files, &directory);
        files.check().unwrap_err()
    };
    assert!(matches!(with(|files, of| files.certificate_file = of.path().join("gone")), TlsError::Io { .. }));
    assert!(matches!(with(|files, of| files.certificate_file = of.path().to_owned()), TlsError::NotAFile { .. }));
    assert!(matches!(
        with(|files, _| files.certificate_file = files.private_key_file.clone()),
        TlsError::NoCertificate { .. }
    ));
    let no_key = |files: &mut TlsFiles, of: &TempDir| {
        files.private_key_file = of.path().join("no.key");
        pki::write_key(&files.private_key_file, "-----BEGIN CERTIFICATE-----");
    };
    assert!(matches!(with(no_key), TlsError::NoKey { .. }));
    let of_another = |files: &mut TlsFiles, of: &TempDir| {
        files.private_key_file = of.path().join("other.key");
        pki::write_key(&files.private_key_file, &Authority::new().server().key);
    };
    assert!(matches!(with(of_another), TlsError::Pair { .. }));
    let no_authority = |files: &mut TlsFiles, of: &TempDir| {
        files.client_ca_file = Some(pki::write(of.path(), "empty.pem", "\n"));
    };
    assert!(matches!(with(no_authority), TlsError::NoCertificate { .. }));
}

#[test]
fn a_key_behind_a_link_is_read_as_renewal_leaves_it() {
    let directory = TempDir::new().unwrap();
    Authority::new().server().write(directory.path());
    let mut files = pki::files(directory.path());
    let link = directory.path().join("live.key");
    std::os::unix::fs::symlink(&files.private_key_file, &link).unwrap();
    files.private_key_file = link;
    files.check().unwrap();
}

async fn list(rig: &Rig, connect: &Connect) -> Result<(), ClientError> {
    rig.client(connect).list_connections(v1::ListConnectionsRequest::default()).await.map(|_| ())
}

#[track_caller]
fn assert_never_reached(answer: Result<(), ClientError>) {
    let error = answer.expect_err("the broker must not be reached");
    assert_eq!(error.reason, None, "{error}");
}

async fn asking(authority: &Authority, clients: &Authority, which: ClientCertificates) -> Rig {
    let clients = clients.pem();
    Rig::over_tls(authority, |config: &mut Config| {
        let Some(TlsSection::Files(files)) = &mut config.grpc.tls else { unreachable!("it is encrypted") };
        let directory = files.certificate_file.parent().unwrap();
        files.client_ca_file = Some(pki::write(directory, "clients.pem", &clients));
        files.client_certificates = Some(which);
    })
    .await
}

fn showing(rig: &Rig, authority: &Authority, certified: &Certified) -> Connect {
    let certificate = ClientCertificate {
        chain: certified.chain.clone().into_bytes(),
        key: certified.key.clone().into_bytes().into(),
    };
    Connect { certificate: Some(certificate), ..rig.connect_over_tls(authority) }
}
