//! Several control planes: fallback from one to the next (gRFC A71), and authorities that have their own (gRFC A47). The
//! flows are those of gRPC's interop tests `fallback_test` and `federation_test`, which play them with containers.

use std::time::Duration;

use mesh_core::ads::{FallbackScope, Settings};
use mesh_core::bootstrap::Bootstrap;
use mesh_core::event::{Event, EventSink};
use mesh_core::resource::CLUSTER;
use mesh_core::source::responder::EncodedResource;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;

use super::backend::{Backend, Named, PATIENCE};
use super::config::{encode, forward, listener};
use super::{TARGET, ask};
use crate::control::ControlPlane;
use crate::{Mesh, MeshChannel, serve_on};

const PRIMARY: usize = 0;
const FALLBACK: usize = 1;

/// So that a server that is back is found at once.
fn settings(scope: FallbackScope) -> Settings {
    let mut settings = Settings::default();
    settings.fallback_scope = scope;
    settings.backoff.initial = Duration::from_millis(50);
    settings.backoff.early_cap = Duration::from_millis(50);
    settings
}

struct Forward(mpsc::UnboundedSender<Event>);

impl EventSink for Forward {
    fn event(&self, event: &Event) {
        let _ = self.0.send(event.clone());
    }
}

/// Two control planes in order of preference, three servers, and a client.
struct Stage {
    planes: [ControlPlane; 2],
    servers: [Backend; 3],
    client: HealthClient<MeshChannel>,
    events: mpsc::UnboundedReceiver<Event>,
    _mesh: Mesh,
}

async fn plane() -> ControlPlane {
    ControlPlane::builder().without_resource_errors().listen("127.0.0.1:0").await.unwrap()
}

fn server(plane: &ControlPlane) -> Value {
    json!({"server_uri": plane.address().to_string(), "channel_creds": [{"type": "insecure"}]})
}

fn eds_cluster(name: &str, service_name: &str) -> Value {
    let mut cluster = super::config::cluster(name, &[]);
    cluster["type"] = json!("EDS");
    cluster["eds_cluster_config"] = json!({"eds_config": {"self": {}}, "service_name": service_name});
    cluster.as_object_mut().unwrap().remove("load_assignment");
    cluster
}

fn endpoints(name: &str, address: std::net::SocketAddr) -> Value {
    let mut assignment = super::config::cluster(name, &[address])["load_assignment"].take();
    assignment["@type"] = json!("type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment");
    assignment
}

/// `greeter` on this server, by a cluster of this name.
fn greeter(cluster: &str, server: &Backend) -> Vec<Value> {
    vec![
        listener("greeter", &json!([forward(cluster)])),
        eds_cluster(cluster, cluster),
        endpoints(cluster, server.address),
    ]
}

impl Stage {
    async fn with(scope: FallbackScope, is_up: bool, set: impl FnOnce(&[ControlPlane; 2], &[Backend; 3])) -> Self {
        let planes = [plane().await, plane().await];
        let servers = [Backend::start().await, Backend::start().await, Backend::start().await];
        set(&planes, &servers);
        if !is_up {
            planes[PRIMARY].faults().vanish().await;
            planes[FALLBACK].faults().vanish().await;
        }
        let bootstrap = json!({"xds_servers": planes.each_ref().map(server), "node": {"id": "test-id"}});
        let (sink, events) = mpsc::unbounded_channel();
        let mesh = Mesh::builder()
            .bootstrap(Bootstrap::from_json(&bootstrap.to_string()).unwrap())
            .xds(settings(scope))
            .events(std::sync::Arc::new(Forward(sink)))
            .build()
            .unwrap();
        let client = HealthClient::new(MeshChannel::new(&mesh, TARGET).unwrap());
        Self { planes, servers, client, events, _mesh: mesh }
    }

    /// Which server answers a call.
    async fn call(&mut self) -> Result<usize, Status> {
        let before = self.servers.each_ref().map(Backend::calls);
        timeout(PATIENCE, self.client.check(ask(""))).await.expect("a call takes too long")?;
        let after = self.servers.each_ref().map(Backend::calls);
        Ok((0..3).find(|server| before[*server] != after[*server]).expect("one of the servers was called"))
    }

    /// Calls until this server answers, and then five times more. Whether calls failed before.
    async fn settles_on(&mut self, server: usize) -> bool {
        let mut failed = false;
        let until = async {
            loop {
                match self.call().await {
                    Ok(found) if found == server => return,
                    Ok(_) => {}
                    Err(_) => failed = true,
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, until).await.unwrap_or_else(|_| panic!("server {server} never answers"));
        for _ in 0..5 {
            assert_eq!(self.call().await.unwrap(), server);
        }
        failed
    }

    /// Waits until no stream to a control plane is open.
    async fn is_left(&self, plane: usize) {
        let closed = async {
            while !self.planes[plane].streams().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, closed).await.expect("the stream stays open");
    }

    /// Waits until it was seen again that the control plane cannot be reached.
    async fn misses(&mut self, plane: usize) {
        while self.events.try_recv().is_ok() {}
        let address = self.planes[plane].address().to_string();
        let missed = async {
            loop {
                match self.events.recv().await.expect("the mesh lives") {
                    Event::ConnectivityLost { server, .. } if *server == *address => return,
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, missed).await.expect("nobody tries to reach it");
    }

    /// The preferred control plane dies as soon as this cluster is asked for, which it does not have.
    async fn dies_when_asked_for(&self, cluster: &str) {
        let plane = &self.planes[PRIMARY];
        let mut events = plane.events();
        let asks = |event: &crate::control::Event| {
            let request = event.request()?;
            (&*request.type_url == CLUSTER && request.names.iter().any(|name| **name == *cluster)).then_some(())
        };
        timeout(PATIENCE, events.find(asks)).await.expect("it is never asked for");
        plane.faults().vanish().await;
    }

    async fn comes_back(&self, plane: usize) {
        self.planes[plane].faults().come_back().await.unwrap();
    }
}

fn encoded(resources: &[Value]) -> Vec<EncodedResource> {
    encode(resources)
}

#[tokio::test]
async fn a71_fallback_on_startup() {
    let mut stage = Stage::with(FallbackScope::Process, false, |planes, servers| {
        planes[PRIMARY].set(encoded(&greeter("one", &servers[0])));
        planes[FALLBACK].set(encoded(&greeter("two", &servers[1])));
    })
    .await;
    for _ in 0..5 {
        assert_eq!(stage.call().await.unwrap_err().code(), Code::Unavailable);
    }
    stage.comes_back(FALLBACK).await;
    stage.settles_on(1).await;
    stage.comes_back(PRIMARY).await;
    assert!(!stage.settles_on(0).await, "no call is lost by the way back");
    stage.is_left(FALLBACK).await;
    stage.planes[PRIMARY].faults().vanish().await;
    stage.misses(PRIMARY).await;
    assert!(!stage.settles_on(0).await, "what is cached is used on");
    assert!(stage.planes[FALLBACK].streams().is_empty(), "nothing is missing, so nobody falls back");
    stage.planes[FALLBACK].faults().vanish().await;
    stage.misses(PRIMARY).await;
    assert!(!stage.settles_on(0).await);
}

async fn mid_startup(scope: FallbackScope) {
    let mut stage = Stage::with(scope, true, |planes, servers| {
        // Its cluster is not there: it dies before it answers.
        planes[PRIMARY].set(encoded(&greeter("cluster_name", &servers[0])[..1]));
        planes[FALLBACK].set(encoded(&greeter("other", &servers[1])));
    })
    .await;
    let mut first = stage.client.clone();
    let call = tokio::spawn(async move { first.check(ask("")).await });
    stage.dies_when_asked_for("cluster_name").await;
    timeout(PATIENCE, call).await.unwrap().unwrap().expect("the first call waits for the fallback");
    assert!(!stage.settles_on(1).await);
    stage.planes[PRIMARY].set(encoded(&greeter("cluster_name", &stage.servers[0])));
    stage.comes_back(PRIMARY).await;
    assert!(!stage.settles_on(0).await);
    stage.is_left(FALLBACK).await;
}

#[tokio::test]
async fn a71_fallback_mid_startup() {
    mid_startup(FallbackScope::Process).await;
}

#[tokio::test]
async fn a71_fallback_mid_startup_by_target() {
    mid_startup(FallbackScope::Target).await;
}

async fn mid_update(scope: FallbackScope) {
    let mut stage = Stage::with(scope, true, |planes, servers| {
        planes[PRIMARY].set(encoded(&greeter("test_cluster", &servers[0])));
        planes[FALLBACK].set(encoded(&greeter("other", &servers[1])));
    })
    .await;
    stage.settles_on(0).await;
    assert!(stage.planes[FALLBACK].streams().is_empty());
    let mut update = greeter("test_cluster", &stage.servers[0]);
    update[0] = listener("greeter", &json!([forward("test_cluster_2")]));
    stage.planes[PRIMARY].set(encoded(&update));
    stage.dies_when_asked_for("test_cluster_2").await;
    assert!(!stage.settles_on(1).await, "no call is lost, and none is stuck with the first server");
    stage.planes[PRIMARY].set(encoded(&greeter("test_cluster_2", &stage.servers[2])));
    stage.comes_back(PRIMARY).await;
    assert!(!stage.settles_on(2).await);
    stage.is_left(FALLBACK).await;
}

#[tokio::test]
async fn a71_fallback_mid_update() {
    mid_update(FallbackScope::Process).await;
}

#[tokio::test]
async fn a71_fallback_mid_update_by_target() {
    mid_update(FallbackScope::Target).await;
}

/// The name of a resource of an authority.
fn name(authority: &str, kind: &str, id: &str) -> String {
    format!("xdstp://{authority}/envoy.config.{kind}/{id}")
}

/// `federation_test`: the bootstrap's own server is of no use and is never contacted; the client's Listener is at one
/// authority and its cluster at another, and so are the server's Listener and routes.
#[tokio::test]
async fn a47_federation() {
    let own = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, two) = (plane().await, plane().await);
    let bootstrap = json!({
        "xds_servers": [{"server_uri": own.local_addr().unwrap().to_string(), "channel_creds": [{"type": "insecure"}]}],
        "node": {"id": "test-id"},
        "server_listener_resource_name_template": name("authority2", "listener.v3.Listener", "grpc/server/%s"),
        "authorities": {"authority1": {"xds_servers": [server(&one)]}, "authority2": {"xds_servers": [server(&two)]}},
    });
    let mesh = Mesh::builder()
        .bootstrap(Bootstrap::from_json(&bootstrap.to_string()).unwrap())
        .xds(settings(FallbackScope::Process))
        .build()
        .unwrap();
    let bound = mesh.bind("127.0.0.1:0").await.unwrap();
    let address = bound.local_addr();
    let served = name("authority2", "listener.v3.Listener", &format!("grpc/server/{address}"));
    assert_eq!(**bound.slot().target(), *served);

    let (cluster, set) = (name("authority2", "cluster.v3.Cluster", "c"), "endpoint.v3.ClusterLoadAssignment");
    let set = name("authority2", set, "e?b=2&a=1");
    let routes = name("authority1", "route.v3.RouteConfiguration", "inbound");
    let mut server_listener = super::config::server_listener(&served, address, None);
    let manager = &mut server_listener["filter_chains"][0]["filters"][0]["typed_config"];
    let mut table = manager["route_config"].take();
    manager.as_object_mut().unwrap().remove("route_config");
    manager["rds"] = json!({"config_source": {"self": {}}, "route_config_name": routes});
    table["@type"] = json!("type.googleapis.com/envoy.config.route.v3.RouteConfiguration");
    table["name"] = json!(routes);
    let greeter = name("authority1", "listener.v3.Listener", "greeter");
    one.set(encode(&[listener(&greeter, &json!([forward(&cluster)])), table]));
    // Its own spelling of the name is not the one of the cluster.
    let spelled = name("authority2", "endpoint.v3.ClusterLoadAssignment", "e?a=1&b=2");
    two.set(encode(&[server_listener, eds_cluster(&cluster, &set), endpoints(&spelled, address)]));

    tokio::spawn(serve_on(bound, tonic_health::pb::health_server::HealthServer::new(Named::default())));
    let mut client = HealthClient::new(MeshChannel::new(&mesh, "xds://authority1/greeter").unwrap());
    let mut request = ask("");
    request.extensions_mut().insert(crate::WaitForReady);
    timeout(PATIENCE, client.check(request)).await.unwrap().unwrap();
    assert_eq!((one.streams().len(), two.streams().len()), (1, 1), "client and server share the streams");
    let contacted = timeout(Duration::ZERO, own.accept()).await;
    assert!(contacted.is_err(), "{contacted:?}");

    let unknown = MeshChannel::new(&mesh, "xds://authority3/greeter").unwrap_err();
    assert!(unknown.to_string().contains("`authority3`"), "{unknown}");
}
