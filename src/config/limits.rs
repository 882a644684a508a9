//! What strangers may cost us, on both listeners.

use std::time::Duration;

use serde::Deserialize;

use super::Problem;
use crate::listener::Limits;

/// Beyond it orchestrators kill: Kubernetes waits for 30 s.
const LONGEST_GRACE: u64 = 30;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Connections that each listener holds.
    pub connections: usize,
    /// Of these, from one address (IPv6: from one /64). Raise it where a proxy brings everybody.
    pub connections_per_peer: usize,
    /// From the accepted connection to the end of the TLS handshake and, for gRPC, of the HTTP/2 preface.
    pub first_byte: u64,
    /// For how long a peer may leave what it is sent unread.
    pub write_stall: u64,
    /// Of one request, on both listeners.
    pub header_list: u32,
    /// One gRPC message in.
    pub message: usize,
    /// Calls under way on one gRPC connection.
    pub streams: u32,
    /// How often a gRPC connection is asked whether its peer is still there, and how long the answer may take.
    pub keep_alive_interval: u64,
    pub keep_alive_timeout: u64,
    /// Streams that a client may open and reset at once before its connection is closed.
    pub reset_streams: usize,
    /// Streams that a client may make us reset before its connection is closed.
    pub error_resets: usize,
    /// For the headers of one HTTP request; an idle HTTP connection is closed after it too.
    pub http_header_time: u64,
    /// For one HTTP request and its answer.
    pub http_request_time: u64,
    /// The body of one HTTP request.
    pub http_body: usize,
    /// From the signal to the end of the process, whatever hangs.
    pub shutdown_grace: u64,
}

impl LimitsSection {
    pub fn limits(&self) -> Limits {
        Limits {
            connections: self.connections,
            connections_per_peer: self.connections_per_peer,
            first_byte: Duration::from_secs(self.first_byte),
            write_stall: Duration::from_secs(self.write_stall),
            header_list: self.header_list,
            message: self.message,
            streams: self.streams,
            keep_alive_interval: Duration::from_secs(self.keep_alive_interval),
            keep_alive_timeout: Duration::from_secs(self.keep_alive_timeout),
            reset_streams: self.reset_streams,
            error_resets: self.error_resets,
            http_header_time: Duration::from_secs(self.http_header_time),
            http_request_time: Duration::from_secs(self.http_request_time),
            http_body: self.http_body,
        }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            connections: limits.connections,
            connections_per_peer: limits.connections_per_peer,
            first_byte: limits.first_byte.as_secs(),
            write_stall: limits.write_stall.as_secs(),
            header_list: limits.header_list,
            message: limits.message,
            streams: limits.streams,
            keep_alive_interval: limits.keep_alive_interval.as_secs(),
            keep_alive_timeout: limits.keep_alive_timeout.as_secs(),
            reset_streams: limits.reset_streams,
            error_resets: limits.error_resets,
            http_header_time: limits.http_header_time.as_secs(),
            http_request_time: limits.http_request_time.as_secs(),
            http_body: limits.http_body,
            shutdown_grace: 25,
        }
    }
}

/// Zero is no limit anywhere here: it would let nobody in, or end everything at once.
pub(super) fn check(limits: &LimitsSection) -> Vec<Problem> {
    let LimitsSection {
        connections,
        connections_per_peer,
        first_byte,
        write_stall,
        header_list,
        message,
        streams,
        keep_alive_interval,
        keep_alive_timeout,
        reset_streams,
        error_resets,
        http_header_time,
        http_request_time,
        http_body,
        shutdown_grace,
    } = limits;
    let zero = [
        ("connections", *connections == 0),
        ("connections_per_peer", *connections_per_peer == 0),
        ("first_byte", *first_byte == 0),
        ("write_stall", *write_stall == 0),
        ("message", *message == 0),
        ("streams", *streams == 0),
        ("keep_alive_interval", *keep_alive_interval == 0),
        ("keep_alive_timeout", *keep_alive_timeout == 0),
        ("reset_streams", *reset_streams == 0),
        ("error_resets", *error_resets == 0),
        ("http_header_time", *http_header_time == 0),
        ("http_request_time", *http_request_time == 0),
        ("http_body", *http_body == 0),
        ("shutdown_grace", *shutdown_grace == 0),
    ];
    let mut problems: Vec<_> =
        zero.iter().filter(|(_, zero)| *zero).map(|(key, _)| Problem::LimitZero { key }).collect();
    if *header_list < SHORTEST_HEADER_LIST {
        problems.push(Problem::HeaderList);
    }
    if *shutdown_grace > LONGEST_GRACE {
        problems.push(Problem::ShutdownGrace);
    }
    problems
}

/// A platform token takes up to 8 KiB of it.
const SHORTEST_HEADER_LIST: u32 = 8 * 1024;
