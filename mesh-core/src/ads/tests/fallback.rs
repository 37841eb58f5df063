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
    assert_eq!(it.told(), ["x ambient MESH-112"]);
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
