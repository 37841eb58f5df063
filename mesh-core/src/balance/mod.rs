//! Choosing an endpoint: policies, and the pickers they build.
//!
//! A [`Picker`] is a value. It is built on the configuration thread from the candidates of one cluster, again whenever the
//! candidates or their states change, and read by requests without a lock. State that must survive a rebuild (how many
//! requests are outstanding) lives in the [`Candidate`], which is shared.

mod client_wrr;
mod endpoint_weight;
mod guard;
mod hash_key;
mod least_request;
mod locality;
mod maglev;
mod metadata;
mod murmur;
mod part;
mod pick_first;
mod priority;
mod random;
mod ready;
mod ring_hash;
mod round_robin;
mod stride;
mod subset;
#[cfg(test)]
mod tests;

pub use client_wrr::ClientSideWrrConfig;
pub use endpoint_weight::EndpointWeight;
pub use guard::{LoadObserver, Observer, PickGuard, both};
pub use least_request::LeastRequestConfig;
pub use locality::WrrLocality;
pub use maglev::MaglevConfig;
pub use metadata::{MetadataSubsets, SubsetFallback, SubsetSelector};
pub use pick_first::PickFirstConfig;
pub use priority::build;
pub use random::RandomConfig;
pub(crate) use ready::mix;
pub use ring_hash::{HashFunction, RingHashConfig};
pub use round_robin::RoundRobinConfig;
pub use subset::{Place, Subset};

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::model::{Endpoint, Locality};

/// The decoded configuration of a balancing policy, as its registration made it.
pub trait PolicyConfig: Any + Send + Sync + fmt::Debug {
    /// Builds the picker for `candidates`, which are of one priority; [`build`] is the one to call for a whole cluster.
    /// `previous` is the picker it replaces, for state worth keeping (a ring, a position).
    fn build(&self, candidates: &[Arc<Candidate>], previous: Option<&Arc<dyn Picker>>, seed: u64) -> Arc<dyn Picker>;

    /// Builds the picker of a whole cluster: by default, priority first and then this policy among the priority's candidates.
    /// For policies that choose before that, as subsets do.
    fn build_whole(
        &self,
        candidates: &[Arc<Candidate>],
        previous: Option<&Arc<dyn Picker>>,
        seed: u64,
    ) -> Arc<dyn Picker> {
        priority::by_priority(self, candidates, previous, seed)
    }

    /// Whether it needs every endpoint connected (round robin) or connects on demand (ring hash, pick first).
    fn connects_all(&self) -> bool {
        true
    }

    /// Whether a part of very many endpoints will do. By default, where each is connected: those that connect on demand look at
    /// all, and connect to few.
    fn takes_a_part(&self) -> bool {
        self.connects_all()
    }

    /// Who learns for the policy how an endpoint does, from what its requests or its own load reports tell; None by default:
    /// nobody. It writes into the endpoint's `state`, and knows nothing else.
    fn observer(&self, _state: &CandidateState) -> Option<Arc<dyn Observer>> {
        None
    }

    /// How often endpoints are to report their load on a stream of their own (gRFC A51); None by default: never. If they are,
    /// the [`observer`](Self::observer) is told those reports and nothing of requests.
    fn out_of_band(&self) -> Option<Duration> {
        None
    }
}

/// Chooses among the candidates it was built from.
pub trait Picker: Any + Send + Sync + fmt::Debug {
    /// Chooses a candidate that can take a request now.
    fn pick(&self, input: &PickInput<'_>) -> Pick;

    /// Computes anew what changes with time, as weights do. Called on the configuration thread before the picker is used, and
    /// again at the time it gives. None, as by default: nothing changes with time.
    fn refresh(&self, _now: Instant) -> Option<Instant> {
        None
    }
}

/// What a pick may depend on.
#[derive(Debug, Clone, Copy)]
pub struct PickInput<'a> {
    /// The request's hash; policies that need one and get none draw one.
    pub hash: Option<u64>,
    /// Indices of candidates that this call has tried, to be avoided where another will do.
    pub tried: &'a [usize],
    /// The endpoint the request asks for (session affinity).
    pub override_host: Option<SocketAddr>,
    /// Values that the endpoint's `envoy.lb` metadata must have (subsets).
    pub metadata: Option<&'a crate::model::Metadata>,
    /// 64 random bits: all the randomness the pick may use, so that a decision can be replayed.
    pub random: u64,
}

/// The result of a pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pick {
    /// This candidate, by its index in the list the picker was built from.
    Candidate(usize),
    /// None is connected yet, but one may be soon; if `connect` names one, it should be connected.
    Wait {
        /// A candidate to connect.
        connect: Option<usize>,
    },
    /// None can take a request, and waiting for the same picker is no use.
    Fail,
}

/// An endpoint as a policy sees it: what the configuration says of it, and its state now.
#[derive(Clone)]
pub struct Candidate {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Where it is.
    pub locality: Arc<Locality>,
    /// Its priority; 0 is tried first.
    pub priority: u32,
    /// Its locality's weight.
    pub locality_weight: u32,
    /// Its live state, shared by all pickers over time.
    pub state: Arc<CandidateState>,
    /// Who is told how the requests to it go.
    pub observer: Option<Arc<dyn Observer>>,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate")
            .field("address", &self.endpoint.address)
            .field("priority", &self.priority)
            .field("state", &self.state)
            .finish()
    }
}

/// The live state of an endpoint: the same object for as long as the endpoint is known.
#[derive(Debug, Default)]
pub struct CandidateState {
    ready: AtomicBool,
    failed: AtomicBool,
    ejected: AtomicBool,
    withdrawn: AtomicBool,
    outstanding: AtomicU32,
    started: AtomicU64,
    lost: AtomicU64,
    connections: AtomicU64,
    /// There once a policy weighs its endpoints by their load.
    weight: OnceLock<Arc<EndpointWeight>>,
}

impl CandidateState {
    /// Whether it is connected and not ejected.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.ejected.load(Ordering::Relaxed)
    }

    /// Whether it is connected, ejected or not.
    pub fn is_connected(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether its last connection attempt failed and none has succeeded since.
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire) || self.ejected.load(Ordering::Relaxed)
    }

    /// Says that it is connected.
    pub fn set_ready(&self) {
        if let Some(weight) = self.weight.get() {
            weight.forget();
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.failed.store(false, Ordering::Release);
        self.ready.store(true, Ordering::Release);
    }

    /// Says that it is connecting, or idle.
    pub fn set_not_ready(&self) {
        self.ready.store(false, Ordering::Release);
    }

    /// Says that a connection attempt failed; it stays so until one succeeds (gRFC A62).
    pub fn set_failed(&self) {
        self.ready.store(false, Ordering::Release);
        self.failed.store(true, Ordering::Release);
    }

    /// Ejects it, or lets it back in (outlier detection); its connection stays.
    pub fn set_ejected(&self, ejected: bool) {
        self.ejected.store(ejected, Ordering::Release);
    }

    /// Says whether the control plane has withdrawn it, so that another server may have its address by now. The connections
    /// that stand still lead to the server that was meant; no new one may be made.
    pub fn set_withdrawn(&self, withdrawn: bool) {
        self.withdrawn.store(withdrawn, Ordering::Release);
    }

    /// Whether no new connection to it may be made.
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Acquire)
    }

    /// How many connections it has had: another number is another connection.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// What its load reports make it weigh (gRFC A58).
    pub fn weight(&self) -> &Arc<EndpointWeight> {
        self.weight.get_or_init(Arc::default)
    }

    /// Requests that were sent to it and are not over.
    pub fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Requests that were ever sent to it.
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Those of them whose exchange broke before the response was complete.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
