//! What the control plane takes away while it is in use: deleted resources and emptied sets, and the grace of both.

use super::watchers::cached;
use super::*;

/// grpc-go's `*Watch_ResourceRemoved`.
#[test]
fn a53_a_deleted_listener_or_cluster_is_used_on_for_its_grace_and_then_gone() {
    for type_url in [LISTENER, CLUSTER] {
        let mut it = Dialogue::new().asking(type_url, &["a", "b"]);
        it.respond(type_url, "1", "n1", &["a:one", "b:one"]);
        it.told();
        it.events();
        it.respond(type_url, "2", "n2", &["b:one"]);
        assert_eq!(it.told(), ["a lapsing MESH-112"]);
        assert_eq!(it.state(type_url, "a"), State::DoesNotExist);
        assert!(it.events()[0].ends_with("`a` was deleted; what was there is used on for 30s"));
        it.wait(20.0);
        it.respond(type_url, "3", "n3", &["b:one"]);
        it.wait(9.9);
        assert_eq!((it.told(), it.events().len()), (vec![], 1), "being absent again neither renews nor repeats it");
        it.wait(0.2);
        assert_eq!(it.told(), ["a unusable MESH-112"]);
        assert!(it.events()[0].ends_with("`a` did not come back within its grace and is no longer used"));
        it.respond(type_url, "4", "n4", &["a:one", "b:one"]);
        assert_eq!(it.told(), ["a=one"]);
    }
}

#[test]
fn a_resource_that_comes_back_within_its_grace_was_never_gone() {
    let mut it = cached(ServerFeatures::default());
    it.respond(LISTENER, "2", "n2", &[]);
    assert_eq!(it.told(), ["a lapsing MESH-112", "b lapsing MESH-112"], "an empty response deletes all");
    it.wait(29.0);
    it.respond(LISTENER, "3", "n3", &["a:one", "b:two"]);
    assert_eq!(it.told(), ["a well", "b=two"]);
    it.wait(60.0);
    assert_eq!(it.told(), [""; 0]);
}

#[test]
fn a53_a_server_may_ask_to_ignore_deletions() {
    let mut it = cached(ServerFeatures { ignore_resource_deletion: true, ..ServerFeatures::default() });
    it.respond(LISTENER, "2", "n2", &["b:one"]);
    assert_eq!(it.told(), ["a lapsing MESH-112"]);
    it.wait(3600.0);
    assert_eq!(it.told(), [""; 0]);
}

#[test]
fn a88_fail_on_data_errors_leaves_no_grace() {
    let mut it = cached(ServerFeatures { fail_on_data_errors: true, ..ServerFeatures::default() });
    it.respond(LISTENER, "2", "n2", &["b:one"]);
    assert_eq!(it.told(), ["a unusable MESH-112"]);
}

#[test]
fn grace_can_be_none_at_all() {
    let settings = Settings { deletion_grace: Some(Duration::ZERO), ..Settings::default() };
    let mut it = Dialogue::with(vec![ServerConfig::insecure("a")], settings).asking(LISTENER, &["a"]);
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    it.respond(LISTENER, "2", "n2", &[]);
    assert_eq!(it.told(), ["a=one", "a unusable MESH-112"]);
}

/// A set that is in use: `a:one` of type endpoints.
fn in_use(features: ServerFeatures, settings: Settings) -> Dialogue {
    let servers = vec![ServerConfig::insecure("a").with_features(features)];
    let mut it = Dialogue::with(servers, settings).asking(CLUSTER_LOAD_ASSIGNMENT, &["a"]);
    it.endpoints("1", "a:one");
    assert_eq!(it.told(), ["a=one"]);
    it.events();
    it
}

fn plain() -> Dialogue {
    in_use(ServerFeatures::default(), Settings::default())
}

impl Dialogue {
    fn endpoints(&mut self, version: &str, resource: &str) {
        self.respond(CLUSTER_LOAD_ASSIGNMENT, version, version, &[resource]);
        self.requests(A);
    }
}

#[test]
fn an_emptied_set_is_used_on_for_its_grace_and_is_empty_then() {
    let mut it = plain();
    it.endpoints("2", "a:empty");
    assert_eq!(it.told(), ["a lapsing MESH-401"]);
    assert!(it.events()[0].ends_with("`a` was emptied; what was there is used on for 30s"));
    assert_eq!(it.state(CLUSTER_LOAD_ASSIGNMENT, "a"), State::Acked, "an empty set is a valid one");
    it.wait(20.0);
    it.endpoints("3", "a:empty");
    it.endpoints("4", "a:empty of another kind");
    it.wait(9.9);
    assert_eq!((it.told(), it.events().len()), (vec![], 2), "being empty still neither renews nor repeats it");
    it.wait(0.2);
    assert_eq!(it.told(), ["a=empty of another kind", "a ambient MESH-401"], "with the reason beside it");
    assert!(it.events()[0].ends_with("`a` did not come back within its grace and is no longer used"));
    it.endpoints("5", "a:empty of another kind");
    assert_eq!(it.told(), [""; 0], "and the reason stays");
    it.endpoints("6", "a:empty");
    assert_eq!(it.told(), ["a=empty", "a ambient MESH-401"]);
    it.endpoints("7", "a:two");
    assert_eq!(it.told(), ["a=two"]);
}

#[test]
fn a40_an_emptied_set_is_shown_as_it_is_used_with_what_became_of_it() {
    let mut it = plain();
    let taken = it.now;
    let shown = |it: &Dialogue| {
        let status = it.engine.resources().next().expect("it is wanted");
        let failure = status.failure.map(|failure| (failure.error.code().number(), failure.version));
        (status.withdrawn, status.version, status.updated, failure)
    };
    it.wait(1.0);
    it.endpoints("2", "a:empty");
    let emptied = it.now;
    assert_eq!(shown(&it), (true, Some("1".to_owned()), Some(taken), Some((401, "2".to_owned()))));
    it.wait(30.1);
    let (withdrawn, version, updated, _) = shown(&it);
    assert_eq!((withdrawn, version, updated), (false, Some("2".to_owned()), Some(emptied)), "the empty one is in use");
}

#[test]
fn a_set_that_is_filled_again_within_its_grace_was_never_empty() {
    for (back, told) in [("a:one", "a well"), ("a:two", "a=two")] {
        let mut it = plain();
        it.endpoints("2", "a:empty");
        it.wait(29.0);
        it.told();
        it.events();
        it.endpoints("3", back);
        assert_eq!(it.told(), [told]);
        assert!(it.events()[0].ends_with("`a` is back within its grace"));
        it.wait(60.0);
        assert_eq!(it.told(), [""; 0]);
    }
}

/// What was wanted a short time ago is known still, and the server need not send it again.
#[test]
fn an_empty_set_that_is_wanted_again_is_there() {
    let mut it = plain();
    it.endpoints("2", "a:empty");
    it.wait(31.0);
    it.told();
    it.unsubscribe(CLUSTER_LOAD_ASSIGNMENT, "a");
    it.subscribe(CLUSTER_LOAD_ASSIGNMENT, "a");
    assert_eq!(it.told(), ["a=empty", "a ambient MESH-401"]);
    it.wait(16.0);
    assert_eq!(it.told(), [""; 0]);
}

/// A set that is empty is there.
#[test]
fn an_empty_set_that_comes_back_is_missing_no_more() {
    let mut it = plain();
    it.endpoints("2", "a:empty");
    it.wait(31.0);
    it.told();
    let mut gone = response(CLUSTER_LOAD_ASSIGNMENT, "3", "3", &[]);
    gone.resource_errors = vec![resource_error("a", 5)];
    it.respond_from(A, &gone);
    assert_eq!(it.told(), ["a lapsing MESH-112"]);
    it.endpoints("4", "a:empty");
    assert_eq!(it.told(), ["a well"]);
    it.wait(31.0);
    assert_eq!(it.told(), [""; 0]);
}

#[test]
fn a_set_that_never_held_anything_has_no_grace() {
    let mut it = Dialogue::new().asking(CLUSTER_LOAD_ASSIGNMENT, &["a"]);
    it.endpoints("1", "a:empty");
    it.endpoints("2", "a:empty");
    assert_eq!(it.told(), ["a=empty"]);
    it.wait(60.0);
    assert_eq!(it.told(), [""; 0]);
}

/// gRFC A88.
#[test]
fn a88_fail_on_data_errors_empties_a_set_at_once() {
    let features = ServerFeatures { fail_on_data_errors: true, ..ServerFeatures::default() };
    let mut it = in_use(features, Settings::default());
    it.endpoints("2", "a:empty");
    assert_eq!(it.told(), ["a=empty", "a ambient MESH-401"]);
    let ends: Vec<bool> = it.events().iter().map(|event| event.contains("no longer used")).collect();
    assert_eq!(ends, [false, true, false], "withdrawn, expired, accepted");
}

#[test]
fn the_grace_of_an_emptied_set_can_be_none_at_all_and_without_end() {
    for (grace, told) in
        [(Some(Duration::ZERO), vec!["a=empty", "a ambient MESH-401"]), (None, vec!["a lapsing MESH-401"])]
    {
        let settings = Settings { deletion_grace: grace, ..Settings::default() };
        let mut it = in_use(ServerFeatures::default(), settings);
        it.endpoints("2", "a:empty");
        assert_eq!(it.told(), told);
        it.wait(3600.0);
        assert_eq!(it.told(), [""; 0]);
    }
}

/// An empty set is not a deletion.
#[test]
fn a53_ignoring_deletions_keeps_no_emptied_set() {
    let features = ServerFeatures { ignore_resource_deletion: true, ..ServerFeatures::default() };
    let mut it = in_use(features, Settings::default());
    it.endpoints("2", "a:empty");
    it.wait(31.0);
    assert_eq!(it.told(), ["a lapsing MESH-401", "a=empty", "a ambient MESH-401"]);
}

#[test]
fn a_refusal_does_not_stop_the_grace_of_an_emptied_set() {
    let mut it = plain();
    it.endpoints("2", "a:empty");
    it.endpoints("3", "a:bad");
    assert_eq!(it.told(), ["a lapsing MESH-401", "a lapsing MESH-113"]);
    it.wait(30.1);
    assert_eq!(it.told(), ["a=empty", "a ambient MESH-113"], "the last good one is the empty one");
}

#[test]
fn who_asks_again_during_the_grace_is_told_the_value_and_that_it_lapses() {
    let mut it = plain();
    it.endpoints("2", "a:empty");
    it.told();
    it.subscribe(CLUSTER_LOAD_ASSIGNMENT, "a");
    assert_eq!(it.told(), ["a=one", "a lapsing MESH-401"]);
}
