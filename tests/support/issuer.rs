//! A real issuer on loopback: discovery, key set, its own keys, faults on demand, and a count of who asked.

use std::sync::{Arc, Mutex};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

pub(crate) struct TestIssuer {
    url: String,
    served: Arc<Served>,
    server: JoinHandle<()>,
}

struct Served {
    url: String,
    keys: Mutex<Vec<Value>>,
    fault: Mutex<Fault>,
    discoveries: watch::Sender<usize>,
    key_fetches: watch::Sender<usize>,
}

/// How the issuer misbehaves.
#[derive(Clone, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Both documents answer with this status.
    Status(u16),
    /// The key set is this text.
    KeySet(String),
    /// The discovery document names this issuer.
    OtherIssuer(String),
    /// The key set is said to be elsewhere (303).
    Redirect(String),
}

/// A key pair, public in the issuer's set or not.
pub(crate) struct SigningKey {
    pub(crate) kid: String,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
}

impl TestIssuer {
    pub(crate) async fn start(keys: &[&SigningKey]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::new(Served {
            url: url.clone(),
            keys: Mutex::new(keys.iter().map(|key| key.jwk()).collect()),
            fault: Mutex::default(),
            discoveries: watch::Sender::new(0),
            key_fetches: watch::Sender::new(0),
        });
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(key_set))
            .with_state(Arc::clone(&served));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, served, server }
    }

    /// The issuer's name and address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Serves these keys from now on.
    pub(crate) fn publish(&self, jwks: Vec<Value>) {
        *self.served.keys.lock().unwrap() = jwks;
    }

    pub(crate) fn misbehave(&self, fault: Fault) {
        *self.served.fault.lock().unwrap() = fault;
    }

    /// Connections are refused from now on.
    pub(crate) async fn stop(&mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }

    pub(crate) fn discoveries(&self) -> usize {
        *self.served.discoveries.borrow()
    }

    pub(crate) fn key_fetches(&self) -> usize {
        *self.served.key_fetches.borrow()
    }

    /// Returns once the key set was asked for that often.
    pub(crate) async fn asked_for_keys(&self, times: usize) {
        self.served.key_fetches.subscribe().wait_for(|fetches| *fetches >= times).await.unwrap();
    }
}

impl Drop for TestIssuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl SigningKey {
    pub(crate) fn rsa(kid: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        Self { kid: kid.to_owned(), pair: Pair::Rsa(Box::new(pair)) }
    }

    pub(crate) fn p256(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { kid: kid.to_owned(), pair: Pair::P256(Box::new(pair)) }
    }

    /// The `alg` of its tokens.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
        }
    }

    /// The public half as a JWK.
    pub(crate) fn jwk(&self) -> Value {
        match &self.pair {
            Pair::Rsa(pair) => {
                let (n, e) = (self.rsa_modulus(), pair.public_key().exponent());
                let (n, e) = (base64(&n), base64(e.big_endian_without_leading_zero()));
                json!({ "kty": "RSA", "kid": self.kid, "use": "sig", "alg": "RS256", "n": n, "e": e })
            }
            Pair::P256(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (base64(&point[1..33]), base64(&point[33..]));
                json!({ "kty": "EC", "crv": "P-256", "kid": self.kid, "use": "sig", "alg": "ES256", "x": x, "y": y })
            }
        }
    }

    /// The modulus, big-endian; empty for other keys.
    pub(crate) fn rsa_modulus(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().modulus().big_endian_without_leading_zero().to_vec(),
            Pair::P256(_) => Vec::new(),
        }
    }

    /// A well-formed token of these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": self.algorithm(), "kid": self.kid, "typ": "at+jwt" });
        self.compact(&header.to_string(), &claims.to_string())
    }

    /// Signs header and payload as they are given.
    pub(crate) fn compact(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", base64(header), base64(payload));
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", base64(signature))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Pair::P256(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
        }
    }
}

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

async fn discovery(State(served): State<Arc<Served>>) -> Response {
    served.discoveries.send_modify(|count| *count += 1);
    let keys = format!("{}/keys", served.url);
    let issuer = match served.fault.lock().unwrap().clone() {
        Fault::Status(status) => return StatusCode::from_u16(status).unwrap().into_response(),
        Fault::OtherIssuer(other) => other,
        Fault::None | Fault::KeySet(_) | Fault::Redirect(_) => served.url.clone(),
    };
    json!({ "issuer": issuer, "jwks_uri": keys }).to_string().into_response()
}

async fn key_set(State(served): State<Arc<Served>>) -> Response {
    served.key_fetches.send_modify(|count| *count += 1);
    match served.fault.lock().unwrap().clone() {
        Fault::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Fault::KeySet(text) => text.into_response(),
        Fault::Redirect(to) => (StatusCode::SEE_OTHER, [(LOCATION, to)]).into_response(),
        Fault::None | Fault::OtherIssuer(_) => {
            json!({ "keys": *served.keys.lock().unwrap() }).to_string().into_response()
        }
    }
}
