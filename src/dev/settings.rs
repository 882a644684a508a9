//! What can be changed about a server while it runs.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use serde::{Deserialize, Serialize, Serializer};

use crate::domain::Rotation;

/// How the demo provider behaves from now on. As JSON: `{"rotation": "strict", "access_token_lifetime": 60}`, where a
/// rotation is `"none"`, `"reuse"`, `"strict"` or `{"grace": {"seconds": 10}}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    pub rotation: Rotation,
    /// Of access tokens that are issued from now on, at every issuer; in seconds.
    #[serde(serialize_with = "seconds")]
    pub access_token_lifetime: Duration,
}

/// What is to change; the rest stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SettingsChange {
    rotation: Option<Rotation>,
    access_token_lifetime: Option<u64>,
}

/// The settings in force. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct InForce(Arc<RwLock<Settings>>);

impl InForce {
    pub(super) fn new(settings: Settings) -> Self {
        Self(Arc::new(RwLock::new(settings)))
    }

    pub(super) fn get(&self) -> Settings {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, settings: Settings) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }
}

impl SettingsChange {
    pub(super) fn of(self, settings: Settings) -> Settings {
        Settings {
            rotation: self.rotation.unwrap_or(settings.rotation),
            access_token_lifetime: self
                .access_token_lifetime
                .map_or(settings.access_token_lifetime, |seconds| Duration::from_secs(seconds.max(1))),
        }
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}
