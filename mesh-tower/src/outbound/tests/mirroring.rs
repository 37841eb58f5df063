//! Copies of requests.

use http::Request;
use serde_json::json;

use super::*;
use crate::outbound::OutboundOptions;

fn mirrored(policies: &Value) -> Value {
    routes(&json!([{"match": {"prefix": "/"},
        "route": {"cluster": "one", "request_mirror_policies": policies}}]))
}

/// Waits until a backend has had `count` requests.
async fn had(backend: &Backend, count: usize) {
    let arriving = async {
        while backend.count() < count {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), arriving).await.expect("the copies came");
}

#[tokio::test]
async fn a_copy_goes_elsewhere_with_the_whole_body_and_its_answer_is_nobodys() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let table = mirrored(&json!([{"cluster": "two"}]));
    let client = client(&table, &[cluster("one", &[one.address]), cluster("two", &[two.address])]);
    let request =
        Request::post("http://a/x").header("x-mine", "1").body(crate::body::MeshBody::from("the body")).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(text(response).await, "one POST /x a");
    had(&two, 1).await;
    assert_eq!((two.body(), &two.headers()["x-mine"]), (one.body(), &"1".parse().unwrap()));
    assert_eq!(two.headers()["host"], "a-shadow", "it says what it is");
}

#[tokio::test]
async fn a_mirror_that_hangs_or_does_not_exist_costs_the_call_nothing() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let table = mirrored(&json!([{"cluster": "two"}, {"cluster": "none"}]));
    let client = client(&table, &[cluster("one", &[one.address]), cluster("two", &[two.address])]);
    // The server of the copy never answers.
    let request = Request::get("http://a/").header("x-plan", "hang").body(crate::body::MeshBody::empty());
    let first = Backend::start("three").await;
    drop(first);
    let sent = tokio::spawn({
        let client = client.clone();
        async move { client.send(request.unwrap()).await }
    });
    had(&two, 1).await;
    sent.abort();
    assert_eq!(get(&client, "http://a/").await.0, StatusCode::OK);
}

#[tokio::test]
async fn copies_are_bounded_and_a_share_of_none_makes_none() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let clusters = [cluster("one", &[one.address]), cluster("two", &[two.address])];
    let never = json!([{"cluster": "two", "runtime_fraction": {"default_value": {"numerator": 0}}}]);
    let none = client(&mirrored(&never), &clusters);
    assert_eq!(get(&none, "http://a/").await.0, StatusCode::OK);
    let mut resources = vec![listener("a:80", &mirrored(&json!([{"cluster": "two"}])))];
    resources.extend(clusters);
    let options = OutboundOptions { max_mirrors: 0, ..OutboundOptions::default() };
    let source = MemorySource::new(encode(&resources));
    let mesh = Mesh::builder().source(source).client_options(options).build().unwrap();
    assert_eq!(get(&mesh.http(), "http://a/").await.0, StatusCode::OK);
    // A copy is on its way before its call is answered.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!((one.count(), two.count()), (2, 0));
}

#[tokio::test]
async fn the_virtual_hosts_mirrors_are_for_routes_that_have_none() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let mut table = routes(&to("one"));
    table["virtual_hosts"][0]["request_mirror_policies"] =
        json!([{"cluster": "two", "disable_shadow_host_suffix_append": true}]);
    let client = client(&table, &[cluster("one", &[one.address]), cluster("two", &[two.address])]);
    assert_eq!(get(&client, "http://a/").await.0, StatusCode::OK);
    had(&two, 1).await;
    assert_eq!(two.headers()["host"], "a");
}
