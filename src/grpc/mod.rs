//! The gRPC edge: parse, call one use case, encode.
//!
//! - [`server`]: services, limits, shutdown · [`layers`]: what every call passes
//! - [`service`]: the RPCs; each has a file of its name · [`health`]: readiness
//! - [`watch_route`]: the one RPC that is not served as generated · [`watch_wire`]: its messages
//! - [`fields`]: untrusted fields · [`encode`]: answers · [`status`]: the one place where errors become statuses

mod coalesced;
mod create_backup;
mod encode;
mod fields;
mod get_authorization;
mod get_connection;
mod get_plugin_token;
mod get_plugin_tokens;
mod get_status;
mod health;
mod layers;
mod list_connections;
mod list_keys;
mod report_applied;
mod retire_key;
mod revoke;
mod rotate_key;
mod server;
mod service;
mod start_authorization;
mod status;
mod store_auth_code;
mod validate_platform_token;
mod watch_credential_status;
mod watch_route;
mod watch_wire;

pub use layers::{Rate, RequestIds};
pub use server::{Parts, ReflectionPolicy, Server, Settings};
pub use watch_wire::WIRE;
