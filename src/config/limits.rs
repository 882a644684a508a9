//! `[limits]`: what strangers may cost us, on both listeners.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Finding, KeyPath, Period, Size, range};
use crate::listener::Limits;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Connections that each listener holds.
    pub connections: u32,
    /// Of these, from one address (IPv6: from one /64). Raise it where a proxy brings everybody.
    pub connections_per_peer: u32,
    /// From the accepted connection to the end of the TLS handshake and, for gRPC, of the HTTP/2 preface.
    pub first_byte: Period,
    /// For how long a peer may leave what it is sent unread.
    pub write_stall: Period,
    /// All headers of one request, on both listeners; a platform token takes up to 8 KiB of it.
    pub header_list: Size,
    /// One gRPC message in.
    pub message: Size,
    /// Calls under way on one gRPC connection.
    pub streams: u32,
    /// How often a gRPC connection is asked whether its peer is still there.
    pub keep_alive_interval: Period,
    /// How long the answer to that may take.
    pub keep_alive_timeout: Period,
    /// Streams that a client may open and reset at once before its connection is closed.
    pub reset_streams: u32,
    /// Streams that a client may make us reset before its connection is closed.
    pub error_resets: u32,
    /// For the headers of one HTTP request; an idle HTTP connection is closed after it too.
    pub http_header_time: Period,
    /// For one HTTP request and its answer.
    pub http_request_time: Period,
    /// The body of one HTTP request.
    pub http_body: Size,
    /// From the signal to the end of the process, whatever hangs: at most 30 s, after which orchestrators kill.
    pub shutdown_grace: Period,
}

impl LimitsSection {
    pub fn limits(&self) -> Limits {
        Limits {
            connections: count(self.connections),
            connections_per_peer: count(self.connections_per_peer),
            first_byte: self.first_byte.0,
            write_stall: self.write_stall.0,
            header_list: u32::try_from(self.header_list.0).unwrap_or(u32::MAX),
            message: bytes(self.message),
            streams: self.streams,
            keep_alive_interval: self.keep_alive_interval.0,
            keep_alive_timeout: self.keep_alive_timeout.0,
            reset_streams: count(self.reset_streams),
            error_resets: count(self.error_resets),
            http_header_time: self.http_header_time.0,
            http_request_time: self.http_request_time.0,
            http_body: bytes(self.http_body),
        }
    }

    /// Zero is no limit anywhere here: it would let nobody in, or end everything at once.
    pub(super) fn check(&self) -> Vec<Finding> {
        let key = |name: &str| KeyPath::of("limits").join(name);
        let counts = [
            ("connections", self.connections),
            ("connections_per_peer", self.connections_per_peer),
            ("streams", self.streams),
            ("reset_streams", self.reset_streams),
            ("error_resets", self.error_resets),
        ];
        let periods = [
            ("first_byte", self.first_byte, HOUR),
            ("write_stall", self.write_stall, HOUR),
            ("keep_alive_interval", self.keep_alive_interval, HOUR),
            ("keep_alive_timeout", self.keep_alive_timeout, HOUR),
            ("http_header_time", self.http_header_time, HOUR),
            ("http_request_time", self.http_request_time, HOUR),
            // Kubernetes kills after 30 s.
            ("shutdown_grace", self.shutdown_grace, Period::from_secs(30)),
        ];
        let sizes = [
            ("header_list", self.header_list, Size::kib(8)),
            ("message", self.message, Size::kib(1)),
            ("http_body", self.http_body, Size::kib(1)),
        ];
        let mut findings: Vec<_> =
            counts.iter().filter_map(|(name, count)| range(key(name), count, &1, &1_000_000)).collect();
        findings.extend(periods.iter().filter_map(|(name, period, most)| range(key(name), period, &SHORTEST, most)));
        findings.extend(sizes.iter().filter_map(|(name, size, least)| range(key(name), size, least, &Size::mib(16))));
        findings
    }
}

const SHORTEST: Period = Period::from_secs(1);
const HOUR: Period = Period::from_secs(3600);

impl Default for LimitsSection {
    fn default() -> Self {
        let limits = Limits::default();
        let few = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            connections: few(limits.connections),
            connections_per_peer: few(limits.connections_per_peer),
            first_byte: Period(limits.first_byte),
            write_stall: Period(limits.write_stall),
            header_list: Size(limits.header_list.into()),
            message: Size(limits.message as u64),
            streams: limits.streams,
            keep_alive_interval: Period(limits.keep_alive_interval),
            keep_alive_timeout: Period(limits.keep_alive_timeout),
            reset_streams: few(limits.reset_streams),
            error_resets: few(limits.error_resets),
            http_header_time: Period(limits.http_header_time),
            http_request_time: Period(limits.http_request_time),
            http_body: Size(limits.http_body as u64),
            shutdown_grace: Period::from_secs(25),
        }
    }
}

fn count(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn bytes(size: Size) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}
