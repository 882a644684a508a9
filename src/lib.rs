pub mod dev;
pub mod domain;
pub mod outbound;
pub mod store;
