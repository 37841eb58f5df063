//! How TCP finds out that the peer's machine is gone.
//!
//! The kernel asks, not HTTP/2: a PING of ours every few seconds would find the same, but gRPC's servers take more than one in
//! five minutes for an attack and close the connection with the calls on it (gRFC A8, `too_many_pings`).

use std::io;
use std::time::Duration;

use socket2::SockRef;
#[cfg(feature = "server")]
use tokio::net::TcpListener;
use tokio::net::TcpStream;

/// When a connection counts as dead whose peer says nothing, not even that it received our bytes: Envoy's
/// `UpstreamConnectionOptions.tcp_keepalive`.
///
/// A peer is found gone after `time + probes * interval`, whether or not something was sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpKeepalive {
    /// How long a silent connection is left alone (`keepalive_time`). 10 s; the kernel's own default is two hours.
    pub time: Duration,
    /// How long the answer to a probe is waited for (`keepalive_interval`). 5 s; the kernel's own default is 75 s.
    pub interval: Duration,
    /// How many probes may stay without an answer (`keepalive_probes`). 2; the kernel's own default is 9.
    pub probes: u32,
}

impl Default for TcpKeepalive {
    fn default() -> Self {
        Self { time: Duration::from_secs(10), interval: Duration::from_secs(5), probes: 2 }
    }
}

impl TcpKeepalive {
    /// Sets it on a connection.
    pub(crate) fn watch(self, stream: &TcpStream) -> io::Result<()> {
        self.set(&SockRef::from(stream), self.time + self.interval * self.probes)
    }

    /// Sets it on a listening socket, which has every connection that it accepts begin with it. A client may take nothing of what
    /// it is sent for `write_timeout`.
    #[cfg(feature = "server")]
    pub(crate) fn watch_accepted(self, listener: &TcpListener, write_timeout: Duration) -> io::Result<()> {
        self.set(&SockRef::from(listener), write_timeout)
    }

    #[cfg_attr(not(target_os = "linux"), allow(unused_variables, reason = "only Linux can be told"))]
    fn set(self, socket: &SockRef<'_>, unacknowledged: Duration) -> io::Result<()> {
        let probing = socket2::TcpKeepalive::new().with_time(self.time).with_interval(self.interval);
        socket.set_tcp_keepalive(&probing.with_retries(self.probes))?;
        // Probes rest while bytes of ours are under way, which the kernel alone would send again for 15 minutes.
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(unacknowledged))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_peer_that_vanished_is_found_within_20_s_by_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        TcpKeepalive::default().watch(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        let silent = socket.tcp_keepalive_time().unwrap();
        let probing = socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        assert_eq!(silent + probing, Duration::from_secs(20));
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(20)));
    }

    #[cfg(feature = "server")]
    #[tokio::test]
    async fn a_client_that_vanished_is_found_as_soon() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let patience = Duration::from_secs(60);
        TcpKeepalive::default().watch_accepted(&listener, patience).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.keepalive().unwrap(), "what is accepted begins with it");
        assert_eq!(socket.tcp_keepalive_time().unwrap(), TcpKeepalive::default().time);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(patience), "it may be slow to take what it is sent");
    }
}
