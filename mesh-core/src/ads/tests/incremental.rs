//! Incremental ADS (`spec` section 2.12). No gRPC speaks it; the rules are the xDS protocol's own.

use envoy_types::pb::envoy::config::core::v3::ControlPlane;

use super::*;
use crate::bootstrap::Authority;

fn incremental() -> ServerFeatures {
    ServerFeatures { delta_grpc: true, ..ServerFeatures::default() }
}

fn dialogue() -> Dialogue {
    Dialogue::with_features(incremental())
}

/// One Cluster `a` in use, of version 1.
fn cached() -> Dialogue {
    let mut it = dialogue().asking(CLUSTER, &["a"]);
    it.respond_delta(CLUSTER, "n1", &["a@1:one"], &[]);
    assert_eq!((it.told(), it.requests(A)), (vec!["a=one".to_owned()], vec!["Cluster nonce n1".to_owned()]));
    it.events();
    it
}

#[test]
fn delta_a_server_is_spoken_to_as_its_features_say() {
    assert_eq!(Dialogue::new().engine.method(A), AGGREGATED_RESOURCES);
    assert_eq!(dialogue().engine.method(A), DELTA_AGGREGATED_RESOURCES);
}

/// Spoken to in the other protocol, it could not give what the type needs, so nothing is asked for and the one who wants it is
/// told why. Only the servers that would be asked count.
#[test]
fn delta_a_type_that_needs_it_is_refused_beside_servers_without_it() {
    const NEEDS_IT: &str = "example.Delta";
    let row = ResourceType {
        type_url: NEEDS_IT.into(),
        variant: Variant::Incremental,
        subscription: Subscription::Named,
        full_state: false,
        decoder: Arc::new(TextDecoder),
    };
    let server = |uri, delta_grpc| {
        ServerConfig::insecure(uri).with_features(ServerFeatures { delta_grpc, ..ServerFeatures::default() })
    };
    let other = Authority { servers: vec![server("b", true)], fallback_on_reachability_only: false };
    let name = "xdstp://other/example.Delta/d";
    for (servers, is_refused) in [
        (vec![server("a", false)], true),
        (vec![server("a", true), server("c", false)], true),
        (vec![server("a", true)], false),
    ] {
        let servers = Authorities::from(servers).with("other", &other);
        let types = ResourceTypes::empty().with(row.clone());
        let mut it = Dialogue::with_types(servers, Settings::default(), types);
        it.subscribe(NEEDS_IT, "d");
        let events = it.told_events();
        assert_eq!((events.len(), it.actions().is_empty()), (usize::from(is_refused), is_refused));
        if let [ResourceEvent::Unusable { error, .. }] = &events[..] {
            assert!(error.message().contains("its servers must all have `delta_grpc`"), "{error}");
        }
        it.subscribe(NEEDS_IT, name);
        assert_eq!((it.told(), it.actions().len()), (vec![], 1), "the other authority's server speaks it");
    }
}

#[test]
fn delta_only_differences_are_asked_for_and_each_response_is_acked_by_its_nonce() {
    let mut it = dialogue();
    it.subscribe(CLUSTER, "a");
    it.subscribe(CLUSTER, "b");
    it.connect(A);
    assert_eq!(it.requests(A), ["Cluster +a,b node"]);
    it.subscribe(CLUSTER, "c");
    it.unsubscribe(CLUSTER, "b");
    assert_eq!(it.requests(A), ["Cluster +c -b"], "a request that is about no response has no nonce");
    it.respond_delta(CLUSTER, "n1", &["a@1:one"], &[]);
    it.subscribe(CLUSTER, "d");
    assert_eq!(it.requests(A), ["Cluster +d nonce n1"], "what follows from a response goes with its ACK");
    it.respond_delta(CLUSTER, "n2", &["c@1:three"], &[]);
    it.respond_delta(CLUSTER, "n3", &["d@1:four"], &[]);
    assert_eq!(it.requests(A), ["Cluster nonce n2", "Cluster nonce n3"], "one answer for each");
    assert_eq!(it.told(), ["a=one", "c=three", "d=four"]);
    assert_eq!(it.requests(A), [""; 0]);
}

#[test]
fn delta_what_comes_and_goes_before_a_request_is_not_asked_for() {
    let mut it = cached();
    it.subscribe(CLUSTER, "b");
    it.unsubscribe(CLUSTER, "b");
    assert_eq!(it.requests(A), [""; 0]);
}

/// A server must answer every name in `resource_names_subscribe`, because a client may have forgotten it in between.
#[test]
fn delta_what_is_forgotten_and_wanted_again_is_subscribed_to_again() {
    let mut it = cached();
    it.unsubscribe(CLUSTER, "a");
    it.subscribe(CLUSTER, "a");
    assert_eq!((it.told(), it.requests(A)), (vec!["a=one".to_owned()], vec!["Cluster +a".to_owned()]));
    it.respond_delta(CLUSTER, "n2", &["a@2:two"], &[]);
    assert_eq!(it.told(), ["a=two"]);
}

#[test]
fn delta_a_new_stream_is_told_all_names_and_the_versions_in_use() {
    let mut it = dialogue().asking(CLUSTER, &["a", "b", "refused", "going", "open"]);
    it.subscribe(LISTENER, "l");
    it.respond_delta(CLUSTER, "n1", &["a@1:one", "b@7:two", "refused@1:one", "going@1:one"], &[]);
    it.respond_delta(CLUSTER, "n2", &["refused@2:bad"], &["going"]);
    it.requests(A);
    it.told();
    it.lose(A);
    it.reconnect(A);
    assert_eq!(
        it.requests(A),
        ["Listener +l node", "Cluster +a,b,going,open,refused has a=1,b=7"],
        "what there is trouble with is not claimed, so that the server says how it stands"
    );
    it.wait(60.0);
    let told = it.told();
    assert!(!told.iter().any(|told| told.starts_with("a ") || told.starts_with("b ")), "claimed, not timed: {told:?}");
    it.subscribe(CLUSTER, "c");
    assert_eq!(it.requests(A), ["Cluster +c"], "the versions are said once a stream");
}

#[test]
fn delta_a_server_that_has_nothing_to_say_is_reached_all_the_same() {
    let mut it = cached();
    it.lose(A);
    it.reconnect(A);
    it.lose(A);
    assert_eq!(it.told(), ["a ambient MESH-110"]);
    it.reconnect(A);
    assert_eq!(it.requests(A), ["Cluster +a has a=1 node"]);
    it.wait(14.9);
    assert_eq!(it.told(), [""; 0]);
    it.wait(0.2);
    assert_eq!(it.told(), ["a well"], "nothing was missing, and the stream stands");
    it.events();
    it.lose(A);
    assert_eq!((it.told(), it.events()), (vec![], vec![]), "as after an answer");
}

#[test]
fn delta_a_server_that_says_nothing_about_what_is_missing_is_not_reached() {
    let mut it = cached();
    it.subscribe(CLUSTER, "b");
    it.lose(A);
    it.reconnect(A);
    it.lose(A);
    it.told();
    it.reconnect(A);
    it.requests(A);
    it.wait(15.1);
    assert_eq!(it.told(), ["b unusable MESH-111"]);
    it.lose(A);
    assert!(it.events().iter().any(|event| event.contains("cannot be reached")));
}

#[test]
fn delta_a_version_is_claimed_only_to_the_server_it_came_from() {
    let servers = ["a", "b"].map(|uri| ServerConfig::insecure(uri).with_features(incremental()));
    let mut it = Dialogue::with(servers.to_vec(), Settings::default()).asking(CLUSTER, &["x"]);
    it.respond_delta(CLUSTER, "n1", &["x@1:one"], &[]);
    it.requests(A);
    it.subscribe(CLUSTER, "y");
    it.lose(A);
    it.reconnect(A);
    it.lose(A);
    it.connect(B);
    assert_eq!(it.requests(B), ["Cluster +x,y node"]);
}

#[test]
fn delta_absence_means_nothing_and_removal_is_deletion_of_any_type() {
    for type_url in [LISTENER, ROUTE_CONFIGURATION, CLUSTER, CLUSTER_LOAD_ASSIGNMENT] {
        let mut it = dialogue().asking(type_url, &["a", "b", "never"]);
        it.respond_delta(type_url, "n1", &["a@1:one", "b@1:one"], &[]);
        it.respond_delta(type_url, "n2", &["b@2:two"], &[]);
        assert_eq!(it.told(), ["a=one", "b=one", "b=two"]);
        it.respond_delta(type_url, "n3", &[], &["a", "never", "unknown"]);
        assert_eq!(it.told(), ["a lapsing MESH-112", "never unusable MESH-112"], "what never was is told at once");
        assert_eq!(it.state(type_url, "a"), State::DoesNotExist);
        it.wait(30.1);
        assert_eq!(it.told(), ["a unusable MESH-112"]);
        it.respond_delta(type_url, "n4", &["a@1:one"], &[]);
        assert_eq!(it.told(), ["a=one"]);
    }
}

#[test]
fn a53_a88_the_rules_of_data_errors_are_the_same() {
    for (features, expected) in [
        (ServerFeatures { fail_on_data_errors: true, ..incremental() }, "a unusable MESH-112"),
        (ServerFeatures { ignore_resource_deletion: true, ..incremental() }, "a lapsing MESH-112"),
    ] {
        let mut it = Dialogue::with_features(features).asking(LISTENER, &["a"]);
        it.respond_delta(LISTENER, "n1", &["a@1:one"], &[]);
        it.told();
        it.respond_delta(LISTENER, "n2", &[], &["a"]);
        it.wait(3600.0);
        assert_eq!(it.told(), [expected]);
    }
}

#[test]
fn delta_names_may_be_removed_by_the_newer_field_too() {
    let mut it = cached();
    let mut response = delta(CLUSTER, "n2", &[], &[]);
    response.removed_resource_names = vec![ResourceName { name: "a".to_owned(), dynamic_parameter_constraints: None }];
    it.hear_delta(&response);
    assert_eq!(it.told(), ["a lapsing MESH-112"]);
}

#[test]
fn a46_a_nack_is_for_one_response_and_its_good_resources_are_applied() {
    let mut it = dialogue().asking(CLUSTER, &["a", "b"]);
    it.respond_delta(CLUSTER, "n1", &["a@1:one", "b@1:one"], &[]);
    it.requests(A);
    it.told();
    it.respond_delta(CLUSTER, "n2", &["a@2:bad", "b@2:two"], &[]);
    it.respond_delta(CLUSTER, "n3", &["b@3:three"], &[]);
    assert_eq!(it.told(), ["b=two", "a ambient MESH-113", "b=three"]);
    assert_eq!(it.requests(A), ["Cluster nonce n2 NACK", "Cluster nonce n3"]);
    let versions: Vec<Option<String>> = it.engine.resources().map(|status| status.version).collect();
    assert_eq!(versions, [Some("1".to_owned()), Some("3".to_owned())], "each resource has its own");
}

#[test]
fn delta_a_name_is_either_sent_or_removed() {
    let mut it = cached();
    it.respond_delta(CLUSTER, "n2", &["a@2:two"], &["a"]);
    assert_eq!(it.told(), ["a ambient MESH-113"]);
    it.respond_delta(CLUSTER, "n3", &["a@2:two", "a@3:three"], &[]);
    assert_eq!(it.requests(A), ["Cluster nonce n2 NACK", "Cluster nonce n3 NACK"]);
}

/// TP3, as in gRFC A88.
#[test]
fn a88_errors_that_the_server_reports_are_told() {
    let mut it = dialogue().asking(CLUSTER, &["a", "b"]);
    let mut response = delta(CLUSTER, "n1", &[], &[]);
    response.resource_errors = vec![resource_error("a", 5), resource_error("b", 13)];
    it.hear_delta(&response);
    assert_eq!(it.told(), ["a unusable MESH-112", "b unusable MESH-115"]);
    assert_eq!(it.requests(A), ["Cluster nonce n1"]);
    it.wait(60.0);
    assert_eq!(it.told(), [""; 0], "an error stops the timer");
}

#[test]
fn a57_names_that_the_server_says_nothing_about_do_not_exist() {
    let mut it = dialogue().asking(CLUSTER, &["a"]);
    it.wait(14.9);
    assert_eq!(it.told(), [""; 0]);
    it.wait(0.2);
    assert_eq!(it.told(), ["a unusable MESH-111"]);
}

#[test]
fn delta_the_same_bytes_of_a_new_version_are_not_told_but_count() {
    let mut it = cached();
    it.respond_delta(CLUSTER, "n2", &["a@2:one"], &[]);
    assert_eq!(it.told(), [""; 0]);
    it.requests(A);
    it.lose(A);
    it.reconnect(A);
    assert_eq!(it.requests(A), ["Cluster +a has a=2 node"]);
}

#[test]
fn delta_a_resource_goes_by_its_other_names_too() {
    let mut it = dialogue().asking(CLUSTER, &["a", "alias", "other"]);
    let aliased = |nonce, text: &str, aliases: &[&str]| {
        let mut response = delta(CLUSTER, nonce, &[text], &[]);
        response.resources[0].aliases = aliases.iter().map(ToString::to_string).collect();
        response
    };
    it.hear_delta(&aliased("n1", "real@1:one", &["alias", "unheard-of"]));
    assert_eq!(it.told(), ["alias=one"]);
    it.requests(A);
    it.respond_delta(CLUSTER, "n2", &[], &["real"]);
    assert_eq!(it.told(), ["alias lapsing MESH-112"], "it goes with what it is a name of");
    let many: Vec<String> = (0..101).map(|n| format!("alias-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    it.hear_delta(&aliased("n3", "a@1:one", &many));
    assert_eq!(it.told(), ["a unusable MESH-113"], "how many it may have is bounded");
    let nack = std::iter::from_fn(|| {
        let bytes = it.engine.poll_request(A)?;
        it.engine.handle_written(A, it.now);
        Some(DeltaDiscoveryRequest::decode(bytes).unwrap().error_detail.map_or_else(String::new, |nack| nack.message))
    });
    assert!({ nack }.any(|text| text.contains("aliases: has 101 names, and may have 100")));
}

#[test]
fn ttl_a_resource_with_one_is_deleted_unless_it_is_refreshed() {
    let with_ttl = |nonce, text: &str, seconds| {
        let mut response = delta(CLUSTER_LOAD_ASSIGNMENT, nonce, &[text], &[]);
        response.resources[0].ttl = Some(envoy_types::pb::google::protobuf::Duration { seconds, nanos: 0 });
        response
    };
    let mut it = dialogue().asking(CLUSTER_LOAD_ASSIGNMENT, &["a"]);
    it.hear_delta(&with_ttl("n1", "a@1:one", 10));
    it.told();
    it.wait(9.0);
    it.hear_delta(&with_ttl("n2", "a@1:?", 10));
    assert_eq!(it.requests(A), ["ClusterLoadAssignment nonce n1", "ClusterLoadAssignment nonce n2"]);
    it.wait(9.0);
    assert_eq!(it.told(), [""; 0], "a heartbeat refreshes it");
    it.hear_delta(&with_ttl("n3", "a@2:?", 10));
    assert_eq!(it.requests(A), ["ClusterLoadAssignment nonce n3 NACK"], "of another version it is none");
    assert_eq!(it.told(), ["a ambient MESH-113"]);
    it.wait(1.1);
    assert_eq!(it.told(), ["a lapsing MESH-111"], "it is over");
    it.hear_delta(&with_ttl("n4", "a@1:?", 10));
    assert_eq!(it.told(), ["a well"], "and lives again");
    it.respond_delta(CLUSTER_LOAD_ASSIGNMENT, "n5", &["a@3:three"], &[]);
    it.told();
    it.wait(3600.0);
    assert_eq!(it.told(), [""; 0], "a value without one lives for ever");
    it.hear_delta(&with_ttl("n6", "a@4:four", 0));
    assert_eq!(it.told(), ["a ambient MESH-113"]);
    it.hear_delta(&with_ttl("n7", "a@5:five", 1));
    it.wait(40.0);
    assert_eq!(it.told(), ["a=five", "a lapsing MESH-111", "a unusable MESH-111"], "and then its grace is over");
}

#[test]
fn delta_an_answer_to_what_was_not_asked_is_ignored() {
    let mut it = cached();
    it.respond_delta(LISTENER, "n2", &["l@1:one"], &[]);
    it.respond_delta("example.Unheard", "n3", &["l@1:one"], &[]);
    it.engine.handle_message(A, b"\xff\xff garbage", it.now);
    assert_eq!((it.requests(A), it.told()), (vec![], vec![]));
    assert_eq!(it.events().iter().filter(|event| event.contains("unreadable")).count(), 3);
}

#[test]
fn delta_a_server_that_never_reads_cannot_make_answers_pile_up() {
    let mut it = cached();
    for number in 0..1000 {
        it.respond_delta(CLUSTER, &format!("m{number}"), &["a@1:one"], &[]);
    }
    let answers = it.requests(A);
    assert_eq!((answers.len(), answers.last().map(String::as_str)), (100, Some("Cluster nonce m999")));
}

#[test]
fn delta_when_the_last_name_of_a_type_goes_it_is_unsubscribed_from() {
    let mut it = cached();
    it.subscribe(LISTENER, "l");
    it.unsubscribe(CLUSTER, "a");
    assert_eq!(it.requests(A), ["Listener +l", "Cluster -a"]);
}

#[test]
fn delta_events_say_which_control_plane_answered() {
    let mut it = cached();
    let control_plane = Some(ControlPlane { identifier: "istiod-1".into() });
    it.hear_delta(&DeltaDiscoveryResponse { control_plane, ..delta(CLUSTER, "n2", &["a@2:two"], &[]) });
    let events = it.events();
    assert!(events.last().is_some_and(|event| event.ends_with("from a (control plane `istiod-1`)")), "{events:?}");
}
