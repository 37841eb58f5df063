//! The first of several addresses that answers.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::tcp::TcpKeepalive;

/// How long an address may keep us waiting before the next one is tried beside it (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Why none of the addresses was connected to, each with its own reason.
#[derive(Debug, Default)]
pub(super) struct Unreachable(Vec<(SocketAddr, io::Error)>);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the name has no address");
        }
        f.write_str("cannot connect to ")?;
        for (number, (address, error)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{address}: {error}")?;
        }
        Ok(())
    }
}

impl From<Unreachable> for io::Error {
    /// The last one's reason.
    fn from(mut unreachable: Unreachable) -> Self {
        let last = unreachable.0.pop();
        last.map_or_else(|| Self::from(io::ErrorKind::AddrNotAvailable), |(_, error)| error)
    }
}

/// Connects to whichever of `addresses` answers first, in their order and with a head start for each (gRFC A61).
pub(super) async fn first_of(
    addresses: Vec<SocketAddr>,
    keepalive: Option<TcpKeepalive>,
) -> Result<TcpStream, Unreachable> {
    if let [address] = addresses[..] {
        return connect(address, keepalive).await.map_err(|error| Unreachable(vec![(address, error)]));
    }
    let mut attempts = JoinSet::new();
    let mut failures = Unreachable::default();
    for address in addresses {
        attempts.spawn(async move { connect(address, keepalive).await.map_err(|error| (address, error)) });
        while let Ok(Some(done)) = tokio::time::timeout(STAGGER, attempts.join_next()).await {
            if let Some(stream) = failures.note(done) {
                return Ok(stream);
            }
        }
    }
    while let Some(done) = attempts.join_next().await {
        if let Some(stream) = failures.note(done) {
            return Ok(stream);
        }
    }
    Err(failures)
}

impl Unreachable {
    fn note<E>(&mut self, done: Result<Result<TcpStream, (SocketAddr, io::Error)>, E>) -> Option<TcpStream> {
        match done {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(failure)) => self.0.push(failure),
            // It was ended with the runtime.
            Err(_) => {}
        }
        None
    }
}

async fn connect(address: SocketAddr, keepalive: Option<TcpKeepalive>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    let stream = socket.connect(address).await?;
    if let Some(keepalive) = keepalive {
        keepalive.watch(&stream)?;
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::connect::testing::BlackHole;

    async fn live() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    async fn closed() -> SocketAddr {
        live().await.local_addr().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a61_an_address_that_swallows_everything_costs_a_head_start() {
        let (hole, live) = (BlackHole::new().await, live().await);
        let address = live.local_addr().unwrap();
        let addresses = vec![hole.address(), closed().await, address];
        let stream = timeout(Duration::from_secs(2), first_of(addresses, None)).await.expect("the hole is waited for");
        assert_eq!(stream.unwrap().peer_addr().unwrap(), address);
    }

    #[tokio::test]
    async fn when_none_answers_each_is_named() {
        let (one, other) = (closed().await, closed().await);
        let unreachable = first_of(vec![one, other], None).await.unwrap_err();
        let text = unreachable.to_string();
        assert!(text.starts_with(&format!("cannot connect to {one}: ")), "{text}");
        assert!(text.contains(&format!(", {other}: ")), "{text}");
        assert_eq!(io::Error::from(unreachable).kind(), io::ErrorKind::ConnectionRefused);
        let none = first_of(Vec::new(), None).await.unwrap_err();
        assert_eq!(none.to_string(), "the name has no address");
        assert_eq!(io::Error::from(none).kind(), io::ErrorKind::AddrNotAvailable);
    }
}
