//! What is told, and what is kept (`spec` sections 2.2, 2.4, 2.9 and 2.13).

use super::*;

pub(super) fn cached(features: ServerFeatures) -> Dialogue {
    let mut it = Dialogue::with_features(features).asking(LISTENER, &["a", "b"]);
    it.respond(LISTENER, "1", "n1", &["a:one", "b:one"]);
    it.requests(A);
    it.told();
    it.events();
    it
}

#[test]
fn the_same_bytes_are_not_told_again_but_their_version_counts() {
    let mut it = cached(ServerFeatures::default());
    it.wait(1.0);
    it.respond(LISTENER, "2", "n2", &["a:one", "b:two"]);
    assert_eq!(it.told(), ["b=two"]);
    assert!(it.engine.resources().all(|status| status.version.as_deref() == Some("2")));
    assert!(it.engine.resources().all(|status| status.updated == Some(it.now)), "and when it came");
    assert_eq!(it.requests(A), ["Listener a,b version 2 nonce n2"]);
}

/// In state of the world the version is the response's, and one name is all a resource has.
#[test]
fn a47_a_wrapper_gives_neither_version_nor_other_names_in_state_of_the_world() {
    let mut it = Dialogue::new().asking(CLUSTER, &["a", "alias"]);
    let wrapper = Resource {
        name: "a".to_owned(),
        version: "its own".to_owned(),
        aliases: vec!["alias".to_owned()],
        resource: Some(any(CLUSTER, "a:one")),
        ..Resource::default()
    };
    let mut wrapped = response(CLUSTER, "1", "n1", &[]);
    wrapped.resources = vec![Any {
        type_url: format!("{TYPE_URL_PREFIX}envoy.service.discovery.v3.Resource"),
        value: wrapper.encode_to_vec(),
    }];
    it.respond_from(A, &wrapped);
    assert_eq!(it.told(), ["a=one"]);
    let versions: Vec<_> = it.engine.resources().filter_map(|status| status.version).collect();
    assert_eq!(versions, ["1"]);
}

/// gRPC: whose configuration failed can be told from the text of any error.
#[test]
fn a57_a88_every_error_names_the_node() {
    let mut it = Dialogue::new().asking(LISTENER, &["late", "bad", "gone", "reported", "missing"]);
    it.subscribe("example.Unknown", "x");
    it.respond(LISTENER, "1", "n1", &["bad:bad", "gone:one"]);
    let mut errors = response(LISTENER, "2", "n2", &["bad:bad"]);
    errors.resource_errors = vec![resource_error("reported", 13), resource_error("missing", 5)];
    it.respond_from(A, &errors);
    it.wait(16.0);
    it.lose(A);
    it.reconnect(A);
    it.lose(A);
    let told = it.told_events();
    let errors: Vec<String> = told
        .iter()
        .filter_map(|event| match event {
            ResourceEvent::Ambient { error, .. } => error.as_ref().map(|error| error.message().to_owned()),
            ResourceEvent::Unusable { error, .. } => Some(error.message().to_owned()),
            ResourceEvent::Changed { .. } => None,
        })
        .collect();
    assert!(errors.len() >= 6, "{told:?}");
    assert!(errors.iter().all(|error| error.ends_with("[xDS node id: node-1]")), "{errors:#?}");
}

#[test]
fn the_same_bytes_after_a_refused_update_clear_the_error() {
    let mut it = cached(ServerFeatures::default());
    it.respond(LISTENER, "2", "n2", &["a:bad", "b:one"]);
    assert_eq!(it.told(), ["a ambient MESH-113"]);
    assert_eq!(it.state(LISTENER, "a"), State::Nacked);
    it.respond(LISTENER, "3", "n3", &["a:one", "b:one"]);
    assert_eq!(it.told(), ["a well"]);
    assert_eq!(it.state(LISTENER, "a"), State::Acked);
}

#[test]
fn a88_a_refused_update_drops_the_value_only_if_the_server_says_so() {
    let mut it = cached(ServerFeatures { fail_on_data_errors: true, ..ServerFeatures::default() });
    it.respond(LISTENER, "2", "n2", &["a:bad", "b:one"]);
    assert_eq!(it.told(), ["a unusable MESH-113"]);
    it.respond(LISTENER, "3", "n3", &["a:one", "b:one"]);
    assert_eq!(it.told(), ["a=one"], "it was dropped, so it is told though the bytes are the same");
}

/// grpc-go's `*Watch_ResourceCaching`, `*_ResourceCaching_NACKError`, `*_TwoWatchesForSameResourceName`.
#[test]
fn who_asks_again_is_told_what_is_known_value_first() {
    let mut it = cached(ServerFeatures::default());
    it.subscribe(LISTENER, "a");
    assert_eq!((it.told(), it.requests(A)), (vec!["a=one".to_owned()], vec![]));
    it.respond(LISTENER, "2", "n2", &["a:bad", "b:one"]);
    it.told();
    it.requests(A);
    it.subscribe(LISTENER, "a");
    assert_eq!(it.told(), ["a=one", "a ambient MESH-113"]);
    it.subscribe(LISTENER, "new");
    it.requests(A);
    it.subscribe(LISTENER, "new");
    assert_eq!(it.told(), [""; 0], "nothing is known yet");
}

/// grpc-go's `LDSWatch_NewWatcherForRemovedResource`.
#[test]
fn who_asks_for_what_does_not_exist_is_told_at_once_and_without_a_timer() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.wait(16.0);
    it.told();
    it.subscribe(LISTENER, "a");
    assert_eq!((it.told(), it.requests(A)), (vec!["a unusable MESH-111".to_owned()], vec![]));
    it.wait(60.0);
    assert_eq!(it.told(), [""; 0]);
}

#[test]
fn absence_deletes_neither_routes_nor_endpoints() {
    for type_url in [ROUTE_CONFIGURATION, CLUSTER_LOAD_ASSIGNMENT] {
        let mut it = Dialogue::new().asking(type_url, &["a", "b"]);
        it.respond(type_url, "1", "n1", &["a:one"]);
        it.respond(type_url, "2", "n2", &["b:one"]);
        it.respond(type_url, "3", "n3", &[]);
        it.wait(60.0);
        assert_eq!(it.told(), ["a=one", "b=one"]);
    }
}

#[test]
fn what_never_came_is_not_deleted_and_what_is_there_but_bad_is_not_absent() {
    let mut it = Dialogue::new().asking(LISTENER, &["a", "b"]);
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    assert_eq!(it.told(), ["a=one"], "b is left to its timer");
    it.respond(LISTENER, "2", "n2", &["a:bad"]);
    assert_eq!(it.told(), ["a ambient MESH-113"]);
    it.wait(10.0);
    it.respond(LISTENER, "3", "n3", &["cannot be decoded"]);
    it.wait(60.0);
    assert_eq!(it.told(), ["b unusable MESH-112"], "a nameless resource could be a, so a is not deleted");
}

/// The table of gRFC A88 for errors that a server reports (TP3).
#[test]
fn a88_errors_that_the_server_reports() {
    const NOT_FOUND: i32 = 5;
    const PERMISSION_DENIED: i32 = 7;
    const INTERNAL: i32 = 13;
    let report = |it: &mut Dialogue, code| {
        let mut errors = response(CLUSTER_LOAD_ASSIGNMENT, "9", "n9", &[]);
        errors.resource_errors = vec![resource_error("a", code)];
        it.respond_from(A, &errors);
        it.told()
    };
    for (code, uncached, kept, dropped) in [
        (NOT_FOUND, "a unusable MESH-112", "a lapsing MESH-112", "a unusable MESH-112"),
        (PERMISSION_DENIED, "a unusable MESH-115", "a lapsing MESH-115", "a unusable MESH-115"),
        (INTERNAL, "a unusable MESH-115", "a ambient MESH-115", "a ambient MESH-115"),
    ] {
        let mut it = Dialogue::new().asking(CLUSTER_LOAD_ASSIGNMENT, &["a"]);
        assert_eq!(report(&mut it, code), [uncached], "at once, without the timer");
        assert_eq!(it.requests(A), ["ClusterLoadAssignment a version 9 nonce n9"]);
        it.wait(60.0);
        assert_eq!(it.told(), [""; 0]);
        assert_eq!(it.state(CLUSTER_LOAD_ASSIGNMENT, "a"), State::ReceivedError);
        for (fail_on_data_errors, expected) in [(false, kept), (true, dropped)] {
            let features = ServerFeatures { fail_on_data_errors, ..ServerFeatures::default() };
            let mut it = Dialogue::with_features(features).asking(CLUSTER_LOAD_ASSIGNMENT, &["a"]);
            it.respond(CLUSTER_LOAD_ASSIGNMENT, "1", "n1", &["a:one"]);
            it.told();
            assert_eq!(report(&mut it, code), [expected], "code {code}, fail_on_data_errors {fail_on_data_errors}");
        }
    }
}

#[test]
fn a88_a_name_with_an_error_is_not_deleted_besides_and_must_not_be_sent_too() {
    let mut it = cached(ServerFeatures::default());
    let mut errors = response(LISTENER, "2", "n2", &["b:one"]);
    errors.resource_errors = vec![resource_error("a", 13), resource_error("b", 13), resource_error("unknown", 5)];
    it.respond_from(A, &errors);
    assert_eq!(it.told(), ["b ambient MESH-113", "a ambient MESH-115"]);
    assert_eq!(it.requests(A), ["Listener a,b version 1 nonce n2 NACK"]);
}
