//! Endpoints that DNS knows: names, and what becomes of their addresses.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::endpoint::{Endpoint, Endpoints};

/// Endpoints whose addresses DNS knows.
#[derive(Debug, Clone)]
pub struct DnsEndpoints {
    /// The names, one for each endpoint of `like`, in their order.
    pub hosts: Vec<DnsHost>,
    /// What is said of them beside their addresses, in whose place there are unspecified ones.
    pub like: Endpoints,
    /// `dns_lookup_family`: which addresses are used.
    pub family: DnsFamily,
    /// How often the names are looked up though nothing fails: `dns_refresh_rate`, which for `STRICT_DNS` is 5 s by default, as
    /// Envoy's. None, as for `LOGICAL_DNS`: when connections fail, as gRPC does.
    pub refresh: Option<Duration>,
}

/// A host to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsHost {
    /// The name.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// `Cluster.DnsLookupFamily`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DnsFamily {
    /// `AUTO`, the default, and `ALL`: all of them, in the resolver's order, which knows what this machine can reach.
    #[default]
    All,
    /// `V4_ONLY`.
    V4Only,
    /// `V6_ONLY`.
    V6Only,
    /// `V4_PREFERRED`: IPv6 only if there is nothing else.
    V4Preferred,
}

impl DnsEndpoints {
    /// The endpoints, with the addresses that `lookup` gives for each host. Each of them is an endpoint of its own, or, if they
    /// are `one` server's, the first is and the others are its further addresses (gRFC A61).
    pub fn with(&self, one: bool, lookup: impl Fn(&DnsHost) -> Vec<SocketAddr>) -> Endpoints {
        let mut endpoints = self.like.clone();
        let mut hosts = self.hosts.iter();
        let mut taken = HashSet::new();
        for locality in &mut endpoints.localities {
            let mut found = Vec::new();
            for (like, host) in locality.endpoints.iter().zip(&mut hosts) {
                let mut addresses = self.family.of(lookup(host));
                // Two names may lead to one server.
                addresses.retain(|address| taken.insert(*address));
                found.extend(filled(like, &addresses, one));
            }
            locality.endpoints = found.into();
        }
        endpoints
    }
}

fn filled(like: &Endpoint, addresses: &[SocketAddr], one: bool) -> Vec<Endpoint> {
    let fill = |(first, others): (&SocketAddr, &[SocketAddr])| Endpoint {
        address: *first,
        additional: others.to_vec(),
        ..like.clone()
    };
    if one {
        return addresses.split_first().map(fill).into_iter().collect();
    }
    addresses.iter().map(|address| fill((address, &[]))).collect()
}

impl DnsFamily {
    fn of(self, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        match self {
            Self::V4Preferred if !addresses.iter().any(SocketAddr::is_ipv4) => {}
            Self::V4Only | Self::V4Preferred => addresses.retain(SocketAddr::is_ipv4),
            Self::V6Only => addresses.retain(SocketAddr::is_ipv6),
            Self::All => {}
        }
        addresses
    }
}
