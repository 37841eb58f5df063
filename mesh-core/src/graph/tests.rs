//! The graph against stories of what a control plane does. Data is built by hand; time is a number.

mod aggregates;
mod dynamic;
mod meanwhile;
mod names;
mod outage;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::balance::{Candidate, Picker, PolicyConfig};
use crate::bootstrap::ServerConfig;
use crate::error::{Code, Error};
use crate::model::*;
use crate::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, ResourceValue};
use crate::snapshot::{Children, Snapshot};

/// A policy that is never asked to build.
#[derive(Debug)]
struct NoPolicy;

impl PolicyConfig for NoPolicy {
    fn build(&self, _: &[Arc<Candidate>], _: Option<&Arc<dyn Picker>>, _: u64) -> Arc<dyn Picker> {
        unreachable!("the graph builds no pickers")
    }
}

fn http(routes: RouteSource) -> HttpConnection {
    HttpConnection {
        routes,
        filters: Vec::new(),
        max_stream_duration: None,
        normalize_path: false,
        merge_slashes: false,
        escaped_slashes: Default::default(),
        strip_any_host_port: false,
        strip_matching_host_port: false,
        strip_trailing_host_dot: false,
        origin: Default::default(),
        underscores: Default::default(),
        head: Default::default(),
        upgrades: Vec::new(),
        client_cert: Default::default(),
        unsupported: Vec::new(),
    }
}

pub(crate) fn listener(name: &str, routes: RouteSource) -> ResourceValue {
    Arc::new(Listener { name: name.into(), kind: ListenerKind::Client(Arc::new(http(routes))), buffer_limit: None })
}

fn forward(cluster: &str) -> Arc<Route> {
    Arc::new(Route {
        name: "r".into(),
        matches: RouteMatch::default(),
        action: Action::Forward(Box::new(Forward::to(cluster.into()))),
        headers: HeaderMutations::default(),
        overrides: FilterOverrides::new(),
        metadata: Metadata::new(),
        operation: None,
        body_limit: None,
        unsupported: Vec::new(),
    })
}

fn virtual_host(domain: Domain, clusters: &[&str]) -> Arc<VirtualHost> {
    Arc::new(VirtualHost {
        name: "v".into(),
        domains: vec![domain],
        routes: clusters.iter().map(|cluster| forward(cluster)).collect(),
        headers: HeaderMutations::default(),
        retry: None,
        hedge: None,
        overrides: FilterOverrides::new(),
        mirrors: Vec::new(),
        request_attempt_count: false,
        response_attempt_count: false,
        require_tls: Default::default(),
        cors: None,
        limits: Vec::new(),
        unsupported: Vec::new(),
    })
}

fn table(virtual_hosts: Vec<Arc<VirtualHost>>) -> Arc<RouteTable> {
    Arc::new(RouteTable {
        name: "t".into(),
        virtual_hosts,
        headers: HeaderMutations::default(),
        internal_only_headers: Vec::new(),
        most_specific_mutations_win: false,
        max_direct_response_body: 4096,
        ignore_port_in_host: false,
        vhost_header: None,
        mirrors: Vec::new(),
        overrides: FilterOverrides::new(),
        unsupported: Vec::new(),
    })
}

pub(crate) fn routes(clusters: &[&str]) -> Arc<RouteTable> {
    table(vec![virtual_host(Domain::Any, clusters)])
}

fn cluster(name: &str, discovery: DiscoveryKind) -> ResourceValue {
    Arc::new(Cluster {
        name: name.into(),
        discovery,
        policy: Arc::new(NoPolicy),
        tls: None,
        tls_matches: Vec::new(),
        connect_timeout: Duration::from_secs(5),
        circuit_breakers: CircuitBreakers::default(),
        outlier: None,
        protocol: HttpProtocol::Default,
        load: None,
        panic_threshold: PanicThreshold::default(),
        metadata: Metadata::new(),
        unsupported: Vec::new(),
    })
}

pub(crate) fn eds(name: &str) -> ResourceValue {
    cluster(name, DiscoveryKind::Eds { service_name: name.into() })
}

pub(crate) fn endpoints(port: u16) -> ResourceValue {
    let endpoint = Endpoint {
        address: ([127, 0, 0, 1], port).into(),
        additional: Vec::new(),
        weight: 1,
        health: Health::Healthy,
        hostname: "".into(),
        metadata: Metadata::new(),
    };
    Arc::new(Endpoints {
        localities: vec![LocalityEndpoints {
            locality: Arc::default(),
            priority: 0,
            weight: 1,
            metadata: Metadata::new(),
            endpoints: Box::new([endpoint]),
        }],
        drops: Vec::new(),
        overprovisioning_factor: 140,
    })
}

/// The graph, its subscriptions and what it published, in a test's hand.
struct Story {
    graph: Graph,
    now: Instant,
    subscribed: BTreeSet<ResourceKey>,
    claims: BTreeSet<(ResourceKey, Name)>,
    latest: Option<Arc<Snapshot>>,
    updates: Vec<Update>,
}

impl Story {
    fn of(target: &str) -> Self {
        let mut story = Self {
            graph: Graph::new(),
            now: Instant::now(),
            subscribed: BTreeSet::new(),
            claims: BTreeSet::new(),
            latest: None,
            updates: Vec::new(),
        };
        story.graph.add_client(&target.into(), story.now);
        story.settle();
        story
    }

    fn settle(&mut self) {
        while let Some(want) = self.graph.poll_wants() {
            match want {
                Want::Subscribe(key) => assert!(self.subscribed.insert(key.clone()), "{key} was subscribed to twice"),
                Want::Unsubscribe(key) => assert!(self.subscribed.remove(&key), "{key} was not subscribed to"),
                Want::Claim(key, target) => {
                    assert!(self.claims.insert((key.clone(), target)), "{key} was claimed twice");
                }
                Want::Release(key, target) => {
                    assert!(self.claims.remove(&(key.clone(), target)), "{key} was not claimed");
                }
            }
        }
        for (key, target) in &self.claims {
            assert!(self.subscribed.contains(key), "{target} claims {key}, which is not subscribed to");
        }
        while let Some(update) = self.graph.poll_update() {
            if let Update::Client(snapshot) = &update {
                self.latest = Some(snapshot.clone());
            }
            self.updates.push(update);
        }
    }

    fn says(&mut self, type_url: &str, name: &str, value: ResourceValue) {
        let key = ResourceKey::new(type_url, name);
        self.graph.handle_event(ResourceEvent::Changed { key, value, version: "1".to_owned(), server: None }, self.now);
        self.settle();
    }

    fn denies(&mut self, type_url: &str, name: &str) {
        let key = ResourceKey::new(type_url, name);
        let error = Error::new(Code::RESOURCE_NOT_FOUND, format!("{key} does not exist"));
        self.graph.handle_event(ResourceEvent::Unusable { key, error }, self.now);
        self.settle();
    }

    fn later(&mut self, by: Duration) {
        self.now += by;
        self.graph.handle_time(self.now);
        self.settle();
    }

    fn wants(&self, type_url: &str, name: &str) -> bool {
        self.subscribed.contains(&ResourceKey::new(type_url, name))
    }

    fn clusters(&self) -> Vec<String> {
        self.latest.iter().flat_map(|snapshot| snapshot.clusters.keys().map(ToString::to_string)).collect()
    }

    fn port_of(&self, cluster: &str) -> Option<u16> {
        let config = self.latest.as_ref()?.clusters.get(cluster)?.as_ref().ok()?;
        let Children::Endpoints { endpoints, .. } = &config.children else { return None };
        Some(endpoints.localities.first()?.endpoints.first()?.address.port())
    }

    /// A target with a Listener, a route to `a`, and that cluster.
    fn running() -> Self {
        let mut story = Self::of("svc");
        story.says(LISTENER, "svc", listener("svc", RouteSource::Rds("t".into())));
        story.says(ROUTE_CONFIGURATION, "t", routes(&["a"]));
        story.says(CLUSTER, "a", eds("a"));
        story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(1));
        story
    }
}

#[test]
fn a_configuration_is_published_when_it_is_whole_a74() {
    let mut story = Story::of("svc");
    assert!(story.wants(LISTENER, "svc"));
    story.says(LISTENER, "svc", listener("svc", RouteSource::Rds("t".into())));
    assert!(story.wants(ROUTE_CONFIGURATION, "t"));
    story.says(ROUTE_CONFIGURATION, "t", routes(&["a"]));
    assert!(story.wants(CLUSTER, "a"));
    story.says(CLUSTER, "a", eds("a"));
    assert!(story.wants(CLUSTER_LOAD_ASSIGNMENT, "a") && story.latest.is_none());
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(1));
    assert_eq!(story.port_of("a"), Some(1));
    assert_eq!(story.updates.len(), 1);
}

#[test]
fn a_target_that_is_one_cluster_needs_no_listener() {
    let target = crate::target::of_cluster("a");
    let mut story = Story::of(&target);
    assert!(story.wants(CLUSTER, "a") && story.subscribed.len() == 1, "{:?}", story.subscribed);
    story.says(CLUSTER, "a", eds("a"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(1));
    assert_eq!((story.port_of("a"), story.updates.len()), (Some(1), 1));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(2));
    assert_eq!((story.port_of("a"), story.updates.len()), (Some(2), 2), "it is kept up to date");
    story.denies(CLUSTER, "a");
    let snapshot = story.latest.clone().expect("published");
    assert!(snapshot.clusters["a"].is_err() && snapshot.target == target, "requests fail with the cluster's reason");
}

#[test]
fn an_inline_route_table_needs_no_subscription_a74() {
    let mut story = Story::of("svc");
    story.says(LISTENER, "svc", listener("svc", RouteSource::Inline(routes(&["a"]))));
    assert!(!story.subscribed.iter().any(|key| &*key.type_url == ROUTE_CONFIGURATION));
    story.says(CLUSTER, "a", cluster("a", DiscoveryKind::Static(Arc::default())));
    assert_eq!(story.clusters(), ["a"]);
}

#[test]
fn a_route_to_a_cluster_that_is_not_there_yet_changes_nothing_until_it_is() {
    let mut story = Story::running();
    story.says(ROUTE_CONFIGURATION, "t", routes(&["b"]));
    assert_eq!(story.clusters(), ["a"], "the route to b waits for b");
    // Meanwhile what is in force is kept up to date.
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(2));
    assert_eq!(story.port_of("a"), Some(2));
    story.says(CLUSTER, "b", eds("b"));
    assert_eq!(story.clusters(), ["a"]);
    story.says(CLUSTER_LOAD_ASSIGNMENT, "b", endpoints(3));
    assert_eq!(story.clusters(), ["b"]);
    assert_eq!(story.port_of("b"), Some(3));
}

#[test]
fn one_bad_cluster_fails_only_itself() {
    let mut story = Story::of("svc");
    story.says(LISTENER, "svc", listener("svc", RouteSource::Inline(routes(&["a", "b"]))));
    story.says(CLUSTER, "a", eds("a"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(1));
    story.denies(CLUSTER, "b");
    let snapshot = story.latest.clone().expect("published");
    assert!(snapshot.clusters["a"].is_ok());
    let error = snapshot.clusters["b"].as_ref().expect_err("b does not exist");
    assert_eq!(error.code(), Code::RESOURCE_NOT_FOUND);
}

#[test]
fn a_cluster_without_endpoints_says_why() {
    let mut story = Story::of("svc");
    story.says(LISTENER, "svc", listener("svc", RouteSource::Inline(routes(&["a"]))));
    story.says(CLUSTER, "a", eds("a"));
    story.denies(CLUSTER_LOAD_ASSIGNMENT, "a");
    let snapshot = story.latest.clone().expect("published");
    let Children::Endpoints { endpoints, note, .. } = &snapshot.clusters["a"].as_ref().expect("a").children else {
        panic!("not an aggregate")
    };
    assert!(endpoints.is_empty());
    assert!(note.as_ref().expect("a reason").message().contains("does not exist"));
}

#[test]
fn a_lost_listener_fails_the_target_and_lets_everything_go() {
    let mut story = Story::running();
    story.denies(LISTENER, "svc");
    assert!(
        matches!(story.updates.last(), Some(Update::Failed { error, absent: true, .. }) if error.code() == Code::RESOURCE_NOT_FOUND)
    );
    story.latest = None;
    story.updates.clear();
    story.later(Duration::from_secs(1));
    assert_eq!(story.subscribed.len(), 1, "only the Listener is still wanted: {:?}", story.subscribed);
    story.says(LISTENER, "svc", listener("svc", RouteSource::Rds("t".into())));
    story.says(ROUTE_CONFIGURATION, "t", routes(&["a"]));
    story.says(CLUSTER, "a", eds("a"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(9));
    assert_eq!(story.port_of("a"), Some(9));
}

/// Only the Listener is the target's own: who takes anything else for its absence sends a mesh's traffic past the mesh.
#[test]
fn a_target_is_absent_only_if_its_listener_does_not_exist() {
    let mut story = Story::of("svc");
    let unusable = |story: &mut Story, code| {
        let key = ResourceKey::new(LISTENER, "svc");
        let error = Error::new(code, "no");
        story.graph.handle_event(ResourceEvent::Unusable { key, error }, story.now);
        story.settle();
    };
    let absent = |story: &Story| match story.updates.last() {
        Some(Update::Failed { absent, .. }) => *absent,
        other => panic!("{other:?}"),
    };
    for code in [Code::NO_CONTROL_PLANE, Code::RESOURCE_TIMEOUT, Code::RESOURCE_REFUSED, Code::RESOURCE_REPORTED] {
        unusable(&mut story, code);
        assert!(!absent(&story), "{code}");
    }
    unusable(&mut story, Code::RESOURCE_NOT_FOUND);
    assert!(absent(&story));
    story.says(LISTENER, "svc", listener("svc", RouteSource::Rds("t".into())));
    story.denies(ROUTE_CONFIGURATION, "t");
    assert!(!absent(&story), "it exists, and its routes do not");
}

#[test]
fn ambient_trouble_keeps_what_is_in_force_and_says_so_a88() {
    let mut story = Story::running();
    let error = Error::new(Code::RESOURCE_REFUSED, "refused");
    let key = ResourceKey::new(CLUSTER_LOAD_ASSIGNMENT, "a");
    story.graph.handle_event(ResourceEvent::Ambient { key, error: Some(error), lapsing: false }, story.now);
    story.settle();
    assert_eq!(story.port_of("a"), Some(1));
    let config = story.latest.as_ref().expect("published").clusters["a"].clone().expect("a");
    assert!(matches!(&config.children, Children::Endpoints { note: Some(_), lapsing: false, .. }));
}

/// Errors of Listener and routes are everyone's, those of a cluster its own.
#[test]
fn a88_trouble_with_what_is_used_on_is_noted_where_it_belongs() {
    let mut story = Story::of("svc");
    story.says(LISTENER, "svc", listener("svc", RouteSource::Rds("t".into())));
    story.says(ROUTE_CONFIGURATION, "t", routes(&["a", "b"]));
    for name in ["a", "b"] {
        story.says(CLUSTER, name, eds(name));
        story.says(CLUSTER_LOAD_ASSIGNMENT, name, endpoints(1));
    }
    let notes = |story: &mut Story, type_url: &str, name: &str, text: Option<&str>| {
        let error = text.map(|text| Error::new(Code::RESOURCE_REFUSED, text));
        let key = ResourceKey::new(type_url, name);
        story.graph.handle_event(ResourceEvent::Ambient { key, error, lapsing: false }, story.now);
        story.settle();
        let snapshot = story.latest.clone().expect("published");
        let of = |name: &str| match &snapshot.clusters[name].as_ref().expect("ok").children {
            Children::Endpoints { note, .. } => note.as_ref().map(|note| note.message().to_owned()),
            Children::Leaves(_) => None,
        };
        [snapshot.note.as_ref().map(|note| note.message().to_owned()), of("a"), of("b")].map(Option::unwrap_or_default)
    };
    assert_eq!(notes(&mut story, ROUTE_CONFIGURATION, "t", Some("routes")), ["routes", "", ""]);
    assert_eq!(notes(&mut story, CLUSTER, "a", Some("cluster")), ["routes", "cluster", ""]);
    assert_eq!(notes(&mut story, CLUSTER_LOAD_ASSIGNMENT, "a", Some("set")), ["routes", "set", ""]);
    assert_eq!(notes(&mut story, LISTENER, "svc", Some("listener")), ["listener", "set", ""]);
    for (type_url, name) in [(LISTENER, "svc"), (ROUTE_CONFIGURATION, "t"), (CLUSTER_LOAD_ASSIGNMENT, "a")] {
        notes(&mut story, type_url, name, None);
    }
    assert_eq!(notes(&mut story, CLUSTER, "a", None), ["", "", ""], "and goes with its end");
}

#[test]
fn endpoints_in_their_grace_are_in_force_and_marked_until_they_are_told_again() {
    let mut story = Story::running();
    let lapsing = |story: &Story| {
        let config = story.latest.as_ref().expect("published").clusters["a"].clone().expect("a");
        matches!(&config.children, Children::Endpoints { lapsing: true, .. })
    };
    let key = ResourceKey::new(CLUSTER_LOAD_ASSIGNMENT, "a");
    for error in [Some(Error::new(Code::NO_ENDPOINTS, "emptied")), None] {
        let is_lapsing = error.is_some();
        let event = ResourceEvent::Ambient { key: key.clone(), error, lapsing: is_lapsing };
        story.graph.handle_event(event, story.now);
        story.settle();
        assert_eq!((story.port_of("a"), lapsing(&story)), (Some(1), is_lapsing));
    }
    let error = Some(Error::new(Code::NO_ENDPOINTS, "emptied"));
    story.graph.handle_event(ResourceEvent::Ambient { key, error, lapsing: true }, story.now);
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(2));
    assert_eq!((story.port_of("a"), lapsing(&story)), (Some(2), false));
}

#[test]
fn what_did_not_change_is_the_same_object_and_is_not_published_again() {
    let mut story = Story::of("svc");
    let table = routes(&["a", "b"]);
    story.says(LISTENER, "svc", listener("svc", RouteSource::Inline(table)));
    for name in ["a", "b"] {
        story.says(CLUSTER, name, eds(name));
        story.says(CLUSTER_LOAD_ASSIGNMENT, name, endpoints(1));
    }
    let before = story.latest.clone().expect("published");
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(2));
    let after = story.latest.clone().expect("published");
    assert_eq!(after.version, before.version + 1);
    let same = |name: &str| {
        Arc::ptr_eq(before.clusters[name].as_ref().expect("ok"), after.clusters[name].as_ref().expect("ok"))
    };
    assert!(!same("a") && same("b"));
    let count = story.updates.len();
    story.graph.add_client(&"svc".into(), story.now);
    story.settle();
    assert_eq!(story.updates.len(), count);
}

#[test]
fn a_cluster_that_requests_still_use_is_kept_up_to_date_until_they_end_a31() {
    let mut story = Story::running();
    let request = story.latest.as_ref().expect("published").clusters["a"].clone().expect("a").lease.clone();
    story.says(ROUTE_CONFIGURATION, "t", routes(&["b"]));
    story.says(CLUSTER, "b", eds("b"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "b", endpoints(2));
    story.updates.clear();
    assert!(story.wants(CLUSTER, "a") && story.wants(CLUSTER_LOAD_ASSIGNMENT, "a"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(7));
    assert!(matches!(story.updates.as_slice(), [Update::Cluster(config)] if &*config.cluster.name == "a"));
    let first = Arc::downgrade(&request);
    drop(request);
    story.updates.clear();
    story.later(Duration::from_secs(1));
    assert!(!story.wants(CLUSTER, "a") && !story.wants(CLUSTER_LOAD_ASSIGNMENT, "a"));
    // It comes back fresh.
    story.says(ROUTE_CONFIGURATION, "t", routes(&["a"]));
    story.says(CLUSTER, "a", eds("a"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(1));
    let again = story.latest.as_ref().expect("published").clusters["a"].clone().expect("a");
    assert!(first.upgrade().is_none_or(|first| !Arc::ptr_eq(&first, &again.lease)));
}

#[test]
fn aggregates_are_walked_to_their_leaves_in_order_and_tolerate_cycles_a37() {
    let mut story = Story::of("svc");
    story.says(LISTENER, "svc", listener("svc", RouteSource::Inline(routes(&["top"]))));
    story.says(CLUSTER, "top", cluster("top", DiscoveryKind::Aggregate(vec!["mid".into(), "x".into(), "gone".into()])));
    story.says(CLUSTER, "mid", cluster("mid", DiscoveryKind::Aggregate(vec!["y".into(), "x".into(), "top".into()])));
    for name in ["x", "y"] {
        story.says(CLUSTER, name, eds(name));
        story.says(CLUSTER_LOAD_ASSIGNMENT, name, endpoints(1));
    }
    assert!(story.latest.is_none(), "`gone` has no verdict yet");
    story.denies(CLUSTER, "gone");
    let snapshot = story.latest.clone().expect("published");
    let Children::Leaves(leaves) = &snapshot.clusters["top"].as_ref().expect("top").children else { panic!("leaves") };
    assert_eq!(leaves.iter().map(|name| &**name).collect::<Vec<_>>(), ["y", "x"]);
    assert!(snapshot.clusters.contains_key("x") && snapshot.clusters.contains_key("y"));
}

#[test]
fn an_aggregate_without_leaves_and_one_too_deep_are_errors() {
    let mut story = Story::of("svc");
    story.says(LISTENER, "svc", listener("svc", RouteSource::Inline(routes(&["top", "c0"]))));
    story.says(CLUSTER, "top", cluster("top", DiscoveryKind::Aggregate(vec!["top".into()])));
    for depth in 0..20 {
        let child: Name = format!("c{}", depth + 1).into();
        story.says(CLUSTER, &format!("c{depth}"), cluster("c", DiscoveryKind::Aggregate(vec![child])));
    }
    let snapshot = story.latest.clone().expect("published");
    assert!(snapshot.clusters["top"].as_ref().expect_err("no leaf").message().contains("no leaf"));
    assert!(snapshot.clusters["c0"].as_ref().expect_err("too deep").message().contains("16 deep"));
}

#[test]
fn foreign_virtual_hosts_cause_no_subscriptions() {
    let mut story = Story::of("echo:80");
    let table = table(vec![
        virtual_host(Domain::Exact("echo:80".to_owned()), &["a"]),
        virtual_host(Domain::Exact("api.example.com:80".to_owned()), &["foreign"]),
    ]);
    story.says(LISTENER, "echo:80", listener("echo:80", RouteSource::Inline(table)));
    assert!(story.wants(CLUSTER, "a") && !story.wants(CLUSTER, "foreign"));
}

#[test]
fn a47_the_context_of_a_name_is_no_part_of_the_target() {
    let target = "xdstp://east/envoy.config.listener.v3.Listener/echo:80?project=1";
    let mut story = Story::of(target);
    let table = table(vec![
        virtual_host(Domain::Exact("echo:80".to_owned()), &["a"]),
        virtual_host(Domain::Exact("api.example.com:80".to_owned()), &["foreign"]),
    ]);
    story.says(LISTENER, target, listener(target, RouteSource::Inline(table)));
    assert!(story.wants(CLUSTER, "a") && !story.wants(CLUSTER, "foreign"));
}

#[test]
fn a_cluster_that_a_request_names_is_added_to_the_snapshot() {
    let mut story = Story::running();
    story.graph.add_dynamic_cluster(&"svc".into(), &"named".into(), story.now);
    story.settle();
    assert!(story.wants(CLUSTER, "named"));
    story.denies(CLUSTER, "named");
    assert_eq!(story.clusters(), ["a", "named"]);
}

#[test]
fn a_client_listener_is_not_one_for_servers_and_the_reverse() {
    let mut story = Story::of("svc");
    let server = ServerListener {
        address: ([0, 0, 0, 0], 80).into(),
        chains: Vec::new(),
        default_chain: None,
        inspection: None,
    };
    let value: ResourceValue =
        Arc::new(Listener { name: "svc".into(), kind: ListenerKind::Server(Arc::new(server)), buffer_limit: None });
    story.says(LISTENER, "svc", value);
    assert!(
        matches!(&story.updates[..], [Update::Failed { error, .. }] if error.code() == Code::NOT_A_CLIENT_LISTENER)
    );
}

/// A client and a server may have a Listener of the same name, and it is good for one of them only.
#[test]
fn what_fails_a_client_does_not_fail_the_server_of_its_name_nor_the_reverse() {
    for (value, client, server) in
        [(outage::server_listener(&[]), false, true), (listener("in", RouteSource::Inline(routes(&[]))), true, false)]
    {
        let mut story = Story::of("in");
        story.graph.add_server(&"in".into(), story.now);
        story.settle();
        story.says(LISTENER, "in", value);
        let any = |is: fn(&Update) -> bool| story.updates.iter().any(is);
        assert_eq!(any(|update| matches!(update, Update::Client(_))), client);
        assert_eq!(any(|update| matches!(update, Update::Failed { .. })), !client);
        assert_eq!(any(|update| matches!(update, Update::Server(_))), server);
        assert_eq!(any(|update| matches!(update, Update::ServerFailed { .. })), !server);
    }
}

#[test]
fn a71_the_source_is_told_which_targets_use_what() {
    let mut story = Story::running();
    let cluster = ResourceKey::new(CLUSTER, "a");
    let users = |story: &Story| {
        story.claims.iter().filter(|(key, _)| *key == cluster).map(|(_, user)| user.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(users(&story), ["svc"]);
    story.graph.add_client(&"other".into(), story.now);
    story.settle();
    story.says(LISTENER, "other", listener("other", RouteSource::Inline(routes(&["a"]))));
    assert_eq!(users(&story), ["other", "svc"]);
    story.graph.add_server(&"other".into(), story.now);
    story.settle();
    let listener = ResourceKey::new(LISTENER, "other");
    assert!(story.claims.contains(&(listener.clone(), "other".into())));
    assert!(story.claims.contains(&(listener, "server other".into())));
    story.graph.remove_client(&"svc".into(), story.now);
    story.settle();
    assert_eq!(users(&story), ["other"]);
}

#[test]
fn two_targets_share_a_cluster_and_the_last_one_lets_it_go() {
    let mut story = Story::running();
    story.graph.add_client(&"other".into(), story.now);
    story.settle();
    story.says(LISTENER, "other", listener("other", RouteSource::Inline(routes(&["a"]))));
    let snapshot = story.latest.clone().expect("published");
    assert_eq!(&*snapshot.target, "other", "all it needs is there already");
    drop(snapshot);
    story.graph.remove_client(&"svc".into(), story.now);
    story.settle();
    assert!(story.wants(CLUSTER, "a"));
    story.latest = None;
    story.updates.clear();
    story.graph.remove_client(&"other".into(), story.now);
    story.settle();
    story.later(Duration::from_secs(1));
    assert!(story.subscribed.is_empty(), "{:?}", story.subscribed);
    assert!(story.graph.is_idle());
}

/// Random stories: whatever happens, no published snapshot is torn, and nothing is left at the end.
#[test]
fn no_story_tears_or_leaks() {
    for seed in 0..300_u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut story = Story::of("svc");
        for _ in 0..60 {
            let name = ["a", "b", "c"][random.usize(..3)];
            match random.u8(..8) {
                0 => story.says(LISTENER, "svc", listener("svc", RouteSource::Rds("t".into()))),
                1 => story.says(LISTENER, "svc", listener("svc", RouteSource::Inline(routes(&[name])))),
                2 => story.says(ROUTE_CONFIGURATION, "t", routes(&[name, ["a", "b", "c"][random.usize(..3)]])),
                3 => story.says(CLUSTER, name, eds(name)),
                4 => story.says(CLUSTER_LOAD_ASSIGNMENT, name, endpoints(random.u16(1..))),
                5 => story.denies(CLUSTER, name),
                6 if random.u8(..4) == 0 => story.denies(LISTENER, "svc"),
                6 => story.says(CLUSTER, name, cluster(name, DiscoveryKind::Aggregate(vec!["b".into()]))),
                _ => story.later(Duration::from_millis(700)),
            }
            if let Some(snapshot) = &story.latest {
                for host in &snapshot.routes.virtual_hosts {
                    for name in snapshot.routes.clusters_of(host) {
                        assert!(snapshot.clusters.contains_key(&name), "seed {seed}: torn at `{name}`");
                    }
                }
            }
        }
        story.latest = None;
        story.updates.clear();
        story.graph.remove_client(&"svc".into(), story.now);
        story.settle();
        story.later(Duration::from_secs(1));
        assert!(story.subscribed.is_empty(), "seed {seed}: {:?}", story.subscribed);
        assert!(story.graph.is_idle(), "seed {seed}: {:?}", story.graph);
        assert_eq!(story.claims, BTreeSet::new(), "seed {seed}");
    }
}

#[test]
fn a47_load_is_reported_to_the_server_that_the_cluster_came_from() {
    let mut story = Story::running();
    let server_of = |story: &Story| {
        let config = story.latest.as_ref().unwrap().clusters["a"].as_ref().unwrap();
        config.load_server.as_ref().map(|server| server.uri.to_string())
    };
    let says = |story: &mut Story, value: ResourceValue, server: &str| {
        let key = ResourceKey::new(CLUSTER, "a");
        let server = Some(Arc::new(ServerConfig::insecure(server)));
        story.graph.handle_event(ResourceEvent::Changed { key, value, version: "1".to_owned(), server }, story.now);
        story.settle();
    };
    says(&mut story, eds("a"), "one");
    assert_eq!(server_of(&story), None, "nobody asked for it");
    let value = eds("a").downcast::<Cluster>().unwrap();
    let asking: ResourceValue = Arc::new(Cluster { load: Some(LoadPolicy::default()), ..Cluster::clone(&value) });
    says(&mut story, asking.clone(), "one");
    assert_eq!(server_of(&story).as_deref(), Some("one"));
    let updates = story.updates.len();
    says(&mut story, asking.clone(), "one");
    assert_eq!(story.updates.len(), updates, "nothing changed");
    says(&mut story, asking, "two");
    assert_eq!(server_of(&story).as_deref(), Some("two"));
}
