//! A linked audit record as stored: format (1) · sequence number (8, big-endian) · authenticator (32) · sealed body.

use crate::domain::Sealed;

/// Persisted: never reuse a number.
const FORMAT: u8 = 1;

/// An audit record with its place in the chain.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkedAudit {
    /// Dense, from 1.
    pub sequence: u64,
    /// Authenticates this record and, through the one before it, all before it.
    pub mac: [u8; 32],
    pub body: Sealed,
}

impl LinkedAudit {
    pub fn encode(&self) -> Vec<u8> {
        let body = self.body.as_bytes();
        let mut bytes = Vec::with_capacity(1 + 8 + 32 + body.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.mac);
        bytes.extend_from_slice(body);
        bytes
    }

    /// `None`: not a linked record of a known format.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[FORMAT], rest) = bytes.split_first_chunk()? else { return None };
        let (sequence, rest) = rest.split_first_chunk()?;
        let (mac, body) = rest.split_first_chunk()?;
        let body = Sealed::from_bytes(bytes::Bytes::copy_from_slice(body));
        Some(Self { sequence: u64::from_be_bytes(*sequence), mac: *mac, body })
    }
}
