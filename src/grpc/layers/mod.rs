//! What every call passes, whatever it is for, from the outside in:
//!
//! - [`request_id`]: names the call · [`count`]: counts it, with [`methods`]: those that there are
//! - [`recover`]: answers for panics, and explains what tonic leaves unexplained
//! - [`authentication`]: who calls; nobody passes without a token but to what is open · [`rate_limit`]: how often
//!
//! They wrap the router, so a service that is added to it, or a method that does not exist, is behind them too.

mod authentication;
mod count;
mod methods;
mod rate_limit;
mod recover;
mod request_id;

pub(super) use authentication::Authentication;
pub(super) use count::Count;
pub(super) use methods::Methods;
pub use rate_limit::Rate;
pub(super) use rate_limit::RateLimit;
pub(super) use recover::Recover;
pub(super) use request_id::Identify;
pub use request_id::RequestIds;
