//! Several authorities, each with servers of its own (`spec` section 2.10; gRFC A47).

use super::*;
use crate::bootstrap::Bootstrap;

const C: ServerId = ServerId(2);

/// The bootstrap's own server is `a`; `east` has `b` and then `c`, `west` has `b`, `default` has the bootstrap's own.
fn world() -> Dialogue {
    Dialogue::with(authorities(), Settings::default())
}

fn authorities() -> Authorities {
    let server = |uri: &str| format!(r#"{{"server_uri": "{uri}", "channel_creds": [{{"type": "insecure"}}]}}"#);
    let json = format!(
        r#"{{"xds_servers": [{}], "authorities": {{
            "east": {{"xds_servers": [{}, {}]}}, "west": {{"xds_servers": [{}]}}, "default": {{}}, "": {{}}}}}}"#,
        server("a"),
        server("b"),
        server("c"),
        server("b"),
    );
    Authorities::from(&Bootstrap::from_json(&json).unwrap())
}

fn name(authority: &str, type_url: &str, id: &str) -> String {
    format!("xdstp://{authority}/{type_url}/{id}")
}

/// What a server sends of a resource with such a name: its name would not fit in front of a colon.
fn named(type_url: &str, version: &str, resources: &[(&str, &str)]) -> DiscoveryResponse {
    let mut response = response(type_url, version, &format!("n{version}"), &[]);
    response.resources =
        resources.iter().map(|(name, content)| wrapped(name, Some(any(type_url, &format!("-:{content}"))))).collect();
    response
}

/// grpc-go's `TestFederation_UnknownAuthorityInReceivedResponse` and `_UnknownAuthorityInDialTarget`.
#[test]
fn a47_a_resource_of_an_unknown_authority_is_an_error_of_its_own_and_no_one_is_asked() {
    let mut it = world();
    it.subscribe(LISTENER, &name("nowhere", LISTENER, "x"));
    let told = it.told_events();
    let [ResourceEvent::Unusable { error, .. }] = told.as_slice() else { panic!("{told:?}") };
    assert!(error.message().contains("no authority `nowhere`"), "{error}");
    assert_eq!(it.actions(), [], "no server is contacted");
    it.unsubscribe(LISTENER, &name("nowhere", LISTENER, "x"));
    // It stays out of what is asked for beside it.
    it.subscribe(LISTENER, "plain");
    it.subscribe(LISTENER, &name("nowhere", LISTENER, "x"));
    it.connect(A);
    assert_eq!(it.requests(A), ["Listener plain version  nonce  node"]);
}

#[test]
fn a47_a_name_that_cannot_be_read_or_is_of_another_type_is_an_error_of_its_own() {
    let mut it = world();
    for bad in ["xdstp://east", &name("east", CLUSTER, "x"), &name("east", LISTENER, "*")] {
        it.subscribe(LISTENER, bad);
        let told = it.told_events();
        assert!(matches!(told.as_slice(), [ResourceEvent::Unusable { .. }]), "{bad}: {told:?}");
    }
    assert_eq!(it.actions(), [], "no server is contacted");
}

/// grpc-go's `TestAuthority_XDSChannelSharing`.
#[test]
fn a47_authorities_with_the_same_server_share_its_stream() {
    let mut it = world();
    assert_eq!(it.engine.servers().count(), 3);
    let (east, west) = (name("east", LISTENER, "x"), name("west", LISTENER, "y"));
    it.subscribe(LISTENER, &east);
    it.subscribe(LISTENER, &west);
    assert_eq!(it.actions(), [Action::Open(B)], "one stream, and none to the bootstrap's own server");
    it.engine.handle_connected(B, it.now);
    assert_eq!(it.requests(B), [format!("Listener {east},{west} version  nonce  node")]);
    let own = name("default", LISTENER, "z");
    it.subscribe(LISTENER, &own);
    it.subscribe(LISTENER, &name("", LISTENER, "z"));
    it.subscribe(LISTENER, "plain");
    assert_eq!(it.actions(), [Action::Open(A)], "an authority without servers has the bootstrap's own");
    it.engine.handle_connected(A, it.now);
    assert_eq!(it.requests(A), [format!("Listener plain,xdstp:///{LISTENER}/z,{own} version  nonce  node")]);
    assert_eq!(it.requests(B), [""; 0], "what is another authority's is no news here");
}

/// grpc-go's `TestFederation_*ContextParamOrder`.
#[test]
fn a47_the_order_of_context_parameters_means_nothing() {
    let mut it = world();
    let canonical = name("east", LISTENER, "x?a=1&b=2");
    it.subscribe(LISTENER, &name("east", LISTENER, "x?b=2&a=1"));
    it.subscribe(LISTENER, &canonical);
    it.connect(B);
    assert_eq!(it.requests(B), [format!("Listener {canonical} version  nonce  node")]);
    it.respond_from(B, &named(LISTENER, "1", &[(&name("east", LISTENER, "x?b=2&a=1"), "one")]));
    assert_eq!(it.told(), [format!("{canonical}=one")]);
}

#[test]
fn a47_a_server_cannot_give_another_authoritys_resources_nor_delete_them() {
    let mut it = world();
    let west = name("west", CLUSTER, "x");
    it.subscribe(CLUSTER, &west);
    it.subscribe(CLUSTER, "plain");
    it.connect(B);
    it.requests(B);
    it.engine.handle_connected(A, it.now);
    it.requests(A);
    it.respond_from(A, &named(CLUSTER, "1", &[(&west, "forged")]));
    assert_eq!(it.told(), [""; 0]);
    it.respond_from(B, &named(CLUSTER, "1", &[(&west, "true"), ("plain", "forged")]));
    assert_eq!(it.told(), [format!("{west}=true")]);
    it.respond_from(A, &named(CLUSTER, "2", &[("plain", "true")]));
    assert_eq!(it.told(), ["plain=true"], "the absence of another authority's is no deletion");
    it.respond_from(B, &named(CLUSTER, "2", &[]));
    assert_eq!(it.told(), [format!("{west} lapsing MESH-112")], "its own server's is");
}

/// The types of another authority are none of this server's, and an empty list of names would ask for all of them.
/// What was wanted a short time ago is told of as what is wanted: whatever other servers say of theirs.
#[test]
fn a47_another_authoritys_server_does_not_hide_that_one_was_deleted() {
    let mut it = world();
    let east = name("east", LISTENER, "x");
    for own in ["kept", "deleted"] {
        it.subscribe(LISTENER, own);
    }
    it.connect(A);
    it.requests(A);
    it.subscribe(LISTENER, &east);
    it.connect(B);
    it.requests(B);
    it.respond(LISTENER, "1", "n1", &["kept:one", "deleted:one"]);
    it.respond_from(B, &named(LISTENER, "1", &[(&east, "one")]));
    it.told();
    it.unsubscribe(LISTENER, "deleted");
    it.respond(LISTENER, "2", "n2", &["kept:one"]);
    it.respond_from(B, &named(LISTENER, "2", &[(&east, "one")]));
    it.subscribe(LISTENER, "deleted");
    assert_eq!(it.told(), ["deleted=one"], "it may have been left out because it was not wanted");
    it.wait(15.1);
    assert_eq!(it.told(), ["deleted lapsing MESH-112"]);
}

#[test]
fn a47_no_server_is_asked_for_everything_because_another_authority_wants_something() {
    let mut it = world();
    it.subscribe(LISTENER, &name("west", LISTENER, "x"));
    it.subscribe(CLUSTER, "plain");
    it.connect(B);
    it.engine.handle_connected(A, it.now);
    assert_eq!(it.requests(B).len(), 1);
    assert_eq!(it.requests(A), ["Cluster plain version  nonce  node"]);
    it.subscribe(CLUSTER, &name("west", CLUSTER, "x"));
    it.unsubscribe(CLUSTER, "plain");
    it.subscribe(LISTENER, "plain");
    assert_eq!(it.requests(A), ["Listener plain version  nonce ", "Cluster  version  nonce "]);
}

/// The server is in use for another authority, so that its stream stays when nothing of this one is asked for there any more.
#[test]
fn a71_the_timer_of_a_fallback_ends_when_the_preferred_server_is_back() {
    let [a, b] = ["a", "b"].map(ServerConfig::insecure);
    let west = crate::bootstrap::Authority { servers: vec![b.clone()], fallback_on_reachability_only: false };
    let mut it = Dialogue::with(Authorities::from(vec![a, b]).with("west", &west), Settings::default());
    let west = name("west", LISTENER, "x");
    it.subscribe(LISTENER, &west);
    it.connect(B);
    it.requests(B);
    it.respond_from(B, &named(LISTENER, "1", &[(&west, "one")]));
    it.subscribe(LISTENER, "plain");
    it.lose(A);
    assert_eq!(it.requests(B), [format!("Listener plain,{west} version 1 nonce n1")]);
    it.wait(10.0);
    it.reconnect(A);
    assert_eq!(it.requests(A), ["Listener plain version  nonce  node"]);
    it.respond(LISTENER, "1", "n1", &["other:one"]);
    assert_eq!(it.requests(B), [format!("Listener {west} version 1 nonce n1")]);
    it.told();
    it.wait(10.0);
    assert_eq!(it.told(), [""; 0], "b was asked 20 s ago, and a only 10 s ago");
    it.wait(6.0);
    assert_eq!(it.told(), ["plain unusable MESH-112"]);
}

/// What another server gives says nothing about whether this one can be reached.
#[test]
fn a57_a_server_that_has_nothing_to_say_is_reached_whatever_others_have() {
    let mut it = world();
    let west = name("west", LISTENER, "x");
    it.subscribe(LISTENER, &west);
    it.subscribe(LISTENER, "plain");
    it.connect(B);
    it.requests(B);
    it.respond_from(B, &named(LISTENER, "1", &[(&west, "one")]));
    it.engine.handle_connected(A, it.now);
    it.requests(A);
    it.respond(LISTENER, "1", "n1", &["plain:one"]);
    it.told();
    it.lose(B);
    it.reconnect_fails(B);
    assert_eq!(it.told(), [format!("{west} ambient MESH-110")]);
    it.reconnect(B);
    it.requests(B);
    it.wait(15.1);
    assert_eq!(it.told(), [format!("{west} well")]);
}

#[test]
fn a71_each_authority_falls_back_by_itself() {
    let mut it = world();
    let (east, west) = (name("east", LISTENER, "x"), name("west", LISTENER, "y"));
    it.subscribe(LISTENER, &east);
    it.subscribe(LISTENER, &west);
    it.reconnect_fails(B);
    assert_eq!(it.told(), [format!("{west} unusable MESH-110")], "west has no other server; east has one left");
    assert_eq!(it.actions(), [Action::Open(C)]);
    it.engine.handle_connected(C, it.now);
    assert_eq!(it.requests(C), [format!("Listener {east} version  nonce  node")]);
    it.respond_from(C, &named(LISTENER, "1", &[(&east, "from c"), (&west, "forged")]));
    assert_eq!(it.told(), [format!("{east}=from c")]);
    it.reconnect(B);
    it.requests(B);
    it.respond_from(B, &named(LISTENER, "1", &[(&east, "from b"), (&west, "from b")]));
    assert_eq!(it.told(), [format!("{east}=from b"), format!("{west}=from b")]);
    assert_eq!(it.actions(), [Action::Close(C)], "b answers for east too");
}

#[test]
fn a47_a_stream_is_closed_when_its_authorities_have_been_idle() {
    let mut it = world();
    let west = name("west", LISTENER, "x");
    it.subscribe(LISTENER, &west);
    it.connect(B);
    it.requests(B);
    it.subscribe(LISTENER, "plain");
    it.connect(A);
    it.requests(A);
    it.respond(LISTENER, "1", "n1", &["plain:one"]);
    it.unsubscribe(LISTENER, &west);
    it.wait(299.0);
    assert_eq!(it.actions(), []);
    it.wait(2.0);
    assert_eq!(it.actions(), [Action::Close(B)]);
    it.subscribe(LISTENER, &west);
    assert_eq!(it.actions(), [Action::Open(B)]);
}
