//! Everything before a verified signature: what a token claims to be.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{Algorithm, Flaw, claims::Claims, issuer_name::DIRECTORY_CLAIM, jwk::Key};
use crate::domain::strict_json_object;

/// A token that reads well and proves nothing yet.
pub(super) struct UnverifiedToken<'a> {
    pub(super) algorithm: Algorithm,
    /// Names a key in the issuer's set and is used for nothing else.
    pub(super) unverified_kid: Option<String>,
    unverified_type: Option<String>,
    unverified_claims: Claims,
    signed: &'a str,
    signature: &'a str,
}

/// What the issuer's key vouches for.
pub(super) struct VerifiedToken {
    pub(super) claims: Claims,
    /// The `typ` header.
    pub(super) kind: Option<String>,
}

impl<'a> UnverifiedToken<'a> {
    /// Reads a JWS in compact form (RFC 7515 §7.1); JSON forms and JWE (five parts) are refused by their characters
    /// and their number of parts. `jwk`, `jku`, `x5u` and `x5c` are never looked at: the token does not choose the key.
    pub(super) fn parse(text: &'a str) -> Result<Self, Flaw> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let (signed, signature) = text.rsplit_once('.').ok_or(Flaw::Shape)?;
        let (header, payload) = signed.split_once('.').ok_or(Flaw::Shape)?;
        if !text.bytes().all(legal) || payload.contains('.') || signature.is_empty() {
            return Err(Flaw::Shape);
        }
        let header = object(header, Flaw::Header)?;
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named).ok_or(Flaw::Algorithm)?;
        // We understand no extension (RFC 7515 §4.1.11), an unencoded payload (RFC 7797) included.
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(Flaw::Critical);
        }
        let unverified_kid = optional_text(&header, "kid")?;
        if unverified_kid.as_ref().is_some_and(|kid| kid.chars().count() > LONGEST_KID) {
            return Err(Flaw::Header);
        }
        let unverified_type = optional_text(&header, "typ")?;
        let unverified_claims = Claims::new(object(payload, Flaw::Claims)?);
        Ok(Self { algorithm, unverified_kid, unverified_type, unverified_claims, signed, signature })
    }

    /// Says only whose keys to try.
    pub(super) fn unverified_issuer(&self) -> Option<&str> {
        self.unverified_claims.text("iss")
    }

    /// The directory that the token claims, which an issuer template needs.
    pub(super) fn unverified_directory(&self) -> Option<&str> {
        self.unverified_claims.text(DIRECTORY_CLAIM)
    }

    /// The key must have been picked for [`Self::algorithm`].
    pub(super) fn verify(self, key: &Key) -> Result<VerifiedToken, Flaw> {
        let matches = jsonwebtoken::crypto::verify(
            self.signature,
            self.signed.as_bytes(),
            key.verifying(),
            self.algorithm.verifier(),
        );
        match matches {
            Ok(true) => Ok(VerifiedToken { claims: self.unverified_claims, kind: self.unverified_type }),
            Ok(false) | Err(_) => Err(Flaw::Signature),
        }
    }
}

fn object(part: &str, otherwise: Flaw) -> Result<Map<String, Value>, Flaw> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Flaw::Shape)?;
    strict_json_object(&bytes).ok_or(otherwise)
}

fn optional_text(header: &Map<String, Value>, name: &str) -> Result<Option<String>, Flaw> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Flaw::Header),
    }
}

const LONGEST_KID: usize = 256;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::PathBuf};

    use serde_json::json;

    use super::*;
    use crate::identity::jwk::KeySet;

    /// A cookbook example: its algorithm, its public key and its compact form.
    #[expect(clippy::disallowed_methods, reason = "whoever runs the tests says by this variable where the vectors are")]
    fn example(file: &str) -> Option<(Algorithm, Value, String)> {
        let Some(directory) = std::env::var_os("CLAVIGER_VECTORS") else {
            eprintln!("left out: needs the test vectors jose-cookbook, in the directory that CLAVIGER_VECTORS names");
            return None;
        };
        let text = fs::read(PathBuf::from(directory).join("jose-cookbook").join(file)).unwrap();
        let example: Value = serde_json::from_slice(&text).unwrap();
        let algorithm = Algorithm::named(example["input"]["alg"].as_str().unwrap()).unwrap();
        let mut key = example["input"]["key"].clone();
        key.as_object_mut().unwrap().remove("d");
        Some((algorithm, key, example["output"]["compact"].as_str().unwrap().to_owned()))
    }

    fn verify(algorithm: Algorithm, jwk: &Value, compact: &str) -> Result<(), Flaw> {
        let document = json!({ "keys": [jwk] }).to_string();
        let keys = KeySet::parse(document.as_bytes(), &BTreeSet::from([algorithm])).unwrap();
        let key = keys.find(jwk["kid"].as_str(), algorithm).ok_or(Flaw::KeyUnknown)?;
        let (signed, signature) = compact.rsplit_once('.').unwrap();
        let (unverified_claims, unverified_kid, unverified_type) = (Claims::new(Map::new()), None, None);
        let token =
            UnverifiedToken { algorithm, unverified_kid, unverified_type, unverified_claims, signed, signature };
        token.verify(&key).map(|_| ())
    }

    /// Their payloads are prose, so they end before the signature on the way that tokens take.
    #[test]
    fn the_cookbooks_signatures_are_good() {
        let files = ["jws/4_1.rsa_v15_signature.json", "jws/4_2.rsa-pss_signature.json", "curve25519/jws.json"];
        for file in files {
            let Some((algorithm, jwk, compact)) = example(file) else { return };
            assert_eq!(verify(algorithm, &jwk, &compact), Ok(()), "{file}");
            let (signed, signature) = compact.rsplit_once('.').unwrap();
            let (header, payload) = signed.split_once('.').unwrap();
            let other = format!("{header}.{payload}A.{signature}");
            assert_eq!(verify(algorithm, &jwk, &other), Err(Flaw::Signature), "{file}");
        }
    }
}
