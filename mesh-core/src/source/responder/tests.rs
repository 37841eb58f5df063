//! Both protocols, request by request.

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;
use prost::Message;

use super::*;

fn resource(type_url: &str, name: &str, content: &str) -> EncodedResource {
    EncodedResource::new(ResourceKey::new(type_url, name), content.to_owned())
}

fn set(resources: &[(&str, &str, &str)]) -> Arc<ResourceSet> {
    Arc::new(ResourceSet::new(resources.iter().map(|(t, n, c)| resource(t, n, c))))
}

fn request(type_url: &str, names: &[&str], nonce: &str) -> Vec<u8> {
    DiscoveryRequest {
        type_url: format!("{TYPE_URL_PREFIX}{type_url}"),
        resource_names: names.iter().map(ToString::to_string).collect(),
        response_nonce: nonce.to_owned(),
        ..DiscoveryRequest::default()
    }
    .encode_to_vec()
}

/// (short type, nonce, contents, missing names) of each response.
fn read(responses: Vec<Bytes>) -> Vec<(String, String, Vec<String>, Vec<String>)> {
    responses
        .into_iter()
        .map(|bytes| {
            let response = DiscoveryResponse::decode(bytes).unwrap();
            (
                response.type_url.rsplit('.').next().unwrap().to_owned(),
                response.nonce,
                response.resources.into_iter().map(|any| String::from_utf8(any.value).unwrap()).collect(),
                response.resource_errors.into_iter().map(|error| error.resource_name.unwrap().name).collect(),
            )
        })
        .collect()
}

fn answer(short: &str, nonce: &str, contents: &[&str], missing: &[&str]) -> (String, String, Vec<String>, Vec<String>) {
    let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    (short.to_owned(), nonce.to_owned(), strings(contents), strings(missing))
}

#[test]
fn a_subscription_is_answered_and_its_ack_is_not() {
    let mut responder = Responder::new(set(&[(LISTENER, "a", "A"), (LISTENER, "b", "B")]));
    let first = read(responder.handle_request(&request(LISTENER, &["a"], "")));
    assert_eq!(first, [answer("Listener", "1", &["A"], &[])]);
    assert_eq!(read(responder.handle_request(&request(LISTENER, &["a"], "1"))), []);
}

#[test]
fn full_state_types_are_answered_whole_and_others_by_what_is_new() {
    let all =
        [(LISTENER, "a", "A"), (LISTENER, "b", "B"), (ROUTE_CONFIGURATION, "r", "R"), (ROUTE_CONFIGURATION, "s", "S")];
    let mut responder = Responder::new(set(&all));
    responder.handle_request(&request(LISTENER, &["a"], ""));
    let second = read(responder.handle_request(&request(LISTENER, &["a", "b"], "1")));
    assert_eq!(second, [answer("Listener", "2", &["A", "B"], &[])]);
    responder.handle_request(&request(ROUTE_CONFIGURATION, &["r"], ""));
    let fourth = read(responder.handle_request(&request(ROUTE_CONFIGURATION, &["r", "s"], "3")));
    assert_eq!(fourth, [answer("RouteConfiguration", "4", &["S"], &[])]);
}

#[test]
fn a_stale_nonce_is_not_answered() {
    let mut responder = Responder::new(set(&[(LISTENER, "a", "A")]));
    responder.handle_request(&request(LISTENER, &["a"], ""));
    responder.set_resources(set(&[(LISTENER, "a", "A2")]));
    assert_eq!(read(responder.handle_request(&request(LISTENER, &["a", "b"], "1"))), []);
    let fresh = read(responder.handle_request(&request(LISTENER, &["a", "b"], "2")));
    assert_eq!(fresh, [answer("Listener", "3", &["A2"], &["b"])]);
}

#[test]
fn a_name_that_is_subscribed_again_is_sent_again() {
    let mut responder = Responder::new(set(&[(CLUSTER_LOAD_ASSIGNMENT, "e", "E")]));
    responder.handle_request(&request(CLUSTER_LOAD_ASSIGNMENT, &["e"], ""));
    assert_eq!(read(responder.handle_request(&request(CLUSTER_LOAD_ASSIGNMENT, &[], "1"))), []);
    let again = read(responder.handle_request(&request(CLUSTER_LOAD_ASSIGNMENT, &["e"], "1")));
    assert_eq!(again, [answer("ClusterLoadAssignment", "2", &["E"], &[])]);
}

#[test]
fn names_that_do_not_exist_are_errors() {
    let mut responder = Responder::new(set(&[]));
    let first = read(responder.handle_request(&request(ROUTE_CONFIGURATION, &["r"], "")));
    assert_eq!(first, [answer("RouteConfiguration", "1", &[], &["r"])]);
    let then = read(responder.set_resources(set(&[(ROUTE_CONFIGURATION, "r", "R")])));
    assert_eq!(then, [answer("RouteConfiguration", "2", &["R"], &[])]);
    let gone = read(responder.set_resources(set(&[])));
    assert_eq!(gone, [answer("RouteConfiguration", "3", &[], &["r"])]);
}

#[test]
fn a_server_may_be_silent_about_what_does_not_exist() {
    let mut responder = Responder::new(set(&[(LISTENER, "a", "A")])).without_resource_errors();
    let first = read(responder.handle_request(&request(LISTENER, &["a", "b"], "")));
    assert_eq!(first, [answer("Listener", "1", &["A"], &[])]);
}

#[test]
fn a_change_pushes_only_what_changed_clusters_first() {
    let before = [(LISTENER, "l", "L"), (CLUSTER, "c", "C"), (ROUTE_CONFIGURATION, "r", "R"), (CLUSTER, "other", "O")];
    let mut responder = Responder::new(set(&before));
    for (type_url, name) in [(LISTENER, "l"), (ROUTE_CONFIGURATION, "r"), (CLUSTER, "c")] {
        responder.handle_request(&request(type_url, &[name], ""));
    }
    let after = [(LISTENER, "l", "L"), (CLUSTER, "c", "C2"), (ROUTE_CONFIGURATION, "r", "R2"), (CLUSTER, "other", "O")];
    let pushed = read(responder.set_resources(set(&after)));
    assert_eq!(pushed, [answer("Cluster", "4", &["C2"], &[]), answer("RouteConfiguration", "5", &["R2"], &[])]);
    let unrelated = [after[0], after[1], after[2], (CLUSTER, "other", "O2")];
    assert_eq!(read(responder.set_resources(set(&unrelated))), [], "no one asked for it");
}

#[test]
fn a_cluster_goes_after_the_route_that_named_it() {
    let before =
        [(CLUSTER, "blue", "B"), (CLUSTER_LOAD_ASSIGNMENT, "blue", "E"), (ROUTE_CONFIGURATION, "r", "to blue")];
    let mut responder = Responder::new(set(&before));
    responder.handle_request(&request(CLUSTER, &["blue", "green"], ""));
    responder.handle_request(&request(CLUSTER_LOAD_ASSIGNMENT, &["blue"], ""));
    responder.handle_request(&request(ROUTE_CONFIGURATION, &["r"], ""));
    let pushed = responder.set_resources(set(&[(CLUSTER, "green", "G"), (ROUTE_CONFIGURATION, "r", "to green")]));
    let versions: Vec<String> =
        pushed.iter().map(|bytes| DiscoveryResponse::decode(&bytes[..]).unwrap().version_info).collect();
    assert_eq!(
        read(pushed),
        [
            answer("Cluster", "4", &["G", "B"], &[]),
            answer("RouteConfiguration", "5", &["to green"], &[]),
            answer("Cluster", "6", &["G"], &["blue"]),
            answer("ClusterLoadAssignment", "7", &[], &["blue"]),
        ]
    );
    assert_ne!(versions[0], versions[2], "different contents have different versions");
}

#[test]
fn wildcard_is_star_or_an_empty_first_request_and_ends_with_a_name() {
    let all = [(LISTENER, "a", "A"), (LISTENER, "b", "B")];
    let mut legacy = Responder::new(set(&all));
    assert_eq!(read(legacy.handle_request(&request(LISTENER, &[], ""))), [answer("Listener", "1", &["A", "B"], &[])]);
    assert_eq!(read(legacy.handle_request(&request(LISTENER, &[], "1"))), [], "the ACK of a wildcard");
    assert_eq!(read(legacy.handle_request(&request(LISTENER, &["a"], "1"))), [answer("Listener", "2", &["A"], &[])]);
    assert_eq!(read(legacy.handle_request(&request(LISTENER, &[], "2"))), [], "now an empty list is none");
    assert_eq!(read(legacy.set_resources(set(&[]))), []);

    let mut star = Responder::new(set(&all));
    let first = read(star.handle_request(&request(LISTENER, &["*", "a"], "")));
    assert_eq!(first, [answer("Listener", "1", &["A", "B"], &[])]);
    assert_eq!(
        read(star.handle_request(&request(LISTENER, &["a"], "1"))),
        [],
        "dropping the wildcard asks for nothing"
    );
    assert_eq!(read(star.set_resources(set(&[(LISTENER, "a", "A")]))), [], "b is not wanted any more");
}

#[test]
fn an_empty_first_request_is_no_wildcard_for_routes() {
    let mut responder = Responder::new(set(&[(ROUTE_CONFIGURATION, "r", "R")]));
    let first = read(responder.handle_request(&request(ROUTE_CONFIGURATION, &[], "")));
    assert_eq!(first, [answer("RouteConfiguration", "1", &[], &[])]);
}

#[test]
fn what_a_client_refuses_is_kept_for_the_owner() {
    let mut responder = Responder::new(set(&[(LISTENER, "a", "A")]));
    responder.handle_request(&request(LISTENER, &["a"], ""));
    let mut nack = DiscoveryRequest::decode(&request(LISTENER, &["a"], "1")[..]).unwrap();
    nack.error_detail = Some(Status { code: 3, message: "bad".to_owned(), details: Vec::new() });
    assert_eq!(read(responder.handle_request(&nack.encode_to_vec())), [], "a NACK is not answered");
    assert_eq!(responder.take_rejections(), [Rejection { type_url: LISTENER.into(), message: "bad".to_owned() }]);
    assert_eq!(responder.take_rejections(), []);
}

#[test]
fn garbage_is_ignored_and_names_come_from_the_first_field() {
    let mut responder = Responder::new(set(&[]));
    assert!(responder.handle_request(b"\xff\xff\xff").is_empty());
    let any = Any { type_url: format!("{TYPE_URL_PREFIX}{LISTENER}"), value: b"\x0a\x01x\x12\x00".to_vec() };
    let resource = EncodedResource::from_any(&any.encode_to_vec()).unwrap();
    assert_eq!(resource.key, ResourceKey::new(LISTENER, "x"));
    assert!(EncodedResource::named_by_first_field(LISTENER, &b"\x12\x00"[..]).is_none());
}

#[test]
fn the_same_resources_have_the_same_version_anywhere() {
    let one = set(&[(LISTENER, "a", "A"), (LISTENER, "b", "B")]);
    let two = set(&[(LISTENER, "b", "B"), (LISTENER, "a", "A")]);
    assert_eq!(one.version(LISTENER), two.version(LISTENER));
    assert_ne!(one.version(LISTENER), set(&[(LISTENER, "a", "AB"), (LISTENER, "b", "")]).version(LISTENER));
    assert_eq!(one.version(CLUSTER), "0");
}

/// A request as text: `+a -b a=version`, where `*` is a name too.
fn delta_request(type_url: &str, text: &str) -> Vec<u8> {
    let mut request =
        DeltaDiscoveryRequest { type_url: format!("{TYPE_URL_PREFIX}{type_url}"), ..DeltaDiscoveryRequest::default() };
    for part in text.split_whitespace() {
        if let Some(name) = part.strip_prefix('+') {
            request.resource_names_subscribe.push(name.to_owned());
        } else if let Some(name) = part.strip_prefix('-') {
            request.resource_names_unsubscribe.push(name.to_owned());
        } else {
            let (name, version) = part.split_once('=').unwrap();
            request.initial_resource_versions.insert(name.to_owned(), version.to_owned());
        }
    }
    request.encode_to_vec()
}

/// Responses as text: `Listener a:A -b`.
fn read_delta(responses: Vec<Bytes>) -> Vec<String> {
    let describe = |bytes: Bytes| {
        let response = DeltaDiscoveryResponse::decode(bytes).unwrap();
        let mut text = vec![response.type_url.rsplit('.').next().unwrap().to_owned()];
        let content = |any: Option<Any>| String::from_utf8(any.unwrap().value).unwrap();
        text.extend(response.resources.into_iter().map(|r| format!("{}:{}", r.name, content(r.resource))));
        text.extend(response.removed_resources.iter().map(|name| format!("-{name}")));
        text.join(" ")
    };
    responses.into_iter().map(describe).collect()
}

fn incremental(resources: &[(&str, &str, &str)]) -> Responder {
    Responder::of(Variant::Incremental, set(resources))
}

fn version(type_url: &str, content: &str) -> String {
    resource(type_url, "any", content).version()
}

#[test]
fn delta_each_new_name_is_answered_and_an_ack_is_not() {
    let mut responder = incremental(&[(CLUSTER, "a", "A"), (CLUSTER, "b", "B")]);
    assert_eq!(read_delta(responder.handle_request(&delta_request(CLUSTER, "+a +none"))), ["Cluster a:A -none"]);
    assert_eq!(read_delta(responder.handle_request(&delta_request(CLUSTER, ""))), [""; 0], "an ACK");
    assert_eq!(
        read_delta(responder.handle_request(&delta_request(CLUSTER, "+b"))),
        ["Cluster b:B"],
        "only what is new"
    );
    assert_eq!(
        read_delta(responder.handle_request(&delta_request(CLUSTER, "+a"))),
        ["Cluster a:A"],
        "a client may have forgotten it"
    );
    let names: Vec<Name> = responder.subscriptions().map(|key| key.name).collect();
    assert_eq!(names, ["a".into(), "b".into(), "none".into()] as [Name; 3]);
}

#[test]
fn delta_a_change_pushes_what_changed_clusters_first_and_removals_last() {
    let before = [(CLUSTER, "blue", "B"), (CLUSTER, "same", "S"), (ROUTE_CONFIGURATION, "r", "to blue")];
    let mut responder = incremental(&before);
    responder.handle_request(&delta_request(CLUSTER, "+blue +green +same"));
    responder.handle_request(&delta_request(ROUTE_CONFIGURATION, "+r +old"));
    let after = [(CLUSTER, "green", "G"), (CLUSTER, "same", "S"), (ROUTE_CONFIGURATION, "r", "to green")];
    assert_eq!(
        read_delta(responder.set_resources(set(&after))),
        ["Cluster green:G", "RouteConfiguration r:to green", "Cluster -blue"]
    );
    responder.handle_request(&delta_request(CLUSTER, "-green"));
    assert_eq!(read_delta(responder.set_resources(set(&[after[1], after[2]]))), [""; 0], "no one wants it any more");
}

#[test]
fn delta_a_client_that_comes_back_is_sent_what_it_does_not_have() {
    let mut responder = incremental(&[(CLUSTER, "a", "A"), (CLUSTER, "b", "B2")]);
    let (a, b, c) = (version(CLUSTER, "A"), version(CLUSTER, "B1"), version(CLUSTER, "C"));
    let back = format!("+a +b +c a={a} b={b} c={c} unwanted={a}");
    assert_eq!(read_delta(responder.handle_request(&delta_request(CLUSTER, &back))), ["Cluster b:B2 -c"]);
    let again = format!("+a a={a}");
    assert_eq!(
        read_delta(responder.handle_request(&delta_request(CLUSTER, &again))),
        ["Cluster a:A"],
        "only the first request of a stream has initial versions"
    );
}

#[test]
fn delta_a_wildcard_is_star_or_a_first_request_without_names() {
    let all = [(CLUSTER, "a", "A"), (CLUSTER, "b", "B")];
    for first in ["+*", ""] {
        let mut responder = incremental(&all);
        assert_eq!(read_delta(responder.handle_request(&delta_request(CLUSTER, first))), ["Cluster a:A b:B"]);
        assert_eq!(
            read_delta(responder.set_resources(set(&[all[0], (CLUSTER, "c", "C")]))),
            ["Cluster c:C", "Cluster -b"]
        );
        assert_eq!(read_delta(responder.handle_request(&delta_request(CLUSTER, "+a"))), ["Cluster a:A"]);
        assert_eq!(
            read_delta(responder.handle_request(&delta_request(CLUSTER, "-a"))),
            ["Cluster a:A"],
            "the wildcard holds it still"
        );
        responder.handle_request(&delta_request(CLUSTER, "-*"));
        assert_eq!(read_delta(responder.set_resources(set(&[]))), [""; 0]);
    }
    let mut responder = incremental(&all);
    let back = format!("+* a={} gone=1", version(CLUSTER, "A"));
    assert_eq!(read_delta(responder.handle_request(&delta_request(CLUSTER, &back))), ["Cluster b:B -gone"]);
    let mut empty = incremental(&[]);
    assert_eq!(
        read_delta(empty.handle_request(&delta_request(CLUSTER, "+*"))),
        ["Cluster"],
        "that there is nothing, too"
    );
    assert_eq!(read_delta(empty.handle_request(&delta_request(ROUTE_CONFIGURATION, ""))), [""; 0], "not for routes");
}

#[test]
fn delta_a_server_may_be_silent_about_what_does_not_exist_but_not_about_what_is_gone() {
    let mut responder = incremental(&[(CLUSTER, "a", "A")]).without_resource_errors();
    assert_eq!(read_delta(responder.handle_request(&delta_request(CLUSTER, "+a +none"))), ["Cluster a:A"]);
    assert_eq!(read_delta(responder.set_resources(set(&[]))), ["Cluster -a"]);
}

#[test]
fn delta_what_a_client_refuses_is_kept_for_the_owner() {
    let mut responder = incremental(&[(LISTENER, "a", "A")]);
    responder.handle_request(&delta_request(LISTENER, "+a"));
    let mut nack = DeltaDiscoveryRequest::decode(&delta_request(LISTENER, "")[..]).unwrap();
    nack.error_detail = Some(Status { code: 3, message: "bad".to_owned(), details: Vec::new() });
    assert_eq!(read_delta(responder.handle_request(&nack.encode_to_vec())), [""; 0]);
    assert_eq!(responder.take_rejections(), [Rejection { type_url: LISTENER.into(), message: "bad".to_owned() }]);
    assert!(responder.handle_request(b"\xff\xff\xff").is_empty());
}
