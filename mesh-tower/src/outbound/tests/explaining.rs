//! The decision with its reasons, from the configuration in force.

use http::Request;
use serde_json::json;

use super::*;

fn ask(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

fn table() -> Value {
    let header = json!([{"name": "x-canary", "string_match": {"exact": "1"}}]);
    let weighted = json!({"weighted_clusters": {"clusters": [
        {"name": "one", "weight": 1}, {"name": "two", "weight": 99}]},
        "timeout": "3s", "retry_policy": {"retry_on": "5xx,reset", "num_retries": 2}, "prefix_rewrite": "/v2"});
    routes(&json!([
        {"name": "canary", "match": {"prefix": "/", "headers": header}, "route": {"cluster": "two"}},
        {"name": "old", "match": {"path": "/old"}, "redirect": {"path_redirect": "/new"}},
        {"name": "rest", "match": {"prefix": "/"}, "route": weighted}]))
}

#[tokio::test]
async fn every_route_tried_has_its_reason_and_the_dice_are_told() {
    let one = Backend::start("one").await;
    let address = one.address;
    let (mesh, _source) = mesh(&[listener("a:80", &table()), cluster("one", &[address]), cluster("two", &[address])]);
    let explained = mesh.explain_with(&ask("http://a/x", &[]), 0).await.unwrap();
    let tried: Vec<_> = explained.routing.tried.iter().map(|tried| (&*tried.route, tried.mismatch.is_some())).collect();
    assert_eq!(tried, [("canary", true), ("old", true), ("rest", false)]);
    let text = explained.to_string();
    for part in [
        "route 0 `canary`: ",
        "x-canary",
        "route 2 `rest`: TAKEN",
        "dice 0 of 100: weighted cluster 0, `one`",
        "timeout: 3s",
        "retries: 2 at most on 5xx,reset",
        "path: becomes /v2x",
        &format!("{address} priority 0"),
        "not in use",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(one.count(), 0, "nothing is sent");
    let canary = mesh.explain(&ask("http://a/x", &[("x-canary", "1")])).await.unwrap();
    assert_eq!(canary.cluster.as_ref().map(|cluster| &*cluster.name), Some("two"));
    let redirect = mesh.explain(&ask("http://a/old", &[])).await.unwrap().to_string();
    assert!(redirect.contains("redirect: 301 to http://a/new"), "{redirect}");
}

#[tokio::test]
async fn an_endpoint_in_use_says_how_it_is_and_is_picked() {
    let one = Backend::start("one").await;
    let (mesh, _source) = mesh(&[listener("a:80", &routes(&to("one"))), cluster("one", &[one.address])]);
    assert_eq!(get(&mesh.http(), "http://a/").await.0, StatusCode::OK);
    let explained = mesh.explain(&ask("http://a/", &[])).await.unwrap();
    let cluster = explained.cluster.unwrap();
    assert_eq!((cluster.picked, cluster.candidates[0].state.as_str()), (Some(one.address), "ready"));
}

#[tokio::test]
async fn a_running_process_can_be_asked() {
    let one = Backend::start("one").await;
    let (mesh, _source) = mesh(&[listener("a:80", &routes(&to("one"))), cluster("one", &[one.address])]);
    assert_eq!(get(&mesh.http(), "http://a/").await.0, StatusCode::OK);
    let mut service = mesh.explain_service();
    let mut question = |text: &'static str| {
        tower_service::Service::call(&mut service, Request::new(crate::body::MeshBody::from(text)))
    };
    let answer = question("GET http://a/x\nk: v").await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let told = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&told).contains("ready, PICKED"), "with what this process knows: {told:?}");
    assert_eq!(question("nonsense").await.unwrap().status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_nobody_serves_says_so() {
    let (mesh, _source) = mesh(&[listener("a:80", &json!({"virtual_hosts": []}))]);
    let explained = mesh.explain(&ask("http://a/", &[])).await.unwrap();
    assert!(explained.routing.decision.is_err() && explained.to_string().contains("no virtual host"));
    assert_eq!(mesh.explain(&ask("/x", &[])).await.unwrap_err().code(), Code::BAD_TARGET);
}
