//! What makes a server the same server after a restart: its keys and its clients' secret.

use std::path::Path;

use aws_lc_rs::{error::Unspecified, hmac};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{DevError, keys::KeySet, random::Random, realm::Realm, state_file::StateFile};
use crate::domain::ClientSecret;

pub(super) struct Identity {
    pub(super) client_secret: ClientSecret,
    /// Signs session cookies and CSRF tokens.
    pub(super) session_key: hmac::Key,
    provider: KeySet,
    platform: KeySet,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    #[serde(with = "zeroizing_text")]
    client_secret: Zeroizing<String>,
    #[serde(with = "zeroizing_text")]
    session_key: Zeroizing<String>,
    provider: KeySet,
    platform: KeySet,
}

impl Identity {
    /// The one kept in `directory`, or a new one, kept there. A given client secret comes before the kept one.
    pub(super) fn load_or_generate(
        directory: Option<&Path>,
        client_secret: Option<ClientSecret>,
        random: &Random,
    ) -> Result<Self, DevError> {
        let saved = match directory {
            None => generate(random, KeySet::ephemeral)?,
            Some(directory) => {
                let file = StateFile::new(directory, "identity.json")?;
                match file.read()? {
                    Some(saved) => saved,
                    None => {
                        let saved = generate(random, |_| KeySet::generate())?;
                        file.write(&saved)?;
                        saved
                    }
                }
            }
        };
        Ok(Self {
            client_secret: client_secret.unwrap_or_else(|| ClientSecret::new(saved.client_secret.to_string())),
            session_key: hmac::Key::new(hmac::HMAC_SHA256, saved.session_key.as_bytes()),
            provider: saved.provider,
            platform: saved.platform,
        })
    }

    pub(super) fn keys(&self, realm: Realm) -> &KeySet {
        match realm {
            Realm::Platform => &self.platform,
            Realm::Provider | Realm::Google | Realm::Entra | Realm::Slack => &self.provider,
        }
    }
}

fn generate(random: &Random, keys: impl Fn(Realm) -> Result<KeySet, Unspecified>) -> Result<Saved, DevError> {
    Ok(Saved {
        client_secret: Zeroizing::new(random.text("dev_cs_")),
        session_key: Zeroizing::new(random.text("")),
        provider: keys(Realm::Provider).map_err(|_| DevError::KeyGeneration)?,
        platform: keys(Realm::Platform).map_err(|_| DevError::KeyGeneration)?,
    })
}

mod zeroizing_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(text: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(deserializer).map(Zeroizing::new)
    }
}
