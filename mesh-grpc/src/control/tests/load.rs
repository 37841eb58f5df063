//! Load reports of our own client, from its requests to what the control plane hears.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_core::ads::Settings;
use mesh_core::source::file::resource_from_json;
use mesh_core::source::responder::EncodedResource;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::control::{ControlPlane, Event, LoadReport, LocalityReport, What};
use crate::tests::backend::{Backend, PATIENCE};
use crate::tests::config::{encode, forward, listener};
use crate::tests::{ask, health};
use crate::{Bootstrap, Mesh};

/// A cluster by EDS whose load is wanted, with what else is said of it.
fn cluster(more: &Value) -> Value {
    let mut cluster = json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": "blue", "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}}, "service_name": "blue.eds"},
        "lrs_server": {"self": {}},
    });
    for (key, value) in more.as_object().unwrap() {
        cluster[key] = value.clone();
    }
    cluster
}

/// One locality for each address, the first one preferred, and what is dropped.
fn endpoints(addresses: &[SocketAddr], drops: &Value) -> EncodedResource {
    let locality = |(priority, address): (usize, &SocketAddr)| {
        json!({
            "locality": {"region": "here", "zone": format!("z{priority}")},
            "load_balancing_weight": 1, "priority": priority,
            "lb_endpoints": [{"endpoint": {"address": {"socket_address": {
                "address": address.ip().to_string(), "port_value": address.port()}}}}],
        })
    };
    let localities: Vec<Value> = addresses.iter().enumerate().map(locality).collect();
    resource_from_json(&json!({
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "blue.eds", "endpoints": localities, "policy": {"drop_overloads": drops},
    }))
    .unwrap()
}

/// A control plane that wants reports every second, and a client of it.
async fn both(cluster: Value, endpoints: EncodedResource) -> (ControlPlane, Mesh) {
    let mut resources = encode(&[listener("greeter", &json!([forward("blue")])), cluster]);
    resources.push(endpoints);
    serving(resources).await
}

/// The same, of these resources.
async fn serving(resources: Vec<EncodedResource>) -> (ControlPlane, Mesh) {
    let builder = ControlPlane::builder().resources(resources).load_interval(Duration::from_secs(1));
    let control = builder.listen("127.0.0.1:0").await.unwrap();
    let bootstrap = Bootstrap::from_json(&control.bootstrap("ours").to_json()).unwrap();
    let mut settings = Settings::default();
    settings.backoff.initial = Duration::from_millis(10);
    (control, Mesh::builder().bootstrap(bootstrap).xds(settings).build().unwrap())
}

/// All that is said about `blue` until `enough`, added up.
async fn loads(control: &ControlPlane, enough: impl Fn(&LoadReport) -> bool) -> LoadReport {
    let mut events = control.events();
    let mut sum: Option<LoadReport> = None;
    let next = |event: &Event| match &event.what {
        What::Load(report) => Some(report.clone()),
        _ => None,
    };
    let all = async {
        loop {
            let report = events.find(next).await.unwrap();
            match &mut sum {
                None => sum = Some(report),
                Some(sum) => add(sum, report),
            }
            if let Some(sum) = &sum
                && enough(sum)
            {
                return sum.clone();
            }
        }
    };
    timeout(PATIENCE, all).await.expect("the load is reported in time")
}

fn add(sum: &mut LoadReport, report: LoadReport) {
    sum.dropped += report.dropped;
    sum.interval += report.interval;
    for (category, count) in report.categories {
        match sum.categories.iter_mut().find(|(known, _)| *known == category) {
            Some((_, known)) => *known += count,
            None => sum.categories.push((category, count)),
        }
    }
    for report in report.localities {
        match sum.localities.iter_mut().find(|known| known.locality == report.locality) {
            Some(known) => {
                known.issued += report.issued;
                known.succeeded += report.succeeded;
                known.failed += report.failed;
                known.in_progress = report.in_progress;
            }
            None => sum.localities.push(report),
        }
    }
}

fn counts(report: &LocalityReport) -> [u64; 4] {
    [report.issued, report.in_progress, report.succeeded, report.failed]
}

#[tokio::test]
async fn a27_requests_are_reported_by_locality_with_their_outcome() {
    let (near, far) = (Backend::start().await, Backend::start().await);
    let (control, mesh) = both(cluster(&json!({})), endpoints(&[near.address, far.address], &json!([]))).await;
    let mut client = health(&mesh);
    let mut first = ask("");
    first.extensions_mut().insert(crate::WaitForReady);
    timeout(PATIENCE, client.check(first)).await.unwrap().unwrap();
    for _ in 0..3 {
        client.check(ask("")).await.unwrap();
    }
    client.check(ask("fail")).await.unwrap_err();
    let open = client.watch(ask("hang")).await.unwrap();
    let said = loads(&control, |sum| sum.localities.iter().any(|at| counts(at) == [6, 1, 4, 1])).await;
    assert_eq!((&*said.cluster, &*said.service, said.dropped), ("blue", "blue.eds", 0));
    let [only] = &said.localities[..] else { panic!("{said:?}") };
    assert_eq!((&*only.locality.region, &*only.locality.zone), ("here", "z0"));

    // A stream whose caller goes away has no status: an error, as in gRPC.
    drop(open);
    loads(&control, |sum| sum.localities.iter().any(|at| counts(at) == [6, 0, 4, 2])).await;
    // The preferred locality is gone: what goes to the other is the other's.
    drop(near);
    let answered = async { while client.check(ask("")).await.is_err() {} };
    timeout(PATIENCE, answered).await.unwrap();
    loads(&control, |sum| sum.localities.iter().any(|at| &*at.locality.zone == "z1" && at.succeeded > 0)).await;
}

#[tokio::test]
async fn a32_drops_are_reported_with_their_category_and_the_breakers_without() {
    let backend = Backend::start().await;
    let drops = json!([
        {"category": "never", "drop_percentage": {"numerator": 0}},
        {"category": "throttle", "drop_percentage": {"numerator": 100}},
    ]);
    let (control, mesh) = both(cluster(&json!({})), endpoints(&[backend.address], &drops)).await;
    let mut client = health(&mesh);
    for _ in 0..3 {
        let status = timeout(PATIENCE, client.check(ask(""))).await.unwrap().unwrap_err();
        assert!(status.message().contains("throttle"), "{status}");
    }
    let said = loads(&control, |sum| sum.dropped == 3).await;
    assert_eq!((said.categories, said.localities), (vec![("throttle".into(), 3)], vec![]));
    assert_eq!(backend.calls(), 0);

    let tight = json!({"circuit_breakers": {"thresholds": [{"max_requests": 0}]}});
    let (control, mesh) = both(cluster(&tight), endpoints(&[backend.address], &json!([]))).await;
    timeout(PATIENCE, health(&mesh).check(ask(""))).await.unwrap().unwrap_err();
    let said = loads(&control, |sum| sum.dropped == 1).await;
    assert_eq!((said.categories, said.localities), (vec![], vec![]));
}

#[tokio::test]
async fn the_stream_ends_with_the_mesh_and_after_a_control_plane_that_was_away_the_count_goes_on() {
    let backend = Backend::start().await;
    let (control, mesh) = both(cluster(&json!({})), endpoints(&[backend.address], &json!([]))).await;
    let mut client = health(&mesh);
    let mut first = ask("");
    first.extensions_mut().insert(crate::WaitForReady);
    timeout(PATIENCE, client.check(first)).await.unwrap().unwrap();
    loads(&control, |sum| sum.localities.iter().any(|at| at.succeeded == 1)).await;
    control.faults().vanish().await;
    client.check(ask("")).await.unwrap();
    control.faults().come_back().await.unwrap();
    loads(&control, |sum| sum.localities.iter().any(|at| at.succeeded == 2)).await;
    let lines: Vec<String> = control.log().iter().map(ToString::to_string).collect();
    let line = "sent `blue` in ";
    assert!(lines.iter().any(|text| text.contains(line) && text.contains("1 good")), "{lines:?}");
    mesh.shutdown(Duration::from_secs(1)).await;
    timeout(PATIENCE, async {
        while !control.streams().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

/// As on ADS streams: what is stalled hears everything, answers nothing, and then answers what it was asked.
#[tokio::test]
async fn a_control_plane_that_stalls_asks_for_no_load_either() {
    let backend = Backend::start().await;
    let (control, mesh) = both(cluster(&json!({})), endpoints(&[backend.address], &json!([]))).await;
    let mut client = health(&mesh);
    let mut first = ask("");
    first.extensions_mut().insert(crate::WaitForReady);
    timeout(PATIENCE, client.check(first)).await.unwrap().unwrap();
    loads(&control, |sum| sum.localities.iter().any(|at| at.succeeded == 1)).await;
    control.faults().stall();
    control.faults().vanish().await;
    let before = control.log().len();
    control.faults().come_back().await.unwrap();
    // Both streams are there, and their first requests are heard.
    timeout(PATIENCE, async {
        while control.streams().iter().filter(|stream| &*stream.node == "ours").count() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    client.check(ask("")).await.unwrap();
    // Longer than the interval of reports, had it been asked for.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let told = control.log().split_off(before);
    assert!(!told.iter().any(|event| matches!(event.what, What::Load(_))), "{told:?}");
    control.faults().resume();
    loads(&control, |sum| sum.localities.iter().any(|at| at.succeeded == 2)).await;
}

/// gRFC A37: what an aggregate cluster sends is the leaf's, and so is what is dropped there.
#[tokio::test]
async fn a37_the_load_of_an_aggregate_is_that_of_the_leaf_that_was_used() {
    let backend = Backend::start().await;
    let aggregate = json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": "all",
        "lrs_server": {"self": {}},
        "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
            "clusters": ["blue"]}},
    });
    let routes = listener("greeter", &json!([forward("all")]));
    let mut resources = encode(&[routes, aggregate, cluster(&json!({}))]);
    resources.push(endpoints(&[backend.address], &json!([])));
    let (control, mesh) = serving(resources).await;
    let mut first = ask("");
    first.extensions_mut().insert(crate::WaitForReady);
    timeout(PATIENCE, health(&mesh).check(first)).await.unwrap().unwrap();
    let said = loads(&control, |sum| sum.localities.iter().any(|at| at.succeeded == 1)).await;
    assert_eq!((&*said.cluster, &*said.service), ("blue", "blue.eds"));
    let of_all = control.log().into_iter().any(|event| matches!(event.what, What::Load(of) if &*of.cluster == "all"));
    assert!(!of_all, "the aggregate itself sends nothing");
}

/// What was counted, of which nothing was told: the time of the first report never comes.
struct Untold {
    control: ControlPlane,
    mesh: Mesh,
    backend: Backend,
}

impl Untold {
    async fn after_some_calls() -> Self {
        let backend = Backend::start().await;
        let mut resources = encode(&[listener("greeter", &json!([forward("blue")])), cluster(&json!({}))]);
        resources.push(endpoints(&[backend.address], &json!([])));
        let builder = ControlPlane::builder().resources(resources).load_interval(Duration::from_secs(3600));
        let control = builder.listen("127.0.0.1:0").await.unwrap();
        let bootstrap = Bootstrap::from_json(&control.bootstrap("ours").to_json()).unwrap();
        let mesh = Mesh::builder().bootstrap(bootstrap).build().unwrap();
        let mut client = health(&mesh);
        let reports_load =
            || control.streams().iter().any(|stream| stream.variant.is_none() && &*stream.node == "ours");
        for number in 0..100 {
            let mut request = ask("");
            request.extensions_mut().insert(crate::WaitForReady);
            timeout(PATIENCE, client.check(request)).await.unwrap().unwrap();
            if number >= 50 && reports_load() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { control, mesh, backend }
    }

    /// All of it is told, and the stream closes behind it.
    async fn is_told(&self) {
        let calls = self.backend.calls() as u64;
        loads(&self.control, |sum| sum.localities.iter().any(|at| counts(at) == [calls, 0, calls, 0])).await;
        timeout(PATIENCE, async {
            while self.control.streams().iter().any(|stream| stream.variant.is_none()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn what_was_counted_is_told_when_the_last_cluster_is_reported_no_more() {
    let it = Untold::after_some_calls().await;
    let unreported = cluster(&json!({"lrs_server": null}));
    let mut resources = encode(&[listener("greeter", &json!([forward("blue")])), unreported]);
    resources.push(endpoints(&[it.backend.address], &json!([])));
    it.control.set(resources);
    it.is_told().await;
}

/// As grpc-go since 1.74; C-core and Java leave it untold.
#[tokio::test]
async fn what_was_counted_is_told_when_the_mesh_shuts_down() {
    let it = Untold::after_some_calls().await;
    it.mesh.shutdown(Duration::from_secs(1)).await;
    it.is_told().await;
}
