//! A real issuer on loopback: discovery, key set, its own keys, faults on demand, and a count of who asked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
        RsaEncoding, RsaKeyPair,
    },
};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri, header::LOCATION},
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
    documents: Mutex<BTreeMap<String, Value>>,
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

/// A key pair, public in the issuer's set or not, and the one algorithm that it signs with.
pub(crate) struct SigningKey {
    pub(crate) kid: String,
    algorithm: &'static str,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl TestIssuer {
    pub(crate) async fn start(keys: &[&SigningKey]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::new(Served {
            url: url.clone(),
            keys: Mutex::new(keys.iter().map(|key| key.jwk()).collect()),
            fault: Mutex::default(),
            documents: Mutex::default(),
            discoveries: watch::Sender::new(0),
            key_fetches: watch::Sender::new(0),
        });
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(key_set))
            .fallback(document)
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

    /// Serves a document at another path, as issuers do that are many.
    pub(crate) fn serve(&self, path: &str, document: Value) {
        self.served.documents.lock().unwrap().insert(path.to_owned(), document);
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
        Self::of("RS256", kid)
    }

    pub(crate) fn p256(kid: &str) -> Self {
        Self::of("ES256", kid)
    }

    pub(crate) fn of(algorithm: &'static str, kid: &str) -> Self {
        let pair = match algorithm {
            "ES256" => Pair::Ec(Box::new(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())),
            "ES384" => Pair::Ec(Box::new(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())),
            "EdDSA" | "Ed25519" => Pair::Ed25519(Box::new(Ed25519KeyPair::generate().unwrap())),
            _ => Pair::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())),
        };
        Self { kid: kid.to_owned(), algorithm, pair }
    }

    /// The same key under the name of another algorithm of its type.
    pub(crate) fn signing_with(self, algorithm: &'static str) -> Self {
        Self { algorithm, ..self }
    }

    /// The `alg` of its tokens.
    pub(crate) fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// The public half as a JWK.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = self.public_numbers();
        jwk.as_object_mut().unwrap().extend([
            ("kid".to_owned(), json!(self.kid)),
            ("use".to_owned(), json!("sig")),
            ("alg".to_owned(), json!(self.algorithm)),
        ]);
        jwk
    }

    fn public_numbers(&self) -> Value {
        match &self.pair {
            Pair::Rsa(pair) => {
                let e = base64(pair.public_key().exponent().big_endian_without_leading_zero());
                json!({ "kty": "RSA", "n": base64(self.rsa_modulus()), "e": e })
            }
            Pair::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "x": base64(x), "y": base64(y) })
            }
            Pair::Ed25519(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(pair.public_key()) }),
        }
    }

    /// The public half as its format has it: RFC 8017 A.1.1, an uncompressed point, or RFC 8032 §5.1.5.
    pub(crate) fn public_bytes(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// The modulus, big-endian; empty for other keys.
    pub(crate) fn rsa_modulus(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().modulus().big_endian_without_leading_zero().to_vec(),
            Pair::Ec(_) | Pair::Ed25519(_) => Vec::new(),
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
                pair.sign(self.rsa_encoding(), &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Pair::Ec(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    fn rsa_encoding(&self) -> &'static dyn RsaEncoding {
        match self.algorithm {
            "RS384" => &RSA_PKCS1_SHA384,
            "RS512" => &RSA_PKCS1_SHA512,
            "PS256" => &RSA_PSS_SHA256,
            "PS384" => &RSA_PSS_SHA384,
            "PS512" => &RSA_PSS_SHA512,
            _ => &RSA_PKCS1_SHA256,
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

async fn document(State(served): State<Arc<Served>>, uri: Uri) -> Response {
    let found = served.documents.lock().unwrap().get(uri.path()).map(Value::to_string);
    found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
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
