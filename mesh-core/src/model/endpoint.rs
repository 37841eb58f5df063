//! Endpoints: where a cluster's servers are.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::matcher::Fraction;
use super::{Metadata, Name};

/// `config.endpoint.v3.ClusterLoadAssignment`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Endpoints {
    /// The localities, those of weight zero left out; priorities have no gap.
    pub localities: Vec<LocalityEndpoints>,
    /// `policy.drop_overloads`, in order.
    pub drops: Vec<DropOverload>,
    /// `policy.overprovisioning_factor` in percent: 140 by default. gRPC ignores it.
    pub overprovisioning_factor: u32,
}

impl Endpoints {
    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.localities.iter().map(|locality| locality.endpoints.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.localities.iter().all(|locality| locality.endpoints.is_empty())
    }
}

/// `config.endpoint.v3.LocalityLbEndpoints`.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityEndpoints {
    /// Where they are.
    pub locality: Arc<Locality>,
    /// 0 is tried first.
    pub priority: u32,
    /// `load_balancing_weight`; never zero.
    pub weight: u32,
    /// `metadata.filter_metadata`.
    pub metadata: Metadata,
    /// Its endpoints, beside each other: a hundred thousand of them are one allocation, which allocators give back to the
    /// system when it is freed.
    pub endpoints: Box<[Endpoint]>,
}

/// `config.core.v3.Locality`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// The region.
    pub region: Name,
    /// The zone inside it.
    pub zone: Name,
    /// The sub-zone inside that.
    pub sub_zone: Name,
}

impl fmt::Display for Locality {
    /// gRPC's label: `{region="r", zone="z", sub_zone="s"}` (gRFC A78).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{region=\"{}\", zone=\"{}\", sub_zone=\"{}\"}}", self.region, self.zone, self.sub_zone)
    }
}

/// `config.endpoint.v3.LbEndpoint`.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Its first address.
    pub address: SocketAddr,
    /// Its other addresses (gRFC A61).
    pub additional: Vec<SocketAddr>,
    /// `load_balancing_weight`: 1 by default, never zero.
    pub weight: u32,
    /// What the control plane says of its health.
    pub health: Health,
    /// `hostname`: for `auto_host_rewrite` and SNI; may be empty.
    pub hostname: Name,
    /// `metadata.filter_metadata`.
    pub metadata: Metadata,
}

/// `config.core.v3.HealthStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not known: treated as healthy.
    Unknown,
    /// Healthy.
    Healthy,
    /// Not healthy, by the control plane's word.
    Unhealthy,
    /// Being drained: existing sessions only.
    Draining,
    /// Timed out in the control plane's health check.
    Timeout,
    /// Degraded: last choice.
    Degraded,
}

impl Health {
    /// Whether new requests may go there (gRFC A27: UNKNOWN and HEALTHY).
    pub fn takes_requests(self) -> bool {
        matches!(self, Self::Unknown | Self::Healthy)
    }
}

/// `ClusterLoadAssignment.Policy.DropOverload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropOverload {
    /// Its name in load reports.
    pub category: String,
    /// How many requests are dropped.
    pub fraction: Fraction,
}
