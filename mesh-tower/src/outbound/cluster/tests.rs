//! Which endpoints requests may be sent to, without any connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use http::Request;
use mesh_core::balance::{ClientSideWrrConfig, PolicyConfig, RoundRobinConfig};
use mesh_core::dns::Again;
use mesh_core::error::Error;
use mesh_core::model::cluster::TLS_MATCH;
use mesh_core::model::{
    CircuitBreakers, Cluster, DiscoveryKind, Endpoint, Endpoints, Health, HttpProtocol, LocalityEndpoints, Metadata,
    PanicThreshold, Pattern, SanMatch, StringMatch, TlsMatch, UpstreamTls,
};
use mesh_core::publish::Publisher;
use mesh_core::snapshot::{Children, ClusterConfig, Lease};

use super::{ClusterHandle, Limits, Registry, Signal};
use crate::body::MeshBody;
use crate::connect::{EndpointFactory, EndpointFuture, EndpointHandle, EndpointPlan, EndpointService};
use crate::secure::testing::upstream;

/// Makes ways on which nothing happens, and remembers their plans.
#[derive(Debug, Default)]
struct Factory {
    plans: Mutex<Vec<EndpointPlan>>,
    /// The ports that are being called.
    calls: Arc<Mutex<Vec<u16>>>,
    /// How many calls there were.
    made: Arc<AtomicUsize>,
    /// Whether connections are somebody else's.
    foreign: AtomicBool,
    /// Held by every way.
    lives: Arc<()>,
}

impl EndpointFactory for Factory {
    fn endpoint(&self, plan: EndpointPlan) -> Arc<dyn EndpointHandle> {
        let port = plan.endpoint.address.port();
        self.plans.lock().unwrap().push(plan);
        Arc::new(Still { port, calls: self.calls.clone(), made: self.made.clone(), _lives: self.lives.clone() })
    }

    fn proves_tls(&self) -> bool {
        true
    }

    fn owns_connections(&self) -> bool {
        !self.foreign.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone)]
struct Still {
    port: u16,
    calls: Arc<Mutex<Vec<u16>>>,
    made: Arc<AtomicUsize>,
    _lives: Arc<()>,
}

impl EndpointService for Still {
    /// Never answers.
    fn call(&self, _: Request<MeshBody>) -> EndpointFuture {
        self.calls.lock().unwrap().push(self.port);
        self.made.fetch_add(1, Ordering::Relaxed);
        let guard = Called(self.clone());
        Box::pin(async move {
            std::future::pending::<()>().await;
            drop(guard);
            unreachable!("nobody wakes it")
        })
    }
}

/// Held by a call under way.
struct Called(Still);

impl Drop for Called {
    fn drop(&mut self) {
        let mut calls = self.0.calls.lock().unwrap();
        let at = calls.iter().position(|port| *port == self.0.port).unwrap();
        calls.remove(at);
    }
}

impl EndpointHandle for Still {
    fn connect(&self) {}

    fn last_error(&self) -> Option<Error> {
        None
    }
}

/// A cluster and its registry.
struct World {
    factory: Arc<Factory>,
    registry: Registry,
    handle: Option<Arc<ClusterHandle>>,
    tls: Option<Arc<UpstreamTls>>,
    tls_matches: Vec<TlsMatch>,
    /// What the endpoints say of their TLS, in order; those beyond say nothing.
    modes: Vec<&'static str>,
    policy: Arc<dyn PolicyConfig>,
    names: Vec<Again>,
    http2: bool,
}

impl World {
    fn new(tls: Option<UpstreamTls>) -> Self {
        let factory = Arc::<Factory>::default();
        let registry = Registry::new(factory.clone(), Signal::new(), None, Limits { connected: 100, seed: 1 });
        let policy = Arc::new(RoundRobinConfig);
        let (tls, tls_matches, modes) = (tls.map(Arc::new), Vec::new(), Vec::new());
        Self { factory, registry, handle: None, tls, tls_matches, modes, policy, names: Vec::new(), http2: false }
    }

    /// The cluster has endpoints at these ports.
    fn says(&mut self, ports: &[u16], lapsing: bool) {
        let config = Arc::new(ClusterConfig {
            cluster: Arc::new(Cluster {
                policy: self.policy.clone(),
                tls_matches: self.tls_matches.clone(),
                ..cluster(self.tls.clone())
            }),
            children: Children::Endpoints { endpoints: Arc::new(endpoints(ports, &self.modes)), note: None, lapsing },
            load_server: None,
            names: self.names.clone(),
            lease: Arc::new(Lease::new("a".into())),
        });
        let handle = self.registry.reconcile(&config, Vec::new()).unwrap();
        handle.state().lane(self.http2, self.http2).want();
        self.handle = Some(handle);
        self.registry.refresh();
    }

    fn connected(&mut self, port: u16, is: bool) {
        for plan in self.factory.plans.lock().unwrap().iter().filter(|plan| plan.endpoint.address.port() == port) {
            if is {
                plan.state.set_ready();
            } else {
                plan.state.set_not_ready();
            }
            plan.changed.state_changed();
        }
        self.registry.refresh();
    }

    fn fail(&mut self, port: u16) {
        for plan in self.factory.plans.lock().unwrap().iter().filter(|plan| plan.endpoint.address.port() == port) {
            plan.state.set_failed();
            plan.changed.state_changed();
        }
        self.registry.refresh();
    }

    /// The ports that requests may be sent to, now or soon.
    fn ports(&self) -> Vec<u16> {
        let view = self.handle.as_ref().unwrap().state().lane(false, false).load();
        view.candidates.iter().map(|candidate| candidate.endpoint.address.port()).collect()
    }

    /// How many ways there are that nobody has let go of.
    fn ways(&self) -> usize {
        Arc::strong_count(&self.factory.lives) - 1
    }

    /// The ports to which no new connection may be made.
    fn withdrawn(&self) -> Vec<u16> {
        let plans = self.factory.plans.lock().unwrap();
        let is = plans.iter().filter(|plan| plan.state.is_withdrawn());
        is.map(|plan| plan.endpoint.address.port()).collect()
    }
}

fn cluster(tls: Option<Arc<UpstreamTls>>) -> Cluster {
    Cluster {
        name: "a".into(),
        discovery: DiscoveryKind::Eds { service_name: "a".into() },
        policy: Arc::new(RoundRobinConfig),
        tls,
        tls_matches: Vec::new(),
        connect_timeout: Duration::from_secs(5),
        circuit_breakers: CircuitBreakers::default(),
        outlier: None,
        protocol: HttpProtocol::Default,
        load: None,
        panic_threshold: PanicThreshold::default(),
        metadata: Metadata::new(),
        unsupported: Vec::new(),
    }
}

fn endpoints(ports: &[u16], modes: &[&str]) -> Endpoints {
    let said = |mode: &&str| (TLS_MATCH.to_owned(), serde_json::json!({"tlsMode": mode}));
    let endpoint = |(index, port): (usize, &u16)| Endpoint {
        address: SocketAddr::from(([127, 0, 0, 1], *port)),
        additional: Vec::new(),
        weight: 1,
        health: Health::Unknown,
        hostname: "".into(),
        metadata: modes.get(index).map(said).into_iter().collect(),
    };
    let endpoints = ports.iter().enumerate().map(endpoint).collect();
    let metadata = Metadata::new();
    let locality = LocalityEndpoints { locality: Arc::default(), priority: 0, weight: 1, metadata, endpoints };
    Endpoints { localities: vec![locality], drops: Vec::new(), overprovisioning_factor: 140 }
}

#[test]
fn a37_names_are_asked_for_again_when_connections_fail_or_are_lost() {
    let signal = Arc::new(Publisher::new(Arc::new(())));
    let mut asked = signal.reader();
    let mut is_asked = || asked.poll_changed(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready();
    for lose in [|world: &mut World| world.fail(1), |world: &mut World| world.connected(1, false)] {
        let mut world = World::new(None);
        world.names = vec![Again::new(signal.clone())];
        world.says(&[1, 2], false);
        world.connected(1, true);
        world.connected(2, true);
        assert!(!is_asked(), "as long as all is well, it is well");
        lose(&mut world);
        assert!(is_asked());
    }
}

/// Istio's auto-mTLS.
fn auto_mtls(tls: UpstreamTls) -> World {
    let mut world = World::new(None);
    let criteria = [("tlsMode".to_owned(), "istio".into())].into();
    world.tls_matches = vec![TlsMatch { name: "tlsMode-istio".into(), criteria, tls: Some(Arc::new(tls)) }];
    world
}

/// The ports of the ways there are, with whether TLS goes to them.
fn ways(world: &World) -> Vec<(u16, bool)> {
    let plans = world.factory.plans.lock().unwrap();
    let open = plans.iter().filter(|plan| !plan.state.is_withdrawn());
    open.map(|plan| (plan.endpoint.address.port(), plan.tls.is_some())).collect()
}

/// An endpoint is reached anew when what its metadata ask for changes, and nothing is left of the old way.
#[test]
fn each_endpoint_gets_the_tls_that_its_metadata_ask_for_and_switches_live() {
    let mut world = auto_mtls(upstream());
    world.modes = vec!["istio"];
    world.says(&[1, 2], false);
    assert_eq!(ways(&world), [(1, true), (2, false)]);
    world.connected(1, true);
    world.connected(2, true);
    world.modes = vec!["istio", "istio"];
    world.says(&[1, 2], false);
    assert_eq!(ways(&world), [(1, true), (2, true)]);
    assert_eq!((world.withdrawn(), world.ports()), (vec![2], vec![1, 2]), "the other one stays as it is");
    let view = world.handle.as_ref().unwrap().state().lane(false, false).load();
    let ready: Vec<bool> = view.candidates.iter().map(|candidate| candidate.state.is_ready()).collect();
    assert_eq!(ready, [true, false], "what stood in plaintext is not taken for TLS");
    world.modes = vec!["disabled"];
    world.says(&[1, 2], false);
    assert_eq!(ways(&world), [(1, false), (2, false)]);
    // The policy itself changes, though no endpoint does.
    world.tls = Some(Arc::new(upstream()));
    world.says(&[1, 2], false);
    assert_eq!(ways(&world), [(1, true), (2, true)]);
}

/// What is offered to it is another thing then.
#[test]
fn istio_an_endpoint_that_comes_to_take_istios_mtls_is_reached_anew_under_the_same_policy() {
    let mut world = World::new(Some(upstream()));
    world.says(&[1, 2], false);
    world.modes = vec!["istio"];
    world.says(&[1, 2], false);
    assert_eq!((world.withdrawn(), ways(&world)), (vec![1], vec![(2, true), (1, true)]));
}

#[test]
fn an_address_that_is_told_with_two_kinds_of_tls_has_the_first() {
    for (modes, tls) in [(["istio", "none"], true), (["none", "istio"], false)] {
        let mut world = auto_mtls(upstream());
        world.modes = modes.to_vec();
        world.says(&[1, 1], false);
        assert_eq!((ways(&world), world.ports()), (vec![(1, tls)], vec![1]));
    }
}

/// In plaintext, what is made anew may lead to another.
#[test]
fn endpoints_in_their_grace_are_proven_only_if_each_of_them_would_be() {
    let sni = UpstreamTls { auto_sni_san_validation: true, ..upstream() };
    for (own, used) in [(None, vec![1]), (Some(sni.clone()), vec![1, 2])] {
        let mut world = auto_mtls(sni.clone());
        (world.tls, world.modes) = (own.map(Arc::new), vec!["istio", "istio"]);
        world.says(&[1, 2], false);
        world.connected(1, true);
        world.says(&[1, 2], true);
        assert_eq!(world.ports(), used);
    }
}

#[test]
fn endpoints_in_their_grace_are_used_while_they_are_connected() {
    let mut world = World::new(None);
    world.says(&[1, 2, 3], false);
    world.connected(1, true);
    world.connected(2, true);
    assert_eq!(world.ports(), [1, 2, 3]);
    world.says(&[1, 2, 3], true);
    assert_eq!((world.ports(), world.withdrawn()), (vec![1, 2], vec![1, 2, 3]));
    world.connected(1, false);
    assert_eq!(world.ports(), [2]);
    world.connected(1, true);
    world.says(&[1, 2, 3], false);
    assert_eq!((world.ports(), world.withdrawn()), (vec![1, 2, 3], vec![]), "what is told anew is used as ever");
}

#[test]
fn endpoints_that_are_first_met_in_their_grace_are_not_dialled() {
    let mut world = World::new(None);
    world.says(&[1], true);
    assert!(world.ports().is_empty() && world.factory.plans.lock().unwrap().is_empty());
}

#[test]
fn endpoints_in_their_grace_are_used_as_ever_if_tls_proves_who_they_are() {
    let matcher = StringMatch { pattern: Pattern::Exact("a".to_owned()), ignore_case: false };
    let san = SanMatch { kind: None, matcher };
    let sni = UpstreamTls { auto_sni_san_validation: true, ..upstream() };
    for (tls, used) in [
        (UpstreamTls { sans: vec![san], ..upstream() }, vec![1, 2]),
        (sni, vec![1, 2]),
        // Any certificate of the mesh will do.
        (UpstreamTls { sans: Vec::new(), ..upstream() }, vec![1]),
    ] {
        let mut world = World::new(Some(tls));
        world.says(&[1, 2], false);
        world.connected(1, true);
        world.says(&[1, 2], true);
        assert_eq!(world.ports(), used);
    }
}

#[test]
fn of_very_many_endpoints_a_part_is_taken_and_what_fails_is_stood_in_for() {
    let ports: Vec<u16> = (1..=1000).collect();
    let mut world = World::new(None);
    world.says(&ports, false);
    let taken = world.ports();
    assert_eq!((taken.len(), world.factory.plans.lock().unwrap().len()), (100, 100), "and only those are connected to");
    for port in &taken[..10] {
        world.fail(*port);
    }
    assert_eq!(world.ports().len(), 110, "those that failed may come back");
    assert!(taken.iter().all(|port| world.ports().contains(port)));
    for port in &taken {
        world.connected(*port, true);
    }
    assert_eq!(world.ports(), taken);
}

/// What costs a hundred thousand endpoints is not done again for each connection.
#[test]
fn a_connection_that_stands_makes_a_picker_and_no_candidates() {
    let mut world = World::new(None);
    world.says(&[1, 2, 3], false);
    let candidates =
        |world: &World| world.handle.as_ref().unwrap().state().lane(false, false).load().candidates.clone();
    let before = candidates(&world);
    world.connected(2, true);
    assert!(Arc::ptr_eq(&before, &candidates(&world)));
}

/// An out-of-band policy that asks every so many seconds.
fn out_of_band(seconds: u64) -> Arc<dyn PolicyConfig> {
    let reporting_period = Duration::from_secs(seconds);
    Arc::new(ClientSideWrrConfig { out_of_band: true, reporting_period, ..ClientSideWrrConfig::default() })
}

/// The ports that are asked for their load, once everything has come to rest.
async fn asked(world: &World) -> Vec<u16> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut ports = world.factory.calls.lock().unwrap().clone();
    ports.sort_unstable();
    ports
}

/// gRFCs A51 and A58.
#[tokio::test(start_paused = true)]
async fn endpoints_are_asked_for_their_load_while_they_are_connected_and_the_policy_wants_it() {
    let mut world = World::new(None);
    (world.policy, world.http2) = (out_of_band(10), true);
    world.says(&[1, 2, 3], false);
    assert_eq!(asked(&world).await, [0; 0], "nothing stands");
    world.connected(1, true);
    world.connected(2, true);
    assert_eq!(asked(&world).await, [1, 2]);
    world.connected(1, false);
    assert_eq!(asked(&world).await, [2], "a lost connection takes its stream with it");
    world.connected(1, true);
    assert_eq!(asked(&world).await, [1, 2]);
    world.says(&[1, 3], false);
    assert_eq!(asked(&world).await, [1], "and so does an endpoint that left");
    world.policy = Arc::new(ClientSideWrrConfig::default());
    world.says(&[1, 3], false);
    assert_eq!(asked(&world).await, [0; 0], "responses will do now");
    world.policy = out_of_band(20);
    world.says(&[1, 3], false);
    assert_eq!(asked(&world).await, [1], "on the connection that stands");
    (world.handle, world.policy) = (None, out_of_band(20));
    world.registry.refresh();
    assert_eq!(asked(&world).await, [0; 0], "nobody uses the cluster");
}

/// gRFC A51: another connection is another call, and so is another period; a change of anything else is none.
#[tokio::test(start_paused = true)]
async fn a51_a_stream_of_reports_is_made_anew_only_when_it_must_be() {
    let mut world = World::new(None);
    (world.policy, world.http2) = (out_of_band(10), true);
    world.says(&[1], false);
    world.connected(1, true);
    let mut made = Vec::new();
    for change in 0..3 {
        match change {
            0 => world.policy = out_of_band(10),
            1 => world.policy = out_of_band(20),
            // Lost and made again between two looks.
            _ => world.factory.plans.lock().unwrap()[0].state.set_ready(),
        }
        world.says(&[1], false);
        assert_eq!(asked(&world).await, [1]);
        made.push(world.factory.made.load(Ordering::Relaxed));
    }
    assert_eq!(made, [1, 2, 3]);
}

/// There is no stream in HTTP/1.1, and none of ours over the application's services: what responses say makes the weights.
#[tokio::test(start_paused = true)]
async fn a58_endpoints_that_can_have_no_stream_are_weighed_by_their_responses() {
    for (http2, foreign) in [(false, false), (true, false), (true, true)] {
        let mut world = World::new(None);
        world.factory.foreign.store(foreign, Ordering::Relaxed);
        let streams = http2 && !foreign;
        (world.policy, world.http2) = (out_of_band(10), http2);
        world.says(&[1], false);
        world.connected(1, true);
        assert_eq!(asked(&world).await, if streams { vec![1] } else { vec![] });
        let view = world.handle.as_ref().unwrap().state().lane(http2, http2).load();
        let heard = view.candidates[0].observer.as_ref().is_some_and(|observer| observer.wants_reports());
        assert_eq!(heard, !streams);
    }
}

/// gRFC A58: weights are computed again when it is time, though nothing else changes.
#[tokio::test(start_paused = true)]
async fn a58_the_registry_says_when_weights_are_due() {
    let mut world = World::new(None);
    world.policy = Arc::new(ClientSideWrrConfig::default());
    world.says(&[1, 2], false);
    assert_eq!(world.registry.refresh(), None, "nobody is there to be weighed");
    world.connected(1, true);
    world.connected(2, true);
    let due = world.registry.refresh().unwrap();
    assert_eq!(due - tokio::time::Instant::now().into_std(), Duration::from_secs(1));
    tokio::time::advance(Duration::from_millis(999)).await;
    assert_eq!(world.registry.refresh(), Some(due));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(world.registry.refresh(), Some(due + Duration::from_secs(1)));
}

/// Closing connections takes the application's threads.
#[tokio::test(start_paused = true)]
async fn endpoints_that_left_take_no_requests_at_once_and_are_let_go_of_a_few_at_a_time() {
    let mut world = World::new(None);
    let ports: Vec<u16> = (1..=100).collect();
    world.says(&ports, false);
    world.says(&[1], false);
    assert_eq!((world.ports(), world.withdrawn().len()), (vec![1], 99));
    let began = tokio::time::Instant::now();
    let mut most = 0;
    std::future::poll_fn(|cx| {
        let before = world.ways();
        world.registry.poll(cx);
        most = most.max(before - world.ways());
        if world.ways() == 1 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    assert!(most <= 8, "{most} at once");
    assert_eq!(began.elapsed(), Duration::from_millis(12));
}

#[tokio::test(start_paused = true)]
async fn endpoints_of_a_cluster_that_nobody_uses_are_let_go_of_too() {
    let mut world = World::new(None);
    world.says(&[1, 2, 3], false);
    world.handle = None;
    world.registry.refresh();
    std::future::poll_fn(|cx| {
        world.registry.poll(cx);
        if world.ways() == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
