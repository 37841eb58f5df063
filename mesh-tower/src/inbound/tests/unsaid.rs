//! Listeners that say nothing of who may come in.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use mesh_core::decode::Dialect;
use mesh_core::error::Code;
use mesh_core::snapshot::ServerSnapshot;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use super::client::{BOTH, call, get};
use super::decoded::{rbac, snapshot};
use super::{ANY, Server, start, tell};
use crate::inbound::{InboundOptions, InboundSlot, ServingState};

/// As istiod calls a server's Listener.
const ISTIO: &str = "xds.istio.io/grpc/lds/inbound/0.0.0.0:8080";

fn strict() -> InboundOptions {
    InboundOptions { default_deny: true, ..InboundOptions::default() }
}

async fn served(options: InboundOptions, fields: Value) -> Server {
    let server = start(tower::service_fn(tell), options).await;
    server.slot.apply(snapshot(Dialect::Grpc, ISTIO, server.address, fields));
    server
}

fn any() -> Value {
    json!({"any": true})
}

/// The router alone, one policy that denies somebody, one that is not in force: nothing says who may come in.
fn silent() -> [Value; 3] {
    let deny = rbac("DENY", &json!({"url_path": {"path": {"exact": "/secret"}}}), &any());
    let mut shadow = rbac("ALLOW", &any(), &any());
    let rules = shadow[0]["typed_config"]["rules"].take();
    shadow[0]["typed_config"] = json!({"@type": shadow[0]["typed_config"]["@type"], "shadow_rules": rules});
    [json!({}), json!({"http_filters": deny}), json!({"http_filters": shadow})]
}

#[tokio::test]
async fn where_nothing_says_who_may_come_in_nobody_does_if_asked_for() {
    for fields in silent() {
        let server = served(strict(), fields.clone()).await;
        for http in BOTH {
            let denied = get(http, server.address, "/").await.unwrap();
            assert_eq!((denied.status.as_u16(), denied.code()), (403, "MESH-313"), "{fields} {http:?}");
            assert_eq!(denied.text.trim_end(), "RBAC: access denied");
        }
        let denied = call(server.address, "/pkg.Service/Method").await.unwrap();
        assert_eq!((denied.grpc_status(), denied.code()), ("7", "MESH-313"), "{fields}");
        let open = served(InboundOptions::default(), fields).await;
        assert_eq!(get(BOTH[0], open.address, "/").await.unwrap().status, 200, "gRPC's default");
    }
}

#[tokio::test]
async fn a_policy_that_allows_decides_also_where_silence_means_nobody() {
    let allow = rbac("ALLOW", &json!({"url_path": {"path": {"exact": "/open"}}}), &any());
    let server = served(strict(), json!({"http_filters": allow})).await;
    for (path, status) in [("/open", 200), ("/other", 403)] {
        assert_eq!(get(BOTH[1], server.address, path).await.unwrap().status, status, "{path}");
    }
}

/// A route may have a policy that the Listener has not, or be rid of the Listener's.
#[tokio::test]
async fn a_routes_own_policy_counts() {
    let filters = |action: &str| rbac(action, &any(), &any());
    let per_route = |rbac: Value| {
        let kind = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
        let over = json!({"rbac": {"@type": kind, "rbac": rbac}});
        let special =
            json!({"match": {"prefix": "/special"}, "non_forwarding_action": {}, "typed_per_filter_config": over});
        let route = json!({"match": {"prefix": "/"}, "non_forwarding_action": {}});
        json!({"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [special, route]}]})
    };
    let mut inert = filters("ALLOW");
    inert[0]["typed_config"]["rules"].take();
    let allows = json!({"rules": filters("ALLOW")[0]["typed_config"]["rules"]});
    for (listener, over, special, other) in
        [(inert, allows, 200, 403), (filters("ALLOW"), json!(null), 200, 200), (filters("DENY"), json!(null), 403, 403)]
    {
        let fields = json!({"http_filters": listener, "route_config": per_route(over.clone())});
        let server = served(strict(), fields).await;
        for (path, status) in [("/special", special), ("/", other)] {
            assert_eq!(get(BOTH[1], server.address, path).await.unwrap().status, status, "{path} {over}");
        }
    }
}

#[tokio::test]
async fn a_server_that_can_answer_no_request_does_not_serve_where_silence_means_nobody() {
    for (options, serves) in [(strict(), false), (InboundOptions::default(), true)] {
        let (listener, slot) = super::bound(options).await;
        let _listener = crate::inbound::Bound::new(slot.clone(), listener).transport_only();
        slot.apply(snapshot(Dialect::Grpc, ISTIO, slot.address(), json!({})));
        match slot.state() {
            ServingState::Serving { .. } => assert!(serves),
            ServingState::NotServing(error) => assert_eq!((serves, error.code()), (false, Code::HALF_SERVER)),
        }
    }
}

/// Keeps what is warned of.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Message<'a>(&'a mut Vec<String>);
        impl Visit for Message<'_> {
            fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
                self.0.push(format!("{value:?}"));
            }
        }
        event.record(&mut Message(&mut self.0.lock().unwrap()));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// What is warned of when a server gets these Listeners, as far as it speaks of `about`.
fn warned(options: InboundOptions, snapshots: &[Arc<ServerSnapshot>], about: &str) -> Vec<String> {
    let warnings = Warnings::default();
    tracing::subscriber::with_default(warnings.clone(), || {
        let slot = InboundSlot::new("listener".into(), address(), options);
        snapshots.iter().for_each(|snapshot| slot.apply(snapshot.clone()));
    });
    let warnings = warnings.0.lock().unwrap();
    warnings.iter().filter(|text| text.contains(about)).cloned().collect()
}

fn address() -> SocketAddr {
    SocketAddr::new(ANY.ip(), 8080)
}

#[test]
fn one_is_told_where_a_policy_may_be_missing() {
    let warned = |options, snapshots: &[Arc<ServerSnapshot>]| warned(options, snapshots, "default_deny");
    let plain = |name: &str| snapshot(Dialect::Grpc, name, address(), json!({}));
    let routes = |before: &ServerSnapshot| Arc::new(ServerSnapshot { version: 2, ..before.clone() });
    let istio = plain(ISTIO);
    let told = warned(InboundOptions::default(), &[istio.clone(), routes(&istio)]);
    assert_eq!(told.len(), 1, "one for a Listener: {told:?}");
    assert!(told[0].contains(ISTIO) && told[0].contains("InboundOptions::default_deny"), "{told:?}");
    assert_eq!(warned(strict(), &[istio]), [""; 0]);
    assert_eq!(warned(InboundOptions::default(), &[plain("grpc/server?8080")]), [""; 0], "not istiod's");
    let deny = json!({"http_filters": rbac("DENY", &any(), &any())});
    assert_eq!(warned(InboundOptions::default(), &[snapshot(Dialect::Grpc, ISTIO, address(), deny)]), [""; 0]);
}

#[test]
fn one_is_told_what_a_listener_asks_for_in_vain() {
    let route = json!({"match": {"prefix": "/"}, "non_forwarding_action": {}, "tracing": {}});
    let asks = json!({
        "common_http_protocol_options": {"idle_timeout": "1s"},
        "route_config": {"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    });
    let listener = snapshot(Dialect::Grpc, "listener", address(), asks);
    let told = warned(InboundOptions::default(), &[listener], "is left out");
    let fields = ["common_http_protocol_options.idle_timeout", "route_config.virtual_hosts[0].routes[0].tracing"];
    assert_eq!(told.len(), fields.len(), "{told:?}");
    for (text, field) in told.iter().zip(fields) {
        assert!(text.contains("`listener`") && text.contains(field), "{text}");
    }
}
