//! Signature algorithms, and the keys that they need.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2). Only asymmetric ones exist here: with HMAC
/// whoever verifies can also forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "RS384")]
    Rs384,
    #[serde(rename = "RS512")]
    Rs512,
    #[serde(rename = "PS256")]
    Ps256,
    #[serde(rename = "PS384")]
    Ps384,
    #[serde(rename = "PS512")]
    Ps512,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "ES384")]
    Es384,
    /// With Ed25519 alone.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// The newer name of the same (RFC 9864); a token's name must be the one that is allowed.
    Ed25519,
}

/// The kind of key that an algorithm needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyType {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Algorithm {
    pub(super) const ALL: [Self; 10] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
        Self::Ed25519,
    ];

    /// Name on the wire, what verifies it, the key that it needs: a new algorithm is a row.
    const fn row(self) -> (&'static str, jsonwebtoken::Algorithm, KeyType) {
        use jsonwebtoken::Algorithm as Verifier;
        match self {
            Self::Rs256 => ("RS256", Verifier::RS256, KeyType::Rsa),
            Self::Rs384 => ("RS384", Verifier::RS384, KeyType::Rsa),
            Self::Rs512 => ("RS512", Verifier::RS512, KeyType::Rsa),
            Self::Ps256 => ("PS256", Verifier::PS256, KeyType::Rsa),
            Self::Ps384 => ("PS384", Verifier::PS384, KeyType::Rsa),
            Self::Ps512 => ("PS512", Verifier::PS512, KeyType::Rsa),
            Self::Es256 => ("ES256", Verifier::ES256, KeyType::P256),
            Self::Es384 => ("ES384", Verifier::ES384, KeyType::P384),
            Self::EdDsa => ("EdDSA", Verifier::EdDSA, KeyType::Ed25519),
            Self::Ed25519 => ("Ed25519", Verifier::EdDSA, KeyType::Ed25519),
        }
    }

    /// Case matters: `noNE` and `rs256` are nothing.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    pub(super) const fn name(self) -> &'static str {
        self.row().0
    }

    pub(super) const fn verifier(self) -> jsonwebtoken::Algorithm {
        self.row().1
    }

    pub(super) const fn key_type(self) -> KeyType {
        self.row().2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_name_is_the_wire_name() {
        for algorithm in Algorithm::ALL {
            assert_eq!(serde_json::to_value(algorithm).unwrap(), algorithm.name());
            assert_eq!(Algorithm::named(algorithm.name()), Some(algorithm));
        }
    }
}
