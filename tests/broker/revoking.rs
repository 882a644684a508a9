//! revoking
