//! What applies to all connections of a mesh.

use std::time::Duration;

use super::backoff::ConnectBackoff;
use super::tcp::TcpKeepalive;

/// How connections to endpoints are kept. The cluster says the rest: protocol, TLS, timeout and how many.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectSettings {
    /// When to try again after a failed attempt.
    pub backoff: ConnectBackoff,
    /// HTTP/2: after how much silence a PING asks whether the server is still there while calls wait for it. 5 min: gRPC
    /// servers that are not told otherwise close connections that ask more often, with the calls on them (gRFC A8,
    /// `too_many_pings`); a machine that vanished is found by `tcp_keepalive`. None: never.
    pub keep_alive_interval: Option<Duration>,
    /// HTTP/2: how long the answer to a PING may take. 20 s, as gRPC's.
    pub keep_alive_timeout: Duration,
    /// HTTP/2: whether to ask when no request is under way, too. Off: gRPC servers close connections that ping while idle
    /// (gRFC A8, `too_many_pings`).
    pub keep_alive_while_idle: bool,
    /// HTTP/2: how many bytes of one response may be on the way unread. 1 MiB: 100 MB/s at 10 ms, and what one slow reader
    /// can make us hold.
    pub stream_window: u32,
    /// HTTP/2: the same for all responses of a connection. 2 MiB: one stalled response leaves room for the others.
    pub connection_window: u32,
    /// When the kernel finds that the server's machine is gone: within 20 s by default, where TCP alone takes 15 minutes, and
    /// an idle connection never would. None: the system's own settings.
    pub tcp_keepalive: Option<TcpKeepalive>,
}

impl Default for ConnectSettings {
    fn default() -> Self {
        Self {
            backoff: ConnectBackoff::default(),
            keep_alive_interval: Some(Duration::from_secs(5 * 60)),
            keep_alive_timeout: Duration::from_secs(20),
            keep_alive_while_idle: false,
            stream_window: 1 << 20,
            connection_window: 2 << 20,
            tcp_keepalive: Some(TcpKeepalive::default()),
        }
    }
}
