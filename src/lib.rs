pub mod audit;
pub mod domain;
pub mod sealing;
pub mod store;
pub mod vault;
