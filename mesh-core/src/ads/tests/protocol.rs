//! Version, nonce, ACK, NACK and subscriptions (`spec` sections 2.2 and 2.3).

use envoy_types::pb::envoy::config::core::v3::ControlPlane;

use super::*;

/// grpc-go's `TestADS_ACK_NACK_Simple`.
#[test]
fn a27_a_good_response_is_acked_and_a_bad_one_nacked_with_the_version_in_use() {
    let mut it = Dialogue::new();
    it.subscribe(LISTENER, "a");
    it.connect(A);
    assert_eq!(it.requests(A), ["Listener a version  nonce  node"]);
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    assert_eq!(it.told(), ["a=one"]);
    assert_eq!(it.requests(A), ["Listener a version 1 nonce n1"]);
    it.respond(LISTENER, "2", "n2", &["a:bad"]);
    assert_eq!(it.told(), ["a ambient MESH-113"]);
    assert_eq!(it.requests(A), ["Listener a version 1 nonce n2 NACK"]);
    it.respond(LISTENER, "3", "n3", &["a:three"]);
    assert_eq!(it.told(), ["a=three"]);
    assert_eq!(it.requests(A), ["Listener a version 3 nonce n3"], "the error is gone from the next request");
    assert_eq!(it.requests(A), [""; 0], "one answer for each response");
}

/// grpc-go's `TestADS_NACK_InvalidFirstResponse`.
#[test]
fn a27_a_first_response_that_is_bad_is_nacked_without_a_version() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.respond(LISTENER, "1", "n1", &["a:bad"]);
    assert_eq!(it.told(), ["a unusable MESH-113"]);
    assert_eq!(it.requests(A), ["Listener a version  nonce n1 NACK"]);
    it.respond(LISTENER, "2", "n2", &["a:two"]);
    assert_eq!(it.told(), ["a=two"]);
}

/// A server that stalls reads every request that was made meanwhile, however old: what its answers to those do not have may
/// be wanted again since.
#[test]
fn a27_a_late_answer_to_an_old_request_deletes_nothing() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.wait(20.0);
    it.unsubscribe(LISTENER, "a");
    it.subscribe(LISTENER, "b");
    assert_eq!(it.requests(A), ["Listener b version  nonce "]);
    it.wait(20.0);
    it.subscribe(LISTENER, "a");
    assert_eq!(it.requests(A), ["Listener a,b version  nonce "]);
    it.told();
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    it.respond(LISTENER, "1", "n2", &["b:two"]);
    assert_eq!(it.told(), ["a=one", "b=two"]);
    it.respond(LISTENER, "1", "n3", &["a:one", "b:two"]);
    it.wait(60.0);
    assert_eq!(it.told(), [""; 0]);
    it.respond(LISTENER, "2", "n4", &["b:two"]);
    it.wait(15.1);
    assert_eq!(it.told(), ["a lapsing MESH-112"], "what is absent for long is gone");
}

/// A server does not heed a request whose nonce is old by the time it reads it. So it may never learn that a name was dropped,
/// and take it for answered when it is asked for again.
#[test]
fn a57_a_name_that_the_server_may_take_for_answered_is_taken_back_and_asked_for_anew() {
    let mut it = Dialogue::new().asking(CLUSTER_LOAD_ASSIGNMENT, &["a", "b"]);
    it.respond(CLUSTER_LOAD_ASSIGNMENT, "1", "n1", &["a:one", "b:one"]);
    it.requests(A);
    it.unsubscribe(CLUSTER_LOAD_ASSIGNMENT, "b");
    assert_eq!(it.requests(A), ["ClusterLoadAssignment a version 1 nonce n1"]);
    it.wait(16.0);
    it.respond(CLUSTER_LOAD_ASSIGNMENT, "2", "n2", &["a:two"]);
    it.subscribe(CLUSTER_LOAD_ASSIGNMENT, "b");
    assert_eq!(it.requests(A), ["ClusterLoadAssignment a,b version 2 nonce n2"], "all that it heeds");
    it.told();
    it.wait(15.1);
    assert_eq!(it.told(), [""; 0]);
    let again = ["ClusterLoadAssignment a version 2 nonce n2", "ClusterLoadAssignment a,b version 2 nonce n2"];
    assert_eq!(it.requests(A), again);
    it.wait(15.1);
    assert_eq!(it.told(), ["b unusable MESH-111"], "once");
    assert_eq!(it.requests(A), [""; 0]);
}

/// grpc-go's `TestADS_ACK_NACK_ResourceIsNotRequestedAnymore`.
#[test]
fn a27_a_response_that_nobody_wants_any_more_is_acked() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    it.requests(A);
    it.told();
    it.unsubscribe(LISTENER, "a");
    it.respond(LISTENER, "2", "n2", &["a:two"]);
    assert_eq!(it.told(), [""; 0]);
    assert_eq!(it.requests(A), ["Listener  version 2 nonce n2"]);
    it.wait(15.1);
    it.subscribe(LISTENER, "a");
    assert_eq!(it.requests(A), ["Listener a version 2 nonce n2"]);
    it.respond(LISTENER, "2", "n3", &["a:two"]);
    assert_eq!(it.told(), ["a=two"], "what was forgotten is told again");
}

/// grpc-go's `TestADS_ResourcesAreRequestedAfterStreamRestart` and `TestClientResourceVersionAfterStreamRestart`.
#[test]
fn a27_after_a_restart_names_and_versions_are_sent_again_and_nonces_are_not() {
    let mut it = Dialogue::new().asking(LISTENER, &["a", "b"]);
    it.subscribe(CLUSTER, "c");
    it.respond(LISTENER, "7", "n1", &["a:one"]);
    assert_eq!(it.requests(A), ["Listener a,b version 7 nonce n1", "Cluster c version  nonce "]);
    it.lose(A);
    it.wait(2.0);
    it.connect(A);
    assert_eq!(it.requests(A), ["Listener a,b version 7 nonce  node", "Cluster c version  nonce "]);
}

/// grpc-go's `TestNodeProtoSentOnlyInFirstRequest`.
#[test]
fn a27_the_node_is_in_the_first_request_of_a_stream_only() {
    let mut it = Dialogue::new();
    it.subscribe(LISTENER, "a");
    it.subscribe(CLUSTER, "c");
    it.connect(A);
    let requests = it.raw_requests(A);
    let node = requests[0].node.as_ref().unwrap();
    assert_eq!(node.id, "node-1");
    assert_eq!(
        node.client_features,
        [
            "envoy.lb.does_not_support_overprovisioning",
            "xds.config.resource-in-sotw",
            "xds.config.supports-resource-ttl"
        ],
    );
    assert!(requests[1].node.is_none());
}

/// grpc-go's `TestADS_ResourceRequestedBeforeStreamCreation`.
#[test]
fn a27_what_is_wanted_before_the_stream_stands_is_asked_for_at_once() {
    let mut it = Dialogue::new();
    it.subscribe(LISTENER, "a");
    it.subscribe(LISTENER, "b");
    assert_eq!(it.requests(A), [""; 0]);
    assert_eq!(it.actions(), [Action::Open(A)], "one stream for everything");
    it.connect(A);
    assert_eq!(it.requests(A), ["Listener a,b version  nonce  node"]);
}

#[test]
fn no_stream_is_opened_before_something_is_wanted() {
    let mut it = Dialogue::new();
    assert_eq!((it.actions(), it.engine.poll_timeout()), (vec![], None));
}

/// grpc-go's `TestADS_NACKError_DuplicateSuppression`.
#[test]
fn a_resource_that_stays_bad_for_the_same_reason_is_told_once() {
    let mut it = Dialogue::new().asking(LISTENER, &["a", "b"]);
    it.respond(LISTENER, "1", "n1", &["a:bad", "b:good"]);
    assert_eq!(it.told(), ["b=good", "a unusable MESH-113"]);
    it.requests(A);
    it.respond(LISTENER, "2", "n2", &["a:bad", "b:good"]);
    assert_eq!(it.told(), [""; 0]);
    assert_eq!(it.requests(A), ["Listener a,b version  nonce n2 NACK"], "but refused each time");
}

#[test]
fn a46_good_resources_of_a_bad_response_are_applied_and_every_fault_is_named() {
    let mut it = Dialogue::new().asking(CLUSTER, &["a", "b", "c"]);
    it.respond(CLUSTER, "1", "n1", &["a:bad", "b:good", "c:bad", "nameless"]);
    assert_eq!(it.told(), ["b=good", "a unusable MESH-113", "c unusable MESH-113"]);
    let nack = it.raw_requests(A).remove(0).error_detail.unwrap();
    assert_eq!(nack.code, 3);
    for part in [
        "3 of 4",
        "Cluster `a`: field: must not be bad",
        "Cluster `c`: field",
        "resource 3, which has no readable name",
    ] {
        assert!(nack.message.contains(part), "{part} is not in {}", nack.message);
    }
}

#[test]
fn a_name_that_is_there_twice_is_refused() {
    let mut it = Dialogue::new().asking(CLUSTER, &["a", "b"]);
    it.respond(CLUSTER, "1", "n1", &["a:one", "b:good", "a:two"]);
    assert_eq!(it.told(), ["b=good", "a unusable MESH-113"], "neither of the two is believed");
    assert_eq!(it.requests(A), ["Cluster a,b version  nonce n1 NACK"]);
}

#[test]
fn resources_may_be_wrapped_and_the_wrappers_name_wins() {
    let mut it = Dialogue::new().asking(CLUSTER, &["outer", "plain", "empty"]);
    let mut mixed = response(CLUSTER, "1", "n1", &["plain:p"]);
    mixed.resources.push(wrapped("outer", Some(any(CLUSTER, "inner:w"))));
    mixed.resources.push(wrapped("", Some(any(CLUSTER, "empty:e"))));
    it.respond_from(A, &mixed);
    assert_eq!(it.told(), ["empty=e", "outer=w", "plain=p"]);
    assert_eq!(it.requests(A), ["Cluster empty,outer,plain version 1 nonce n1"]);
}

#[test]
fn wrappers_without_a_resource_and_wrong_types_are_refused() {
    let mut it = Dialogue::new().asking(CLUSTER, &["a", "b", "c"]);
    let mut bad = response(CLUSTER, "1", "n1", &["c:fine"]);
    bad.resources.push(wrapped("a", None));
    bad.resources.push(wrapped("b", Some(any(LISTENER, "b:x"))));
    bad.resources.push(any(CLUSTER, ":without a name"));
    bad.resources
        .push(Any { type_url: format!("{TYPE_URL_PREFIX}envoy.service.discovery.v3.Resource"), value: vec![0xff] });
    it.respond_from(A, &bad);
    assert_eq!(it.told(), ["c=fine", "a unusable MESH-113", "b unusable MESH-113"]);
    let nack = it.raw_requests(A).remove(0).error_detail.unwrap().message;
    for part in [
        "4 of 5",
        "resource: is missing from the wrapper",
        "its type is",
        "its name is empty",
        "its wrapper cannot be decoded",
    ] {
        assert!(nack.contains(part), "{part} is not in {nack}");
    }
}

#[test]
fn resources_that_were_not_asked_for_are_ignored_but_validated() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.respond(LISTENER, "1", "n1", &["a:one", "other:x"]);
    assert_eq!(it.told(), ["a=one"]);
    assert_eq!(it.requests(A), ["Listener a version 1 nonce n1"]);
    it.respond(LISTENER, "2", "n2", &["a:one", "other:bad"]);
    assert_eq!(it.told(), [""; 0]);
    assert_eq!(it.requests(A), ["Listener a version 1 nonce n2 NACK"]);
}

#[test]
fn unknown_types_and_garbage_are_ignored_with_an_event() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.events();
    it.respond("example.Unheard", "1", "n1", &["a:one"]);
    it.engine.handle_message(A, b"\xff\xff\xff garbage", it.now);
    assert_eq!((it.requests(A), it.told()), (vec![], vec![]), "neither ACK nor NACK");
    let events = it.events();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.contains("unreadable")), "{events:?}");
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    assert_eq!(it.told(), ["a=one"], "and the stream lives on");
}

#[test]
fn new_names_go_with_the_acknowledgement_of_the_response_that_caused_them() {
    let mut it = Dialogue::new().asking(CLUSTER, &["a"]);
    it.respond(CLUSTER, "1", "n1", &["a:one"]);
    it.told();
    it.subscribe(CLUSTER, "b");
    it.subscribe(CLUSTER_LOAD_ASSIGNMENT, "e");
    assert_eq!(
        it.requests(A),
        ["Cluster a,b version 1 nonce n1", "ClusterLoadAssignment e version  nonce "],
        "one request for each type"
    );
}

#[test]
fn what_changes_while_a_request_is_written_goes_into_one_next_request() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.writes = false;
    it.subscribe(LISTENER, "b");
    assert_eq!(it.requests(A), ["Listener a,b version  nonce "]);
    it.subscribe(LISTENER, "c");
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    it.unsubscribe(LISTENER, "b");
    assert_eq!(it.requests(A), [""; 0], "the one before is not written yet");
    it.engine.handle_written(A, it.now);
    assert_eq!(it.requests(A), ["Listener a,c version 1 nonce n1"]);
}

#[test]
fn wanting_what_is_wanted_sends_nothing_and_wanting_less_does() {
    let mut it = Dialogue::new().asking(CLUSTER, &["a", "b"]);
    it.subscribe(CLUSTER, "a");
    assert_eq!(it.requests(A), [""; 0]);
    it.unsubscribe(CLUSTER, "b");
    assert_eq!(it.requests(A), ["Cluster a version  nonce "]);
    it.subscribe(LISTENER, "l");
    it.unsubscribe(CLUSTER, "a");
    assert_eq!(
        it.requests(A),
        ["Listener l version  nonce ", "Cluster  version  nonce "],
        "an empty list is how the last name of a type goes while other types stay"
    );
}

#[test]
fn when_nothing_is_wanted_the_stream_is_closed_after_a_while_without_a_word() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.unsubscribe(LISTENER, "a");
    assert_eq!(it.requests(A), [""; 0]);
    it.wait(299.0);
    assert_eq!(it.actions(), []);
    it.wait(2.0);
    assert_eq!(it.actions(), [Action::Close(A)]);
    it.subscribe(LISTENER, "b");
    it.connect(A);
    assert_eq!(it.requests(A), ["Listener b version  nonce  node"]);
}

#[test]
fn a_stream_that_is_wanted_again_in_time_is_kept() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.unsubscribe(LISTENER, "a");
    it.wait(200.0);
    it.subscribe(LISTENER, "b");
    assert_eq!(it.requests(A), ["Listener b version  nonce "]);
    it.respond(LISTENER, "1", "n1", &["b:one"]);
    it.wait(200.0);
    assert_eq!(it.actions(), []);
}

/// A version that nothing in use came with could make a server believe that there is nothing to send.
#[test]
fn a_version_is_not_claimed_when_nothing_of_it_is_in_use() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.respond(LISTENER, "7", "n1", &["a:one"]);
    it.requests(A);
    it.unsubscribe(LISTENER, "a");
    it.subscribe(LISTENER, "b");
    it.lose(A);
    it.wait(2.0);
    it.connect(A);
    assert_eq!(it.requests(A), ["Listener b version  nonce  node"]);
}

#[test]
fn events_say_what_was_taken_and_refused() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    it.respond(LISTENER, "2", "n2", &["a:bad"]);
    assert_eq!(
        it.events(),
        [
            "connected to xDS server a",
            "took 1 envoy.config.listener.v3.Listener version `1` from a",
            "refused part of envoy.config.listener.v3.Listener version `2` from a: 1 of 1 resources refused: \
             Listener `a`: field: must not be bad",
        ]
    );
}

/// Behind one URI there may be many servers: which one it was helps whoever looks into a bad version.
#[test]
fn events_say_which_control_plane_answered() {
    let named = |identifier: &str, version: &str, resource: &str| DiscoveryResponse {
        control_plane: Some(ControlPlane { identifier: identifier.into() }),
        ..response(LISTENER, version, version, &[resource])
    };
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.respond_from(A, &named("istiod-1", "1", "a:one"));
    it.respond_from(A, &named("istiod-2\nforged", "2", "a:bad"));
    it.respond_from(A, &named("", "3", "a:three"));
    it.respond_from(A, &named(&"\u{e9}".repeat(1000), "4", "a:four"));
    let cut = "\u{e9}".repeat(512);
    assert_eq!(
        it.events()[1..],
        [
            "took 1 envoy.config.listener.v3.Listener version `1` from a (control plane `istiod-1`)".to_owned(),
            "refused part of envoy.config.listener.v3.Listener version `2` from a (control plane `istiod-2forged`): \
             1 of 1 resources refused: Listener `a`: field: must not be bad"
                .to_owned(),
            "took 1 envoy.config.listener.v3.Listener version `3` from a".to_owned(),
            format!("took 1 envoy.config.listener.v3.Listener version `4` from a (control plane `{cut}`)"),
        ]
    );
}

/// The seam: another type is a row.
#[test]
fn a_foreign_type_is_a_row() {
    const WORKLOAD: &str = "example.Workload";
    let row = ResourceType {
        type_url: WORKLOAD.into(),
        variant: Variant::StateOfTheWorld,
        subscription: Subscription::Named,
        full_state: true,
        decoder: Arc::new(TextDecoder),
    };
    let types = ResourceTypes::empty().with(row);
    let mut it = Dialogue::with_types(vec![ServerConfig::insecure("a")], Settings::default(), types);
    it.subscribe(WORKLOAD, "w");
    it.connect(A);
    assert_eq!(it.raw_requests(A)[0].type_url, "type.googleapis.com/example.Workload");
    it.respond(WORKLOAD, "1", "n1", &["w:here"]);
    assert_eq!(it.told(), ["w=here"]);
    it.respond(WORKLOAD, "2", "n2", &[]);
    assert_eq!(it.told(), ["w lapsing MESH-112"], "its rows say that absence is deletion");
    it.subscribe(LISTENER, "a");
    assert_eq!(it.told(), ["a unusable MESH-113"], "a type that is no row is refused, not forgotten");
}

#[test]
fn metadata_and_locality_of_the_node_are_sent() {
    let metadata = serde_json::json!({"GENERATOR": "grpc", "deep": {"list": [1, true, null]}});
    let serde_json::Value::Object(metadata) = metadata else { unreachable!() };
    let locality = crate::model::Locality { region: "r".into(), zone: "z".into(), sub_zone: "s".into() };
    let node = Node { metadata, locality: Some(locality), cluster: "c".to_owned(), ..Node::default() };
    let sent = super::super::message::node(&node);
    assert_eq!((sent.cluster.as_str(), sent.locality.unwrap().sub_zone.as_str()), ("c", "s"));
    let fields = sent.metadata.unwrap().fields;
    let text = |value: &envoy_types::pb::google::protobuf::Value| format!("{:?}", value.kind);
    assert_eq!(text(&fields["GENERATOR"]), "Some(StringValue(\"grpc\"))");
    assert!(text(&fields["deep"]).contains("NumberValue(1.0)"), "{fields:?}");
}

/// A server that did not see a name go would not send it again, and the subscription would be lost until its timer.
#[test]
fn what_is_wanted_again_soon_is_known_still_and_up_to_date() {
    let mut it = Dialogue::new().asking(CLUSTER_LOAD_ASSIGNMENT, &["a", "b"]);
    it.respond(CLUSTER_LOAD_ASSIGNMENT, "1", "n1", &["a:one", "b:one"]);
    it.requests(A);
    it.told();
    it.unsubscribe(CLUSTER_LOAD_ASSIGNMENT, "a");
    assert_eq!(it.requests(A), ["ClusterLoadAssignment b version 1 nonce n1"]);
    it.respond(CLUSTER_LOAD_ASSIGNMENT, "2", "n2", &["a:two"]);
    assert_eq!(it.told(), [""; 0], "it crossed the request, and nobody wants it");
    it.subscribe(CLUSTER_LOAD_ASSIGNMENT, "a");
    assert_eq!(it.told(), ["a=two"]);
    assert_eq!(it.requests(A), ["ClusterLoadAssignment a,b version 2 nonce n2"]);
    it.wait(60.0);
    assert_eq!(it.told(), [""; 0], "no timer runs for what is cached");
    it.unsubscribe(CLUSTER_LOAD_ASSIGNMENT, "a");
    it.requests(A);
    it.wait(15.1);
    it.subscribe(CLUSTER_LOAD_ASSIGNMENT, "a");
    assert_eq!(it.told(), [""; 0], "later it is not");
}

/// Without any subscription nothing is said: the stream is about to be closed.
#[test]
fn what_the_server_was_not_told_to_be_unwanted_is_known_still() {
    let mut it = Dialogue::new().asking(CLUSTER_LOAD_ASSIGNMENT, &["a"]);
    it.respond(CLUSTER_LOAD_ASSIGNMENT, "1", "n1", &["a:one"]);
    it.requests(A);
    it.told();
    it.unsubscribe(CLUSTER_LOAD_ASSIGNMENT, "a");
    it.wait(100.0);
    it.subscribe(CLUSTER_LOAD_ASSIGNMENT, "a");
    assert_eq!(it.told(), ["a=one"], "the server would not send it again");
}

#[test]
fn what_is_wrong_is_known_still_too_but_that_something_is_missing_is_asked_again() {
    let mut it = Dialogue::new().asking(CLUSTER, &["deleted", "refused", "never", "missing"]);
    it.respond(CLUSTER, "1", "n1", &["deleted:one", "refused:one", "never:bad"]);
    it.respond(CLUSTER, "2", "n2", &["refused:bad", "never:bad"]);
    it.wait(16.0);
    it.told();
    for (name, known) in [
        ("deleted", &[][..]),
        ("refused", &["refused=one", "refused ambient MESH-113"]),
        ("never", &["never unusable MESH-113"]),
        ("missing", &[]),
    ] {
        it.unsubscribe(CLUSTER, name);
        it.subscribe(CLUSTER, name);
        assert_eq!(it.told(), known);
    }
    it.requests(A);
    it.wait(15.1);
    assert_eq!(it.told(), ["deleted unusable MESH-111", "missing unusable MESH-111"]);
}

/// The response may have been made when the name was not asked for.
#[test]
fn absence_of_what_was_wanted_before_is_believed_only_after_a_while() {
    let mut it = Dialogue::new().asking(CLUSTER, &["a", "b", "c"]);
    it.respond(CLUSTER, "1", "n1", &["a:one", "b:one", "c:one"]);
    it.requests(A);
    it.told();
    for name in ["a", "b"] {
        it.unsubscribe(CLUSTER, name);
        it.requests(A);
        it.subscribe(CLUSTER, name);
    }
    it.requests(A);
    it.told();
    it.respond(CLUSTER, "2", "n2", &[]);
    assert_eq!(it.told(), ["c lapsing MESH-112"], "c was asked for all the time");
    it.wait(5.0);
    it.respond(CLUSTER, "2", "n3", &["a:one"]);
    it.wait(9.9);
    assert_eq!(it.told(), [""; 0]);
    it.wait(0.2);
    assert_eq!(it.told(), ["b lapsing MESH-112"], "a was there in the answer");
    it.lose(A);
    it.reconnect(A);
    it.requests(A);
    it.respond(CLUSTER, "3", "n1", &["b:one"]);
    it.told();
    it.respond(CLUSTER, "4", "n2", &["b:one"]);
    assert_eq!(it.state(CLUSTER, "a"), State::DoesNotExist, "a new stream was told at first that it is wanted");
}

#[test]
fn absence_of_what_was_not_wanted_for_a_while_counts_if_nothing_more_is_said() {
    let mut it = Dialogue::new().asking(CLUSTER, &["a", "b"]);
    it.respond(CLUSTER, "1", "n1", &["a:one", "b:one"]);
    it.requests(A);
    it.told();
    it.unsubscribe(CLUSTER, "a");
    it.respond(CLUSTER, "2", "n2", &["b:one"]);
    it.subscribe(CLUSTER, "a");
    assert_eq!(it.told(), ["a=one"]);
    it.requests(A);
    it.wait(14.9);
    assert_eq!(it.told(), [""; 0]);
    it.wait(0.2);
    assert_eq!(it.told(), ["a lapsing MESH-112"], "the server did not see it go, and deleted it");
}

/// What is in use then is a mix of versions, which none of them names.
#[test]
fn a46_a_new_stream_is_told_no_version_after_a_response_was_taken_in_part() {
    let mut it = Dialogue::new().asking(CLUSTER, &["a", "b"]);
    it.respond(CLUSTER, "1", "n1", &["a:one", "b:one"]);
    it.respond(CLUSTER, "2", "n2", &["a:bad", "b:two"]);
    assert_eq!(it.requests(A), ["Cluster a,b version 1 nonce n2 NACK"]);
    it.lose(A);
    it.reconnect(A);
    assert_eq!(it.requests(A), ["Cluster a,b version  nonce  node"]);
    it.respond(CLUSTER, "1", "n1", &["a:one", "b:one"]);
    it.lose(A);
    it.reconnect(A);
    assert_eq!(it.requests(A), ["Cluster a,b version 1 nonce  node"]);
}

#[test]
fn a_response_of_a_type_that_was_not_asked_for_on_this_stream_is_ignored() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.respond(CLUSTER, "1", "n1", &["c:one"]);
    assert_eq!(it.requests(A), [""; 0], "an ACK without names would subscribe to all there are");
}

/// `ttl` of the wrapper; a wrapper without a resource is a heartbeat.
#[test]
fn ttl_a_wrapped_resource_with_one_is_deleted_unless_it_is_refreshed() {
    let wrap = |name: &str, inner: Option<Any>| {
        let ttl = Some(envoy_types::pb::google::protobuf::Duration { seconds: 10, nanos: 0 });
        let wrapper = Resource { name: name.to_owned(), resource: inner, ttl, ..Resource::default() };
        Any {
            type_url: format!("{TYPE_URL_PREFIX}envoy.service.discovery.v3.Resource"),
            value: wrapper.encode_to_vec(),
        }
    };
    let mut it = Dialogue::new().asking(LISTENER, &["a", "b"]);
    for (nonce, inner) in [("n1", Some(any(LISTENER, "a:one"))), ("n2", None)] {
        let mut message = response(LISTENER, "1", nonce, &["b:one"]);
        message.resources.push(wrap("a", inner));
        it.respond_from(A, &message);
        it.wait(9.0);
    }
    assert_eq!(it.told(), ["a=one", "b=one"]);
    assert_eq!(it.requests(A), ["Listener a,b version 1 nonce n2"]);
    it.wait(1.1);
    assert_eq!(it.told(), ["a lapsing MESH-111"]);
    let mut early = response(LISTENER, "2", "n3", &["b:one"]);
    early.resources.push(wrap("c", None));
    it.subscribe(LISTENER, "c");
    it.respond_from(A, &early);
    assert_eq!(
        it.told(),
        ["a lapsing MESH-112", "c unusable MESH-113"],
        "there is nothing that a heartbeat could refresh"
    );
}

#[test]
fn absence_is_not_forgotten_with_the_name() {
    let mut it = Dialogue::new().asking(CLUSTER, &["a", "b"]);
    it.respond(CLUSTER, "1", "n1", &["a:one", "b:one"]);
    it.requests(A);
    let come_and_go = |it: &mut Dialogue| {
        it.unsubscribe(CLUSTER, "a");
        it.requests(A);
        it.subscribe(CLUSTER, "a");
        it.requests(A);
        it.told();
    };
    come_and_go(&mut it);
    it.respond(CLUSTER, "2", "n2", &["b:one"]);
    assert_eq!(it.told(), [""; 0], "that may be about the time between");
    come_and_go(&mut it);
    come_and_go(&mut it);
    it.wait(15.1);
    assert_eq!(it.told(), ["a lapsing MESH-112"], "the server sends nothing more about it");
}
