//! Control planes that go away in the middle of an update (`spec` sections 2.6 and 2.8): the old configuration stays whole.

use super::*;
use crate::snapshot::ServerSnapshot;

impl Story {
    /// No server can be reached, and nothing is known of it.
    pub(super) fn away(&mut self, type_url: &str, name: &str) {
        let error = Error::new(Code::NO_CONTROL_PLANE, "xDS server one: refused");
        self.graph.handle_event(ResourceEvent::Unusable { key: ResourceKey::new(type_url, name), error }, self.now);
        self.settle();
    }

    /// A listening address, with its filter chain's routes in table `t`.
    pub(super) fn serving() -> Self {
        let mut story = Self::of("unused");
        story.graph.add_server(&"in".into(), story.now);
        story.settle();
        story.says(LISTENER, "in", server_listener(&["t"]));
        story.says(ROUTE_CONFIGURATION, "t", routes(&["a"]));
        story
    }

    /// What a listening address does in the end.
    pub(super) fn serves(&self) -> Arc<ServerSnapshot> {
        match self.updates.last() {
            Some(Update::Server(snapshot)) => snapshot.clone(),
            other => panic!("{other:?}"),
        }
    }
}

/// A Listener for servers whose chains fetch these tables.
pub(super) fn server_listener(tables: &[&str]) -> ResourceValue {
    let chain = |table: &&str| {
        Arc::new(FilterChain {
            name: (*table).into(),
            matches: ChainMatch::default(),
            tls: None,
            http: Arc::new(http(RouteSource::Rds((*table).into()))),
            encoded: None,
        })
    };
    let server = ServerListener {
        address: ([0, 0, 0, 0], 80).into(),
        chains: tables.iter().map(chain).collect(),
        default_chain: None,
        inspection: None,
    };
    Arc::new(Listener { name: "in".into(), kind: ListenerKind::Server(Arc::new(server)), buffer_limit: None })
}

pub(super) fn aggregate(name: &str, children: &[&str]) -> ResourceValue {
    cluster(name, DiscoveryKind::Aggregate(children.iter().map(|child| (*child).into()).collect()))
}

pub(super) fn eds_of(name: &str, service: &str) -> ResourceValue {
    cluster(name, DiscoveryKind::Eds { service_name: service.into() })
}

#[test]
fn a57_a_route_to_a_cluster_that_an_outage_keeps_back_waits_for_it() {
    let mut story = Story::running();
    story.says(ROUTE_CONFIGURATION, "t", routes(&["b"]));
    story.away(CLUSTER, "b");
    assert_eq!((story.clusters(), story.updates.len()), (vec!["a".to_owned()], 1), "the old table stays");
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(2));
    assert_eq!(story.port_of("a"), Some(2), "and what it needs is kept up to date");
    story.says(CLUSTER, "b", eds("b"));
    story.away(CLUSTER_LOAD_ASSIGNMENT, "b");
    assert_eq!(story.clusters(), ["a"]);
    story.says(CLUSTER_LOAD_ASSIGNMENT, "b", endpoints(3));
    assert_eq!((story.clusters(), story.port_of("b")), (vec!["b".to_owned()], Some(3)));
}

#[test]
fn a57_after_an_outage_the_timer_decides_about_a_cluster_that_does_not_come() {
    let mut story = Story::running();
    story.says(ROUTE_CONFIGURATION, "t", routes(&["b"]));
    story.away(CLUSTER, "b");
    story.denies(CLUSTER, "b");
    let snapshot = story.latest.clone().expect("published");
    let error = snapshot.clusters["b"].as_ref().expect_err("there is none");
    assert_eq!((story.clusters(), error.code()), (vec!["b".to_owned()], Code::RESOURCE_NOT_FOUND));
}

#[test]
fn a57_a_new_route_table_that_an_outage_keeps_back_is_waited_for() {
    let mut story = Story::running();
    story.says(LISTENER, "svc", listener("svc", RouteSource::Rds("u".into())));
    story.away(ROUTE_CONFIGURATION, "u");
    assert_eq!(story.updates.len(), 1, "the target does not fail: {:?}", story.updates.last());
    assert!(story.wants(CLUSTER, "a"));
    story.says(ROUTE_CONFIGURATION, "u", routes(&["a"]));
    let snapshot = story.latest.clone().expect("published");
    assert!(matches!(&snapshot.http.routes, RouteSource::Rds(table) if &**table == "u"));
}

#[test]
fn a57_new_endpoints_that_an_outage_keeps_back_are_waited_for() {
    let mut story = Story::running();
    story.says(CLUSTER, "a", eds_of("a", "green"));
    story.away(CLUSTER_LOAD_ASSIGNMENT, "green");
    assert_eq!(story.port_of("a"), Some(1));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "green", endpoints(2));
    assert_eq!(story.port_of("a"), Some(2));
}

#[test]
fn a57_a_child_of_an_aggregate_that_an_outage_keeps_back_is_waited_for() {
    let mut story = Story::of("svc");
    story.says(LISTENER, "svc", listener("svc", RouteSource::Inline(routes(&["top"]))));
    story.says(CLUSTER, "top", aggregate("top", &["a"]));
    story.says(CLUSTER, "a", eds("a"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(1));
    story.says(CLUSTER, "top", aggregate("top", &["b", "a"]));
    story.away(CLUSTER, "b");
    assert_eq!(story.updates.len(), 1, "it would be without its first choice");
    story.says(CLUSTER, "b", eds("b"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "b", endpoints(2));
    let snapshot = story.latest.clone().expect("published");
    let Children::Leaves(leaves) = &snapshot.clusters["top"].as_ref().expect("top").children else { panic!("leaves") };
    assert_eq!(leaves.iter().map(|name| &**name).collect::<Vec<_>>(), ["b", "a"]);
}

#[test]
fn a57_a_new_route_table_of_a_server_that_an_outage_keeps_back_is_waited_for() {
    let mut story = Story::serving();
    let before = story.serves();
    story.says(LISTENER, "in", server_listener(&["u"]));
    story.away(ROUTE_CONFIGURATION, "u");
    assert!(Arc::ptr_eq(&before, &story.serves()), "the old Listener stays");
    story.says(ROUTE_CONFIGURATION, "u", routes(&["a"]));
    assert_eq!(story.serves().routes.keys().map(|name| &**name).collect::<Vec<_>>(), ["u"]);
}

/// Without anything in force there is nothing to keep: requests fail with the reason.
#[test]
fn a57_who_has_nothing_takes_an_outage_for_an_answer() {
    let mut story = Story::of("svc");
    story.says(LISTENER, "svc", listener("svc", RouteSource::Inline(routes(&["a", "b"]))));
    story.says(CLUSTER, "a", eds("a"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(1));
    story.away(CLUSTER, "b");
    let error = story.latest.clone().expect("published").clusters["b"].clone().expect_err("nothing is known of b");
    assert_eq!(error.code(), Code::NO_CONTROL_PLANE);
    // It is in force like that, so it keeps nothing else back.
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(2));
    assert_eq!(story.port_of("a"), Some(2));
    story.says(CLUSTER, "b", eds("b"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "b", endpoints(3));
    assert_eq!(story.port_of("b"), Some(3));
}

/// Clusters are one for all targets: who comes during the outage must not spoil what others have in force.
#[test]
fn a57_a_target_that_comes_during_an_outage_takes_a_cluster_as_others_have_it() {
    let mut story = Story::running();
    story.says(CLUSTER, "a", eds_of("a", "green"));
    story.away(CLUSTER_LOAD_ASSIGNMENT, "green");
    story.graph.add_client(&"other".into(), story.now);
    story.settle();
    story.says(LISTENER, "other", listener("other", RouteSource::Inline(routes(&["a"]))));
    let snapshot = story.latest.clone().expect("published");
    assert_eq!((&*snapshot.target, story.port_of("a")), ("other", Some(1)));
}

/// So are those that only requests in flight use.
#[test]
fn a57_a_cluster_that_requests_still_use_stays_as_it_is_in_an_outage() {
    let mut story = Story::running();
    let lease = story.latest.as_ref().expect("published").clusters["a"].clone().expect("a").lease.clone();
    story.says(ROUTE_CONFIGURATION, "t", routes(&["b"]));
    story.says(CLUSTER, "b", eds("b"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "b", endpoints(2));
    story.updates.clear();
    story.away(CLUSTER_LOAD_ASSIGNMENT, "a");
    assert!(story.updates.is_empty(), "{:?}", story.updates);
    drop(lease);
}
