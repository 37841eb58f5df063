//! Our own client under a control plane that fails: it keeps its last good configuration, and takes the next one.

use std::time::Duration;

use mesh_core::ads::{Settings, Variant};
use mesh_core::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION};
use mesh_core::source::file::resource_from_json;
use mesh_core::source::responder::EncodedResource;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::serving;
use crate::control::{ControlPlane, Event, What};
use crate::{Bootstrap, HttpClient, Mesh};

/// Our client of `control`, which looks for it again soon.
struct Ours {
    mesh: Mesh,
    client: HttpClient,
}

/// With these server features.
fn ours(control: &ControlPlane, features: &[&str]) -> Ours {
    let bootstrap = control.bootstrap("ours");
    let bootstrap = features.iter().fold(bootstrap, |bootstrap, feature| bootstrap.server_feature(*feature));
    let bootstrap = Bootstrap::from_json(&bootstrap.to_json()).unwrap();
    let mut settings = Settings::default();
    settings.backoff.initial = Duration::from_millis(10);
    settings.backoff.early_cap = Duration::from_millis(10);
    let mesh = Mesh::builder().bootstrap(bootstrap).xds(settings).build().unwrap();
    let client = mesh.client("xds:///greeter").unwrap();
    Ours { mesh, client }
}

impl Ours {
    /// Until its requests are sent to `cluster`, whose endpoints nobody serves: the errors name it.
    async fn sends_to(&self, cluster: &str) {
        let named = format!("cluster `{cluster}`");
        let sent = async {
            while !self.client.get("/").await.unwrap_err().message().contains(&named) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(Duration::from_secs(10), sent).await.is_ok(), "requests are never sent to {named}");
    }
}

/// The four resources that send `greeter` to `cluster`.
fn to(cluster: &str) -> Vec<EncodedResource> {
    const HCM: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let typed = |name: &str, mut value: Value| {
        value["@type"] = format!("type.googleapis.com/{name}").into();
        value
    };
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let manager = typed(
        HCM,
        json!({
            "rds": { "route_config_name": "table", "config_source": { "ads": {} } },
            "http_filters": [{ "name": "router", "typed_config": router }],
        }),
    );
    let host = json!({ "name": "all", "domains": ["*"],
        "routes": [{ "match": { "prefix": "" }, "route": { "cluster": cluster } }] });
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 1 } });
    let all = [
        typed(LISTENER, json!({ "name": "greeter", "api_listener": { "api_listener": manager } })),
        typed(ROUTE_CONFIGURATION, json!({ "name": "table", "virtual_hosts": [host] })),
        typed(
            CLUSTER,
            json!({ "name": cluster, "type": "EDS", "eds_cluster_config": { "eds_config": { "ads": {} } } }),
        ),
        typed(
            CLUSTER_LOAD_ASSIGNMENT,
            json!({ "cluster_name": cluster, "endpoints": [{
            "locality": { "region": "here" }, "load_balancing_weight": 1,
            "lb_endpoints": [{ "endpoint": { "address": address } }] }] }),
        ),
    ];
    all.iter().map(|resource| resource_from_json(resource).unwrap()).collect()
}

#[tokio::test]
async fn it_is_configured_and_follows_edits() {
    let control = serving(to("blue")).await;
    let ours = ours(&control, &[]);
    ours.sends_to("blue").await;
    control.set(to("green"));
    ours.sends_to("green").await;
    let acked = control.events().find(|event| event.ack(CLUSTER_LOAD_ASSIGNMENT).map(|_| event.node.clone())).await;
    assert_eq!(acked.as_deref(), Some("ours"));
    ours.mesh.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn it_takes_its_leave() {
    let control = serving(to("blue")).await;
    let ours = ours(&control, &[]);
    ours.sends_to("blue").await;
    ours.mesh.shutdown(Duration::from_secs(1)).await;
    let closed = |event: &Event| match &event.what {
        What::Closed { reason } => Some(reason.clone()),
        _ => None,
    };
    let reason = control.events().find(closed).await.unwrap();
    // The stream's end or the connection's, whichever the server sees first; a connection that broke off would be told as an
    // error of HTTP/2.
    let in_peace = ["the client is gone", "The operation completed successfully: "];
    assert!(in_peace.contains(&reason.as_str()), "{reason}");
}

#[tokio::test]
async fn delta_it_is_configured_and_follows_edits() {
    let control = serving(to("blue")).await;
    let ours = ours(&control, &["delta_grpc"]);
    ours.sends_to("blue").await;
    control.set(to("green"));
    ours.sends_to("green").await;
    let [stream] = &control.streams()[..] else { panic!("one stream is open") };
    assert_eq!(stream.variant, Some(Variant::Incremental));
    ours.mesh.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn every_way_to_fail_is_over_with_the_next_update() {
    every_way_to_fail(&[]).await;
}

#[tokio::test]
async fn delta_every_way_to_fail_is_over_with_the_next_update() {
    every_way_to_fail(&["delta_grpc"]).await;
}

async fn every_way_to_fail(features: &[&str]) {
    let control = serving(to("start")).await;
    let ours = ours(&control, features);
    ours.sends_to("start").await;
    let faults = control.faults();
    let mut events = control.events();

    faults.vanish().await;
    control.set(to("while-away"));
    faults.come_back().await.unwrap();
    ours.sends_to("while-away").await;

    assert_ne!(faults.tear(), 0);
    control.set(to("after-tear"));
    ours.sends_to("after-tear").await;

    assert_ne!(faults.garbage(), 0);
    control.set(to("after-garbage"));
    ours.sends_to("after-garbage").await;

    faults.refuse();
    control.set(to("refused"));
    let unavailable = |event: &Event| matches!(&event.what, What::Closed { reason } if reason.contains("refuses"));
    events.find(|event| unavailable(event).then_some(())).await.unwrap();
    faults.resume();
    ours.sends_to("refused").await;

    faults.stall();
    control.set(to("stalled"));
    faults.resume();
    ours.sends_to("stalled").await;

    for resource in to("stalled") {
        let name = resource.key.name.to_string();
        faults.spoil(&*name);
        let nack = events.find(|event| event.nack().map(str::to_owned)).await.unwrap();
        assert!(nack.contains(&name), "{nack}");
        faults.heal();
    }
    control.set(to("end"));
    ours.sends_to("end").await;
}

#[tokio::test]
async fn a_file_is_served_and_its_good_edits_too() {
    let yaml = |cluster: &str| {
        let to = [
            format!("{{kind: Service, metadata: {{name: {cluster}}}, spec: {{ports: [{{port: 80}}]}}}}"),
            "{kind: Service, metadata: {name: greeter}, spec: {ports: [{port: 80}]}}".to_owned(),
            format!(
                "{{kind: HTTPRoute, metadata: {{name: r}}, spec: {{parentRefs: [{{kind: Service, name: greeter}}], \
                 rules: [{{backendRefs: [{{name: {cluster}, port: 80}}]}}]}}}}"
            ),
        ];
        to.join("\n---\n")
    };
    let path = std::env::temp_dir().join(format!("mesh-control-{}.yaml", std::process::id()));
    std::fs::write(&path, yaml("blue")).unwrap();
    let control = ControlPlane::builder().file(&path).unwrap().listen("127.0.0.1:0").await.unwrap();
    let ours = ours(&control, &[]);
    ours.sends_to("outbound|80||blue.default.svc.cluster.local").await;
    std::fs::write(&path, yaml("green")).unwrap();
    ours.sends_to("outbound|80||green.default.svc.cluster.local").await;
    std::fs::remove_file(&path).unwrap();
    let error = ControlPlane::builder().file(&path).unwrap_err();
    assert_eq!(error.code(), mesh_core::error::Code::BAD_FILE);
}
