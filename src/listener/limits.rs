//! Every bound of both listeners in one place: libraries leave them open, or set them for bigger messages.

use std::time::Duration;

/// What one stranger may cost us. The defaults suit a broker whose callers are many and whose messages are small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that each listener holds.
    pub connections: usize,
    /// Of these, from one address (IPv6: from one /64, of which a single host has all).
    pub connections_per_peer: usize,
    /// From the accepted connection to the end of the TLS handshake and, on HTTP/2, of the client's preface.
    pub first_byte: Duration,
    /// For how long a peer may leave what we send unread.
    pub write_stall: Duration,
    /// Bytes of one request's headers, on both listeners: a token of up to 8 KiB, the platform's tracing, and its
    /// proxies' additions.
    pub header_list: u32,
    /// Bytes of one gRPC message that is read. None of ours comes near it.
    pub message: usize,
    /// Calls under way on one HTTP/2 connection. A client queues more silently; one that needs more opens another.
    pub streams: u32,
    /// HTTP/2 pings find peers that are gone without a word: how often they are sent, and how long the answer may take.
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
    /// Streams that a client may open and reset before we have looked at them (CVE-2023-44487).
    pub reset_streams: usize,
    /// Streams that a client may make us reset (CVE-2025-8671).
    pub error_resets: usize,
    /// For one HTTP/1 request's headers, and for an idle HTTP/1 connection.
    pub http_header_time: Duration,
    /// From one HTTP/1 request's headers to its answer.
    pub http_request_time: Duration,
    /// Bytes of one HTTP/1 request's body.
    pub http_body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_peer: 1000,
            first_byte: Duration::from_secs(10),
            write_stall: Duration::from_secs(30),
            header_list: 24 * 1024,
            message: 64 * 1024,
            streams: 256,
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(10),
            reset_streams: 20,
            error_resets: 1024,
            http_header_time: Duration::from_secs(10),
            http_request_time: Duration::from_secs(60),
            http_body: 64 * 1024,
        }
    }
}
