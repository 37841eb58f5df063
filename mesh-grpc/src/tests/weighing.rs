//! Weights from the load that servers report (gRFC A58): with each response, and out of band (gRFC A51).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mesh_core::load::Load;
use mesh_core::source::MemorySource;
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use super::backend::{Named, PATIENCE};
use super::config::{cluster, encode, forward, listener, server_listener};
use super::{ask, health};
use crate::{InboundOptions, Mesh, OrcaService, ServerLoad, serve_on};

const WRR: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.\
                   ClientSideWeightedRoundRobin";

/// Two servers of a mesh and a client that weighs them.
struct World {
    client: Mesh,
    loads: [ServerLoad; 2],
    calls: [Arc<AtomicUsize>; 2],
    _servers: Vec<Mesh>,
}

/// A server that says its load in responses, out of band, or both.
async fn server(load: &ServerLoad, calls: &Arc<AtomicUsize>, in_responses: bool) -> (Mesh, std::net::SocketAddr) {
    let mut options = InboundOptions::default();
    options.load_reports = in_responses.then(|| load.clone());
    let source = MemorySource::new([]);
    let mesh = Mesh::builder().source(source.clone()).server_options(options).build().unwrap();
    let bound = mesh.bind("127.0.0.1:0").await.unwrap();
    let (address, name) = (bound.local_addr(), bound.slot().target().to_string());
    source.set(encode(&[server_listener(&name, address, None)]));
    let orca = OrcaService::new(load.clone()).min_interval(Duration::from_millis(10));
    let named = Named { calls: calls.clone(), ..Named::default() };
    let routes = Routes::new(HealthServer::new(named)).add_service(orca).prepare();
    tokio::spawn(serve_on(bound, routes));
    (mesh, address)
}

impl World {
    async fn new(policy: &Value, in_responses: bool) -> Self {
        let (loads, calls) = <([ServerLoad; 2], [Arc<AtomicUsize>; 2])>::default();
        let (mut servers, mut addresses) = (Vec::new(), Vec::new());
        for (load, calls) in loads.iter().zip(&calls) {
            let (mesh, address) = server(load, calls, in_responses).await;
            servers.push(mesh);
            addresses.push(address);
        }
        let mut blue = cluster("blue", &addresses);
        blue["load_balancing_policy"] =
            json!({"policies": [{"typed_extension_config": {"name": "wrr", "typed_config": policy}}]});
        let (client, _) = super::mesh(&[listener("greeter", &json!([forward("blue")])), blue]);
        Self { client, loads, calls, _servers: servers }
    }

    /// 100 requests for each second, at these utilizations in percent.
    fn busy(&self, utilization: [f64; 2]) {
        for (load, utilization) in self.loads.iter().zip(utilization) {
            let application_utilization = utilization / 100.0;
            load.set(Load { requests_per_second: 100.0, application_utilization, ..Load::default() });
        }
    }

    /// Of 100 calls, how many came to the first server.
    async fn share(&self) -> usize {
        let before = self.calls[0].load(Ordering::Relaxed);
        for _ in 0..100 {
            let mut request = ask("");
            request.extensions_mut().insert(crate::WaitForReady);
            timeout(PATIENCE, health(&self.client).check(request)).await.unwrap().unwrap();
        }
        self.calls[0].load(Ordering::Relaxed) - before
    }

    /// Calls until the first server gets such a share.
    async fn until(&self, share: usize) {
        let mut found = Vec::new();
        for _ in 0..200 {
            let now = self.share().await;
            if now.abs_diff(share) <= 2 {
                return;
            }
            found.push(now);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never {share}: {found:?}");
    }
}

fn policy(more: &Value) -> Value {
    let mut policy = json!({"@type": WRR, "blackout_period": "0s", "weight_update_period": "0.1s"});
    policy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    policy
}

#[tokio::test(flavor = "multi_thread")]
async fn a58_calls_follow_the_load_that_responses_report() {
    let world = World::new(&policy(&json!({})), true).await;
    world.until(50).await;
    world.busy([90.0, 10.0]);
    world.until(10).await;
    world.busy([20.0, 60.0]);
    world.until(75).await;
}

/// gRFCs A51 and A58.
#[tokio::test(flavor = "multi_thread")]
async fn calls_follow_the_load_that_servers_report_out_of_band() {
    let out_of_band = policy(&json!({"enable_oob_load_report": true, "oob_reporting_period": "0.1s"}));
    let world = World::new(&out_of_band, false).await;
    world.until(50).await;
    world.busy([90.0, 10.0]);
    world.until(10).await;
    world.busy([20.0, 60.0]);
    world.until(75).await;
}

/// gRFC A58: reports of one kind are heard, and not those of the other.
#[tokio::test(flavor = "multi_thread")]
async fn a58_responses_are_not_asked_where_reports_come_out_of_band() {
    let rarely = policy(&json!({"enable_oob_load_report": true, "oob_reporting_period": "3600s"}));
    let world = World::new(&rarely, true).await;
    world.busy([90.0, 10.0]);
    world.until(10).await;
    world.busy([50.0, 50.0]);
    // The responses say so; nobody listens. Weights are computed ten times a second.
    for _ in 0..10 {
        assert!(world.share().await.abs_diff(10) <= 2);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
