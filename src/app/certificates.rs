//! The certificates of both listeners, and exchanging them while they are served.

use std::sync::Arc;

use crate::{
    config::{Config, TlsSection},
    listener::{Protocol, Tls, TlsError},
};

/// Clones share what is in force.
#[derive(Clone)]
pub struct Certificates {
    pub(super) grpc: Option<Arc<Tls>>,
    pub(super) http: Option<Arc<Tls>>,
}

/// New certificates are not taken; those of before stay in force.
#[derive(Debug, thiserror::Error)]
#[error("{listener}.tls: the certificates stay as they were")]
pub struct NotReloaded {
    listener: &'static str,
    source: Box<TlsError>,
}

impl Certificates {
    pub(super) fn load(config: &Config) -> Result<Self, TlsError> {
        Ok(Self { grpc: load(&config.grpc.tls, Protocol::Http2)?, http: load(&config.http.tls, Protocol::Http1)? })
    }

    /// Reads the files again. New connections see what they hold now, on both listeners or, when any file is bad, on
    /// neither; open connections keep what they began with.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn reload(&self) -> Result<(), NotReloaded> {
        let mut fresh = Vec::new();
        for (listener, tls) in [("grpc", &self.grpc), ("http", &self.http)] {
            if let Some(tls) = tls {
                let kept = |problem| NotReloaded { listener, source: Box::new(problem) };
                fresh.push((tls, tls.read_again().map_err(kept)?));
            }
        }
        for (tls, config) in fresh {
            tls.put_in_force(config);
        }
        Ok(())
    }
}

fn load(section: &Option<TlsSection>, protocol: Protocol) -> Result<Option<Arc<Tls>>, TlsError> {
    match section {
        Some(TlsSection::Files(files)) => Ok(Some(Arc::new(Tls::load(files.clone(), protocol)?))),
        Some(TlsSection::Off) | None => Ok(None),
    }
}
