//! How a client treats requests where the configuration has no word.

use std::time::Duration;

use super::OutboundFilters;

/// How a client treats requests where the configuration has no word.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutboundOptions {
    /// Targets in use at the same time: 1,024 by default. A client for any host takes its targets from requests, and those
    /// may name hosts that a stranger made up.
    pub max_targets: usize,
    /// How long a target that no request asks for is kept: 5 min by default.
    pub target_idle: Duration,
    /// What becomes of requests to hosts that are not in the mesh: refused by default. Only clients for any host
    /// ([`Mesh::http`](crate::Mesh::http)) ask.
    pub unknown_hosts: UnknownHosts,
    /// How many endpoints of a cluster are kept connected by policies that connect to all of them, as round robin: about
    /// 100 by default, so that a set of a hundred thousand makes no hundred thousand connections of each client. A larger
    /// set is taken in part, each locality by its share; which part is each client's own (gRFC A68), and what fails in it is
    /// stood in for. Few clients of a large cluster, as gateways are, want more: a connection holds about 50 KiB. Policies that
    /// connect on demand (ring hash, Maglev, pick first) see all endpoints.
    pub connected_endpoints: usize,
    /// How many bytes of a request's body are kept for another attempt: 64 KiB by default. A longer request is not tried
    /// again. It is for routes and Listeners that have no word: `request_body_buffer_limit`,
    /// `per_request_buffer_limit_bytes` or `per_connection_buffer_limit_bytes`, the most specific of which counts.
    pub replay_bytes: usize,
    /// Copies of requests in flight at the same time (`request_mirror_policies`), for each client: 1,024 by default, as many
    /// as Envoy's circuit breaker lets through. Further ones are left out.
    pub max_mirrors: u32,
    /// The HTTP filters that can be applied; fault injection, CORS and local rate limits by default.
    pub filters: OutboundFilters,
}

/// What a client for any host does with a request whose host is not in the mesh.
///
/// Not in the mesh is what the source of configuration says: there is no Listener for the host. A file says so at once. A
/// control plane says so by a resource error, or by answering without that Listener until
/// [`Settings::resource_timeout`](mesh_core::ads::Settings::resource_timeout) is over (15 s, gRFC A57), which the first request
/// to each such host waits for. A control plane that is away, silent or denies access, a Listener that was refused, and a
/// host whose routes are missing are failures: nothing passes on their account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UnknownHosts {
    /// The request fails with [`Code::UNKNOWN_HOST`](mesh_core::error::Code::UNKNOWN_HOST): Istio's `REGISTRY_ONLY`. The
    /// default, as what leaves the mesh leaves its identity and its policies behind.
    #[default]
    Refuse,
    /// The request goes to the host by DNS: Istio's `ALLOW_ANY`. `https` is TLS with the system's roots and a certificate for
    /// that name; `http` is plaintext. There is no route, retry policy or timeout but gRPC's own deadline. As many hosts are
    /// kept as [`max_targets`](OutboundOptions::max_targets) says, those used last.
    ///
    /// A program that passes on requests of strangers makes itself an open proxy by it.
    PassThrough,
}

impl Default for OutboundOptions {
    fn default() -> Self {
        Self {
            max_targets: 1024,
            target_idle: Duration::from_secs(300),
            unknown_hosts: UnknownHosts::Refuse,
            connected_endpoints: 100,
            replay_bytes: 64 * 1024,
            max_mirrors: 1024,
            filters: OutboundFilters::standard(),
        }
    }
}
