pub mod domain;
pub mod oauth;
pub mod outbound;
pub mod store;
