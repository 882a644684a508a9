//! What the integration tests share.

pub(crate) mod memory_store;
