pub mod domain;
pub mod identity;
pub mod outbound;
pub mod store;
