//! Subsets: which of a cluster's endpoints take a route's requests.

use http::StatusCode;
use mesh_core::error::Code;
use serde_json::json;

use super::*;
use crate::body::MeshBody;

/// What a route asks of endpoints.
fn wanted(lb: &Value) -> Value {
    json!({"filter_metadata": {"envoy.lb": lb}})
}

/// Two servers of one cluster, of version 1 and 2; the first is for production.
fn split(one: &Backend, two: &Backend) -> Value {
    let mut cluster = cluster("one", &[one.address, two.address]);
    cluster["lb_subset_config"] = json!({"subset_selectors": [{"keys": ["version"]}, {"keys": ["stage", "version"]}]});
    let endpoints = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
    endpoints[0]["metadata"] = wanted(&json!({"version": "1", "stage": "prod"}));
    endpoints[1]["metadata"] = wanted(&json!({"version": "2"}));
    cluster
}

#[tokio::test]
async fn a_route_and_the_weighted_cluster_in_it_ask_for_a_subset() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let weighted = json!({
        "metadata_match": wanted(&json!({"version": "9", "stage": "prod"})),
        "weighted_clusters": {"clusters": [
            {"name": "one", "weight": 1, "metadata_match": wanted(&json!({"version": "1"}))}]},
    });
    let table = routes(&json!([
        {"match": {"path": "/weighted"}, "route": weighted},
        {"match": {"path": "/none"}, "route": {"cluster": "one"}},
        {"match": {"path": "/nobody"}, "route": {"cluster": "one", "metadata_match": wanted(&json!({"version": "3"}))}},
        {"match": {"prefix": "/"}, "route": {"cluster": "one", "metadata_match": wanted(&json!({"version": "2"}))}},
    ]));
    let client = client(&table, &[split(&one, &two)]);
    for _ in 0..4 {
        assert_eq!(get(&client, "http://a/").await.0, StatusCode::OK);
        assert_eq!(get(&client, "http://a/weighted").await.0, StatusCode::OK);
    }
    assert_eq!((one.count(), two.count()), (4, 4));

    let error = client.get("http://a/nobody").await.unwrap_err();
    assert_eq!(error.code(), Code::NO_ENDPOINTS);
    assert!(error.message().ends_with("the subset that the route asks for: version=\"3\""), "{error}");
    let error = client.get("http://a/none").await.unwrap_err();
    assert!(error.message().ends_with("it asks for none"), "{error}");
    assert_eq!((one.count(), two.count()), (4, 4));
}

/// The only one that is left is the one that the request was sent to.
#[tokio::test]
async fn another_attempt_stays_in_the_subset() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let table = routes(&json!([{"match": {"prefix": "/"}, "route": {
        "cluster": "one",
        "metadata_match": wanted(&json!({"version": "2"})),
        "retry_policy": {"retry_on": "5xx"},
    }}]));
    let client = client(&table, &[split(&one, &two)]);
    let request = http::Request::get("http://a/").header("x-plan", "503,200").body(MeshBody::empty()).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), StatusCode::OK);
    assert_eq!((one.count(), two.count()), (0, 2));
}
