//! What an earlier process left, while no server can be reached.

use super::*;
use crate::resource::WILDCARD;

fn left(type_url: &str, name: &str, content: &str) -> LastGood {
    LastGood {
        key: ResourceKey::new(type_url, name),
        version: "1".to_owned(),
        bytes: format!("{name}:{content}").into(),
        server: "a".into(),
        confirmed: 1000,
    }
}

fn two() -> Dialogue {
    let mut it = Dialogue::with(vec![ServerConfig::insecure("a"), ServerConfig::insecure("b")], Settings::default());
    it.engine.remember([left(LISTENER, "x", "left"), left(CLUSTER, "c", "left")], seconds(120.0));
    it
}

#[test]
fn it_is_used_when_every_server_failed_and_not_before() {
    let mut it = two();
    it.subscribe(LISTENER, "x");
    it.lose(A);
    assert_eq!(it.told(), [""; 0]);
    it.lose(B);
    let told = it.told_events();
    assert_eq!(told.iter().map(tell).collect::<Vec<_>>(), ["x=left", "x ambient MESH-110"]);
    let ResourceEvent::Ambient { error: Some(error), .. } = &told[1] else { panic!("{told:?}") };
    assert!(error.message().contains("the last good configuration of an earlier process is used"), "{error}");
    it.subscribe(CLUSTER, "c");
    assert_eq!(it.told(), ["c=left", "c ambient MESH-110"], "what follows from it comes from there at once");
    it.subscribe(CLUSTER, "other");
    assert_eq!(it.told(), ["other unusable MESH-110"]);
    let said: Vec<String> = it.events().into_iter().filter(|event| event.contains("last good")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("2 min old"), "{said:?}");
}

#[test]
fn it_is_not_used_where_a_server_answers() {
    let mut it = two();
    it.subscribe(LISTENER, "x");
    it.subscribe(CLUSTER, "c");
    it.connect(A);
    it.requests(A);
    it.respond(LISTENER, "2", "n1", &["x:new"]);
    assert_eq!(it.told(), ["x=new"]);
    it.wait(15.1);
    assert_eq!(it.told(), ["c unusable MESH-111"], "a server that answers says what there is");
}

#[test]
fn the_first_word_of_a_server_ends_it() {
    let mut it = two();
    it.subscribe(LISTENER, "x");
    it.subscribe(CLUSTER, "c");
    it.lose(A);
    it.lose(B);
    it.told();
    it.reconnect(B);
    assert_eq!(
        it.requests(B),
        ["Listener x version  nonce  node", "Cluster c version  nonce "],
        "its version is not claimed: the server must answer"
    );
    it.respond_from(B, &response(LISTENER, "2", "n1", &["x:left"]));
    assert_eq!(it.told(), ["x well", "c well", "x=left"], "the same bytes come from another server now");
    it.respond_from(B, &response(CLUSTER, "2", "n2", &["c:new"]));
    assert_eq!(it.told(), ["c=new"]);
    assert_eq!(it.state(LISTENER, "x"), State::Acked);
}

#[test]
fn a_server_that_answers_without_it_deletes_it_with_grace() {
    let mut it = two();
    it.subscribe(LISTENER, "x");
    it.subscribe(CLUSTER, "c");
    it.lose(A);
    it.lose(B);
    it.told();
    it.reconnect(B);
    it.requests(B);
    it.respond_from(B, &response(LISTENER, "2", "n1", &["x:left"]));
    it.respond_from(B, &response(CLUSTER, "2", "n2", &[]));
    it.told();
    it.wait(14.0);
    assert_eq!(it.told(), [""; 0], "it was never received, so that its absence says nothing");
    it.wait(2.0);
    assert_eq!(it.told(), ["c lapsing MESH-112"]);
    it.wait(31.0);
    assert_eq!(it.told(), ["c unusable MESH-112"]);
}

#[test]
fn timers_do_not_end_it_while_no_server_answers() {
    let mut it = two();
    it.subscribe(LISTENER, "x");
    it.lose(A);
    it.lose(B);
    it.told();
    for _ in 0..20 {
        it.wait(30.0);
        it.actions();
        it.lose(A);
        it.lose(B);
    }
    assert_eq!(it.told(), [""; 0], "for as long as it takes");
    assert_eq!(it.state(LISTENER, "x"), State::Requested);
}

/// A server that takes the stream and says nothing is as good as away.
#[test]
fn a_silent_server_is_as_good_as_none() {
    let mut it = two();
    it.subscribe(LISTENER, "x");
    it.connect(A);
    it.requests(A);
    it.wait(15.1);
    assert_eq!(it.told(), ["x=left", "x ambient MESH-110"]);
    it.subscribe(CLUSTER, "c");
    assert_eq!(it.told(), ["c=left", "c ambient MESH-110"]);
    it.requests(A);
    it.wait(100.0);
    assert_eq!(it.told(), [""; 0]);
    it.respond(LISTENER, "2", "n1", &["x:new"]);
    it.told();
    it.wait(20.0);
    assert_eq!(it.told(), ["c lapsing MESH-112"], "now it says what there is");
}

#[test]
fn what_is_not_valid_or_of_another_server_is_not_used() {
    let mut it = Dialogue::new();
    let foreign = LastGood { server: "elsewhere".into(), ..left(LISTENER, "y", "left") };
    let unknown = left("some.Type", "z", "left");
    it.engine.remember([left(LISTENER, "x", "bad"), foreign, unknown], seconds(0.0));
    for name in ["x", "y"] {
        it.subscribe(LISTENER, name);
    }
    it.lose(A);
    assert_eq!(it.told(), ["x unusable MESH-110", "y unusable MESH-110"]);
    let said: Vec<String> = it.events().into_iter().filter(|event| event.contains("last good")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("Listener `x`: field: must not be bad"), "{said:?}");
}

#[test]
fn what_is_left_for_a_later_process_is_what_servers_gave_and_have_not_taken_back() {
    let mut it = Dialogue::new();
    it.engine.remember([left(LISTENER, "unused", "left"), left(CLUSTER, "c", "left")], seconds(0.0));
    let summary = |it: &Dialogue| -> Vec<String> {
        let all = it.engine.last_good(5000, |_| Some(4000));
        all.iter().map(|one| format!("{} {} {:?} {}", one.key, one.version, one.bytes, one.confirmed)).collect()
    };
    it.subscribe(LISTENER, "x");
    it.subscribe(CLUSTER, "c");
    it.connect(A);
    it.requests(A);
    let before = it.engine.changes();
    it.respond(LISTENER, "7", "n1", &["x:one"]);
    assert!(it.engine.changes() > before && it.engine.is_answered());
    assert_eq!(
        summary(&it),
        [
            "Cluster `c` 1 b\"c:left\" 1000",
            "Listener `unused` 1 b\"unused:left\" 1000",
            "Listener `x` 7 b\"x:one\" 5000"
        ]
    );
    it.respond_from(
        A,
        &DiscoveryResponse { resource_errors: vec![resource_error("c", 5)], ..response(CLUSTER, "1", "n2", &[]) },
    );
    it.lose(A);
    assert!(!it.engine.is_answered());
    assert_eq!(
        summary(&it),
        ["Listener `unused` 1 b\"unused:left\" 1000", "Listener `x` 7 b\"x:one\" 4000"],
        "a server that is lost confirms nothing any more, and one word ends what was left"
    );
}

/// A client of one server, that wants everything of clusters and was left two of them.
fn everything(delta_grpc: bool) -> Dialogue {
    let decoder: Arc<dyn DecodeResource> = Arc::new(TextDecoder);
    let row = ResourceType {
        type_url: CLUSTER.into(),
        variant: Variant::StateOfTheWorld,
        subscription: Subscription::Wildcard,
        full_state: true,
        decoder: decoder.clone(),
    };
    let types = ResourceTypes::standard(&decoder).with(row);
    let features = ServerFeatures { delta_grpc, ..ServerFeatures::default() };
    let server = ServerConfig::insecure("a").with_features(features);
    let mut it = Dialogue::with_types(vec![server], Settings::default(), types);
    let bad = left(CLUSTER, "bad", "bad");
    it.engine.remember([left(CLUSTER, "c", "left"), left(CLUSTER, "d", "left"), bad], seconds(60.0));
    it
}

#[test]
fn everything_that_was_left_is_used_by_who_wants_everything() {
    for delta in [false, true] {
        let mut it = everything(delta);
        it.subscribe(CLUSTER, WILDCARD);
        assert_eq!(it.told(), [""; 0]);
        it.lose(A);
        let mut told = it.told();
        told.retain(|one| !one.starts_with('*'));
        told.sort_unstable();
        assert_eq!(told, ["c ambient MESH-110", "c=left", "d ambient MESH-110", "d=left"], "delta: {delta}");
        let refused = it.events().into_iter().filter(|event| event.contains("Cluster `bad`")).count();
        assert_eq!(refused, 1, "it is checked as if a server gave it");
        it.reconnect(A);
        it.requests(A);
        if delta {
            it.respond_delta(CLUSTER, "n1", &["c@2:new"], &[]);
        } else {
            it.respond(CLUSTER, "2", "n1", &["c:new"]);
        }
        let told = it.told();
        assert!(told.contains(&"c=new".to_owned()), "{told:?}");
        it.wait(15.1);
        let told = [told, it.told()].concat();
        assert!(told.contains(&"d lapsing MESH-112".to_owned()), "the server does not have it: {told:?}");
        it.wait(31.0);
        assert_eq!(it.told(), ["d unusable MESH-112"]);
        assert_eq!(it.engine.resources().count(), 1, "what is gone leaves nothing behind");
    }
}

#[test]
fn who_wants_everything_after_the_servers_failed_is_told_at_once() {
    let mut it = everything(true);
    it.subscribe(LISTENER, "x");
    it.lose(A);
    it.told();
    it.subscribe(CLUSTER, WILDCARD);
    let mut told = it.told();
    told.retain(|one| !one.starts_with('*'));
    assert_eq!(told, ["c=left", "c ambient MESH-110", "d=left", "d ambient MESH-110"]);
}
