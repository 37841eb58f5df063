//! The endpoints that a lane may send to: all of a cluster's, or a part of very many; kept while their addresses stay.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::balance::{self, Candidate, CandidateState, LoadObserver, Observer, Place, Subset, both};
use mesh_core::dns::Again;
use mesh_core::load::LoadLease;
use mesh_core::model::{Cluster, Endpoint, Endpoints, LocalityEndpoints, UpstreamTls};
use mesh_core::snapshot::{Children, ClusterConfig};

use super::lane::{Lane, LaneView};
use super::reports::{Asking, Subscription};
use crate::connect::{EndpointFactory, EndpointHandle, EndpointPlan, WireProtocol};
use crate::outbound::now;

/// What bounds a client's connections, and makes its choice its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How many endpoints of a cluster are kept connected.
    pub(crate) connected: usize,
    /// All the randomness there is.
    pub(crate) seed: u64,
}

/// The endpoints of one lane.
pub(super) struct Members {
    /// By their first address.
    known: HashMap<SocketAddr, Known>,
    chosen: Option<Chosen>,
    candidates: Arc<[Arc<Candidate>]>,
    ways: Arc<[Arc<dyn EndpointHandle>]>,
    /// Whether they report their load on streams of their own.
    report: bool,
    /// When the picker is to be refreshed.
    due: Option<Instant>,
    /// Those that were members until just now.
    left: Vec<Known>,
}

/// What they were chosen from, and how.
struct Chosen {
    config: Arc<ClusterConfig>,
    /// None: all are members.
    subset: Option<(Subset, Vec<Place>)>,
}

/// An endpoint with what is kept of it while its address stays.
struct Known {
    endpoint: Arc<Endpoint>,
    tls: Option<Arc<UpstreamTls>>,
    state: Arc<CandidateState>,
    way: Arc<dyn EndpointHandle>,
    /// Who hears its load reports, where they come on a stream of their own.
    learner: Option<Arc<dyn Observer>>,
    reports: Option<Subscription>,
}

impl Default for Members {
    fn default() -> Self {
        let (known, candidates, ways) = (HashMap::new(), Arc::default(), Arc::new([]));
        Self { known, chosen: None, candidates, ways, report: false, due: None, left: Vec::new() }
    }
}

/// What members are made with.
#[derive(Clone, Copy)]
struct Making<'a> {
    lane: &'a Lane,
    config: &'a Arc<ClusterConfig>,
    load: Option<&'a LoadLease>,
    factory: &'a dyn EndpointFactory,
    limits: Limits,
}

impl Members {
    /// What requests see of the lane now. When only states of endpoints have changed, only the picker is made anew.
    pub(super) fn view(
        &mut self,
        lane: &Lane,
        config: &Arc<ClusterConfig>,
        load: Option<&LoadLease>,
        factory: &dyn EndpointFactory,
        limits: Limits,
    ) -> LaneView {
        if !self.is_current(config) {
            self.choose(Making { lane, config, load, factory, limits });
        }
        self.look_again(config);
        let before = lane.load();
        let picker = balance::build(&*config.cluster.policy, &self.candidates, before.picker(), limits.seed);
        self.due = picker.refresh(now());
        self.hear(out_of_band(lane, config, factory), config, limits);
        LaneView::new(picker, self.candidates.clone(), self.ways.clone())
    }

    /// Has DNS asked again where connections fail or were lost: the servers may have moved (gRFC A37).
    fn look_again(&self, config: &ClusterConfig) {
        let is_lost = |state: &CandidateState| state.is_failed() || (state.connections() > 0 && !state.is_connected());
        if !config.names.is_empty() && self.known.values().any(|known| is_lost(&known.state)) {
            config.names.iter().for_each(Again::ask);
        }
    }

    /// Refreshes the picker, if it is time. When it is time again.
    pub(super) fn refresh(&mut self, lane: &Lane, now: Instant) -> Option<Instant> {
        if self.due.is_some_and(|due| due <= now) {
            self.due = lane.load().picker().and_then(|picker| picker.refresh(now));
        }
        self.due
    }

    /// Has the members that are connected report their load every `period`, or no longer.
    fn hear(&mut self, period: Option<Duration>, config: &ClusterConfig, limits: Limits) {
        if period.is_some() || self.report {
            self.known.values_mut().for_each(|known| known.hear(period, &config.cluster, limits.seed));
        }
        self.report = period.is_some();
    }

    /// The ways to endpoints that are members no more, on which nothing is connected again. They are to be let go of after
    /// the view without them is in force.
    pub(super) fn take_left(&mut self) -> impl Iterator<Item = Arc<dyn EndpointHandle>> + use<> {
        std::mem::take(&mut self.left).into_iter().map(Known::leave)
    }

    /// Leaves all of them.
    pub(super) fn into_left(mut self) -> impl Iterator<Item = Arc<dyn EndpointHandle>> {
        self.left.extend(self.known.into_values());
        self.left.into_iter().map(Known::leave)
    }

    /// Whether the members are those that `config` and the states of endpoints ask for.
    fn is_current(&self, config: &Arc<ClusterConfig>) -> bool {
        let Some(chosen) = self.chosen.as_ref().filter(|chosen| Arc::ptr_eq(&chosen.config, config)) else {
            return false;
        };
        let Children::Endpoints { endpoints, .. } = &config.children else { return true };
        if is_withdrawn(config) {
            // Those that lost their connections are members no more.
            return self.candidates.iter().all(|candidate| candidate.state.is_ready());
        }
        let same = |(subset, places): &(Subset, Vec<Place>)| *places == self.places(subset, endpoints);
        chosen.subset.as_ref().is_none_or(same)
    }

    fn places(&self, subset: &Subset, endpoints: &Endpoints) -> Vec<Place> {
        subset.choose(|place| {
            let known = place.of(endpoints).and_then(|endpoint| self.known.get(&endpoint.address));
            known.is_some_and(|known| known.state.is_failed())
        })
    }

    fn choose(&mut self, making: Making<'_>) {
        let config = making.config;
        let mut chosen = Chosen { config: config.clone(), subset: None };
        let mut next = Next::default();
        if let Children::Endpoints { endpoints, .. } = &config.children {
            let bounded = config.cluster.policy.takes_a_part();
            let subset = if bounded { self.subset(config, endpoints, making.limits) } else { None };
            let observer = |locality| making.load.map(|load| observer(load, locality, config));
            next.observers = endpoints.localities.iter().map(observer).collect();
            match subset {
                None => {
                    next.reserve(endpoints.len());
                    for (locality, of) in endpoints.localities.iter().enumerate() {
                        for endpoint in 0..of.endpoints.len() {
                            self.keep(&mut next, making, endpoints, Place { locality, endpoint });
                        }
                    }
                }
                Some(subset) => {
                    let places = self.places(&subset, endpoints);
                    next.reserve(places.len());
                    for place in &places {
                        self.keep(&mut next, making, endpoints, *place);
                    }
                    chosen.subset = Some((subset, places));
                }
            }
        }
        self.left.extend(std::mem::replace(&mut self.known, next.known).into_values());
        self.candidates = next.candidates.into();
        self.ways = next.ways.into();
        self.chosen = Some(chosen);
    }

    /// The part of `endpoints` to take: the one there is, if they are the same.
    fn subset(&mut self, config: &ClusterConfig, endpoints: &Arc<Endpoints>, limits: Limits) -> Option<Subset> {
        let before = self.chosen.take();
        let same = before.filter(|chosen| {
            matches!(&chosen.config.children, Children::Endpoints { endpoints: old, .. } if Arc::ptr_eq(old, endpoints))
                && chosen.config.cluster.policy.takes_a_part() == config.cluster.policy.takes_a_part()
        });
        match same {
            Some(chosen) => chosen.subset.map(|(subset, _)| subset),
            None => Subset::new(endpoints, limits.connected, limits.seed),
        }
    }

    /// Adds an endpoint to the next members; one that is known keeps its state and its connections.
    fn keep(&mut self, next: &mut Next, making: Making<'_>, endpoints: &Endpoints, place: Place) {
        let Some(endpoint) = place.of(endpoints) else { return };
        let withdrawn = is_withdrawn(making.config);
        let (address, cluster) = (endpoint.address, &*making.config.cluster);
        if withdrawn && !self.known.contains_key(&address) && !next.known.contains_key(&address) {
            return;
        }
        let locality = &endpoints.localities[place.locality];
        let tls = cluster.tls_of(endpoint, locality);
        let kept = next.known.entry(address).or_insert_with(|| match self.known.remove(&address) {
            Some(known) if known.serves(endpoint, tls) => known,
            other => {
                self.left.extend(other);
                Known::make(making, endpoint, tls)
            }
        });
        if !kept.has(tls) {
            // It is told twice, with two kinds of TLS. The first counts: no request may take the other's.
            return;
        }
        kept.learn(endpoint);
        kept.withdraw(withdrawn, cluster);
        if withdrawn && !kept.state.is_ready() {
            return;
        }
        let observer = &next.observers[place.locality];
        let learner = cluster.policy.observer(&kept.state);
        let observer = if out_of_band(making.lane, making.config, making.factory).is_some() {
            kept.learner = learner;
            observer.clone()
        } else {
            both(observer.clone(), learner)
        };
        next.candidates.push(Arc::new(candidate(kept, locality, observer)));
        next.ways.push(kept.way.clone());
    }
}

/// Members in the making.
#[derive(Default)]
struct Next {
    /// Of each locality, who is told how requests to it go.
    observers: Vec<Option<Arc<dyn Observer>>>,
    known: HashMap<SocketAddr, Known>,
    candidates: Vec<Arc<Candidate>>,
    ways: Vec<Arc<dyn EndpointHandle>>,
}

impl Next {
    fn reserve(&mut self, count: usize) {
        self.known.reserve(count);
        self.candidates.reserve_exact(count);
        self.ways.reserve_exact(count);
    }
}

/// Whether only what is connected may be used: what stands leads to the servers that were meant; what is made anew may lead
/// to another, unless TLS says who it is.
fn is_withdrawn(config: &ClusterConfig) -> bool {
    let proven = config.cluster.each_tls().all(|tls| tls.is_some_and(|tls| tls.proves_identity()));
    matches!(config.children, Children::Endpoints { lapsing: true, .. }) && !proven
}

/// How often endpoints report their load on a stream of their own. There is none in HTTP/1.1, nor over the application's own
/// services; those endpoints have to make do with what they say in responses.
fn out_of_band(lane: &Lane, config: &ClusterConfig, factory: &dyn EndpointFactory) -> Option<Duration> {
    let streams = lane.protocol() != WireProtocol::Http1 && factory.owns_connections();
    config.cluster.policy.out_of_band().filter(|_| streams)
}

impl Known {
    fn make(making: Making<'_>, endpoint: &Endpoint, tls: Option<&Arc<UpstreamTls>>) -> Self {
        let Making { lane, factory, .. } = making;
        let cluster = &making.config.cluster;
        let endpoint = Arc::new(endpoint.clone());
        let state = Arc::new(CandidateState::default());
        let way = factory.endpoint(EndpointPlan {
            cluster: cluster.name.clone(),
            endpoint: endpoint.clone(),
            protocol: lane.protocol(),
            tls: tls.cloned(),
            connect_timeout: cluster.connect_timeout,
            max_connections: cluster.circuit_breakers.max_connections,
            connecting: lane.connecting().clone(),
            eager: cluster.policy.connects_all(),
            state: state.clone(),
            changed: lane.changes().clone(),
        });
        Self { endpoint, tls: tls.cloned(), state, way, learner: None, reports: None }
    }

    /// Has the endpoint report its load every `period` while it is connected, or no longer. The reports of one connection end
    /// with it.
    fn hear(&mut self, period: Option<Duration>, cluster: &Cluster, seed: u64) {
        let wanted = period.zip(self.learner.clone()).filter(|_| self.state.is_connected());
        let Some((period, learner)) = wanted else {
            self.reports = None;
            return;
        };
        let connection = self.state.connections();
        if let Some(reports) = self.reports.as_ref().filter(|reports| reports.is_of(connection, period)) {
            return reports.redirect(learner);
        }
        let (way, endpoint, cluster) = (self.way.clone(), self.endpoint.clone(), cluster.name.clone());
        let asking = Asking { way, endpoint, cluster, period, seed: seed.wrapping_add(connection) };
        self.reports = Some(Subscription::start(asking, learner, connection));
    }

    /// Takes what the configuration says of the endpoint now. What its connections depend on is as it was.
    fn learn(&mut self, endpoint: &Endpoint) {
        if *self.endpoint != *endpoint {
            self.endpoint = Arc::new(endpoint.clone());
        }
    }

    fn leave(self) -> Arc<dyn EndpointHandle> {
        self.state.set_withdrawn(true);
        self.way
    }

    /// Keeps new connections from being made, or lets them be made again.
    fn withdraw(&self, withdrawn: bool, cluster: &Cluster) {
        if withdrawn == self.state.is_withdrawn() {
            return;
        }
        self.state.set_withdrawn(withdrawn);
        if !withdrawn && cluster.policy.connects_all() {
            self.way.connect();
        }
    }

    /// Whether the way leads to this endpoint as it is now.
    fn serves(&self, endpoint: &Endpoint, tls: Option<&Arc<UpstreamTls>>) -> bool {
        let old = &*self.endpoint;
        let same_tls = tls.is_none() || old.takes_istio_mtls() == endpoint.takes_istio_mtls();
        old.additional == endpoint.additional && old.hostname == endpoint.hostname && self.has(tls) && same_tls
    }

    /// Whether this is the TLS to it.
    fn has(&self, tls: Option<&Arc<UpstreamTls>>) -> bool {
        match (&self.tls, tls) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
            (old, new) => old.is_none() && new.is_none(),
        }
    }
}

/// Who counts the requests to a locality.
fn observer(lease: &LoadLease, locality: &LocalityEndpoints, config: &ClusterConfig) -> Arc<dyn Observer> {
    let metrics = config.cluster.load.as_ref().map_or(&[][..], |policy| &policy.metrics);
    Arc::new(LoadObserver::new(lease.load().locality(&locality.locality), metrics.into()))
}

fn candidate(known: &Known, locality: &LocalityEndpoints, observer: Option<Arc<dyn Observer>>) -> Candidate {
    Candidate {
        endpoint: known.endpoint.clone(),
        locality: locality.locality.clone(),
        priority: locality.priority,
        locality_weight: locality.weight,
        state: known.state.clone(),
        observer,
    }
}
