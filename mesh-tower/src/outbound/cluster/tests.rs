//! Which endpoints requests may be sent to, without any connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use mesh_core::balance::RoundRobinConfig;
use mesh_core::error::Error;
use mesh_core::model::{
    CircuitBreakers, Cluster, DiscoveryKind, Endpoint, Endpoints, Health, HttpProtocol, LocalityEndpoints, Metadata,
    PanicThreshold, Pattern, SanMatch, StringMatch, UpstreamTls,
};
use mesh_core::snapshot::{Children, ClusterConfig, Lease};

use super::{ClusterHandle, Limits, Registry, Signal};
use crate::body::MeshBody;
use crate::connect::{EndpointFactory, EndpointFuture, EndpointHandle, EndpointPlan, EndpointService};
use crate::secure::testing::upstream;

/// Makes ways on which nothing happens, and remembers their plans.
#[derive(Debug, Default)]
struct Factory(Mutex<Vec<EndpointPlan>>);

impl EndpointFactory for Factory {
    fn endpoint(&self, plan: EndpointPlan) -> Arc<dyn EndpointHandle> {
        self.0.lock().unwrap().push(plan);
        Arc::new(Still)
    }

    fn proves_tls(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Still;

impl EndpointService for Still {
    fn call(&self, _: Request<MeshBody>) -> EndpointFuture {
        unreachable!("nothing is sent")
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
}

impl World {
    fn new(tls: Option<UpstreamTls>) -> Self {
        let factory = Arc::<Factory>::default();
        let registry = Registry::new(factory.clone(), Signal::new(), None, Limits { connected: 100, seed: 1 });
        Self { factory, registry, handle: None, tls: tls.map(Arc::new) }
    }

    /// The cluster has endpoints at these ports.
    fn says(&mut self, ports: &[u16], lapsing: bool) {
        let config = Arc::new(ClusterConfig {
            cluster: Arc::new(cluster(self.tls.clone())),
            children: Children::Endpoints { endpoints: Arc::new(endpoints(ports)), note: None, lapsing },
            load_server: None,
            lease: Arc::new(Lease { cluster: "a".into() }),
        });
        let handle = self.registry.reconcile(&config, Vec::new()).unwrap();
        handle.state().lane(false, false).want();
        self.handle = Some(handle);
        self.registry.refresh();
    }

    fn connected(&mut self, port: u16, is: bool) {
        for plan in self.factory.0.lock().unwrap().iter().filter(|plan| plan.endpoint.address.port() == port) {
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
        for plan in self.factory.0.lock().unwrap().iter().filter(|plan| plan.endpoint.address.port() == port) {
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

    /// The ports to which no new connection may be made.
    fn withdrawn(&self) -> Vec<u16> {
        let plans = self.factory.0.lock().unwrap();
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

fn endpoints(ports: &[u16]) -> Endpoints {
    let endpoint = |port: &u16| {
        Arc::new(Endpoint {
            address: SocketAddr::from(([127, 0, 0, 1], *port)),
            additional: Vec::new(),
            weight: 1,
            health: Health::Unknown,
            hostname: "".into(),
            metadata: Metadata::new(),
        })
    };
    let endpoints = ports.iter().map(endpoint).collect();
    let locality = LocalityEndpoints { locality: Arc::default(), priority: 0, weight: 1, endpoints };
    Endpoints { localities: vec![locality], drops: Vec::new(), overprovisioning_factor: 140 }
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
    assert!(world.ports().is_empty() && world.factory.0.lock().unwrap().is_empty());
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
    assert_eq!((taken.len(), world.factory.0.lock().unwrap().len()), (100, 100), "and only those are connected to");
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
