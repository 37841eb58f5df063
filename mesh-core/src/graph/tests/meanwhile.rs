//! What is in force while something is on its way: each part of it stays as new as it can be.

use super::outage::{eds_of, server_listener};
use super::*;

#[test]
fn a74_one_cluster_that_waits_for_new_endpoints_keeps_no_other_back() {
    let mut story = Story::of("svc");
    story.says(LISTENER, "svc", listener("svc", RouteSource::Rds("t".into())));
    story.says(ROUTE_CONFIGURATION, "t", routes(&["a", "b"]));
    for (name, port) in [("a", 1), ("b", 2)] {
        story.says(CLUSTER, name, eds(name));
        story.says(CLUSTER_LOAD_ASSIGNMENT, name, endpoints(port));
    }
    story.says(CLUSTER, "a", eds_of("a", "green"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "b", endpoints(3));
    assert_eq!((story.port_of("a"), story.port_of("b")), (Some(1), Some(3)), "the other one goes on");
    assert!(story.wants(CLUSTER_LOAD_ASSIGNMENT, "a"), "what is in force is subscribed to");
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(4));
    assert_eq!(story.port_of("a"), Some(4), "and kept up to date");
    let updates = story.updates.len();
    story.says(CLUSTER_LOAD_ASSIGNMENT, "green", endpoints(5));
    assert_eq!((story.port_of("a"), story.updates.len()), (Some(5), updates + 1));
    assert!(!story.wants(CLUSTER_LOAD_ASSIGNMENT, "a"), "nothing uses it any more: {:?}", story.subscribed);
}

#[test]
fn a74_the_same_while_a_route_waits_for_its_cluster() {
    let mut story = Story::running();
    story.says(ROUTE_CONFIGURATION, "t", routes(&["a", "b"]));
    story.says(CLUSTER, "a", eds_of("a", "green"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(2));
    assert_eq!((story.clusters(), story.port_of("a")), (vec!["a".to_owned()], Some(2)));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "green", endpoints(3));
    assert_eq!((story.clusters(), story.port_of("a")), (vec!["a".to_owned()], Some(3)));
    story.denies(CLUSTER, "b");
    assert_eq!((story.clusters(), story.port_of("a")), (vec!["a".to_owned(), "b".to_owned()], Some(3)));
}

#[test]
fn a74_an_aggregate_waits_alone_for_its_child() {
    let mut story = Story::of("svc");
    story.says(LISTENER, "svc", listener("svc", RouteSource::Inline(routes(&["top", "z"]))));
    story.says(CLUSTER, "top", super::outage::aggregate("top", &["x"]));
    for name in ["x", "z"] {
        story.says(CLUSTER, name, eds(name));
        story.says(CLUSTER_LOAD_ASSIGNMENT, name, endpoints(1));
    }
    story.says(CLUSTER, "top", super::outage::aggregate("top", &["y", "x"]));
    for name in ["x", "z"] {
        story.says(CLUSTER_LOAD_ASSIGNMENT, name, endpoints(2));
        assert_eq!(story.port_of(name), Some(2), "{name}");
    }
    let snapshot = story.latest.clone().expect("published");
    let Children::Leaves(leaves) = &snapshot.clusters["top"].as_ref().expect("top").children else { panic!("leaves") };
    assert_eq!(leaves.iter().map(|name| &**name).collect::<Vec<_>>(), ["x"]);
}

#[test]
fn a74_the_listener_in_force_follows_its_routes_while_its_successor_waits() {
    let mut story = Story::running();
    story.says(LISTENER, "svc", listener("svc", RouteSource::Rds("u".into())));
    assert!(story.wants(ROUTE_CONFIGURATION, "t"));
    story.says(ROUTE_CONFIGURATION, "t", routes(&["b"]));
    assert_eq!(story.clusters(), ["a"], "b is not there yet");
    story.says(CLUSTER, "b", eds("b"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "b", endpoints(2));
    assert_eq!((story.clusters(), story.port_of("b")), (vec!["b".to_owned()], Some(2)));
    story.says(ROUTE_CONFIGURATION, "u", routes(&["b"]));
    let snapshot = story.latest.clone().expect("published");
    assert!(matches!(&snapshot.http.routes, RouteSource::Rds(table) if &**table == "u"));
    assert!(!story.wants(ROUTE_CONFIGURATION, "t"));
}

#[test]
fn a36_the_listener_of_a_server_follows_its_routes_while_its_successor_waits() {
    let mut story = Story::serving();
    story.says(LISTENER, "in", server_listener(&["t", "u"]));
    let (before, table) = (story.serves(), routes(&["b"]));
    story.says(ROUTE_CONFIGURATION, "t", table.clone());
    let after = story.serves();
    assert!(Arc::ptr_eq(&before.listener, &after.listener), "the old Listener");
    assert!(Arc::ptr_eq(after.routes["t"].as_ref().expect("a table"), &table), "with the new routes");
    story.says(ROUTE_CONFIGURATION, "u", routes(&["c"]));
    assert_eq!(story.serves().routes.len(), 2);
}
