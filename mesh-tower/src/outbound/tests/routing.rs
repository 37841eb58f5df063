//! Where requests go.

use http::{Request, StatusCode, Version};
use mesh_core::error::Code;
use serde_json::json;

use super::*;
use crate::body::MeshBody;
use crate::filter::DynamicMetadata;

#[tokio::test]
async fn any_host_is_a_target_of_its_own() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let (mesh, _source) = mesh(&[
        listener("a:80", &routes(&to("one"))),
        listener("b:8080", &routes(&to("two"))),
        cluster("one", &[one.address]),
        cluster("two", &[two.address]),
    ]);
    let client = mesh.http();
    assert_eq!(get(&client, "http://a/x?y=z").await, (StatusCode::OK, "one GET /x?y=z a".to_owned()));
    assert_eq!(get(&client, "http://b:8080/").await.1, "two GET / b:8080");
    let error = client.get("http://nowhere/").await.unwrap_err();
    assert_eq!(error.code(), Code::UNKNOWN_HOST);
    assert!(error.to_string().contains("nowhere:80"), "{error}");
}

#[tokio::test]
async fn the_host_header_names_the_target_of_a_request_without_authority() {
    let one = Backend::start("one").await;
    let client = client(&routes(&to("one")), &[cluster("one", &[one.address])]);
    let request = Request::get("/p").header("host", "a").body(MeshBody::empty()).unwrap();
    assert_eq!(text(client.send(request).await.unwrap()).await, "one GET /p a");
    let nobody = Request::get("/p").body(MeshBody::empty()).unwrap();
    assert_eq!(code(client.send(nobody).await), Code::BAD_TARGET);
}

#[tokio::test]
async fn a_fixed_target_chooses_the_virtual_host_whatever_the_request_says() {
    let one = Backend::start("one").await;
    let hosts = json!({"virtual_hosts": [
        {"name": "it", "domains": ["greeter"], "routes": to("one")},
        {"name": "other", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 418}}]},
    ]});
    let (mesh, _source) = mesh(&[listener("greeter", &hosts), cluster("one", &[one.address])]);
    let client = mesh.client("xds:///greeter").unwrap();
    mesh.ready("xds:///greeter").await.unwrap();
    assert_eq!(get(&client, "http://anything/").await.1, "one GET / anything");
    assert_eq!(get(&client, "/").await.1, "one GET / greeter");
}

#[tokio::test]
async fn routes_decide_by_path_header_and_weight() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let table = routes(&json!([
        {"match": {"path": "/exact"}, "route": {"cluster": "two"}},
        {"match": {"prefix": "/", "headers": [{"name": "x-to", "string_match": {"exact": "two"}}]},
         "route": {"cluster_header": "x-to"}},
        {"match": {"prefix": "/weighted"}, "route": {"weighted_clusters": {"clusters": [
            {"name": "one", "weight": 75}, {"name": "two", "weight": 25}]}}},
        {"match": {"prefix": "/no"}, "direct_response": {"status": 403, "body": {"inline_string": "no"}}},
        {"match": {"prefix": "/"}, "route": {"cluster": "one"}},
    ]));
    let client = client(&table, &[cluster("one", &[one.address]), cluster("two", &[two.address])]);
    assert_eq!(get(&client, "http://a/exact").await.1, "two GET /exact a");
    assert_eq!(get(&client, "http://a/exact/no").await.1, "one GET /exact/no a");
    assert_eq!(get(&client, "http://a/no").await, (StatusCode::FORBIDDEN, "no".to_owned()));
    let by_header = Request::get("http://a/h").header("x-to", "two").body(MeshBody::empty()).unwrap();
    assert_eq!(text(client.send(by_header).await.unwrap()).await, "two GET /h a");
    let mut ones = 0;
    for _ in 0..400 {
        ones += usize::from(get(&client, "http://a/weighted").await.1.starts_with("one"));
    }
    // Four standard deviations around 300.
    assert!((265..=335).contains(&ones), "{ones} of 400");
}

/// The graph lets go of a cluster that requests named when none of them takes it any more.
#[tokio::test]
async fn a74_a_request_that_names_its_cluster_says_that_it_takes_it() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let table = routes(&json!([
        {"match": {"path": "/named"}, "route": {"cluster_header": "x-to"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "one"}},
    ]));
    let clusters = [cluster("one", &[one.address]), cluster("two", &[two.address])];
    let (mesh, _source) = mesh(&[vec![listener("a:80", &table)], clusters.to_vec()].concat());
    let client = mesh.http();
    let ask = async |path: &str| {
        let request = Request::get(format!("http://a{path}")).header("x-to", "two").body(MeshBody::empty()).unwrap();
        text(client.send(request).await.unwrap()).await
    };
    // The first has it asked for.
    assert_eq!(ask("/named").await, "two GET /named a");
    let taken = || {
        let view = mesh.targets().get("a:80").unwrap().view().unwrap();
        ["one", "two"].map(|name| view.cluster(name).unwrap().unwrap().lease().take_touched())
    };
    taken();
    assert_eq!(ask("/").await, "one GET / a");
    assert_eq!(taken(), [false, false], "a route that names its cluster keeps it anyway");
    assert_eq!(ask("/named").await, "two GET /named a");
    assert_eq!(taken(), [false, true]);
}

#[tokio::test]
async fn who_asks_for_https_gets_no_plaintext() {
    let one = Backend::start("one").await;
    let (mesh, _source) = mesh(&[listener("a:443", &routes(&to("one"))), cluster("one", &[one.address])]);
    let error = mesh.http().get("https://a/").await.unwrap_err();
    assert_eq!((error.code(), one.count()), (Code::UNPROVABLE_TLS, 0));
    // TLS to some of the endpoints is not TLS to the one that is chosen.
    let mut some = cluster("one", &[one.address]);
    some["transport_socket_matches"] = json!([{"name": "some", "match": {"tlsMode": "istio"}, "transport_socket":
        {"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {"validation_context": {"system_root_certs": {}}}}}}]);
    let (mesh, _source) = super::mesh(&[listener("a:443", &routes(&to("one"))), some]);
    let error = mesh.http().get("https://a/").await.unwrap_err();
    assert_eq!((error.code(), one.count()), (Code::UNPROVABLE_TLS, 0));
}

#[tokio::test]
async fn what_no_route_takes_says_so() {
    let none = client(&routes(&json!([{"match": {"prefix": "/only"}, "route": {"cluster": "one"}}])), &[]);
    assert_eq!(code(none.get("http://a/other").await), Code::NO_ROUTE);
    let missing = client(&routes(&to("missing")), &[]);
    assert_eq!(missing.get("http://a/").await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    let teapot = routes(&json!([{"match": {"prefix": "/"},
        "route": {"cluster_header": "x-c", "cluster_not_found_response_code": "NOT_FOUND"}}]));
    assert_eq!(client(&teapot, &[]).get("http://a/").await.unwrap().status(), StatusCode::NOT_FOUND);
    let host = json!({"virtual_hosts": [{"name": "b", "domains": ["b"], "routes": to("one")}]});
    assert_eq!(code(client(&host, &[]).get("http://a/").await), Code::NO_VIRTUAL_HOST);
}

#[tokio::test]
async fn a_change_of_routes_loses_no_request() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let clusters = [cluster("one", &[one.address]), cluster("two", &[two.address])];
    let resources = |to_cluster: &str| {
        let mut all = vec![listener("a:80", &routes(&to(to_cluster)))];
        all.extend_from_slice(&clusters);
        all
    };
    let (mesh, source) = mesh(&resources("one"));
    let client = mesh.http();
    assert!(get(&client, "http://a/").await.1.starts_with("one"));
    for turn in 0..20 {
        let expected = if turn % 2 == 0 { "two" } else { "one" };
        source.set(encode(&resources(expected)));
        // Every request on the way there is answered, and sooner or later by the other one.
        let mut asked = 0;
        while !get(&client, "http://a/").await.1.starts_with(expected) {
            asked += 1;
            assert!(asked < 10_000, "the change never came");
        }
    }
}

#[tokio::test]
async fn grpc_goes_over_http2_whatever_version_its_request_says() {
    let one = Backend::start("one").await;
    let client = client(&routes(&to("one")), &[cluster("one", &[one.address])]);
    for version in [Version::HTTP_2, Version::HTTP_11] {
        let request = Request::post("http://a/s/m").version(version).header("content-type", "application/grpc");
        client.send(request.body(MeshBody::empty()).unwrap()).await.unwrap();
        assert_eq!(one.version(), Version::HTTP_2, "{version:?}");
    }
}

#[tokio::test]
async fn a_virtual_host_that_requires_tls_sends_plaintext_there_and_nothing_to_its_servers() {
    let one = Backend::start("one").await;
    let mut table = routes(&to("one"));
    table["virtual_hosts"][0]["require_tls"] = json!("ALL");
    let (mesh, _source) = mesh(&[listener("a:8080", &table), cluster("one", &[one.address])]);
    let client = mesh.http();
    let response = client.get("http://a:8080/x?y=1").await.unwrap();
    assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(response.headers()["location"], "https://a:8080/x?y=1");
    assert_eq!(one.count(), 0);
    let forwarded = Request::get("http://a:8080/").header("x-forwarded-proto", "https");
    assert_eq!(client.send(forwarded.body(MeshBody::empty()).unwrap()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_header_that_chooses_the_virtual_host_finds_its_clusters() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let table = json!({"vhost_header": "x-vhost", "virtual_hosts": [
        {"name": "a", "domains": ["a"], "routes": to("one")},
        {"name": "b", "domains": ["b"], "routes": to("two")},
    ]});
    let client = client(&table, &[cluster("one", &[one.address]), cluster("two", &[two.address])]);
    let request = Request::get("http://a/").header("x-vhost", "b").body(MeshBody::empty()).unwrap();
    assert_eq!(text(client.send(request).await.unwrap()).await, "two GET / a");
    assert_eq!(code(client.get("http://a/").await), Code::NO_VIRTUAL_HOST);
}

#[tokio::test]
async fn what_the_application_knows_of_a_request_chooses_its_route() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let gold = |invert: bool| {
        json!([{"filter": "app", "path": [{"key": "tenant"}, {"key": "tier"}],
            "value": {"string_match": {"exact": "gold"}}, "invert": invert}])
    };
    let table = routes(&json!([
        {"match": {"prefix": "/cheap", "dynamic_metadata": gold(true)}, "direct_response": {"status": 402}},
        {"match": {"prefix": "/", "dynamic_metadata": gold(false)}, "route": {"cluster": "two"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "one"}},
    ]));
    let client = client(&table, &[cluster("one", &[one.address]), cluster("two", &[two.address])]);
    for (known, cheap, plain) in [
        // Nothing is known: a matcher does not match, an inverted one does.
        (None, "402 ", "200 one GET / a"),
        (Some(json!({})), "402 ", "200 one GET / a"),
        (Some(json!({"app": {"tenant": {"tier": "gold"}}})), "200 two GET /cheap a", "200 two GET / a"),
        (Some(json!({"app": {"tenant": {"tier": "tin"}}})), "402 ", "200 one GET / a"),
        // The path's end and its beginning alone are not the path, and another's namespace is not this one.
        (Some(json!({"app": {"tier": "gold"}})), "402 ", "200 one GET / a"),
        (Some(json!({"app": {"tenant": "gold"}})), "402 ", "200 one GET / a"),
        (Some(json!({"other": {"tenant": {"tier": "gold"}}})), "402 ", "200 one GET / a"),
    ] {
        for (path, expected) in [("/cheap", cheap), ("/", plain)] {
            let mut request = Request::get(format!("http://a{path}")).body(MeshBody::empty()).unwrap();
            if let Some(known) = &known {
                request.extensions_mut().insert(DynamicMetadata(serde_json::from_value(known.clone()).unwrap()));
            }
            let response = client.send(request).await.unwrap();
            let status = response.status().as_u16();
            assert_eq!(format!("{status} {}", text(response).await), expected, "{known:?} {path}");
        }
    }
}
