pub mod audit;
pub mod domain;
pub mod proto;
pub mod sealing;
pub mod store;
pub mod telemetry;
pub mod vault;
