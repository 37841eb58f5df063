//! Clusters that requests name themselves.

use super::outage::eds_of;
use super::*;

impl Story {
    /// A request names this cluster.
    fn names(&mut self, cluster: &str) {
        self.graph.add_dynamic_cluster(&"svc".into(), &cluster.into(), self.now);
        self.settle();
    }

    /// A target with a cluster that a request named.
    fn named() -> Self {
        let mut story = Self::running();
        story.names("named");
        story.says(CLUSTER, "named", eds("named"));
        story.says(CLUSTER_LOAD_ASSIGNMENT, "named", endpoints(5));
        assert_eq!(story.port_of("named"), Some(5));
        story
    }

    /// Lets time pass, as the configuration thread does.
    fn waits(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.later(Duration::from_secs(1));
        }
    }
}

#[test]
fn a74_a_name_that_somebody_made_up_keeps_no_update_back() {
    let mut story = Story::running();
    story.names("made-up");
    story.says(CLUSTER_LOAD_ASSIGNMENT, "a", endpoints(2));
    assert_eq!((story.clusters(), story.port_of("a")), (vec!["a".to_owned()], Some(2)));
    story.says(ROUTE_CONFIGURATION, "t", routes(&["b"]));
    story.says(CLUSTER, "b", eds("b"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "b", endpoints(3));
    assert_eq!(story.port_of("b"), Some(3));
}

#[test]
fn a74_a_cluster_that_requests_named_is_let_go_of_when_none_takes_it() {
    let mut story = Story::named();
    let lease = |story: &Story| story.latest.as_ref().unwrap().clusters["named"].as_ref().unwrap().lease.clone();
    story.waits(299);
    lease(&story).touch();
    story.waits(299);
    assert_eq!(story.clusters(), ["a", "named"], "requests take it");
    story.waits(6);
    assert_eq!(story.clusters(), ["a"]);
    story.updates.clear();
    story.waits(1);
    assert!(!story.wants(CLUSTER, "named") && !story.wants(CLUSTER_LOAD_ASSIGNMENT, "named"));
    assert_eq!(story.graph.poll_timeout(), None, "nothing is left to look after");
}

#[test]
fn a31_one_that_a_request_in_flight_took_is_kept_up_to_date() {
    let mut story = Story::named();
    let lease = story.latest.as_ref().unwrap().clusters["named"].as_ref().unwrap().lease.clone();
    story.waits(306);
    assert_eq!(story.clusters(), ["a"]);
    story.updates.clear();
    story.says(CLUSTER_LOAD_ASSIGNMENT, "named", endpoints(6));
    assert!(matches!(story.updates.as_slice(), [Update::Cluster(config)] if &*config.cluster.name == "named"));
    // Named again, it is the same cluster.
    story.names("named");
    let again = story.latest.as_ref().unwrap().clusters["named"].as_ref().unwrap().lease.clone();
    assert!(Arc::ptr_eq(&lease, &again) && story.port_of("named") == Some(6));
}

#[test]
fn a74_a_name_without_a_cluster_is_let_go_of_soon() {
    let mut story = Story::running();
    story.names("made-up");
    story.denies(CLUSTER, "made-up");
    story.waits(14);
    assert_eq!(story.clusters(), ["a", "made-up"], "requests that name it fail at once");
    story.waits(6);
    assert_eq!((story.clusters(), story.wants(CLUSTER, "made-up")), (vec!["a".to_owned()], false));
}

#[test]
fn names_over_the_bound_are_ignored_unless_one_without_a_cluster_gives_way() {
    let mut story = Story::running();
    for number in 0..1024 {
        story.names(&format!("n{number}"));
    }
    story.names("over");
    assert!(!story.wants(CLUSTER, "over"));
    story.denies(CLUSTER, "n7");
    story.names("over");
    assert!(story.wants(CLUSTER, "over") && !story.wants(CLUSTER, "n7"));
}

#[test]
fn a57_an_outage_is_an_answer_to_who_named_a_cluster_and_changes_none_that_is_there() {
    let mut story = Story::named();
    story.names("other");
    story.away(CLUSTER, "other");
    let error = story.latest.clone().unwrap().clusters["other"].clone().expect_err("its requests fail with the reason");
    assert_eq!(error.code(), Code::NO_CONTROL_PLANE);
    story.says(CLUSTER, "named", eds_of("named", "green"));
    story.away(CLUSTER_LOAD_ASSIGNMENT, "green");
    assert_eq!(story.port_of("named"), Some(5));
    story.says(CLUSTER, "other", eds("other"));
    story.says(CLUSTER_LOAD_ASSIGNMENT, "other", endpoints(6));
    assert_eq!(story.port_of("other"), Some(6));
}
