//! Weights from what responses say of their server's load (gRFC A58), whatever the protocol.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use mesh_core::load::{LOAD_REPORT, Load};
use tower_layer::Layer;

use super::*;
use crate::body::MeshBody;

/// Two endpoints behind a service of the application, of which the first is as busy as the second nine times over.
#[tokio::test]
async fn a58_requests_follow_the_load_that_responses_report_in_their_heads() {
    let endpoints = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut one = cluster("one", &endpoints);
    one["load_balancing_policy"] = json!({"policies": [{"typed_extension_config": {"name": "wrr", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.\
                  client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
        "blackout_period": "0s", "weight_update_period": "0.1s"}}}]});
    let (mesh, _source) = mesh(&[listener("a", &routes(&to("one"))), one]);
    let first = Arc::new(AtomicUsize::new(0));
    let counted = first.clone();
    let client = mesh.layer("xds:///a").unwrap().layer(tower::service_fn(move |request: Request<MeshBody>| {
        let is_first = request.uri().authority().unwrap() == "127.0.0.1:1";
        counted.fetch_add(usize::from(is_first), Ordering::Relaxed);
        let cpu_utilization = if is_first { 0.9 } else { 0.1 };
        let load = Load { cpu_utilization, requests_per_second: 100.0, ..Load::default() };
        let response = Response::builder().header(LOAD_REPORT, load.to_header()).body(Full::from("")).unwrap();
        std::future::ready(Ok::<Response<Full<bytes::Bytes>>, Infallible>(response))
    }));
    let mut shares = Vec::new();
    for _ in 0..200 {
        let before = first.load(Ordering::Relaxed);
        for _ in 0..100 {
            get(&client, "http://a/").await;
        }
        shares.push(first.load(Ordering::Relaxed) - before);
        if shares.last().is_some_and(|share| share.abs_diff(10) <= 2) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never a tenth: {shares:?}");
}
