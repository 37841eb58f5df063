//! The system's resolver.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{Resolve, Resolving};

/// Lookups at the same time. Each occupies a thread for as long as the system's resolver likes, and names may be a stranger's.
const AT_ONCE: usize = 32;

/// Asks as every program of this machine does: `/etc/hosts`, then DNS, as `nsswitch.conf` says. Answers have no time to live.
#[derive(Debug, Clone)]
pub struct SystemResolver {
    turns: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> Resolving {
        let (name, turns) = (host.to_owned(), self.turns.clone());
        Box::pin(async move {
            let turn = turns.acquire_owned().await.map_err(io::Error::other)?;
            let ask = move || -> io::Result<Vec<SocketAddr>> {
                // The thread is busy until the resolver is done, whoever still waits for it.
                let _turn = turn;
                Ok((name, port).to_socket_addrs()?.collect())
            };
            tokio::task::spawn_blocking(ask).await.map_err(io::Error::other)?
        })
    }
}
