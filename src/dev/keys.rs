//! Signing keys and the JWS that they make (RFC 7515, RFC 7517, RFC 7638). Signed by hand rather than through a JWT
//! library, because tests ask for headers and claims that a library would refuse to write.

use std::sync::LazyLock;

use aws_lc_rs::{
    digest,
    encoding::{AsDer, Pkcs8V1Der},
    error::Unspecified,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{Realm, SigningAlgorithm};

/// One issuer's keys: one for each algorithm.
#[derive(Serialize, Deserialize)]
pub(super) struct KeySet {
    es256: SigningKey,
    rs256: SigningKey,
}

/// A private key, named by its RFC 7638 thumbprint.
pub(super) struct SigningKey {
    kid: String,
    pair: Pair,
    pkcs8: Zeroizing<Vec<u8>>,
}

enum Pair {
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
}

impl KeySet {
    pub(super) fn generate() -> Result<Self, Unspecified> {
        Ok(Self {
            es256: SigningKey::generate(SigningAlgorithm::Es256)?,
            rs256: SigningKey::generate(SigningAlgorithm::Rs256)?,
        })
    }

    /// Keys of a server without a directory. All those of one process share the RSA key of each realm, because making
    /// one takes longer than most tests; the other key is its own.
    pub(super) fn ephemeral(realm: Realm) -> Result<Self, Unspecified> {
        let place = match realm {
            Realm::Platform => 1,
            Realm::Provider | Realm::Google | Realm::Entra | Realm::Slack => 0,
        };
        let pkcs8 = RSA_POOL.as_ref().map_err(|_| Unspecified)?[place].clone();
        Ok(Self {
            es256: SigningKey::generate(SigningAlgorithm::Es256)?,
            rs256: SigningKey::from_pkcs8(SigningAlgorithm::Rs256, pkcs8)?,
        })
    }

    pub(super) fn key(&self, algorithm: SigningAlgorithm) -> &SigningKey {
        match algorithm {
            SigningAlgorithm::Es256 => &self.es256,
            SigningAlgorithm::Rs256 => &self.rs256,
        }
    }

    /// The public halves, as a JWK Set.
    pub(super) fn public(&self) -> Value {
        json!({ "keys": [self.es256.public(), self.rs256.public()] })
    }
}

impl SigningKey {
    pub(super) fn generate(algorithm: SigningAlgorithm) -> Result<Self, Unspecified> {
        let (pair, pkcs8) = match algorithm {
            SigningAlgorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
                let pkcs8 = pair.to_pkcs8v1()?.as_ref().to_vec();
                (Pair::Es256(pair), pkcs8)
            }
            SigningAlgorithm::Rs256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
                let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair)?.as_ref().to_vec();
                (Pair::Rs256(pair), pkcs8)
            }
        };
        Ok(Self { kid: thumbprint(&pair), pair, pkcs8: Zeroizing::new(pkcs8) })
    }

    fn algorithm(&self) -> SigningAlgorithm {
        match self.pair {
            Pair::Es256(_) => SigningAlgorithm::Es256,
            Pair::Rs256(_) => SigningAlgorithm::Rs256,
        }
    }

    fn from_pkcs8(algorithm: SigningAlgorithm, pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, Unspecified> {
        let pair = match algorithm {
            SigningAlgorithm::Es256 => Pair::Es256(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).map_err(|_| Unspecified)?,
            ),
            SigningAlgorithm::Rs256 => Pair::Rs256(RsaKeyPair::from_pkcs8(&pkcs8).map_err(|_| Unspecified)?),
        };
        Ok(Self { kid: thumbprint(&pair), pair, pkcs8 })
    }

    /// The protected header of an ordinary token of this type.
    pub(super) fn header(&self, typ: &str) -> Map<String, Value> {
        let members = [("alg", self.algorithm().as_str()), ("kid", &self.kid), ("typ", typ)];
        members.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
    }

    /// Compact serialization of `claims` under `header`, whatever the two say.
    pub(super) fn sign(&self, header: &Map<String, Value>, claims: &Map<String, Value>) -> Result<String, Unspecified> {
        let encode = |part: &Map<String, Value>| URL_SAFE_NO_PAD.encode(Value::Object(part.clone()).to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = match &self.pair {
            Pair::Es256(pair) => pair.sign(&SystemRandom::new(), message.as_bytes())?.as_ref().to_vec(),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)?;
                signature
            }
        };
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn public(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Es256(pair) => {
                let (x, y) = coordinates(pair);
                json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })
            }
            Pair::Rs256(pair) => {
                let (n, e) = modulus_and_exponent(pair);
                json!({ "kty": "RSA", "n": n, "e": e })
            }
        };
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.algorithm().as_str());
        jwk["kid"] = json!(self.kid);
        jwk
    }
}

impl Serialize for SigningKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(&*self.pkcs8));
        (self.algorithm(), text.as_str()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SigningKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (algorithm, text) = <(SigningAlgorithm, String)>::deserialize(deserializer)?;
        let text = Zeroizing::new(text);
        let pkcs8 =
            Zeroizing::new(URL_SAFE_NO_PAD.decode(&*text).map_err(|_| D::Error::custom("a key is not base64url"))?);
        Self::from_pkcs8(algorithm, pkcs8).map_err(|_| D::Error::custom("a key is not PKCS #8 of its algorithm"))
    }
}

static RSA_POOL: LazyLock<Result<[Zeroizing<Vec<u8>>; 2], Unspecified>> = LazyLock::new(|| {
    let make = || SigningKey::generate(SigningAlgorithm::Rs256).map(|key| key.pkcs8);
    Ok([make()?, make()?])
});

/// RFC 7638: the digest of the required members, in lexical order, without white space.
fn thumbprint(pair: &Pair) -> String {
    let required = match pair {
        Pair::Es256(pair) => {
            let (x, y) = coordinates(pair);
            format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
        }
        Pair::Rs256(pair) => {
            let (n, e) = modulus_and_exponent(pair);
            format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#)
        }
    };
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, required.as_bytes()))
}

/// The public point is uncompressed: 0x04, then x and y of 32 bytes each.
fn coordinates(pair: &EcdsaKeyPair) -> (String, String) {
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
}

fn modulus_and_exponent(pair: &RsaKeyPair) -> (String, String) {
    let public = pair.public_key();
    (
        URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero()),
        URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero()),
    )
}
