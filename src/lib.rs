pub mod client;
pub mod domain;
pub mod proto;
pub mod store;
pub mod telemetry;
