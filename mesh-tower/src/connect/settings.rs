//! What applies to all connections of a mesh.

use std::time::Duration;

use super::backoff::ConnectBackoff;

/// How connections to endpoints are kept. The cluster says the rest: protocol, TLS, timeout and how many.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectSettings {
    /// When to try again after a failed attempt.
    pub backoff: ConnectBackoff,
    /// HTTP/2: how often a PING asks whether the server is still there. 10 s: together with the timeout, a server whose
    /// machine vanished is found within 20 s, where TCP alone takes 15 minutes. None: never.
    pub keep_alive_interval: Option<Duration>,
    /// HTTP/2: how long the answer to a PING may take. 10 s: longer than any pause of a healthy server.
    pub keep_alive_timeout: Duration,
    /// HTTP/2: whether to ask when no request is under way, too. Off: gRPC servers close connections that ping while idle
    /// (gRFC A8, `too_many_pings`).
    pub keep_alive_while_idle: bool,
    /// HTTP/2: how many bytes of one response may be on the way unread. 1 MiB: 100 MB/s at 10 ms, and what one slow reader
    /// can make us hold.
    pub stream_window: u32,
    /// HTTP/2: the same for all responses of a connection. 2 MiB: one stalled response leaves room for the others.
    pub connection_window: u32,
    /// TCP keep-alive, with the kernel's own times. On: it is what finds dead idle connections of HTTP/1.1.
    pub tcp_keepalive: bool,
}

impl Default for ConnectSettings {
    fn default() -> Self {
        Self {
            backoff: ConnectBackoff::default(),
            keep_alive_interval: Some(Duration::from_secs(10)),
            keep_alive_timeout: Duration::from_secs(10),
            keep_alive_while_idle: false,
            stream_window: 1 << 20,
            connection_window: 2 << 20,
            tcp_keepalive: true,
        }
    }
}
