//! Rules 1 to 7: what every resource must have. All but 2 and 4 are the stream engine's.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::service::discovery::v3::Resource;

use super::exchange::{Exchange, Told, good, is_refused_alone, resource};
use super::*;
use crate::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION};

const TYPES: [&str; 4] = [LISTENER, ROUTE_CONFIGURATION, CLUSTER, CLUSTER_LOAD_ASSIGNMENT];
const WRAPPER: &str = "envoy.service.discovery.v3.Resource";

fn wrapped(name: &str, inner: Option<Any>) -> Any {
    any(&Resource { name: name.to_owned(), resource: inner, ..Default::default() })
}

/// What makes a resource bad by itself: the rule, what is sent, whether its name can be read, and what the NACK says.
type Bad = (u32, Vec<Any>, Option<&'static str>, &'static str);

fn bad(type_url: &'static str, other: &'static str) -> Vec<Bad> {
    const NAME: Option<&str> = Some("the-changed-one");
    let fine = || good(type_url, "the-changed-one");
    vec![
        (1, vec![good(other, "the-changed-one")], None, "its type is"),
        (1, vec![wrapped("the-changed-one", Some(good(other, "x")))], NAME, "its type is"),
        (2, vec![resource(type_url, vec![0x0a, 0x05, b'a'])], None, "cannot be decoded"),
        (3, vec![resource(WRAPPER, vec![0xff])], None, "its wrapper cannot be decoded"),
        (3, vec![wrapped("the-changed-one", None)], NAME, "is missing from the wrapper"),
        (4, vec![resource(type_url, Vec::new())], None, "name: is empty"),
        (5, vec![fine(), fine()], NAME, "the-changed-one"),
        (6, vec![wrapped("xdstp://a/envoy.config.core.v3.Node/x", Some(fine()))], None, "envoy.config.core.v3.Node"),
        (6, vec![wrapped("xdstp://a/%zz", Some(fine()))], None, "xdstp://a/%zz"),
    ]
}

/// gRFC A46.
#[test]
pub(super) fn rules_1_to_6_of_every_type() {
    for (type_url, other) in TYPES.into_iter().zip(TYPES.into_iter().cycle().skip(1)) {
        for (rule, resources, name, says) in bad(type_url, other) {
            // A resource whose name is wrong was never in force under it, and is not the one of the right name either.
            let before = (rule != 6).then(|| good(type_url, "the-changed-one"));
            let what = format!("rule {rule} of {type_url}");
            is_refused_alone(&what, type_url, before, resources, name, &[says.to_owned()]);
            table::shown(rule, Answer::Refused);
        }
    }
}

#[test]
fn a_resource_in_a_wrapper_is_the_same() {
    for type_url in TYPES {
        let (told, nack) = Exchange::of(type_url, &["a"]).respond(vec![wrapped("a", Some(good(type_url, "b")))]);
        assert_eq!((told.get("a"), nack), (Some(&Told::Changed), None), "{type_url}");
    }
}

#[test]
fn a_refused_resource_keeps_its_name() {
    let listener = Listener { name: "l".to_owned(), ..Default::default() };
    let cluster = Cluster { name: "c".to_owned(), lb_policy: 77, ..Default::default() };
    for (type_url, bytes, expected) in
        [(LISTENER, listener.encode_to_vec(), "l"), (CLUSTER, cluster.encode_to_vec(), "c")]
    {
        match decoder().decode(type_url, &bytes) {
            Decoded::Err { name: Some(name), .. } => assert_eq!(&*name, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_type_that_is_not_known_is_refused() {
    let faults = refused(decoder().decode("envoy.config.core.v3.Node", &[]));
    assert!(faults[0].contains("envoy.config.core.v3.Node"), "{faults:?}");
}

#[test]
pub(super) fn rule_7_what_is_ignored() {
    let mut unknown_field = RouteConfiguration { name: "x".to_owned(), ..Default::default() }.encode_to_vec();
    // Field 4,000 as a varint.
    unknown_field.extend([0x80, 0xfa, 0x01, 0x01]);
    let unknown_value = Cluster { dns_lookup_family: 99, ..super::cluster::eds() }.encode_to_vec();
    for (type_url, bytes) in [(ROUTE_CONFIGURATION, unknown_field), (CLUSTER, unknown_value)] {
        assert!(matches!(decoder().decode(type_url, &bytes), Decoded::Ok { .. }), "{type_url}");
    }
    for type_url in TYPES {
        let resources = vec![good(type_url, "asked-for"), good(type_url, "not-asked-for")];
        let (told, nack) = Exchange::of(type_url, &["asked-for"]).respond(resources);
        assert_eq!((told.into_iter().collect::<Vec<_>>(), nack), (vec![("asked-for".to_owned(), Told::Changed)], None));
    }
    table::shown(7, Answer::Taken);
}
