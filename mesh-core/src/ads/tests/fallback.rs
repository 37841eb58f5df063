//! A list of servers (`spec` section 2.7; gRFC A71).

use super::*;

fn two() -> Dialogue {
    Dialogue::with(vec![ServerConfig::insecure("a"), ServerConfig::insecure("b")], Settings::default())
}

/// grpc-go's `TestFallback_OnStartup`.
#[test]
fn a71_the_next_server_is_tried_when_the_first_fails_and_something_is_missing() {
    let mut it = two();
    it.subscribe(LISTENER, "x");
    assert_eq!(it.actions(), [Action::Open(A)]);
    it.lose(A);
    assert_eq!(it.told(), [""; 0], "no one is told while a server is left");
    assert_eq!(it.actions(), [Action::Open(B)]);
    it.connect(B);
    assert_eq!(it.requests(B), ["Listener x version  nonce  node"]);
    it.respond_from(B, &response(LISTENER, "1", "n1", &["x:from b"]));
    assert_eq!(it.told(), ["x=from b"]);
}

#[test]
fn a71_only_when_all_servers_failed_is_it_told() {
    let mut it = two();
    it.subscribe(LISTENER, "x");
    it.lose(A);
    it.lose(B);
    let told = it.told_events();
    let [ResourceEvent::Unusable { error, .. }] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(
        error.message(),
        "xDS server a: connection refused; xDS server b: connection refused [xDS node id: node-1]"
    );
}

/// What is refused or does not exist is known: only what was never answered is a reason.
#[test]
fn a71_what_is_refused_or_does_not_exist_is_no_reason() {
    let mut it = two().asking(LISTENER, &["refused", "missing"]);
    it.respond(LISTENER, "1", "n1", &["refused:bad"]);
    it.wait(16.0);
    assert_eq!(it.told(), ["refused unusable MESH-113", "missing unusable MESH-112"]);
    it.lose(A);
    it.reconnect_fails(A);
    assert!(!it.actions().contains(&Action::Open(B)));
}

/// gRPC's interop suite asserts that there is no second channel in this case.
#[test]
fn a71_a_dead_server_is_no_reason_while_everything_is_cached() {
    let mut it = two().asking(LISTENER, &["x"]);
    it.respond(LISTENER, "1", "n1", &["x:one"]);
    it.told();
    it.lose(A);
    it.wait(2.0);
    it.actions();
    it.lose(A);
    assert!(!it.actions().contains(&Action::Open(B)));
    assert_eq!(it.told(), [""; 0], "not every server of the list has failed");
    it.subscribe(CLUSTER, "new");
    assert!(it.actions().contains(&Action::Open(B)), "something that is missing makes it one");
    it.connect(B);
    assert_eq!(
        it.requests(B),
        ["Listener x version  nonce  node", "Cluster new version  nonce "],
        "everything is asked for there"
    );
    it.respond_from(B, &response(LISTENER, "7", "n1", &["x:from b"]));
    assert_eq!(it.told(), [""; 0], "a fallback replaces only what is not cached");
}

/// grpc-go's `TestFallback_OnStartup`, second half.
#[test]
fn a71_the_preferred_server_takes_over_with_its_first_answer() {
    let mut it = two();
    it.subscribe(LISTENER, "x");
    it.lose(A);
    it.connect(B);
    it.requests(B);
    it.respond_from(B, &response(LISTENER, "1", "n1", &["x:from b"]));
    it.told();
    it.wait(2.0);
    it.connect(A);
    assert_eq!(it.actions(), [], "being connected is not enough");
    it.requests(A);
    it.respond(LISTENER, "5", "n1", &["x:from a"]);
    assert_eq!(it.told(), ["x=from a"]);
    assert_eq!(it.actions(), [Action::Close(B)]);
    it.respond_from(B, &response(LISTENER, "2", "n2", &["x:too late"]));
    assert_eq!(it.told(), [""; 0]);
}

#[test]
fn a71_the_preferred_server_may_say_that_it_is_gone() {
    let mut it = two();
    it.subscribe(LISTENER, "x");
    it.lose(A);
    it.connect(B);
    it.requests(B);
    it.respond_from(B, &response(LISTENER, "1", "n1", &["x:from b"]));
    it.told();
    it.wait(2.0);
    it.connect(A);
    it.requests(A);
    it.respond(LISTENER, "5", "n1", &[]);
    assert_eq!(it.told(), ["x lapsing MESH-112"]);
}

#[test]
fn a_server_that_cannot_be_connected_leaves_time_for_the_next_one() {
    let mut it = two();
    it.subscribe(LISTENER, "x");
    it.wait(10.1);
    it.connect(B);
    it.requests(B);
    it.respond_from(B, &response(LISTENER, "1", "n1", &["x:from b"]));
    assert_eq!(it.told(), ["x=from b"], "within the patience of 15 s");
}

fn claim(it: &mut Dialogue, target: &str, resources: &[(&str, &str)]) {
    for (type_url, name) in resources {
        it.subscribe(type_url, name);
        it.engine.claim(&ResourceKey::new(*type_url, *name), &target.into(), it.now);
    }
}

/// Two targets that have all they need from `a`, which then pushes a Listener to one of them and dies when its cluster is
/// asked for: gRPC's interop test `mid_update`.
fn mid_update(scope: FallbackScope) -> Dialogue {
    let settings = Settings { fallback_scope: scope, ..Settings::default() };
    let mut it = Dialogue::with(vec![ServerConfig::insecure("a"), ServerConfig::insecure("b")], settings);
    claim(&mut it, "x", &[(LISTENER, "x"), (CLUSTER, "shared")]);
    claim(&mut it, "y", &[(LISTENER, "y"), (CLUSTER, "shared")]);
    it.connect(A);
    it.requests(A);
    it.respond(LISTENER, "1", "n1", &["x:one", "y:one"]);
    it.respond(CLUSTER, "1", "n2", &["shared:one"]);
    it.respond(LISTENER, "2", "n3", &["x:two", "y:one"]);
    it.told();
    claim(&mut it, "x", &[(CLUSTER, "new")]);
    it.lose(A);
    assert!(!it.actions().contains(&Action::Open(B)), "the end of a stream that answered is no failure");
    it.reconnect_fails(A);
    it
}

#[test]
fn a71_the_target_that_misses_something_falls_back_with_all_it_uses_and_no_other_does() {
    let mut it = mid_update(FallbackScope::Process);
    it.connect(B);
    assert_eq!(
        it.requests(B),
        ["Listener x,y version  nonce  node", "Cluster new,shared version  nonce "],
        "everything is asked for there"
    );
    it.respond_from(B, &response(LISTENER, "7", "n1", &["x:from b", "y:from b"]));
    assert_eq!(it.told(), ["x=from b"], "y has all it needs from the preferred server");
    it.respond_from(B, &response(CLUSTER, "7", "n2", &["shared:from b", "other:from b"]));
    assert_eq!(it.told(), [""; 0], "y uses the shared cluster as it is");
    it.respond_from(B, &response(CLUSTER, "8", "n3", &[]));
    assert_eq!(it.told(), [""; 0], "and a fallback does not delete what it did not give");
    // Whoever misses something later comes after, with what it has.
    claim(&mut it, "y", &[(CLUSTER, "newer")]);
    it.requests(B);
    it.respond_from(B, &response(LISTENER, "9", "n4", &["x:from b", "y:from b"]));
    assert_eq!(it.told(), ["y=from b"]);
    it.respond_from(B, &response(CLUSTER, "9", "n5", &["shared:from b"]));
    assert_eq!(it.told(), ["shared=from b"], "all its users have fallen back");
}

#[test]
fn a71_a_target_alone_on_the_fallback_asks_for_its_own_only() {
    let mut it = mid_update(FallbackScope::Target);
    it.connect(B);
    assert_eq!(it.requests(B), ["Listener x version  nonce  node", "Cluster new,shared version  nonce "]);
    it.respond_from(B, &response(LISTENER, "7", "n1", &["x:from b", "y:forged"]));
    assert_eq!(it.told(), ["x=from b"]);
    it.engine.release(&ResourceKey::new(CLUSTER, "new"), &"x".into());
    it.unsubscribe(CLUSTER, "new");
    assert_eq!(it.requests(B), ["Listener x version 7 nonce n1", "Cluster shared version  nonce "]);
    claim(&mut it, "y", &[(CLUSTER, "newer")]);
    assert_eq!(it.requests(B), ["Listener x,y version 7 nonce n1", "Cluster newer,shared version  nonce "]);
    for (target, name) in [("x", "x"), ("y", "y")] {
        it.engine.release(&ResourceKey::new(LISTENER, name), &target.into());
        it.unsubscribe(LISTENER, name);
        it.engine.release(&ResourceKey::new(CLUSTER, "shared"), &target.into());
    }
    assert!(!it.actions().contains(&Action::Close(B)), "y still misses a cluster");
    it.engine.release(&ResourceKey::new(CLUSTER, "newer"), &"y".into());
    it.unsubscribe(CLUSTER, "newer");
    assert!(it.actions().contains(&Action::Close(B)), "nobody who fell back is left");
}

/// Who fell back to a server and who did not may use the same: then requests to it may leave out what is in use all the time.
#[test]
fn a71_a_fallbacks_answer_to_a_request_without_a_resource_does_not_delete_it() {
    let settings = Settings { fallback_scope: FallbackScope::Target, ..Settings::default() };
    let mut it = Dialogue::with(vec![ServerConfig::insecure("a"), ServerConfig::insecure("b")], settings);
    claim(&mut it, "x", &[(LISTENER, "x"), (CLUSTER, "shared")]);
    it.lose(A);
    it.connect(B);
    it.requests(B);
    it.respond_from(B, &response(LISTENER, "1", "n1", &["x:one"]));
    it.respond_from(B, &response(CLUSTER, "1", "n2", &["shared:one"]));
    claim(&mut it, "y", &[(CLUSTER, "shared")]);
    it.engine.release(&ResourceKey::new(CLUSTER, "shared"), &"x".into());
    claim(&mut it, "x", &[(CLUSTER, "more")]);
    assert_eq!(it.requests(B), ["Listener x version 1 nonce n1", "Cluster more version 1 nonce n2"]);
    it.told();
    claim(&mut it, "x", &[(CLUSTER, "shared")]);
    it.told();
    it.respond_from(B, &response(CLUSTER, "1", "n3", &["more:one"]));
    assert_eq!(it.requests(B), ["Cluster more,shared version 1 nonce n3"]);
    it.respond_from(B, &response(CLUSTER, "1", "n4", &["more:one"]));
    assert_eq!(it.told(), ["more=one"], "neither answer is known to be about it");
    it.respond_from(B, &response(CLUSTER, "1", "n5", &["more:one", "shared:one"]));
    it.wait(60.0);
    assert_eq!(it.told(), [""; 0]);
    it.respond_from(B, &response(CLUSTER, "2", "n6", &["more:one"]));
    it.wait(15.1);
    assert_eq!(it.told(), ["shared lapsing MESH-112"], "what is absent for long is gone");
}

#[test]
fn a71_what_was_replaced_is_asked_for_anew_when_the_preferred_server_is_back() {
    let mut it = mid_update(FallbackScope::Process);
    it.connect(B);
    it.requests(B);
    it.respond_from(B, &response(LISTENER, "7", "n1", &["x:from b"]));
    it.told();
    it.reconnect(A);
    assert_eq!(
        it.requests(A),
        ["Listener x,y version  nonce  node", "Cluster new,shared version 1 nonce "],
        "a version that is not in use any more would keep it from answering"
    );
    it.respond(LISTENER, "2", "n1", &["x:two", "y:one"]);
    assert_eq!(it.told(), ["x=two"]);
    assert_eq!(it.actions(), [Action::Close(B)]);
}

/// gRPC's interop test `mid_startup`: the preferred server dies when the cluster is asked for.
#[test]
fn a71_a_target_that_never_worked_takes_the_fallbacks_listener_over_the_one_that_is_cached() {
    let mut it = two();
    claim(&mut it, "x", &[(LISTENER, "x")]);
    it.connect(A);
    it.requests(A);
    it.respond(LISTENER, "1", "n1", &["x:to cluster_name"]);
    claim(&mut it, "x", &[(CLUSTER, "cluster_name")]);
    it.told();
    it.lose(A);
    it.reconnect_fails(A);
    it.connect(B);
    it.requests(B);
    it.respond_from(B, &response(LISTENER, "1", "n1", &["x:to other"]));
    assert_eq!(it.told(), ["x=to other"]);
}

#[test]
fn a95_an_authority_may_fall_back_by_reachability_only() {
    let json = r#"{"xds_servers": [{"server_uri": "a", "channel_creds": [{"type": "insecure"}]},
                                   {"server_uri": "b", "channel_creds": [{"type": "insecure"}]}],
                   "authorities": {"east": {"fallback_on_reachability_only": true}}}"#;
    let bootstrap = crate::bootstrap::Bootstrap::from_json(json).unwrap();
    let mut it = Dialogue::with(&bootstrap, Settings::default());
    let east = format!("xdstp://east/{CLUSTER_LOAD_ASSIGNMENT}/e");
    it.subscribe(LISTENER, "x");
    it.subscribe(CLUSTER_LOAD_ASSIGNMENT, &east);
    it.connect(A);
    it.requests(A);
    it.respond(LISTENER, "1", "n1", &["x:one"]);
    let of_east = |content: &str| wrapped(&east, Some(any(CLUSTER_LOAD_ASSIGNMENT, &format!("-:{content}"))));
    let mut endpoints = response(CLUSTER_LOAD_ASSIGNMENT, "1", "n2", &[]);
    endpoints.resources = vec![of_east("one")];
    it.respond_from(A, &endpoints);
    it.told();
    it.lose(A);
    it.reconnect_fails(A);
    it.connect(B);
    assert_eq!(it.requests(B), [format!("ClusterLoadAssignment {east} version  nonce  node")], "nothing else is");
    endpoints.resources = vec![of_east("from b")];
    it.respond_from(B, &endpoints);
    assert_eq!(it.told(), [format!("{east}=from b")]);
}

/// grpc-go's `TestFallback_ThreeServerPromotion`.
#[test]
fn a71_servers_come_back_one_by_one() {
    let mut it = Dialogue::with(["a", "b", "c"].map(ServerConfig::insecure).to_vec(), Settings::default());
    let c = ServerId(2);
    claim(&mut it, "x", &[(LISTENER, "x")]);
    it.lose(A);
    it.lose(B);
    it.connect(c);
    it.requests(c);
    it.respond_from(c, &response(LISTENER, "1", "n1", &["x:from c"]));
    it.reconnect(B);
    it.requests(B);
    it.respond_from(B, &response(LISTENER, "1", "n1", &["x:from b"]));
    assert_eq!(it.actions(), [Action::Close(c)]);
    it.reconnect(A);
    it.requests(A);
    it.respond(LISTENER, "1", "n1", &["x:from a"]);
    assert_eq!(it.actions(), [Action::Close(B)]);
    assert_eq!(it.told(), ["x=from c", "x=from b", "x=from a"]);
}

/// `lrs_server.self` means the server that the Cluster came from last.
#[test]
fn a47_a_value_that_comes_from_another_server_is_told_again_though_it_is_the_same() {
    let mut it = two();
    it.subscribe(CLUSTER, "x");
    it.lose(A);
    it.connect(B);
    it.requests(B);
    it.respond_from(B, &response(CLUSTER, "1", "n1", &["x:same"]));
    let told = it.told_events();
    let [ResourceEvent::Changed { value: before, server: Some(server), .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(&*server.uri, "b");
    it.respond_from(B, &response(CLUSTER, "2", "n2", &["x:same"]));
    assert_eq!(it.told(), [""; 0]);
    it.wait(2.0);
    it.connect(A);
    it.requests(A);
    it.respond_from(A, &response(CLUSTER, "1", "n1", &["x:same"]));
    let told = it.told_events();
    let [ResourceEvent::Changed { value: after, server: Some(server), .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(&*server.uri, "a");
    assert!(Arc::ptr_eq(before, after), "nothing about it is built again");
}
