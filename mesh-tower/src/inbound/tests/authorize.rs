//! RBAC on the whole way: the identity of a real handshake, both protocols, DENY before ALLOW, overrides of routes.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::decode::RbacFilter;
use mesh_core::model::{
    Action, Audit, Domain, FilterOverride, HttpFilter, Pattern, Permission, Principal, Rbac, RbacAction, RbacPolicy,
    RbacRules, Route, SanKind, StringMatch, UpstreamTls,
};
use tokio::net::TcpStream;

use super::client::{BOTH, Client, Http, call, get};
use super::{Server, start, tell};
use crate::inbound::InboundOptions;
use crate::inbound::testing::{Config, route, table};
use crate::secure::Alpn;
use crate::secure::testing::{Ca, Leaf, downstream, exactly, secure, source, upstream};

const FRIEND: &str = "spiffe://mesh.test/ns/a/sa/friend";
const STRANGER: &str = "spiffe://mesh.test/ns/a/sa/stranger";
const SERVER: &str = "spiffe://mesh.test/ns/a/sa/server";

fn exact(text: &str) -> StringMatch {
    StringMatch { pattern: Pattern::Exact(text.to_owned()), ignore_case: false }
}

fn rules(action: RbacAction, permission: Permission, principal: Principal) -> RbacRules {
    let policy = RbacPolicy { name: "p".into(), permissions: vec![permission], principals: vec![principal] };
    RbacRules { action, policies: vec![policy], audit: Audit::default() }
}

fn enforced(rules: RbacRules) -> Rbac {
    Rbac { rules: Some(rules), shadow: None }
}

fn filter(name: &str, config: Rbac) -> HttpFilter {
    HttpFilter { name: name.into(), type_url: RbacFilter::TYPE_URL.into(), config: Arc::new(config), disabled: false }
}

/// As istiod writes it: what is denied, then what is allowed.
fn deny_then_allow() -> Vec<HttpFilter> {
    let secret = Permission::UrlPath(exact("/secret"));
    vec![
        filter("deny", enforced(rules(RbacAction::Deny, secret, Principal::Any))),
        filter(
            "allow",
            enforced(rules(RbacAction::Allow, Permission::Any, Principal::Authenticated(Some(exact(FRIEND))))),
        ),
    ]
}

async fn server(ca: &Ca) -> Server {
    let tls = Arc::new(secure(&source(ca, &Leaf::workload(SERVER))));
    let server = start(tower::service_fn(tell), InboundOptions { tls, ..InboundOptions::default() }).await;
    let routes = table(Domain::Any, vec![route("/", Action::NonForwarding)]);
    let config = Config {
        tls: Some(Arc::new(downstream())),
        routes: Ok(routes),
        filters: deny_then_allow(),
        ..Config::new(server.address)
    };
    server.slot.apply(config.build(1));
    server
}

async fn client(ca: &Ca, server: &Server, http: Http, name: &'static str) -> Client {
    let policy = UpstreamTls { sans: vec![exactly(SanKind::Uri, SERVER)], ..upstream() };
    let alpn = match http {
        Http::One => Alpn::Http1,
        Http::Two => Alpn::Http2,
    };
    let tls = secure(&source(ca, &Leaf::workload(name))).client(&Arc::new(policy), alpn);
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let secured = tls.connect(Box::new(tcp), None, server.address).await.unwrap();
    Client::over(http, secured.io).await.unwrap().0
}

/// gRFC A41.
#[tokio::test]
async fn the_certificate_decides_and_denial_goes_first() {
    let ca = Ca::new();
    let server = server(&ca).await;
    for http in BOTH {
        let mut friend = client(&ca, &server, http, FRIEND).await;
        assert_eq!(friend.get("/").await.unwrap().status, 200, "{http:?}");
        let mut stranger = client(&ca, &server, http, STRANGER).await;
        for denied in [friend.get("/secret?a").await.unwrap(), stranger.get("/").await.unwrap()] {
            assert_eq!((denied.status.as_u16(), denied.code()), (403, "MESH-313"), "{http:?}");
            assert_eq!(denied.text.trim_end(), "RBAC: access denied", "the policy's name is the server's own");
        }
    }
}

/// gRFC A41.
#[tokio::test]
async fn a_grpc_client_is_told_permission_denied() {
    let server = plain(vec![filter("none", enforced(RbacRules { policies: vec![], ..allow_all() }))], |_| {}).await;
    let denied = call(server.address, "/pkg.Service/Method").await.unwrap();
    assert_eq!((denied.status.as_u16(), denied.grpc_status(), denied.code()), (200, "7", "MESH-313"));
}

fn allow_all() -> RbacRules {
    rules(RbacAction::Allow, Permission::Any, Principal::Any)
}

fn deny_all() -> RbacRules {
    rules(RbacAction::Deny, Permission::Any, Principal::Any)
}

async fn plain(filters: Vec<HttpFilter>, change: impl FnOnce(&mut Route)) -> Server {
    let server = start(tower::service_fn(tell), InboundOptions::default()).await;
    let mut special = route("/special", Action::NonForwarding);
    change(Arc::get_mut(&mut special).unwrap());
    let routes = table(Domain::Any, vec![special, route("/", Action::NonForwarding)]);
    server.slot.apply(Config { routes: Ok(routes), filters, ..Config::new(server.address) }.build(1));
    server
}

/// gRFC A41.
#[tokio::test]
async fn a_route_has_its_own_policy_or_none() {
    for (over, expected) in [(Rbac::default(), 200), (enforced(allow_all()), 200), (enforced(deny_all()), 403)] {
        let config = FilterOverride::Config { type_url: RbacFilter::TYPE_URL.into(), config: Arc::new(over) };
        let base = filter("rbac", enforced(deny_all()));
        let server = plain(vec![base], |route| route.overrides = BTreeMap::from([("rbac".into(), config)])).await;
        assert_eq!(get(Http::One, server.address, "/special").await.unwrap().status, expected);
        assert_eq!(get(Http::One, server.address, "/").await.unwrap().status, 403);
    }
}

#[tokio::test]
async fn shadow_rules_and_no_rules_stop_no_one() {
    let shadow = Rbac { rules: None, shadow: Some(deny_all()) };
    let server = plain(vec![filter("shadow", shadow), filter("empty", Rbac::default())], |_| {}).await;
    assert_eq!(get(Http::Two, server.address, "/").await.unwrap().status, 200);
}
