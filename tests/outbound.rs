//! The guarded client against real sockets: what it refuses to call, and what it says about a failed request.

#![expect(clippy::unwrap_used, clippy::panic, reason = "set-up that fails fails the test")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use claviger::{
    domain::BoxFuture,
    outbound::{Failure, Lookup, Outbound, OutboundError, Policy, Reply, Request, UrlRule, Wire, is_public},
};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use url::Url;
use zeroize::Zeroizing;

fn policy() -> Policy {
    Policy {
        allow_http_loopback: true,
        connect_timeout: Duration::from_secs(20),
        timeout: Duration::from_secs(60),
        max_response: 1000,
        ..Policy::default()
    }
}

fn outbound() -> Outbound {
    Outbound::new(&policy()).unwrap()
}

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

fn get(text: &str) -> Request {
    Request::get(url(text))
}

/// A server that reads one request head a connection, reports it, writes `answer` and closes.
struct Server {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<String>,
    task: JoinHandle<()>,
}

impl Server {
    async fn answering(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, requests) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let head = read_head(&mut stream).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = seen.send(head);
            }
        });
        Self { address, requests, task }
    }

    fn url(&self, path: &str) -> Url {
        url(&format!("http://{}{path}", self.address))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => head.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8_lossy(&head).to_ascii_lowercase()
}

async fn refusal(client: &Outbound, text: &str) -> OutboundError {
    match client.send(get(text)).await {
        Ok(_) => panic!("{text} was called"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn every_spelling_of_an_internal_address_is_refused() {
    let client = Outbound::new(&Policy::default()).unwrap();
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.0.1.",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "127。0。0。1",
        "①②⑦.⓪.⓪.①",
        "0.0.0.0",
        "0",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.169.254",
        "172.31.255.255",
        "192.168.1.1",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "198.19.0.1",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[::ffff:8.8.8.8]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::1]",
        "[100::1]",
        "[2001::1]",
        "[2001:db8::1]",
        "[2002:7f00:1::]",
        "[3fff::1]",
        "[5f00::1]",
        "[fc00::1]",
        "[fd00::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
    ] {
        let error = refusal(&client, &format!("https://{host}/token")).await;
        assert!(matches!(error, OutboundError::UrlRefused { rule: UrlRule::Address, .. }), "{host}: {error}");
        assert!(!error.was_sent(), "{host}");
    }
}

#[test]
fn public_addresses_are_public() {
    for address in ["8.8.8.8", "100.63.255.255", "100.128.0.0", "172.32.0.1", "223.255.255.255", "2606:4700::1111"] {
        assert!(is_public(address.parse().unwrap()), "{address}");
    }
}

#[tokio::test]
async fn only_https_is_spoken_and_no_url_carries_credentials() {
    let client = Outbound::new(&Policy::default()).unwrap();
    for text in ["http://example.com/", "ftp://example.com/", "http://127.0.0.1/", "data:text/plain,x", "file:///etc"] {
        let error = refusal(&client, text).await;
        assert!(matches!(error, OutboundError::UrlRefused { rule: UrlRule::Scheme, .. }), "{text}: {error}");
    }
    let error = refusal(&client, "https://user:secret@example.com/").await;
    assert!(matches!(error, OutboundError::UrlRefused { rule: UrlRule::Credentials, .. }));
    assert!(!error.to_string().contains("secret"));
}

#[tokio::test]
async fn plain_http_is_spoken_with_literal_loopback_addresses_alone() {
    let server = Server::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let client = outbound();
    assert_eq!(client.send(Request::get(server.url("/"))).await.ok().unwrap().status, StatusCode::NO_CONTENT);
    for text in ["http://localhost/", "http://0.0.0.0/", "http://10.0.0.1/", "http://[::ffff:127.0.0.1]/"] {
        assert!(matches!(refusal(&client, text).await, OutboundError::UrlRefused { .. }), "{text}");
    }
}

#[tokio::test]
async fn a_name_that_leads_to_this_host_is_not_called() {
    let mut server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let error = refusal(&outbound(), &format!("https://localhost:{}/", server.address.port())).await;
    assert_eq!(error, OutboundError::AddressRefused { host: "localhost".to_owned() });
    assert!(server.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_name_server_cannot_lead_inside() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let rebound: Lookup =
        Arc::new(|_| Box::pin(async { Ok(vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]) }));
    let client = Outbound::with_lookup(&policy(), rebound).unwrap();
    let error = refusal(&client, &format!("https://login.example.com:{}/", server.address.port())).await;
    assert_eq!(error, OutboundError::AddressRefused { host: "login.example.com".to_owned() });
    assert!(!error.was_sent());
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_not_sent() {
    let nowhere: Lookup = Arc::new(|_| Box::pin(async { Err(std::io::ErrorKind::NotFound.into()) }));
    let client = Outbound::with_lookup(&policy(), nowhere).unwrap();
    let error = refusal(&client, "https://login.example.com/").await;
    assert!(matches!(error, OutboundError::NotSent { failure: Failure::Dns, .. }), "{error:?}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let mut elsewhere = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let location = elsewhere.url("/stolen");
    let redirecting = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        let head = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
    });
    let form = Zeroizing::new(b"refresh_token=secret".to_vec());
    let reply = outbound().send(Request::post_form(url(&format!("http://{address}/token")), form)).await.ok().unwrap();
    assert_eq!(reply.status, StatusCode::TEMPORARY_REDIRECT);
    redirecting.await.unwrap();
    assert!(elsewhere.requests.try_recv().is_err());
}

#[tokio::test]
async fn an_answer_is_cut_at_the_cap_whether_announced_or_not() {
    let body = "x".repeat(1001);
    let announced: &'static str = format!("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n{body}").leak();
    let streamed: &'static str = format!("HTTP/1.1 200 OK\r\n\r\n{body}").leak();
    for answer in [announced, streamed] {
        let server = Server::answering(answer).await;
        let error = outbound().send(Request::get(server.url("/"))).await.err().unwrap();
        assert!(matches!(error, OutboundError::TooLarge { limit: 1000, .. }), "{error:?}");
        assert!(error.was_sent());
        let error = outbound().send(Request::get(server.url("/")).at_most(10)).await.err().unwrap();
        assert!(matches!(error, OutboundError::TooLarge { limit: 10, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_of_exactly_the_cap_arrives_whole() {
    let body = "y".repeat(1000);
    let server = Server::answering(format!("HTTP/1.1 200 OK\r\n\r\n{body}").leak()).await;
    let reply = outbound().send(Request::get(server.url("/")).at_most(5000)).await.ok().unwrap();
    assert_eq!(*reply.body, body.into_bytes());
}

#[tokio::test]
async fn a_refused_connection_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = refusal(&outbound(), &format!("http://{address}/")).await;
    assert!(matches!(error, OutboundError::NotSent { failure: Failure::Connect, .. }), "{error:?}");
    assert!(!error.was_sent());
}

#[tokio::test]
async fn a_failed_handshake_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let plain = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let error = refusal(&outbound(), &format!("https://{address}/")).await;
    assert!(matches!(error, OutboundError::NotSent { failure: Failure::Tls, .. }), "{error:?}");
    assert!(!error.was_sent());
    plain.await.unwrap();
}

#[tokio::test]
async fn a_server_that_accepts_and_never_shakes_hands_is_not_sent() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let policy = Policy { connect_timeout: Duration::from_secs(1), ..policy() };
    let client = Outbound::new(&policy).unwrap();
    let error = refusal(&client, &format!("https://{}/", silent.local_addr().unwrap())).await;
    assert!(matches!(error, OutboundError::NotSent { failure: Failure::ConnectTimeout, .. }), "{error:?}");
}

#[tokio::test]
async fn a_connection_closed_after_the_request_loses_the_answer() {
    for answer in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"access_token\":",
        "no HTTP at all\r\n\r\n",
    ] {
        let server = Server::answering(answer).await;
        let form = Zeroizing::new(b"grant_type=refresh_token".to_vec());
        let error = outbound().send(Request::post_form(server.url("/token"), form)).await.err().unwrap();
        assert!(matches!(error, OutboundError::AnswerLost { .. }), "{answer:?}: {error:?}");
        assert!(error.was_sent());
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        let _ = stream.read(&mut [0; 1]).await;
        head
    });
    let policy = Policy { connect_timeout: Duration::from_secs(2), timeout: Duration::from_secs(3), ..policy() };
    let error = refusal(&Outbound::new(&policy).unwrap(), &format!("http://{address}/slow")).await;
    assert!(matches!(error, OutboundError::AnswerLost { .. }), "{error:?}");
    assert!(silent.await.unwrap().starts_with("get /slow"));
}

#[tokio::test]
async fn a_request_is_sent_once_and_says_only_what_it_was_told() {
    let mut server =
        Server::answering("HTTP/1.1 503 Service Unavailable\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n").await;
    let client = outbound();
    for _ in 0..2 {
        let request =
            Request::get(server.url("/a?b=c")).accept_json().authorization(HeaderValue::from_static("Basic x"));
        assert_eq!(client.send(request).await.ok().unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
        let head = server.requests.recv().await.unwrap();
        assert!(head.starts_with("get /a?b=c http/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nauthorization: basic x\r\n") && head.contains("\r\naccept: application/json\r\n"));
        assert!(!head.contains("cookie") && !head.contains("referer"), "{head}");
    }
    assert!(server.requests.try_recv().is_err());
}

/// A TLS server that answers every request with 204, and the certificate that proves it.
async fn tls_server(names: &[&str]) -> (SocketAddr, Vec<u8>, JoinHandle<()>) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let own = rcgen::generate_simple_self_signed(names).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    (address, own.cert.pem().into_bytes(), task)
}

#[tokio::test]
async fn an_internal_host_is_called_over_https_and_no_other_is() {
    let (address, extra_roots, server) = tls_server(&["127.0.0.1", "idp.internal", "other.internal"]).await;
    let port = address.port();
    let here: Lookup = Arc::new(|_| Box::pin(async { Ok(vec!["127.0.0.1".parse().unwrap()]) }));
    let client = |hosts: &[String]| {
        let policy = Policy {
            timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(10),
            extra_roots: extra_roots.clone(),
            internal_hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            ..Policy::default()
        };
        Outbound::with_lookup(&policy, Arc::clone(&here)).unwrap()
    };
    let (by_address, by_name) = (format!("https://127.0.0.1:{port}/"), format!("https://idp.internal:{port}/"));

    let listed = client(&[format!("127.0.0.1:{port}"), "idp.internal".to_owned()]);
    for url in [&by_address, &by_name] {
        assert_eq!(listed.send(get(url)).await.map(|reply| reply.status), Ok(StatusCode::NO_CONTENT), "{url}");
    }
    let refused = refusal(&listed, &format!("https://other.internal:{port}/")).await;
    assert_eq!(refused, OutboundError::AddressRefused { host: "other.internal".to_owned() });
    let refused = refusal(&listed, &format!("http://idp.internal:{port}/")).await;
    assert!(matches!(refused, OutboundError::UrlRefused { rule: UrlRule::Scheme, .. }), "{refused}");

    let elsewhere = client(&[format!("127.0.0.1:{}", port ^ 1), format!("idp.internal:{}", port ^ 1)]);
    for client in [elsewhere, client(&[])] {
        let refused = refusal(&client, &by_address).await;
        assert!(matches!(refused, OutboundError::UrlRefused { rule: UrlRule::Address, .. }), "{refused}");
        let refused = refusal(&client, &by_name).await;
        assert_eq!(refused, OutboundError::AddressRefused { host: "idp.internal".to_owned() });
    }
    server.abort();
}

#[tokio::test]
async fn an_internal_name_does_not_lead_to_where_clouds_serve_credentials() {
    let metadata: Lookup = Arc::new(|_| Box::pin(async { Ok(vec!["169.254.169.254".parse().unwrap()]) }));
    let policy = Policy { internal_hosts: vec!["idp.internal".parse().unwrap()], ..Policy::default() };
    let client = Outbound::with_lookup(&policy, metadata).unwrap();
    let refused = refusal(&client, "https://idp.internal/").await;
    assert_eq!(refused, OutboundError::AddressRefused { host: "idp.internal".to_owned() });
}

/// Answers every request with as many bytes, and tells what it was asked.
struct OtherWire {
    length: usize,
    asked: mpsc::UnboundedSender<(Option<usize>, Option<Duration>)>,
}

impl Wire for OtherWire {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Reply, OutboundError>> {
        let body = Zeroizing::new(vec![0; self.length]);
        self.asked.send((request.max_response, request.timeout)).unwrap();
        Box::pin(async { Ok(Reply { status: StatusCode::OK, headers: HeaderMap::new(), body }) })
    }
}

#[tokio::test]
async fn urls_and_sizes_are_judged_whatever_carries_the_request() {
    let (asked, mut requests) = mpsc::unbounded_channel();
    let client = Outbound::over(Arc::new(OtherWire { length: 11, asked }), &Policy::default());
    assert!(matches!(refusal(&client, "http://a.example/").await, OutboundError::UrlRefused { .. }));
    assert!(matches!(refusal(&client, "https://10.0.0.1/").await, OutboundError::UrlRefused { .. }));
    assert!(requests.try_recv().is_err(), "what is refused is not sent");
    let page = || get("https://a.example/");
    assert_eq!(client.send(page().at_most(11)).await.unwrap().body.len(), 11);
    let refused = client.send(page().at_most(10).within(Duration::from_secs(3))).await.err();
    assert_eq!(refused, Some(OutboundError::TooLarge { host: "a.example".to_owned(), limit: 10 }));
    assert_eq!(requests.try_recv().unwrap(), (Some(11), Some(Policy::default().timeout)));
    assert_eq!(requests.try_recv().unwrap(), (Some(10), Some(Duration::from_secs(3))));
}
