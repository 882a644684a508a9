//! `[grpc]`: where agents and platforms call.

use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TlsSection;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcSection {
    /// Address and port; port 0 takes any.
    #[schemars(example = &"127.0.0.1:50051")]
    pub listen: SocketAddr,
    /// Needed unless `listen` is a loopback address.
    pub tls: Option<TlsSection>,
    /// Who may read the service descriptions.
    pub reflection: Reflection,
    /// Calls per second that one principal may make in the long run; bursts of ten times that pass. 0: no limit.
    pub rate: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reflection {
    /// Everybody.
    Open,
    /// Whoever presents a platform token.
    #[default]
    Authenticated,
    /// Nobody.
    Off,
}

impl Default for GrpcSection {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 50051).into(), tls: None, reflection: Reflection::default(), rate: 100 }
    }
}
