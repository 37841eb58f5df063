//! Clusters whose endpoints DNS knows (gRFC A37): `LOGICAL_DNS` and `STRICT_DNS`.
//!
//! A name is a resource like any other: the graph wants it, waits for it and lets it go. `Named` stands before a source and
//! answers for names; when to ask is decided by a schedule without I/O.

mod feed;
mod names;
mod system;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use crate::model::{DnsEndpoints, DnsHost};
use crate::publish::Publisher;
use crate::resource::{HOST, ResourceKey};

pub(crate) use feed::Named;
pub use system::SystemResolver;

/// How long a lookup may take: what the system's resolver waits for one server before it asks the next.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most addresses of one name that are of use.
const MOST_ADDRESSES: usize = 1000;

/// Looks up names. [`SystemResolver`] is the default.
pub trait Resolve: Send + Sync + fmt::Debug {
    /// The addresses of `host` with this port, in the order they are to be tried. It is never an address itself, nor waited for
    /// longer than 5 s; what is not polled any more is no longer needed.
    fn resolve(&self, host: &str, port: u16) -> Resolving;
}

/// A lookup under way.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The addresses of `host`, in the order they are to be tried, each once; at least one. An address needs no lookup.
///
/// # Errors
///
/// What `resolver` says, or that it says nothing for 5 s, or that there is none.
pub async fn lookup(resolver: &dyn Resolve, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = literal.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let found = timeout(PATIENCE, resolver.resolve(host, port)).await;
    let found = found.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))?;
    let mut addresses = Vec::new();
    for address in found {
        if addresses.len() < MOST_ADDRESSES && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(addresses)
}

/// What a name is known to be: the value of a resource of type [`HOST`].
#[derive(Debug)]
pub(crate) struct Addresses {
    /// At least one, in the order they are to be tried.
    pub(crate) list: Vec<SocketAddr>,
    pub(crate) again: Again,
}

/// Has a name looked up again, because connections to its addresses fail (gRFC A37): at once, or when 30 s have passed since
/// the last time. It may be asked from anywhere and as often as one likes.
#[derive(Clone)]
pub struct Again(Arc<Asked>);

struct Asked {
    flag: AtomicBool,
    signal: Arc<Publisher<()>>,
}

impl Again {
    /// One that publishes on `signal` when it is asked for the first time since it was heard.
    pub fn new(signal: Arc<Publisher<()>>) -> Self {
        Self(Arc::new(Asked { flag: AtomicBool::new(false), signal }))
    }

    /// Asks.
    pub fn ask(&self) {
        if !self.0.flag.swap(true, Ordering::AcqRel) {
            self.0.signal.publish(Arc::new(()));
        }
    }

    /// Whether somebody asked; asking forgets.
    fn take(&self) -> bool {
        self.0.flag.swap(false, Ordering::AcqRel)
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Again").field(&self.0.flag).finish()
    }
}

/// What is asked of DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    host: String,
    port: u16,
    /// How often it is asked though nothing fails.
    refresh: Option<Duration>,
}

/// The resource that `host` is, refreshed as `endpoints` are.
pub(crate) fn key(host: &DnsHost, endpoints: &DnsEndpoints) -> ResourceKey {
    // As text, since that is what resources are known by; the host comes last, as it may hold anything.
    let refresh = endpoints.refresh.map_or(0, |refresh| refresh.as_millis());
    ResourceKey::new(HOST, format!("{refresh}/{}/{}", host.port, host.host))
}

impl Question {
    fn of(key: &ResourceKey) -> Option<Self> {
        let mut parts = key.name.splitn(3, '/');
        let refresh = parts.next()?.parse().ok().map(Duration::from_millis)?;
        let port = parts.next()?.parse().ok()?;
        Some(Self { host: parts.next()?.to_owned(), port, refresh: (!refresh.is_zero()).then_some(refresh) })
    }
}
