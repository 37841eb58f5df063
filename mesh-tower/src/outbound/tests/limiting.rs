//! Local rate limits on a client's way.

use http::Request;
use serde_json::json;

use super::*;
use crate::body::MeshBody;

const LIMIT: &str = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

/// A limit for all requests: `max` in an hour, and what `more` says.
fn limit(max: u32, more: &Value) -> Value {
    let always = json!({"default_value": {"numerator": 100}});
    let mut limit = json!({
        "@type": LIMIT, "stat_prefix": "limit", "filter_enabled": always, "filter_enforced": always,
        "token_bucket": {"max_tokens": max, "fill_interval": "3600s"}});
    for (name, value) in more.as_object().unwrap() {
        limit[name] = value.clone();
    }
    limit
}

fn resources(filter: &Value, table: &Value, address: SocketAddr) -> Vec<Value> {
    let mut listener = listener("a:80", table);
    let filters = listener.pointer_mut("/api_listener/api_listener/http_filters").unwrap();
    filters.as_array_mut().unwrap().insert(0, json!({"name": "limit", "typed_config": filter}));
    vec![listener, cluster("one", &[address])]
}

fn limited(filter: &Value, table: &Value, address: SocketAddr) -> HttpClient {
    mesh(&resources(filter, table, address)).0.http()
}

fn ask(headers: &[(&str, &str)]) -> Request<MeshBody> {
    let mut request = Request::get("http://a/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(MeshBody::empty()).unwrap()
}

#[tokio::test]
async fn requests_over_the_limit_are_refused_with_what_the_configuration_says() {
    let one = Backend::start("one").await;
    let more = json!({
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "rate_limited_as_resource_exhausted": true,
        "response_headers_to_add": [{"header": {"key": "x-why", "value": "%REQ(x-who)% asks too often"}}]});
    let client = limited(&limit(1, &more), &routes(&to("one")), one.address);
    let first = client.send(ask(&[])).await.unwrap();
    assert_eq!((first.status(), &first.headers()["x-ratelimit-remaining"]), (StatusCode::OK, &"0".parse().unwrap()));
    let refused = client.send(ask(&[("x-who", "bob")])).await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let headers = refused.headers();
    assert_eq!(
        (&headers["x-envoy-ratelimited"], &headers["x-ratelimit-limit"]),
        (&"true".parse().unwrap(), &"1".parse().unwrap())
    );
    assert_eq!(headers["x-why"], "bob asks too often");
    let grpc = client.send(ask(&[("content-type", "application/grpc")])).await.unwrap();
    assert_eq!((grpc.status(), &grpc.headers()["grpc-status"]), (StatusCode::OK, &"8".parse().unwrap()));
    assert_eq!(one.count(), 1, "what is refused does not leave");
}

#[tokio::test]
async fn requests_that_a_route_describes_have_a_bucket_of_their_own() {
    let one = Backend::start("one").await;
    let rule = json!([{"actions": [{"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}]}]);
    let table = routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "one", "rate_limits": rule}}]));
    let bob = json!({"descriptors": [{"entries": [{"key": "user", "value": "bob"}],
        "token_bucket": {"max_tokens": 1, "fill_interval": "3600s"}}]});
    let client = limited(&limit(100, &bob), &table, one.address);
    for (user, statuses) in [("bob", [200, 429, 429]), ("ann", [200, 200, 200])] {
        for status in statuses {
            assert_eq!(client.send(ask(&[("x-user", user)])).await.unwrap().status(), status, "{user}");
        }
    }
}

#[tokio::test]
async fn a_limit_that_is_not_enforced_marks_requests_and_one_that_is_off_does_nothing() {
    let one = Backend::start("one").await;
    let never = json!({"default_value": {"numerator": 0}});
    let mark = json!([{"header": {"key": "x-over", "value": "yes"}}]);
    let watched = limit(1, &json!({"filter_enforced": never, "request_headers_to_add_when_not_enforced": mark}));
    let client = limited(&watched, &routes(&to("one")), one.address);
    for over in [false, true] {
        assert_eq!(client.send(ask(&[])).await.unwrap().status(), StatusCode::OK);
        assert_eq!(one.headers().contains_key("x-over"), over);
    }
    let off = limited(&limit(0, &json!({"filter_enabled": never})), &routes(&to("one")), one.address);
    assert_eq!(off.send(ask(&[])).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_route_with_a_limit_of_its_own_shares_no_bucket_and_a_change_elsewhere_fills_none() {
    let one = Backend::start("one").await;
    let own = json!({"limit": limit(1, &json!({}))});
    let off = json!({"limit": limit(1000, &json!({}))});
    // Routes by name, so that they change without their Listener.
    let named = |free: &str| {
        let mut table = routes(&json!([
            {"match": {"path": "/own"}, "route": {"cluster": "one"}, "typed_per_filter_config": own},
            {"match": {"path": free}, "route": {"cluster": "one"}, "typed_per_filter_config": off},
            {"match": {"prefix": "/"}, "route": {"cluster": "one"}}]));
        table["@type"] = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration".into();
        table["name"] = "routes".into();
        table
    };
    let mut all = resources(&limit(1, &json!({})), &json!({}), one.address);
    let manager = all[0].pointer_mut("/api_listener/api_listener").unwrap();
    manager.as_object_mut().unwrap().remove("route_config");
    manager["rds"] = json!({"route_config_name": "routes", "config_source": {"ads": {}}});
    all.push(named("/before"));
    let (mesh, source) = mesh(&all);
    let client = mesh.http();
    assert_eq!(get(&client, "http://a/own").await.0, StatusCode::OK);
    assert_eq!(get(&client, "http://a/x").await.0, StatusCode::OK, "another bucket");
    assert_eq!(get(&client, "http://a/y").await.0, StatusCode::TOO_MANY_REQUESTS, "the Listener's is one for all");
    assert_eq!(get(&client, "http://a/before").await.0, StatusCode::OK, "no limit is for it");
    *all.last_mut().unwrap() = named("/after");
    source.set(encode(&all));
    let in_force = async {
        while get(&client, "http://a/after").await.0 != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), in_force).await.unwrap();
    assert_eq!(get(&client, "http://a/x").await.0, StatusCode::TOO_MANY_REQUESTS, "it is still empty");
}
