//! Listeners as a control plane sends them, by gRPC's rules and by Envoy's, on the whole way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::ext::Protocol;
use mesh_core::decode::{DecodeResource, Decoded, Decoder, Dialect, Registry};
use mesh_core::model::{Listener, ListenerKind, Name};
use mesh_core::snapshot::ServerSnapshot;
use mesh_core::source::file::resource_from_json;
use serde_json::{Value, json};

use super::client::{Answer, BOTH, Client, Http};
use super::{Server, start, tell};
use crate::inbound::{BoxError, InboundOptions, RequestBody, ServingState};

const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions.filters";

/// A Listener for `address` whose connection manager has these fields, and gives everything to the application.
pub(super) fn snapshot(dialect: Dialect, target: &str, address: SocketAddr, fields: Value) -> Arc<ServerSnapshot> {
    let route = json!({"match": {"prefix": "/"}, "non_forwarding_action": {}});
    let mut manager = json!({
        "@type": format!("{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager"),
        "route_config": {"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": format!("{EXTENSIONS}.http.router.v3.Router")}}],
    });
    let Value::Object(fields) = fields else { panic!("{fields}") };
    for (name, value) in fields {
        manager[name] = value;
    }
    let listener = json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": target,
        "address": {"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    });
    let resource = resource_from_json(&listener).unwrap();
    let decoder = Decoder::new(Arc::new(Registry::standard()), std::iter::empty::<Name>()).with_dialect(dialect);
    let listener = match decoder.decode(&resource.key.type_url, &resource.bytes) {
        Decoded::Ok { value, .. } => value.downcast::<Listener>().unwrap(),
        Decoded::Err { faults, .. } => panic!("{faults:?}"),
    };
    let ListenerKind::Server(server) = &listener.kind else { panic!("{listener:?}") };
    let (server, target) = (server.clone(), target.into());
    Arc::new(ServerSnapshot { version: 1, target, server, listener, routes: BTreeMap::new() })
}

async fn served(dialect: Dialect, fields: Value) -> Server {
    let server = start(tower::service_fn(tell), InboundOptions::default()).await;
    server.slot.apply(snapshot(dialect, "listener", server.address, fields));
    assert!(matches!(server.slot.state(), ServingState::Serving { .. }), "{:?}", server.slot);
    server
}

/// The filters of a Listener with one policy; the parts of it are its permission and its principal.
pub(super) fn rbac(action: &str, permission: &Value, principal: &Value) -> Value {
    let policy = json!({"permissions": [permission], "principals": [principal]});
    let rules = json!({"action": action, "policies": {"p": policy}});
    json!([
        {"name": "rbac", "typed_config": {"@type": format!("{EXTENSIONS}.http.rbac.v3.RBAC"), "rules": rules}},
        {"name": "router", "typed_config": {"@type": format!("{EXTENSIONS}.http.router.v3.Router")}},
    ])
}

fn any() -> Value {
    json!({"any": true})
}

fn is(header: &str, value: &str) -> Value {
    json!({"header": {"name": header, "string_match": {"exact": value}}})
}

async fn ask(http: Http, server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut client = Client::connect(http, server.address).await.unwrap().0;
    let builder = match http {
        Http::One => Request::get(path).header("host", "a.test"),
        Http::Two => Request::get(format!("http://a.test{path}")),
    };
    let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    client.send(builder.body(Full::default()).unwrap()).await.unwrap()
}

/// gRFC A41 knows no address of a client but the connection's; Envoy believes who was the last to write one down.
#[tokio::test]
async fn a41_a_policy_for_an_address_is_not_met_by_saying_so() {
    let allow = || rbac("ALLOW", &any(), &json!({"remote_ip": {"address_prefix": "10.1.1.1", "prefix_len": 32}}));
    let (hop, edge) = (json!(1), json!(true));
    for (dialect, more, expected) in [
        (Dialect::Grpc, json!({}), 403),
        (Dialect::Grpc, json!({"use_remote_address": edge}), 403),
        (Dialect::Grpc, json!({"xff_num_trusted_hops": hop}), 200),
        (Dialect::Envoy, json!({}), 200),
        (Dialect::Envoy, json!({"use_remote_address": edge}), 403),
    ] {
        let mut fields = json!({"http_filters": allow()});
        more.as_object().unwrap().iter().for_each(|(name, value)| fields[name] = value.clone());
        let server = served(dialect, fields).await;
        for http in BOTH {
            let answer = ask(http, &server, "/", &[("x-forwarded-for", "10.1.1.1, 10.1.1.1")]).await;
            assert_eq!(answer.status, expected, "{dialect:?} {more} {http:?}");
        }
    }
}

/// gRFC A41: whoever says that it is gRPC has its headers seen all the same.
#[tokio::test]
async fn a41_a_policy_sees_binary_headers_of_grpc_requests() {
    let server =
        served(Dialect::Grpc, json!({"http_filters": rbac("DENY", &is("x-tenant-bin", "AA=="), &any())})).await;
    let grpc = ("content-type", "application/grpc");
    let denied = ask(Http::Two, &server, "/", &[grpc, ("x-tenant-bin", "AA==")]).await;
    assert_eq!((denied.status.as_u16(), denied.grpc_status()), (200, "7"));
    let passes = ask(Http::Two, &server, "/", &[grpc, ("x-tenant-bin", "AQ==")]).await;
    assert!(passes.text.starts_with("GET / "), "{}", passes.text);
}

/// Policy, route and application read the same path.
#[tokio::test]
async fn a_policy_for_a_path_is_not_met_by_walking_out_of_it() {
    let allow = || rbac("ALLOW", &json!({"url_path": {"path": {"prefix": "/public/"}}}), &any());
    let out = "/public/../admin";
    let within = "/public/x/%2e%2E/./y";
    for (dialect, said, out_of_it, inside) in [
        (Dialect::Grpc, None, None, "/public/y"),
        (Dialect::Grpc, Some(true), None, "/public/y"),
        (Dialect::Grpc, Some(false), Some(out), within),
        (Dialect::Envoy, None, Some(out), within),
        (Dialect::Envoy, Some(true), None, "/public/y"),
    ] {
        let mut fields = json!({"http_filters": allow()});
        if let Some(said) = said {
            fields["normalize_path"] = said.into();
        }
        let server = served(dialect, fields).await;
        for http in BOTH {
            let answer = ask(http, &server, out, &[]).await;
            let seen = answer.text.split(' ').nth(1).filter(|_| answer.status == 200);
            assert_eq!(seen, out_of_it, "{dialect:?} {said:?} {http:?}: {answer:?}");
            let answer = ask(http, &server, within, &[]).await;
            assert!(answer.text.starts_with(&format!("GET {inside} ")), "{dialect:?} {said:?} {http:?}: {answer:?}");
        }
    }
}

/// A request for a tunnel, over either version.
async fn tunnel(http: Http, server: &Server) -> StatusCode {
    let mut client = Client::connect(http, server.address).await.unwrap().0;
    let builder = Request::connect("a.test:1");
    let builder = if http == Http::One { builder.header("host", "a.test:1") } else { builder };
    client.send(builder.body(Full::default()).unwrap()).await.unwrap().status
}

#[tokio::test]
async fn a_tunnel_needs_to_be_allowed_and_a_route_of_its_own() {
    let allowed = json!([{"upgrade_type": "CONNECT"}]);
    let routes = |matches: Value| {
        let route = json!({"match": matches, "non_forwarding_action": {}});
        json!({"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]})
    };
    for (upgrades, matches, expected) in [
        (json!([]), json!({"prefix": ""}), StatusCode::FORBIDDEN),
        (json!([]), json!({"connect_matcher": {}}), StatusCode::FORBIDDEN),
        (allowed.clone(), json!({"prefix": ""}), StatusCode::NOT_FOUND),
        (allowed, json!({"connect_matcher": {}}), StatusCode::OK),
    ] {
        let server =
            served(Dialect::Grpc, json!({"upgrade_configs": upgrades, "route_config": routes(matches.clone())})).await;
        for http in BOTH {
            assert_eq!(tunnel(http, &server).await, expected, "{http:?} {upgrades} {matches}");
        }
    }
}

/// Says what an application sees of an upgrade.
async fn seen(request: Request<RequestBody>) -> Result<http::Response<Full<bytes::Bytes>>, BoxError> {
    let upgrade = request.headers().get("upgrade").map_or("none", |to| to.to_str().unwrap()).to_owned();
    let connection = request.headers().contains_key("connection");
    let said = format!("{} upgrade={upgrade} connection={connection}", request.method());
    let response = http::Response::builder().status(418).header("x-seen", said);
    Ok(response.body(Full::default()).unwrap())
}

/// Asks for a WebSocket.
async fn websocket(http: Http, server: &Server) -> Answer {
    let mut client = Client::connect(http, server.address).await.unwrap().0;
    // The client must have heard that extended CONNECT may be used.
    client.get("/").await.unwrap();
    let request = match http {
        Http::One => Request::get("/chat")
            .header("host", "a.test")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .body(Full::default()),
        Http::Two => {
            Request::connect("http://a.test/chat").extension(Protocol::from_static("websocket")).body(Full::default())
        }
    };
    client.send(request.unwrap()).await.unwrap()
}

/// Envoy's codec makes one of the other before anybody looks.
#[tokio::test]
async fn an_upgrade_is_the_same_to_a_policy_over_either_version() {
    let gets = || json!({"and_rules": {"rules": [is(":method", "GET"), is("upgrade", "websocket")]}});
    for (action, permission, expected) in
        [("DENY", gets(), 403), ("DENY", is(":method", "CONNECT"), 418), ("ALLOW", is(":method", "GET"), 418)]
    {
        let server = start(tower::service_fn(seen), InboundOptions::default()).await;
        let fields = json!({
            "http_filters": rbac(action, &permission, &any()),
            "upgrade_configs": [{"upgrade_type": "websocket"}],
        });
        server.slot.apply(snapshot(Dialect::Grpc, "listener", server.address, fields));
        for http in BOTH {
            assert_eq!(websocket(http, &server).await.status, expected, "{http:?} {action} {permission}");
        }
    }
}

/// To the application an upgrade over HTTP/2 is what its libraries know (RFC 8441).
#[tokio::test]
async fn an_application_sees_an_upgrade_as_it_came() {
    let server = start(tower::service_fn(seen), InboundOptions::default()).await;
    let fields = json!({"upgrade_configs": [{"upgrade_type": "websocket"}]});
    server.slot.apply(snapshot(Dialect::Grpc, "listener", server.address, fields));
    for (http, expected) in [
        (Http::One, format!("{} upgrade=websocket connection=true", Method::GET)),
        (Http::Two, format!("{} upgrade=none connection=false", Method::CONNECT)),
    ] {
        assert_eq!(websocket(http, &server).await.headers["x-seen"], expected);
    }
}
