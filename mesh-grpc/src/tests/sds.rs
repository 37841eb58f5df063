//! Identities from a secret discovery service, over a real stream: the local control plane serves it beside ADS.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mesh_core::bootstrap::SdsConfig;
use mesh_core::source::responder::EncodedResource;
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic_health::pb::health_server::HealthServer;

use super::backend::{Named, PATIENCE};
use super::config::{cluster, encode, forward, listener, server_listener};
use super::mtls::{tls, who};
use super::{ask, health};
use crate::control::{ControlPlane, DevCa, Workload};
use crate::{Bootstrap, Code, Error, Mesh, error_of, serve_on};

const SERVER: &str = "spiffe://cluster.local/ns/default/sa/greeter";
const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/caller";

/// A control plane with secrets, and a server under it.
struct World {
    control: ControlPlane,
    ca: DevCa,
    resources: Vec<EncodedResource>,
    _mesh: Mesh,
}

fn mesh(control: &ControlPlane, node: &str, secret: &str) -> Mesh {
    let bootstrap = Bootstrap::from_json(&control.bootstrap(node).to_json()).unwrap();
    let sds = SdsConfig::new(control.address().to_string()).unwrap().with_names(secret, "ROOTCA");
    Mesh::builder().bootstrap(bootstrap).certificate_provider("default", sds).build().unwrap()
}

/// A secret as the clusters of an Envoy name it.
fn secret(name: &str, server: SocketAddr) -> Value {
    let service = json!({"google_grpc": {"target_uri": server.to_string(), "stat_prefix": "sds"}});
    json!({"name": name, "sds_config": {"resource_api_version": "V3", "api_config_source": {
        "api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [service] }}})
}

impl World {
    async fn new() -> Self {
        let control = ControlPlane::builder().listen("127.0.0.1:0").await.unwrap();
        let mesh = mesh(&control, "server", "greeter");
        let bound = mesh.bind("127.0.0.1:0").await.unwrap();
        let (address, slot) = (bound.local_addr(), bound.slot().clone());
        let of_default = json!({"instance_name": "default"});
        let context = json!({"require_client_certificate": true, "common_tls_context": {
            "tls_certificate_provider_instance": of_default,
            "validation_context": {"ca_certificate_provider_instance": of_default}}});
        let served = server_listener(bound.slot().target(), address, Some(&tls("DownstreamTlsContext", context)));
        tokio::spawn(serve_on(bound, HealthServer::new(Named::default())));
        // As istiod has it for sidecars.
        let context = json!({"common_tls_context": {
            "tls_certificate_sds_secret_configs": [secret("caller", control.address())],
            "combined_validation_context": {
                "default_validation_context": {"match_subject_alt_names": [{"exact": SERVER}]},
                "validation_context_sds_secret_config": secret("ROOTCA", control.address())}}});
        let mut blue = cluster("blue", &[address]);
        blue["transport_socket"] = tls("UpstreamTlsContext", context);
        let resources = encode(&[served, listener("greeter", &json!([forward("blue")])), blue]);
        let world = Self { control, ca: DevCa::new().unwrap(), resources, _mesh: mesh };
        world.rotate();
        slot.serving().await;
        world
    }

    /// New keys and certificates for both.
    fn rotate(&self) {
        let issue = |secret: &str, id: &str| self.ca.secret(secret, &Workload::new(id.parse().unwrap())).unwrap();
        let secrets = [issue("greeter", SERVER), issue("caller", CLIENT), self.ca.root_secret("ROOTCA")];
        self.control.set(self.resources.iter().cloned().chain(secrets));
    }
}

#[tokio::test]
async fn sds_both_sides_have_their_certificates_and_rotate_under_calls() {
    let world = World::new().await;
    let mesh = mesh(&world.control, "client", "caller");
    // Not a wait for ready: the first handshake waits for its certificate.
    let (id, first) = who(&mesh).await;
    assert_eq!(id, CLIENT);
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = std::iter::repeat_with(|| {
        let (stop, calls, mut client) = (stop.clone(), calls.clone(), health(&mesh));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                client.check(ask("")).await?;
                calls.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, tonic::Status>(())
        })
    })
    .take(8)
    .collect();
    let mut leaves = HashSet::from([first]);
    for _ in 0..4 {
        let before = calls.load(Ordering::Relaxed);
        world.rotate();
        let (id, leaf) = who(&self::mesh(&world.control, "another", "caller")).await;
        assert_eq!(id, CLIENT);
        assert!(leaves.insert(leaf), "a process that starts has the newest");
        let moved = async {
            while calls.load(Ordering::Relaxed) == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, moved).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn sds_a_secret_of_another_server_refuses_the_cluster_and_says_which() {
    let world = World::new().await;
    let bootstrap = Bootstrap::from_json(&world.control.bootstrap("stranger").to_json()).unwrap();
    // It has no SDS server: the control plane cannot give it one.
    let mesh = Mesh::builder().bootstrap(bootstrap).build().unwrap();
    let status = timeout(PATIENCE, health(&mesh).check(ask(""))).await.unwrap().unwrap_err();
    assert_eq!(error_of(&status).map(Error::code), Some(Code::RESOURCE_REFUSED), "{status:?}");
    assert!(status.message().contains("google_grpc.target_uri"), "{}", status.message());
}
