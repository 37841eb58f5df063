//! Clusters whose endpoints DNS knows (gRFC A37), from the resolver to the server.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use mesh_core::dns::{Resolve, Resolving};

use super::*;

/// Knows a few names.
#[derive(Debug, Default)]
struct Zone(Mutex<BTreeMap<&'static str, Vec<SocketAddr>>>);

impl Zone {
    fn says(&self, host: &'static str, addresses: &[SocketAddr]) {
        self.0.lock().unwrap().insert(host, addresses.to_vec());
    }
}

impl Resolve for Zone {
    fn resolve(&self, host: &str, _: u16) -> Resolving {
        let found = self.0.lock().unwrap().get(host).cloned();
        Box::pin(async move { found.ok_or_else(|| io::Error::other("no such host")) })
    }
}

/// A cluster of this type with these names.
fn named(name: &str, kind: &str, hosts: &[&str]) -> Value {
    let endpoint =
        |host: &&str| json!({"endpoint": {"address": {"socket_address": {"address": host, "port_value": 80}}}});
    let mut cluster = cluster(name, &[]);
    cluster["type"] = kind.into();
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = hosts.iter().map(endpoint).collect();
    cluster
}

fn mesh_with(zone: &Arc<Zone>, cluster: &str, clusters: &[Value]) -> HttpClient {
    let mut resources = vec![listener("a:80", &routes(&to(cluster)))];
    resources.extend_from_slice(clusters);
    let source = MemorySource::new(encode(&resources));
    Mesh::builder().source(source).resolver(zone.clone()).build().unwrap().http()
}

#[tokio::test]
async fn a37_requests_to_a_logical_name_go_to_one_of_its_addresses() {
    let (backend, zone) = (Backend::start("one").await, Arc::<Zone>::default());
    // Nobody is at the first one: the next is tried (gRFC A61).
    zone.says("blue.test", &["127.0.0.1:1".parse().unwrap(), backend.address]);
    let client = mesh_with(&zone, "c", &[named("c", "LOGICAL_DNS", &["blue.test"])]);
    assert_eq!(get(&client, "http://a/x").await.1, "one GET /x a");
}

#[tokio::test]
async fn a37_a_name_that_nobody_knows_fails_its_requests_and_is_in_the_error() {
    let client = mesh_with(&Arc::default(), "c", &[named("c", "LOGICAL_DNS", &["nowhere.test"])]);
    let error = client.get("http://a/").await.unwrap_err();
    assert_eq!(error.code(), Code::NO_ENDPOINTS);
    assert!(error.message().contains("DNS gives no address for `nowhere.test`: no such host"), "{error}");
}

#[tokio::test]
async fn a37_a75_an_aggregate_falls_back_from_addresses_to_a_name() {
    let (backend, zone) = (Backend::start("dns").await, Arc::<Zone>::default());
    zone.says("blue.test", &[backend.address]);
    let all = json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": "all", "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
            "clusters": ["dead", "dns"]}},
    });
    let dead = cluster("dead", &["127.0.0.1:1".parse().unwrap()]);
    let client = mesh_with(&zone, "all", &[all, dead, named("dns", "LOGICAL_DNS", &["blue.test"])]);
    let answered = async {
        loop {
            if let Ok(response) = client.get("http://a/x").await {
                return text(response).await;
            }
        }
    };
    assert_eq!(answered.await, "dns GET /x a");
}

#[tokio::test]
async fn strict_names_are_asked_again_and_each_of_their_addresses_is_used() {
    let (blue, green, red) = (Backend::start("b").await, Backend::start("g").await, Backend::start("r").await);
    let zone = Arc::<Zone>::default();
    zone.says("blue.test", &[blue.address, green.address]);
    zone.says("red.test", &[red.address]);
    let mut cluster = named("c", "STRICT_DNS", &["blue.test", "red.test"]);
    cluster["dns_refresh_rate"] = "1s".into();
    let client = mesh_with(&zone, "c", &[cluster]);
    while [&blue, &green, &red].iter().any(|backend| backend.count() == 0) {
        get(&client, "http://a/").await;
    }
    // A name that moves moves its requests, though nothing failed.
    zone.says("blue.test", &[green.address]);
    let mut before = blue.count();
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        for _ in 0..6 {
            get(&client, "http://a/").await;
        }
        if std::mem::replace(&mut before, blue.count()) == blue.count() {
            break;
        }
    }
    assert!(green.count() > 0 && red.count() > 0);
}
