//! The one source of randomness: nonces, keys, ids, and the secrets that browsers carry.

use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::domain::{BrowserSecret, CodeVerifier, FlowSecret, Nonce};

/// The random source failed. Nothing may be sealed, minted or sent without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the random source failed")]
pub struct RandomUnavailable;

/// Fills the whole slice or fails.
pub type FillRandom = dyn Fn(&mut [u8]) -> Result<(), RandomUnavailable> + Send + Sync;

/// Cheap to clone.
#[derive(Clone)]
pub struct Random(Source);

#[derive(Clone)]
enum Source {
    System(SystemRandom),
    Given(Arc<FillRandom>),
}

/// Entropy of `state`, verifier and nonce, in bytes: RFC 7636 §7.1 and RFC 6749 §10.10 ask for at least this order.
const TEXT_SECRET: usize = 32;

impl Random {
    /// The operating system's generator.
    pub fn system() -> Self {
        Self(Source::System(SystemRandom::new()))
    }

    /// A source of the caller's: seeded in simulations, failing in tests.
    pub fn from_fill(fill: Arc<FillRandom>) -> Self {
        Self(Source::Given(fill))
    }

    pub fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomUnavailable> {
        match &self.0 {
            Source::System(system) => system.fill(bytes).map_err(|_| RandomUnavailable),
            Source::Given(fill) => fill(bytes),
        }
    }

    /// Bytes that are not secret: ids and nonces.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], RandomUnavailable> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// A secret of 256 bits.
    pub fn secret(&self) -> Result<Zeroizing<[u8; 32]>, RandomUnavailable> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.fill(bytes.as_mut())?;
        Ok(bytes)
    }

    /// `bytes` random bytes as base64url without padding: safe in URLs, cookies and headers.
    pub fn text_secret(&self, bytes: usize) -> Result<Zeroizing<String>, RandomUnavailable> {
        let mut raw = Zeroizing::new(vec![0; bytes]);
        self.fill(&mut raw)?;
        Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(raw.as_slice())))
    }

    /// A fresh `state` of 256 bits.
    pub fn flow_secret(&self) -> Result<FlowSecret, RandomUnavailable> {
        self.text().map(FlowSecret::new)
    }

    /// A fresh PKCE verifier of 256 bits, 43 characters (RFC 7636 §4.1).
    pub fn code_verifier(&self) -> Result<CodeVerifier, RandomUnavailable> {
        self.text().map(CodeVerifier::new)
    }

    /// A fresh OpenID Connect nonce of 256 bits.
    pub fn nonce(&self) -> Result<Nonce, RandomUnavailable> {
        self.text().map(Nonce::new)
    }

    /// A fresh cookie of 256 bits.
    pub fn browser_secret(&self) -> Result<BrowserSecret, RandomUnavailable> {
        self.text().map(BrowserSecret::new)
    }

    fn text(&self) -> Result<String, RandomUnavailable> {
        Ok(std::mem::take(&mut *self.text_secret(TEXT_SECRET)?))
    }
}
