//! What someone who looks on is shown (`spec` section 2.13; gRFCs A40 and A88).

use envoy_types::pb::envoy::config::core::v3 as core;

use super::*;
use crate::status::{ResourceStatus, UpdateFailure};

impl Dialogue {
    fn status(&self, name: &str) -> ResourceStatus {
        self.engine.resources().find(|status| &*status.key.name == name).expect("it is wanted")
    }
}

fn text(bytes: Option<&bytes::Bytes>) -> Option<&str> {
    bytes.map(|bytes| str::from_utf8(bytes).unwrap())
}

/// The failure's code, version and bytes.
fn failure(status: &ResourceStatus) -> Option<(u16, &str, Option<&str>)> {
    let UpdateFailure { error, version, bytes, .. } = status.failure.as_ref()?;
    Some((error.code().number(), version, text(bytes.as_ref())))
}

#[test]
fn a40_a_refused_resource_shows_the_value_in_use_and_the_one_that_failed() {
    let mut it = Dialogue::new().asking(LISTENER, &["a", "b"]);
    let wanted = it.now;
    assert_eq!((it.status("a").state, it.status("a").since), (State::Requested, wanted));
    assert!(failure(&it.status("a")).is_none() && it.status("a").updated.is_none() && it.status("a").bytes.is_none());
    it.wait(1.0);
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    let taken = it.now;
    it.wait(1.0);
    it.respond(LISTENER, "2", "n2", &["a:bad"]);
    let status = it.status("a");
    assert_eq!((status.state, status.version.as_deref()), (State::Nacked, Some("1")));
    assert_eq!((text(status.bytes.as_ref()), status.updated), (Some("a:one"), Some(taken)));
    assert_eq!((failure(&status), status.since), (Some((113, "2", Some("a:bad"))), it.now));
    it.wait(1.0);
    it.respond(LISTENER, "3", "n3", &["a:one"]);
    let status = it.status("a");
    assert_eq!((status.state, status.version.as_deref(), status.updated), (State::Acked, Some("3"), Some(it.now)));
    assert_eq!(failure(&status), None, "what succeeds ends what failed");
    assert_eq!(it.status("b").state, State::Requested);
}

#[test]
fn a40_each_way_of_being_refused_keeps_the_bytes_that_failed() {
    let mut it = Dialogue::new().asking(LISTENER, &["bad", "twice", "both", "wrapped", "typed"]);
    let mut response = response(LISTENER, "1", "n1", &["bad:bad", "twice:one", "twice:two", "both:one"]);
    response.resources.push(wrapped("wrapped", Some(any(LISTENER, "wrapped:bad"))));
    response.resources.push(wrapped("typed", Some(any(CLUSTER, "typed:one"))));
    response.resource_errors = vec![resource_error("both", 13)];
    it.respond_from(A, &response);
    for (name, bytes) in [
        ("bad", Some("bad:bad")),
        ("twice", Some("twice:two")),
        ("both", Some("both:one")),
        ("wrapped", Some("wrapped:bad")),
        ("typed", Some("typed:one")),
    ] {
        let status = it.status(name);
        assert_eq!((status.state, failure(&status)), (State::Nacked, Some((113, "1", bytes))), "{name}");
        assert!(status.version.is_none() && status.bytes.is_none() && status.updated.is_none(), "{name}");
    }
}

#[test]
fn a88_every_state_is_shown_with_its_reason_and_its_time() {
    let mut it = Dialogue::new().asking(LISTENER, &["gone", "faulty", "missing"]);
    it.respond(LISTENER, "1", "n1", &["gone:one", "faulty:one"]);
    let taken = it.now;
    it.wait(1.0);
    let mut errors = response(LISTENER, "2", "n2", &[]);
    errors.resource_errors = vec![resource_error("faulty", 13)];
    it.respond_from(A, &errors);
    let told = it.now;
    it.wait(20.0);
    let status = it.status("faulty");
    assert_eq!((status.state, failure(&status)), (State::ReceivedError, Some((115, "2", None))));
    assert_eq!((text(status.bytes.as_ref()), status.updated, status.since), (Some("faulty:one"), Some(taken), told));
    let status = it.status("missing");
    assert_eq!((status.state, failure(&status)), (State::DoesNotExist, Some((112, "", None))));
    assert_eq!(status.since, taken + seconds(15.0));
    // While a deleted one is used on, it is shown; then no more, and the time stays that of the deletion.
    let status = it.status("gone");
    assert_eq!((status.state, failure(&status)), (State::DoesNotExist, Some((112, "2", None))));
    assert_eq!((text(status.bytes.as_ref()), status.version.as_deref()), (Some("gone:one"), Some("1")));
    it.wait(30.0);
    let status = it.status("gone");
    assert_eq!((status.state, status.since), (State::DoesNotExist, told));
    assert!(status.bytes.is_none() && status.version.is_none() && status.updated.is_none());
    assert_eq!(failure(&status), Some((112, "2", None)));
}

#[test]
fn a88_a_slow_server_is_a_timeout_where_the_bootstrap_says_so() {
    let features = ServerFeatures { resource_timer_is_transient_error: true, ..ServerFeatures::default() };
    let mut it = Dialogue::with_features(features).asking(LISTENER, &["a"]);
    it.wait(31.0);
    let status = it.status("a");
    assert_eq!((status.state, failure(&status)), (State::Timeout, Some((111, "", None))));
}

#[test]
fn a40_the_node_is_the_one_that_servers_are_told() {
    let mut it = Dialogue::new();
    it.subscribe(LISTENER, "a");
    it.connect(A);
    let sent = it.raw_requests(A)[0].node.clone().unwrap();
    assert!(!sent.user_agent_name.is_empty() && !sent.client_features.is_empty());
    assert_eq!(core::Node::decode(it.engine.status().node).unwrap(), sent);
}
