//! From a host's name to its addresses, by the system's resolver.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::error::{Code, Error};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long a lookup may take: what the system's resolver waits for one server before it asks the next.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lookups at the same time. Each occupies a thread of the runtime's pool for as long as the system's resolver likes, and
/// names may be a stranger's.
const AT_ONCE: usize = 32;
/// The most addresses of one name that are of use.
const MOST: usize = 16;

/// Looks up names.
pub(super) struct Dns {
    turns: Arc<Semaphore>,
}

impl Default for Dns {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Dns {
    /// The addresses of `host`, in the order they are to be tried; at least one.
    pub(super) async fn lookup(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let found = timeout(PATIENCE, self.ask(host, port)).await;
        match found.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))) {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            Ok(_) => Err(unknown(host, "it has no address")),
            Err(error) => Err(unknown(host, &error.to_string()).with_source(error)),
        }
    }

    async fn ask(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let turn = self.turns.clone().acquire_owned().await.map_err(io::Error::other)?;
        let name = host.to_owned();
        // A task of its own: the thread is busy until the resolver is done, whoever still waits for it.
        let lookup = tokio::spawn(async move {
            let _turn = turn;
            tokio::net::lookup_host((name, port)).await.map(|found| found.take(MOST).collect())
        });
        lookup.await.map_err(io::Error::other)?
    }
}

fn unknown(host: &str, why: &str) -> Error {
    Error::new(Code::NO_CONNECTION, format!("host `{host}` is not in the mesh, and DNS does not know it: {why}"))
        .with_next_step("check the name, or add the host to the mesh")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_need_no_dns() {
        let dns = Dns { turns: Arc::new(Semaphore::new(0)) };
        for (host, address) in [("127.0.0.1", "127.0.0.1:81"), ("[::1]", "[::1]:81")] {
            assert_eq!(dns.lookup(host, 81).await.unwrap(), [address.parse().unwrap()], "{host}");
        }
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_named() {
        // RFC 6761: no resolver may know it.
        let error = Dns::default().lookup("nothing.invalid", 80).await.unwrap_err();
        assert_eq!(error.code(), Code::NO_CONNECTION);
        assert!(error.message().contains("`nothing.invalid`"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_gets_no_turn_ends() {
        let dns = Dns { turns: Arc::new(Semaphore::new(0)) };
        assert_eq!(dns.lookup("localhost", 80).await.unwrap_err().code(), Code::NO_CONNECTION);
    }
}
