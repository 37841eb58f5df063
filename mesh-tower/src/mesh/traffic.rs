//! What the clients and servers of a mesh do, for whoever looks on: the content of channelz (gRFC A38).
//!
//! Counting costs a call four atomic additions. Everything else is found out when someone asks, by who asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use mesh_core::balance::CandidateState;
use mesh_core::model::Name;
use tokio::time::Instant;

use super::Mesh;
#[cfg(feature = "server")]
use crate::inbound::{InboundSlot, PeerInfo, ServingState};
use crate::outbound::{TargetSlot, TargetState, Targets, Way};

/// What is numbered in a process, so that no two things have one number.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// The next number.
pub(crate) fn number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Counts calls. The numbers are read one by one: those of calls that end meanwhile may not add up.
pub(crate) struct Calls {
    began: Instant,
    began_wall: SystemTime,
    started: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// In nanoseconds since `began`; 0 is never.
    last: AtomicU64,
}

impl Default for Calls {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        let (began, began_wall) = (Instant::now(), SystemTime::now());
        Self { began, began_wall, started: zero(), succeeded: zero(), failed: zero(), last: zero() }
    }
}

impl Calls {
    /// One starts.
    pub(crate) fn start(&self, now: Instant) {
        self.started.fetch_add(1, Ordering::Relaxed);
        // 584 years are enough.
        let since = u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        self.last.store(since.max(1), Ordering::Relaxed);
    }

    /// One is over.
    pub(crate) fn end(&self, well: bool) {
        let which = if well { &self.succeeded } else { &self.failed };
        which.fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> CallCounts {
        let last = Some(self.last.load(Ordering::Relaxed)).filter(|last| *last > 0);
        CallCounts {
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            started: self.started.load(Ordering::Relaxed),
            last_started: last.and_then(|last| self.began_wall.checked_add(Duration::from_nanos(last))),
        }
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts().fmt(f)
    }
}

/// How many calls there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallCounts {
    /// That began.
    pub started: u64,
    /// That ended well: with a response that is no error to gRPC or HTTP.
    pub succeeded: u64,
    /// That ended otherwise, cancelled ones among them.
    pub failed: u64,
    /// When the last one began.
    pub last_started: Option<SystemTime>,
}

/// Whether calls can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connectivity {
    /// Nothing is connected; it may be connecting.
    Idle,
    /// The configuration has not come yet.
    Connecting,
    /// They can be sent at once.
    Ready,
    /// There is no configuration, or no endpoint that can be connected to.
    TransientFailure,
}

/// A client of the mesh: what channelz calls a channel.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientTraffic {
    /// Its number, which nothing else in the process has.
    pub number: u64,
    /// Its target; `*` for a client of any host.
    pub target: String,
    /// Whether its calls can be sent.
    pub state: Connectivity,
    /// Its calls, retries not counted.
    pub calls: CallCounts,
    /// The endpoints that its calls may be sent to, those of all its clusters that a call was sent to.
    pub endpoints: Vec<EndpointTraffic>,
}

/// An endpoint of a cluster as one protocol reaches it: what channelz calls a subchannel.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EndpointTraffic {
    /// Its number, which nothing else in the process has. It is kept while the endpoint stays in its cluster.
    pub number: u64,
    /// Its cluster.
    pub cluster: Name,
    /// Its address.
    pub address: SocketAddr,
    /// Whether it is connected.
    pub state: Connectivity,
    /// The attempts sent to it. Those whose exchange broke have failed, and what a server answered has not; when the last one
    /// began is not known.
    pub attempts: CallCounts,
}

/// A listening address of the mesh: what channelz calls a server.
#[cfg(feature = "server")]
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerTraffic {
    /// Its number, which nothing else in the process has.
    pub number: u64,
    /// The name of its Listener.
    pub listener: Name,
    /// Its address.
    pub address: SocketAddr,
    /// Whether it serves.
    pub state: ServingState,
    /// Its requests.
    pub calls: CallCounts,
    /// Its connections.
    pub connections: Vec<ConnectionTraffic>,
}

/// A connection that a server took: what channelz calls a socket.
#[cfg(feature = "server")]
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionTraffic {
    /// Its number, which nothing else in the process has.
    pub number: u64,
    /// Who is connected to what, and how that is secured.
    pub peer: PeerInfo,
}

/// A client, to whoever lists them.
pub(crate) struct ClientRecord {
    number: u64,
    target: Box<str>,
    reach: Reach,
    calls: Arc<Calls>,
}

/// What a client may call.
enum Reach {
    All(Weak<Targets>),
    One(Weak<TargetSlot>),
    Nothing,
}

impl ClientRecord {
    pub(crate) fn new(way: &Way) -> Arc<Self> {
        let (target, reach) = match way {
            Way::ByAuthority { targets, .. } => ("*", Reach::All(Arc::downgrade(targets))),
            Way::Fixed { target, authority } => (&**authority, Reach::One(Arc::downgrade(target.slot()))),
            Way::Refused(_) => ("", Reach::Nothing),
        };
        Arc::new(Self { number: number(), target: target.into(), reach, calls: Arc::default() })
    }

    pub(crate) fn calls(&self) -> &Arc<Calls> {
        &self.calls
    }

    fn slots(&self) -> Vec<Arc<TargetSlot>> {
        match &self.reach {
            Reach::All(targets) => targets.upgrade().map(|targets| targets.all()).unwrap_or_default(),
            Reach::One(slot) => slot.upgrade().into_iter().collect(),
            Reach::Nothing => Vec::new(),
        }
    }

    fn traffic(&self, numbers: &mut Numbers) -> ClientTraffic {
        let slots = self.slots();
        let mut endpoints = Vec::new();
        let mut seen = BTreeSet::new();
        for view in slots.iter().filter_map(|slot| slot.view()) {
            for (cluster, candidate) in view.candidates() {
                let (state, address) = (&candidate.state, candidate.endpoint.address);
                let number = numbers.of(state);
                if seen.insert(number) {
                    endpoints.push(endpoint(number, cluster, address, state));
                }
            }
        }
        endpoints.sort_unstable_by_key(|endpoint| endpoint.number);
        let state = overall(&slots, &endpoints);
        ClientTraffic {
            number: self.number,
            target: self.target.to_string(),
            state,
            calls: self.calls.counts(),
            endpoints,
        }
    }
}

fn endpoint(number: u64, cluster: Name, address: SocketAddr, state: &CandidateState) -> EndpointTraffic {
    let (started, failed, outstanding) = (state.started(), state.lost(), u64::from(state.outstanding()));
    let succeeded = started.saturating_sub(failed).saturating_sub(outstanding);
    let attempts = CallCounts { started, failed, succeeded, last_started: None };
    let state = match (state.is_ready(), state.is_failed()) {
        (true, _) => Connectivity::Ready,
        (false, true) => Connectivity::TransientFailure,
        (false, false) => Connectivity::Idle,
    };
    EndpointTraffic { number, cluster, address, state, attempts }
}

/// The state of a client: the best of what its calls may find.
fn overall(slots: &[Arc<TargetSlot>], endpoints: &[EndpointTraffic]) -> Connectivity {
    let any = |state| endpoints.iter().any(|endpoint| endpoint.state == state);
    let configured = |state: &TargetState| matches!(state, TargetState::Ready(_));
    let states: Vec<_> = slots.iter().map(|slot| slot.current()).collect();
    if any(Connectivity::Ready) {
        Connectivity::Ready
    } else if any(Connectivity::Idle) || (endpoints.is_empty() && states.iter().any(|state| configured(state))) {
        Connectivity::Idle
    } else if !endpoints.is_empty() || states.iter().any(|state| matches!(**state, TargetState::Missing(_))) {
        Connectivity::TransientFailure
    } else if states.is_empty() {
        Connectivity::Idle
    } else {
        Connectivity::Connecting
    }
}

/// The numbers of endpoints, which only those who look on need: given when first seen, forgotten with the endpoint.
#[derive(Default)]
struct Numbers(BTreeMap<usize, (Weak<CandidateState>, u64)>);

impl Numbers {
    fn of(&mut self, state: &Arc<CandidateState>) -> u64 {
        // While the weak reference is held, no other state gets the address.
        let entry = self.0.entry(Arc::as_ptr(state) as usize);
        entry.or_insert_with(|| (Arc::downgrade(state), number())).1
    }

    fn forget_gone(&mut self) {
        self.0.retain(|_, (state, _)| state.strong_count() > 0);
    }
}

/// Everything of a mesh that can be listed.
#[derive(Default)]
pub(crate) struct Traffic {
    clients: Mutex<Vec<Weak<ClientRecord>>>,
    numbers: Mutex<Numbers>,
}

impl Traffic {
    /// A client that goes this way. It is listed as long as anyone holds it.
    pub(crate) fn record(&self, way: &Way) -> Arc<ClientRecord> {
        let client = ClientRecord::new(way);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        // Looking for those that are gone is paid for by those that came.
        if clients.len() == clients.capacity() {
            clients.retain(|client| client.strong_count() > 0);
        }
        clients.push(Arc::downgrade(&client));
        client
    }

    fn clients(&self) -> Vec<ClientTraffic> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.forget_gone();
        let listed = clients.iter().filter_map(Weak::upgrade);
        listed.map(|client| client.traffic(&mut numbers)).collect()
    }
}

impl Mesh {
    /// Its clients that are in use, by their numbers: what they call and how that goes. `mesh_grpc::admin` serves it as channelz
    /// (gRFC A38). No request waits for it.
    pub fn client_traffic(&self) -> Vec<ClientTraffic> {
        let mut clients = self.0.outbound.traffic.clients();
        clients.sort_unstable_by_key(|client| client.number);
        clients
    }

    /// Its listening addresses, by their numbers: who is connected and how requests go.
    #[cfg(feature = "server")]
    pub fn server_traffic(&self) -> Vec<ServerTraffic> {
        let mut servers: Vec<_> = self.0.inbound.listeners.all().iter().map(|slot| server(slot)).collect();
        servers.sort_unstable_by_key(|server| server.number);
        servers
    }
}

#[cfg(feature = "server")]
fn server(slot: &InboundSlot) -> ServerTraffic {
    let connections = slot.connections().into_iter();
    ServerTraffic {
        number: slot.number(),
        listener: slot.target().clone(),
        address: slot.address(),
        state: slot.state(),
        calls: slot.calls().counts(),
        connections: connections.map(|(number, peer)| ConnectionTraffic { number, peer }).collect(),
    }
}
