//! Dialogues with a load reporting server, on virtual time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use envoy_types::pb::google::protobuf;
use prost::Message;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::ads::{ControlStream, ControlTransport, Jitter, Opening, Settings, TransportError};
use crate::bootstrap::{Node, ServerConfig};
use crate::event::{Event, EventSink};
use crate::load::{ClusterKey, Load, LoadLease, LoadReport, LoadStore, Outcome};
use crate::model::{EndpointMetric, Locality};

fn server() -> Arc<ServerConfig> {
    Arc::new(ServerConfig::insecure("a"))
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.backoff.jitter = Jitter::Share(0.0);
    settings
}

fn node() -> Node {
    Node { id: "me".into(), ..Node::default() }
}

fn seconds(seconds: i64) -> Option<protobuf::Duration> {
    Some(protobuf::Duration { seconds, nanos: 0 })
}

fn ask_for(clusters: &[&str], interval: i64) -> Vec<u8> {
    let clusters = clusters.iter().map(|name| (*name).to_owned()).collect();
    LoadStatsResponse { clusters, load_reporting_interval: seconds(interval), ..Default::default() }.encode_to_vec()
}

fn ask_for_all(interval: i64) -> Vec<u8> {
    let load_reporting_interval = seconds(interval);
    LoadStatsResponse { send_all_clusters: true, load_reporting_interval, ..Default::default() }.encode_to_vec()
}

/// One stream's protocol with a clock in the test's hand.
struct Dialogue {
    reporter: Reporter,
    loads: Arc<LoadStore>,
    now: Instant,
}

impl Dialogue {
    fn new() -> Self {
        let loads = LoadStore::new();
        Self { reporter: Reporter::new(server(), &node(), loads.clone(), &settings(), 1), loads, now: Instant::now() }
    }

    /// With a lease of cluster `blue` and an open stream on which the node was said.
    fn open() -> (Self, LoadLease) {
        let mut it = Self::new();
        let lease = it.lease("blue");
        it.reporter.handle_change(it.now);
        assert_eq!(it.actions(), [Action::Open]);
        it.reporter.handle_connected(it.now);
        it.request().unwrap();
        (it, lease)
    }

    fn lease(&self, cluster: &str) -> LoadLease {
        let key = ClusterKey { cluster: cluster.into(), service: "eds".into() };
        self.loads.lease(&server(), key, self.now)
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.reporter.poll_action()).collect()
    }

    fn events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.reporter.poll_event()).map(|event| event.to_string()).collect()
    }

    /// The next request, which is written at once.
    fn request(&mut self) -> Option<LoadStatsRequest> {
        let request = self.reporter.poll_request()?;
        self.reporter.handle_written(self.now);
        Some(LoadStatsRequest::decode(request).unwrap())
    }

    fn say(&mut self, response: &[u8]) {
        self.reporter.handle_message(response, self.now);
    }

    /// Lets time pass, jumping from deadline to deadline; the requests that go out, with the seconds at which they do.
    fn pass(&mut self, seconds: u64) -> Vec<(u64, Vec<ClusterStats>)> {
        let (start, end) = (self.now, self.now + Duration::from_secs(seconds));
        let mut sent = Vec::new();
        while let Some(at) = self.reporter.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.reporter.handle_timeout(at);
            while let Some(request) = self.request() {
                assert!(request.node.is_none(), "the node is said once");
                sent.push(((at - start).as_secs(), request.cluster_stats));
            }
        }
        self.now = end;
        sent
    }
}

fn place(zone: &str) -> Arc<Locality> {
    Arc::new(Locality { region: "r".into(), zone: zone.into(), ..Locality::default() })
}

/// What matters of a report: cluster, drops, interval, and by zone issued, in progress, successes, errors.
fn brief(stats: &[ClusterStats]) -> Vec<String> {
    let locality = |it: &UpstreamLocalityStats| {
        let zone = &it.locality.as_ref().unwrap().zone;
        let counts = [
            it.total_issued_requests,
            it.total_requests_in_progress,
            it.total_successful_requests,
            it.total_error_requests,
        ];
        format!(" {zone}{counts:?}")
    };
    let cluster = |it: &ClusterStats| {
        let localities: String = it.upstream_locality_stats.iter().map(locality).collect();
        let interval = it.load_report_interval.as_ref().unwrap().seconds;
        format!(
            "{}/{} -{} {interval}s{localities}",
            it.cluster_name, it.cluster_service_name, it.total_dropped_requests
        )
    };
    stats.iter().map(cluster).collect()
}

#[test]
fn a27_the_stream_opens_with_the_first_cluster_and_says_who_we_are() {
    let mut it = Dialogue::new();
    it.reporter.handle_change(it.now);
    assert_eq!((it.actions(), it.reporter.poll_timeout()), (vec![], None), "nobody wants anything");
    let _lease = it.lease("blue");
    it.reporter.handle_change(it.now);
    it.reporter.handle_change(it.now);
    assert_eq!(it.actions(), [Action::Open]);
    it.reporter.handle_connected(it.now);
    let hello = it.request().unwrap();
    let node = hello.node.unwrap();
    assert_eq!((&*node.id, hello.cluster_stats.len()), ("me", 0));
    assert!(node.client_features.iter().any(|feature| feature == "envoy.lrs.supports_send_all_clusters"));
    assert_eq!(it.pass(1000), [], "the server has not asked for anything");
}

#[test]
fn a_report_says_what_happened_since_the_one_before() {
    let (mut it, lease) = Dialogue::open();
    it.say(&ask_for_all(10));
    assert_eq!(it.events(), ["reporting load to xDS server a"]);
    let (near, far) = (lease.load().locality(&place("near")), lease.load().locality(&place("far")));
    let _idle = lease.load().locality(&place("idle"));
    for load in [&near, &near, &near, &far] {
        load.begin();
    }
    near.end(Outcome::Succeeded);
    far.end(Outcome::Failed);
    lease.load().dropped(Some("throttle"));
    lease.load().dropped(None);
    let wanted = [EndpointMetric::Cpu, EndpointMetric::AllNamed];
    let bytes =
        Load { cpu_utilization: 0.5, named_metrics: [("q".to_owned(), 2.0)].into(), ..Load::default() }.encode();
    near.add(&LoadReport::read(&bytes).unwrap(), &wanted);
    near.add(&LoadReport::read(&bytes).unwrap(), &wanted);

    let sent = it.pass(10);
    assert_eq!(sent[0].0, 10);
    assert_eq!(brief(&sent[0].1), ["blue/eds -2 10s far[1, 0, 0, 1] near[3, 2, 1, 0]"]);
    let [stats] = &sent[0].1[..] else { panic!("{sent:?}") };
    let [throttle] = &stats.dropped_requests[..] else { panic!("{stats:?}") };
    assert_eq!((&*throttle.category, throttle.dropped_count), ("throttle", 1), "a breaker's drop has no category");
    let near_stats = &stats.upstream_locality_stats[1];
    assert_eq!(near_stats.locality.as_ref().unwrap().region, "r");
    let cpu = near_stats.cpu_utilization.as_ref().unwrap();
    assert_eq!((cpu.num_requests_finished_with_metric, cpu.total_metric_value), (2, 1.0));
    let [queue] = &near_stats.load_metric_stats[..] else { panic!("{near_stats:?}") };
    assert_eq!(
        (&*queue.metric_name, queue.num_requests_finished_with_metric, queue.total_metric_value),
        ("named_metrics.q", 2, 4.0)
    );
    assert!(near_stats.mem_utilization.is_none());

    near.end(Outcome::Succeeded);
    let sent = it.pass(10);
    assert_eq!(brief(&sent[0].1), ["blue/eds -0 10s near[0, 1, 1, 0]"]);
}

#[test]
fn of_empty_reports_only_the_first_is_sent() {
    let (mut it, lease) = Dialogue::open();
    it.say(&ask_for_all(1));
    assert_eq!(it.pass(5), [(1, vec![])]);
    lease.load().dropped(None);
    let sent: Vec<_> = it.pass(5).into_iter().map(|(at, stats)| (at, brief(&stats))).collect();
    assert_eq!(sent, [(1, vec!["blue/eds -1 1s".to_owned()]), (2, vec![])]);
}

#[test]
fn the_server_chooses_clusters_and_interval_and_may_change_its_mind() {
    let (mut it, blue) = Dialogue::open();
    let green = it.lease("green");
    let drop_both = || [&blue, &green].map(|lease| lease.load().dropped(None));
    it.say(&ask_for(&["green"], 2));
    drop_both();
    assert_eq!(brief(&it.pass(2)[0].1), ["green/eds -1 2s"]);
    // The same answer again does not put the next report off.
    it.pass(1);
    it.say(&ask_for(&["green"], 2));
    drop_both();
    let sent = it.pass(1);
    assert_eq!(brief(&sent[0].1), ["green/eds -1 2s"]);
    // What was counted before it was asked for is told with the time it took.
    it.say(&ask_for_all(7));
    let sent = it.pass(7);
    assert_eq!((sent.len(), brief(&sent[0].1)), (1, vec!["blue/eds -2 11s".to_owned()]));
    // None is asked for.
    it.say(&ask_for(&[], 1));
    drop_both();
    assert!(it.pass(5).iter().all(|(_, stats)| stats.is_empty()));
}

#[test]
fn intervals_below_a_second_are_a_second_and_negative_ones_garbage() {
    let (mut it, _lease) = Dialogue::open();
    it.say(&ask_for_all(-1));
    it.say(b"\xff\xff");
    let events = it.events();
    assert!(events[0].contains("load_reporting_interval"), "{events:?}");
    assert_eq!((events.len(), it.pass(100).len()), (2, 0));
    it.say(&ask_for_all(0));
    assert_eq!(it.pass(100), [(1, vec![])]);
    it.say(&ask_for_all(i64::MAX));
    assert_eq!(it.pass(1000), [], "no time overflows");
}

#[test]
fn reports_by_endpoint_are_left_out_with_a_word() {
    let (mut it, _lease) = Dialogue::open();
    let response = LoadStatsResponse { report_endpoint_granularity: true, ..Default::default() };
    it.say(&response.encode_to_vec());
    assert!(it.events()[1].contains("report_endpoint_granularity"));
}

#[test]
fn a57_a_stream_that_fails_is_opened_again_and_the_count_goes_on() {
    let (mut it, lease) = Dialogue::open();
    it.say(&ask_for_all(10));
    it.events();
    lease.load().dropped(None);
    it.reporter.handle_lost("connection reset", it.now);
    // It had answered: nothing to speak of, and the first wait of the backoff.
    assert_eq!(it.events(), Vec::<String>::new());
    let mut waits = Vec::new();
    for _ in 0..3 {
        let at = it.reporter.poll_timeout().unwrap();
        waits.push((at - it.now).as_secs_f64());
        it.now = at;
        it.reporter.handle_timeout(at);
        assert_eq!(it.actions(), [Action::Open]);
        it.reporter.handle_lost("UNIMPLEMENTED: what is that?", it.now);
    }
    assert_eq!(waits, [1.0, 1.6, 2.0]);
    assert_eq!(it.events(), ["load cannot be reported to xDS server a: UNIMPLEMENTED: what is that?"], "told once");

    it.pass(2);
    it.actions();
    it.reporter.handle_connected(it.now);
    assert!(it.request().unwrap().node.is_some(), "a new stream is told who we are");
    it.say(&ask_for_all(10));
    assert_eq!(it.events(), ["reporting load to xDS server a"]);
    let sent = it.pass(10);
    assert_eq!(sent[0].1[0].total_dropped_requests, 1, "what was not reported is kept");
    it.reporter.handle_lost("connection reset", it.now);
    assert_eq!(it.reporter.poll_timeout(), Some(it.now + Duration::from_secs(1)), "an answer ends the outage");
}

/// What cannot be written is counted again, with its time.
#[test]
fn a_report_that_is_lost_on_its_way_is_told_with_the_next() {
    for is_being_written in [false, true] {
        let (mut it, lease) = Dialogue::open();
        it.say(&ask_for_all(10));
        let near = lease.load().locality(&place("near"));
        let served = |outcome| {
            near.begin();
            near.end(outcome);
            let load = Load {
                cpu_utilization: 0.5,
                mem_utilization: 0.25,
                application_utilization: 0.125,
                named_metrics: [("q".to_owned(), 2.0)].into(),
                ..Load::default()
            };
            let wanted =
                [EndpointMetric::Cpu, EndpointMetric::Memory, EndpointMetric::Application, EndpointMetric::AllNamed];
            near.add(&LoadReport::read(&load.encode()).unwrap(), &wanted);
        };
        near.begin();
        served(Outcome::Succeeded);
        lease.load().dropped(Some("throttle"));
        lease.load().dropped(None);
        it.now += Duration::from_secs(10);
        it.reporter.handle_timeout(it.now);
        if is_being_written {
            it.reporter.poll_request().expect("a report");
        }
        it.reporter.handle_lost("connection reset", it.now);
        served(Outcome::Failed);
        lease.load().dropped(Some("throttle"));

        it.pass(1);
        it.reporter.handle_connected(it.now);
        assert!(it.request().unwrap().node.is_some());
        it.say(&ask_for_all(10));
        let sent = it.pass(10);
        assert_eq!(brief(&sent[0].1), ["blue/eds -3 21s near[3, 1, 1, 1]"]);
        let [stats] = &sent[0].1[..] else { panic!("{sent:?}") };
        assert_eq!(stats.dropped_requests[0].dropped_count, 2);
        let near_stats = &stats.upstream_locality_stats[0];
        let sums = [&near_stats.cpu_utilization, &near_stats.mem_utilization, &near_stats.application_utilization]
            .map(|sum| sum.as_ref().map(|sum| (sum.num_requests_finished_with_metric, sum.total_metric_value)));
        assert_eq!(sums, [Some((2, 1.0)), Some((2, 0.5)), Some((2, 0.25))]);
        let queue = &near_stats.load_metric_stats[0];
        assert_eq!((queue.num_requests_finished_with_metric, queue.total_metric_value), (2, 4.0));
        near.end(Outcome::Succeeded);
        let sent = it.pass(10);
        assert_eq!(brief(&sent[0].1), ["blue/eds -0 10s near[0, 0, 1, 0]"], "and told once");
    }
}

/// The last report of a cluster, too: as long as anything else is reported there.
#[test]
fn the_last_report_of_a_cluster_that_is_lost_on_its_way_is_told_with_the_next() {
    let (mut it, _lease) = Dialogue::open();
    let green = it.lease("green");
    it.say(&ask_for_all(10));
    green.load().dropped(None);
    drop(green);
    it.now += Duration::from_secs(10);
    it.reporter.handle_timeout(it.now);
    it.reporter.handle_lost("connection reset", it.now);
    it.pass(1);
    it.reporter.handle_connected(it.now);
    it.request().expect("who we are");
    it.say(&ask_for_all(10));
    assert_eq!(brief(&it.pass(10)[0].1), ["green/eds -1 21s"]);
}

#[test]
fn a_connection_that_does_not_come_is_given_up() {
    let mut it = Dialogue::new();
    let _lease = it.lease("blue");
    it.reporter.handle_change(it.now);
    it.actions();
    it.now = it.reporter.poll_timeout().unwrap();
    it.reporter.handle_timeout(it.now);
    assert_eq!(it.actions(), [Action::Close]);
    assert!(it.events()[0].contains("no connection after 10 s"));
}

#[test]
fn a_slow_server_gets_one_report_at_a_time() {
    let (mut it, lease) = Dialogue::open();
    it.say(&ask_for_all(1));
    lease.load().dropped(None);
    it.now += Duration::from_secs(1);
    it.reporter.handle_timeout(it.now);
    assert!(it.reporter.poll_request().is_some());
    assert_eq!(it.reporter.poll_timeout(), None, "until it is written there is nothing to do");
    lease.load().dropped(None);
    it.now += Duration::from_secs(5);
    assert!(it.reporter.poll_request().is_none());
    it.reporter.handle_written(it.now);
    let report = it.request().unwrap();
    assert_eq!(brief(&report.cluster_stats), ["blue/eds -1 5s"], "all that came meanwhile, at once");
}

#[test]
fn the_last_cluster_to_leave_closes_the_stream_after_its_last_report() {
    let (mut it, lease) = Dialogue::open();
    it.say(&ask_for_all(10));
    lease.load().dropped(None);
    drop(lease);
    it.reporter.handle_change(it.now);
    assert_eq!(it.actions(), [], "there is something left to say");
    assert_eq!(brief(&it.request().unwrap().cluster_stats), ["blue/eds -1 0s"]);
    assert_eq!((it.actions(), it.reporter.is_idle()), (vec![Action::Close], true));

    // With nothing to say it closes at once; wanted again, it is opened again.
    let lease = it.lease("blue");
    it.reporter.handle_change(it.now);
    assert_eq!(it.actions(), [Action::Open]);
    drop(lease);
    it.reporter.handle_change(it.now);
    assert_eq!(it.actions(), [Action::Close]);
    assert_eq!(it.reporter.poll_timeout(), None);
}

#[test]
fn a_cluster_that_comes_back_in_time_keeps_the_stream() {
    let (mut it, lease) = Dialogue::open();
    it.say(&ask_for_all(10));
    lease.load().dropped(None);
    drop(lease);
    it.reporter.handle_change(it.now);
    let lease = it.lease("blue");
    it.reporter.handle_change(it.now);
    assert!(it.request().is_some());
    assert_eq!(it.actions(), []);
    lease.load().dropped(None);
    assert_eq!(brief(&it.pass(10)[0].1), ["blue/eds -1 10s"]);
}

// -- the driver --

type Incoming = UnboundedReceiver<Result<Bytes, TransportError>>;

/// A transport whose streams are in the test's hand, in the order in which they are opened; without one, it refuses.
#[derive(Default)]
struct Scripted {
    streams: Mutex<VecDeque<Incoming>>,
    sent: Mutex<Option<UnboundedSender<(String, LoadStatsRequest)>>>,
}

struct ScriptedStream {
    server: String,
    inbox: Incoming,
    sent: UnboundedSender<(String, LoadStatsRequest)>,
}

impl ControlTransport for Scripted {
    fn open(&self, server: &ServerConfig, path: &str) -> Opening {
        assert_eq!(path, "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats");
        let sent = self.sent.lock().unwrap().clone().unwrap();
        let stream = self.streams.lock().unwrap().pop_front().map(|inbox| {
            Box::new(ScriptedStream { server: server.uri.to_string(), inbox, sent }) as Box<dyn ControlStream>
        });
        Box::pin(std::future::ready(stream.ok_or_else(|| TransportError::new("connection refused"))))
    }
}

impl ControlStream for ScriptedStream {
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, message: Bytes) {
        self.sent.send((self.server.clone(), LoadStatsRequest::decode(message).unwrap())).unwrap();
    }

    fn finish(&mut self) {}

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        self.inbox.poll_recv(cx)
    }
}

#[derive(Default)]
struct Events(Mutex<Vec<String>>);

impl EventSink for Events {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn the_driver_reports_to_every_server_that_is_wanted() {
    let (sent, mut requests) = unbounded_channel();
    let (to_a, from_a) = unbounded_channel();
    let (to_b, from_b) = unbounded_channel();
    let transport = Scripted { streams: Mutex::new(VecDeque::from([from_a, from_b])), sent: Mutex::new(Some(sent)) };
    let (loads, events) = (LoadStore::new(), Arc::new(Events::default()));
    let driver = Driver::new(loads.clone(), Arc::new(transport), node(), settings(), events.clone(), 1);
    let running = tokio::spawn(driver);
    let now = || tokio::time::Instant::now().into_std();
    let key = |cluster: &str| ClusterKey { cluster: cluster.into(), service: "eds".into() };

    let blue = loads.lease(&server(), key("blue"), now());
    assert_eq!(requests.recv().await.unwrap().0, "a");
    let green = loads.lease(&Arc::new(ServerConfig::insecure("b")), key("green"), now());
    assert_eq!(requests.recv().await.unwrap().0, "b");
    to_a.send(Ok(ask_for_all(5).into())).unwrap();
    to_b.send(Ok(ask_for_all(3).into())).unwrap();
    blue.load().dropped(None);
    green.load().dropped(None);
    let (from, report) = requests.recv().await.unwrap();
    assert_eq!((&*from, brief(&report.cluster_stats)), ("b", vec!["green/eds -1 3s".to_owned()]));
    let (from, report) = requests.recv().await.unwrap();
    assert_eq!((&*from, brief(&report.cluster_stats)), ("a", vec!["blue/eds -1 5s".to_owned()]));

    // A lost stream is tried again; with nobody left to report, it ends.
    to_a.send(Err(TransportError::new("reset"))).unwrap();
    drop((green, blue));
    tokio::time::timeout(Duration::from_secs(60), to_b.closed()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), to_a.closed()).await.unwrap();
    assert_eq!(*events.0.lock().unwrap(), ["reporting load to xDS server a", "reporting load to xDS server b"]);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_is_left_is_told_to_whoever_can_be_reached() {
    let (sent, mut requests) = unbounded_channel();
    let (to_a, from_a) = unbounded_channel();
    // Only the first stream there is opens: `b` cannot be reached.
    let transport = Scripted { streams: Mutex::new(VecDeque::from([from_a])), sent: Mutex::new(Some(sent)) };
    let loads = LoadStore::new();
    let driver = Driver::new(loads.clone(), Arc::new(transport), node(), settings(), Arc::<Events>::default(), 1);
    let running = tokio::spawn(driver);
    let now = || tokio::time::Instant::now().into_std();
    let key = |cluster: &str| ClusterKey { cluster: cluster.into(), service: "eds".into() };
    let blue = loads.lease(&server(), key("blue"), now());
    assert_eq!(requests.recv().await.unwrap().0, "a");
    let _green = loads.lease(&Arc::new(ServerConfig::insecure("b")), key("green"), now());
    to_a.send(Ok(ask_for_all(3600).into())).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    blue.load().dropped(None);
    tokio::time::timeout(Duration::from_secs(1), loads.end()).await.expect("nobody is waited for");
    let (from, report) = requests.recv().await.unwrap();
    assert_eq!((&*from, brief(&report.cluster_stats)), ("a", vec!["blue/eds -1 1s".to_owned()]));
    assert!(to_a.is_closed());
    tokio::time::timeout(Duration::from_secs(1), loads.end()).await.expect("a second end is as the first");
    running.abort();
}
