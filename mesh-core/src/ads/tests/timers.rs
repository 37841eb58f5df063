//! Timers and backoff (`spec` sections 2.5 and 2.6; gRFC A57).

use super::*;

/// grpc-go's `TestADS_WatchState_TimerFires` and `*Watch_ExpiryTimerFiresBeforeResponse`.
#[test]
fn a57_a_resource_that_does_not_come_within_15_s_does_not_exist() {
    for type_url in [LISTENER, ROUTE_CONFIGURATION, CLUSTER, CLUSTER_LOAD_ASSIGNMENT] {
        let mut it = Dialogue::new().asking(type_url, &["a"]);
        it.wait(14.9);
        assert_eq!(it.told(), [""; 0]);
        assert_eq!(it.state(type_url, "a"), State::Requested);
        it.wait(0.2);
        assert_eq!(it.told(), ["a unusable MESH-111"]);
        assert_eq!(it.state(type_url, "a"), State::DoesNotExist);
        it.respond(type_url, "1", "n1", &["a:late"]);
        assert_eq!(it.told(), ["a=late"], "the subscription remains");
    }
}

#[test]
fn a57_a_server_that_sends_others_of_the_type_does_not_have_this_one() {
    let mut it = Dialogue::new().asking(LISTENER, &["a", "b"]);
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    it.told();
    it.wait(16.0);
    assert_eq!(it.told(), ["b unusable MESH-112"]);
}

#[test]
fn a57_a_server_that_fell_silent_has_not_said_that_it_does_not_have_it() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    it.requests(A);
    it.wait(0.1);
    it.subscribe(LISTENER, "b");
    it.requests(A);
    it.told();
    it.wait(16.0);
    assert_eq!(it.told(), ["b unusable MESH-111"], "it spoke before it was asked for b, and not since");
    it.subscribe(LISTENER, "c");
    it.requests(A);
    it.respond(LISTENER, "2", "n2", &["a:one"]);
    it.wait(16.0);
    assert_eq!(it.told(), ["c unusable MESH-112"], "it was asked, spoke, and left c out");
}

#[test]
fn a57_a_response_that_could_hold_it_does_not_say_that_it_is_not_there() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.respond(LISTENER, "1", "n1", &["cannot even be named"]);
    it.wait(16.0);
    assert_eq!(it.told(), ["a unusable MESH-111"]);
}

/// grpc-go's `*Watch_ValidResponseCancelsExpiryTimerBehavior`; an invalid one does too.
#[test]
fn a57_a_response_stops_the_timer_even_a_bad_one() {
    let mut it = Dialogue::new().asking(LISTENER, &["a", "b"]);
    it.wait(10.0);
    it.respond(LISTENER, "1", "n1", &["a:one", "b:bad"]);
    assert_eq!(it.told(), ["a=one", "b unusable MESH-113"]);
    it.wait(60.0);
    assert_eq!(it.told(), [""; 0]);
    assert_eq!(it.state(LISTENER, "b"), State::Nacked);
}

#[test]
fn a57_the_timer_starts_when_the_request_is_written() {
    let mut it = Dialogue::new();
    it.subscribe(LISTENER, "a");
    it.connect(A);
    it.writes = false;
    it.wait(5.0);
    assert_eq!(it.requests(A).len(), 1);
    it.wait(5.0);
    it.engine.handle_written(A, it.now);
    it.wait(14.9);
    assert_eq!(it.told(), [""; 0], "24.9 s after the subscription, 14.9 s after the request");
    it.wait(0.2);
    assert_eq!(it.told(), ["a unusable MESH-111"]);
}

#[test]
fn a57_a_name_that_is_wanted_while_a_request_is_written_is_not_timed_by_it() {
    let mut it = Dialogue::new();
    it.subscribe(LISTENER, "a");
    it.connect(A);
    it.writes = false;
    it.requests(A);
    it.wait(1.0);
    it.subscribe(LISTENER, "b");
    it.engine.handle_written(A, it.now);
    it.writes = true;
    it.wait(9.0);
    assert_eq!(it.requests(A), ["Listener a,b version  nonce "]);
    it.wait(6.1);
    assert_eq!(it.told(), ["a unusable MESH-111"], "a's timer ran from its own request");
    it.wait(9.0);
    assert_eq!(it.told(), ["b unusable MESH-111"]);
}

/// grpc-go's `TestADS_WatchState_StreamBreaks`.
#[test]
fn a57_a_broken_stream_stops_timers_and_the_next_one_starts_them_again() {
    let mut it = Dialogue::new().asking(LISTENER, &["a", "b"]);
    it.respond(LISTENER, "1", "n1", &["b:one"]);
    it.requests(A);
    it.told();
    it.wait(14.0);
    it.lose(A);
    it.wait(2.0);
    assert_eq!(it.told(), [""; 0], "no timer runs without a stream");
    it.connect(A);
    it.requests(A);
    it.wait(14.9);
    assert_eq!(it.told(), [""; 0]);
    it.wait(0.2);
    assert_eq!(it.told(), ["a unusable MESH-111"]);
}

#[test]
fn a57_what_is_cached_is_not_timed_after_a_restart() {
    let mut it = Dialogue::new().asking(CLUSTER, &["a"]);
    it.respond(CLUSTER, "1", "n1", &["a:one"]);
    it.requests(A);
    it.told();
    it.lose(A);
    it.wait(2.0);
    it.connect(A);
    it.requests(A);
    it.wait(120.0);
    assert_eq!(it.told(), [""; 0], "a server may leave out what has the same version");
    assert_eq!(it.state(CLUSTER, "a"), State::Acked);
}

#[test]
fn a57_wanting_no_more_stops_the_timer() {
    let mut it = Dialogue::new().asking(CLUSTER, &["a", "b"]);
    it.wait(10.0);
    it.unsubscribe(CLUSTER, "a");
    it.subscribe(CLUSTER, "a");
    it.requests(A);
    it.wait(6.0);
    assert_eq!(it.told(), ["b unusable MESH-111"], "a was asked for again, later");
    it.wait(10.0);
    assert_eq!(it.told(), ["a unusable MESH-111"]);
}

#[test]
fn a88_the_timer_may_be_longer_and_mean_a_passing_fault() {
    let features = ServerFeatures { resource_timer_is_transient_error: true, ..ServerFeatures::default() };
    let mut it = Dialogue::with_features(features).asking(LISTENER, &["a"]);
    it.wait(29.9);
    assert_eq!(it.told(), [""; 0]);
    it.wait(0.2);
    let told = it.told_events();
    let [ResourceEvent::Unusable { error, .. }] = told.as_slice() else { panic!("{told:?}") };
    assert!(error.is_unavailable());
    assert_eq!(it.state(LISTENER, "a"), State::Timeout);
}

/// grpc-go's `TestADS_BackoffAfterStreamFailure`.
#[test]
fn a57_streams_that_fail_are_tried_again_less_and_less_often() {
    let backoff = BackoffSettings { jitter: Jitter::Share(0.0), ..BackoffSettings::grpc() };
    let settings = Settings { backoff, ..Settings::default() };
    let mut it = Dialogue::with(vec![ServerConfig::insecure("a")], settings);
    it.subscribe(LISTENER, "a");
    it.connect(A);
    for wait in [1.0, 1.6, 2.56] {
        it.lose(A);
        it.wait(wait - 0.01);
        assert_eq!(it.actions(), [], "before {wait}");
        it.wait(0.02);
        it.connect(A);
    }
    it.requests(A);
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    it.lose(A);
    it.wait(1.01);
    assert_eq!(it.actions(), [Action::Open(A)], "an answer starts over");
}

/// grpc-go's `TestADS_RetriesAfterBrokenStream`.
#[test]
fn a57_the_end_of_a_stream_that_answered_is_not_an_error() {
    let mut it = Dialogue::new().asking(LISTENER, &["a", "b"]);
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    it.told();
    it.events();
    it.lose(A);
    assert_eq!((it.told(), it.events()), (vec![], vec![]));
}

#[test]
fn a57_a_stream_that_ends_without_an_answer_is_an_error_for_all_that_have_nothing() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.lose(A);
    assert_eq!(it.told(), ["a unusable MESH-110"]);
    assert_eq!(it.state(LISTENER, "a"), State::Requested, "it is still asked for");
    it.subscribe(LISTENER, "b");
    assert_eq!(it.told(), ["b unusable MESH-110"], "who comes later is told at once");
    it.wait(2.0);
    it.connect(A);
    it.requests(A);
    it.respond(LISTENER, "1", "n1", &["a:one", "b:two"]);
    assert_eq!(it.told(), ["a=one", "b=two"]);
}

#[test]
fn a57_an_outage_does_not_take_away_what_is_cached() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    it.requests(A);
    it.told();
    it.lose(A);
    it.wait(2.0);
    it.connect(A);
    it.lose(A);
    assert_eq!(it.told(), ["a ambient MESH-110"]);
    it.wait(3600.0);
    assert_eq!(it.told(), [""; 0], "once is enough, and nothing expires");
    it.reconnect(A);
    it.requests(A);
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    assert_eq!(it.told(), ["a well"]);
}

#[test]
fn errors_name_the_server_the_node_and_the_reason() {
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    it.lose(A);
    let told = it.told_events();
    let [ResourceEvent::Unusable { error, .. }] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(error.message(), "xDS server a: connection refused [xDS node id: node-1]");
}

#[test]
fn a_connection_that_does_not_stand_in_time_is_given_up() {
    let mut it = Dialogue::new();
    it.subscribe(LISTENER, "a");
    assert_eq!(it.actions(), [Action::Open(A)]);
    it.wait(10.1);
    assert_eq!(it.actions()[0], Action::Close(A));
    assert_eq!(it.told(), ["a unusable MESH-110"]);
}

/// Issue 2: no request waits longer than 15 s to hear that there is no control plane.
#[test]
fn patience_ends_even_if_no_server_has_failed_yet() {
    let settings = Settings { connect_timeout: seconds(60.0), ..Settings::default() };
    let mut it = Dialogue::with(vec![ServerConfig::insecure("a")], settings);
    it.subscribe(LISTENER, "a");
    it.wait(14.9);
    assert_eq!(it.told(), [""; 0]);
    it.wait(0.2);
    assert_eq!(it.told(), ["a unusable MESH-110"]);
    it.connect(A);
    it.requests(A);
    it.respond(LISTENER, "1", "n1", &["a:one"]);
    assert_eq!(it.told(), ["a=one"]);
}
