//! A control plane that takes everything away, over real ADS: calls go on over the connections that stand.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::event::{Event, EventSink, Withdrawal};
use mesh_core::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT};
use mesh_core::source::responder::EncodedResource;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::backend::{Backend, PATIENCE};
use super::config::{cluster, encode, forward, listener};
use super::{ask, health};
use crate::control::ControlPlane;
use crate::{Bootstrap, Mesh};

struct Tell(UnboundedSender<Event>);

impl EventSink for Tell {
    fn event(&self, event: &Event) {
        let _ = self.0.send(event.clone());
    }
}

/// `greeter` on cluster `blue`, whose endpoints come by EDS.
fn resources(endpoints: Option<&[std::net::SocketAddr]>) -> Vec<EncodedResource> {
    let mut blue = cluster("blue", endpoints.unwrap_or_default());
    let mut assignment = blue["load_assignment"].take();
    assignment["@type"] = json!("type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment");
    if endpoints.is_none() {
        assignment["endpoints"] = json!([]);
    }
    blue["type"] = json!("EDS");
    blue["eds_cluster_config"] = json!({"eds_config": {"ads": {}}});
    blue.as_object_mut().unwrap().remove("load_assignment");
    let all: [Value; 3] = [listener("greeter", &json!([forward("blue")])), blue, assignment];
    encode(&all)
}

#[tokio::test]
async fn emptied_endpoints_and_deleted_clusters_cost_no_call() {
    let backend = Backend::start().await;
    let control = ControlPlane::builder().without_resource_errors().listen("127.0.0.1:0").await.unwrap();
    let whole = || resources(Some(&[backend.address]));
    let emptied = resources(None);
    let deleted = whole().into_iter().filter(|resource| &*resource.key.type_url != CLUSTER).collect::<Vec<_>>();
    for (taken, type_url, how) in
        [(emptied, CLUSTER_LOAD_ASSIGNMENT, Withdrawal::Emptied), (deleted, CLUSTER, Withdrawal::Deleted)]
    {
        control.set(whole());
        let (tell, mut events) = unbounded_channel();
        let bootstrap = Bootstrap::from_json(&control.bootstrap("ours").to_json()).unwrap();
        let grace = Duration::from_secs(3600);
        let mesh =
            Mesh::builder().bootstrap(bootstrap).events(Arc::new(Tell(tell))).deletion_grace(grace).build().unwrap();
        let mut client = health(&mesh);
        timeout(PATIENCE, client.check(ask(""))).await.unwrap().unwrap();

        control.set(taken);
        let withdrawn = async {
            loop {
                if let Event::Withdrawn { type_url, name, how, grace } = events.recv().await.unwrap() {
                    return (type_url.to_string(), name.to_string(), how, grace);
                }
            }
        };
        let withdrawn = timeout(PATIENCE, withdrawn).await.unwrap();
        assert_eq!(withdrawn, (type_url.to_owned(), "blue".to_owned(), how, Some(grace)));
        for _ in 0..50 {
            timeout(PATIENCE, client.check(ask(""))).await.unwrap().unwrap();
        }
        mesh.shutdown(PATIENCE).await;
    }
}
