//! What is counted, and what is read of reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::bootstrap::ServerConfig;
use crate::model::{EndpointMetric, Locality, Name};

/// The message as its .proto says it, decoded by prost: who judges our own reader and writer.
#[derive(Clone, PartialEq, Message)]
struct OrcaLoadReport {
    #[prost(double, tag = "1")]
    cpu_utilization: f64,
    #[prost(double, tag = "2")]
    mem_utilization: f64,
    #[prost(uint64, tag = "3")]
    rps: u64,
    #[prost(btree_map = "string, double", tag = "4")]
    request_cost: BTreeMap<String, f64>,
    #[prost(btree_map = "string, double", tag = "5")]
    utilization: BTreeMap<String, f64>,
    #[prost(double, tag = "6")]
    rps_fractional: f64,
    #[prost(double, tag = "7")]
    eps: f64,
    #[prost(btree_map = "string, double", tag = "8")]
    named_metrics: BTreeMap<String, f64>,
    #[prost(double, tag = "9")]
    application_utilization: f64,
}

fn amounts() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), 0.0..1.0, 1.0..1e12]
}

fn map(values: impl Strategy<Value = f64>) -> impl Strategy<Value = BTreeMap<String, f64>> {
    proptest::collection::btree_map("[a-z.\u{e4}]{0,20}", values, 0..4)
}

fn loads() -> impl Strategy<Value = Load> {
    let numbers = (amounts(), 0.0..=1.0, amounts(), amounts(), amounts());
    let maps = (map(-1e6..1e6), map(0.0..=1.0), map(-1e6..1e6));
    (numbers, maps).prop_map(|((cpu, mem, application, rps, eps), (request_cost, utilization, named_metrics))| Load {
        cpu_utilization: cpu,
        mem_utilization: mem,
        application_utilization: application,
        requests_per_second: rps,
        errors_per_second: eps,
        request_cost,
        utilization,
        named_metrics,
    })
}

proptest! {
    #[test]
    fn a51_reports_are_written_and_read_as_protobuf_has_them(load in loads(), rps in any::<u64>()) {
        let message = OrcaLoadReport {
            cpu_utilization: load.cpu_utilization,
            mem_utilization: load.mem_utilization,
            rps,
            request_cost: load.request_cost.clone(),
            utilization: load.utilization.clone(),
            rps_fractional: load.requests_per_second,
            eps: load.errors_per_second,
            named_metrics: load.named_metrics.clone(),
            application_utilization: load.application_utilization,
        };
        let theirs = message.encode_to_vec();
        prop_assert_eq!(&Load::from(&LoadReport::read(&theirs).unwrap()), &load);
        let ours = OrcaLoadReport::decode(&load.encode()[..]).unwrap();
        prop_assert_eq!(ours, OrcaLoadReport { rps: 0, ..message });
        let headers = HeaderMap::from_iter([(LOAD_REPORT, load.to_header())]);
        let mut found = None;
        prop_assert!(LoadReport::of(&headers, |report| found = Some(Load::from(report))));
        prop_assert_eq!(found, Some(load));
    }

    #[test]
    fn hostile_bytes_are_refused_where_protobuf_refuses_them(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        // Prost accepts groups, which no message of proto3 has; what we read it reads too.
        if let Some(report) = LoadReport::read(&bytes) {
            prop_assert!(OrcaLoadReport::decode(&bytes[..]).is_ok());
            let _ = (report.named_metrics().count(), report.request_cost().count(), report.utilization().count());
        }
    }
}

#[test]
fn values_outside_their_rules_spoil_a_report() {
    let good = Load { cpu_utilization: 1.5, mem_utilization: 1.0, ..Load::default() };
    assert!(LoadReport::read(&good.encode()).is_some());
    let named = |value| BTreeMap::from([("a".to_owned(), value)]);
    let bad = [
        Load { cpu_utilization: -0.1, ..Load::default() },
        Load { cpu_utilization: f64::NAN, ..Load::default() },
        Load { application_utilization: f64::INFINITY, ..Load::default() },
        Load { mem_utilization: 1.1, ..Load::default() },
        Load { errors_per_second: -1.0, ..Load::default() },
        Load { requests_per_second: -1.0, ..Load::default() },
        Load { utilization: named(1.1), ..Load::default() },
        Load { named_metrics: named(f64::NAN), ..Load::default() },
    ];
    for load in bad {
        assert!(LoadReport::read(&load.encode()).is_none(), "{load:?}");
    }
}

#[test]
fn metrics_are_found_by_the_names_that_resources_use() {
    let load = Load {
        cpu_utilization: 0.25,
        named_metrics: BTreeMap::from([("a.b".to_owned(), 2.0), ("zero".to_owned(), 0.0)]),
        utilization: BTreeMap::from([("disk".to_owned(), 0.5)]),
        request_cost: BTreeMap::from([("db".to_owned(), 3.0)]),
        ..Load::default()
    };
    let bytes = load.encode();
    let report = LoadReport::read(&bytes).unwrap();
    let found = [
        "cpu_utilization",
        "named_metrics.a.b",
        "named_metrics.zero",
        "utilization.disk",
        "request_cost.db",
        "mem_utilization",
        "named_metrics.disk",
        "db",
        "other.db",
    ]
    .map(|name| report.metric(name));
    assert_eq!(found, [Some(0.25), Some(2.0), Some(0.0), Some(0.5), Some(3.0), None, None, None, None]);
}

#[test]
fn every_form_of_header_is_read_and_a_bad_one_is_none() {
    let of = |values: &[(&'static str, &str)]| {
        let headers =
            values.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        let mut found = None;
        let any = LoadReport::of(&headers.collect(), |report| found = Some(Load::from(report)));
        assert_eq!(any, found.is_some());
        found
    };
    const BIN: &str = "endpoint-load-metrics-bin";
    const FORM: &str = "endpoint-load-metrics";
    let half = Load { cpu_utilization: 0.5, ..Load::default() };
    // 09 00 00 00 00 00 00 e0 3f: field 1, the double 0.5.
    assert_eq!(of(&[(BIN, "CQAAAAAAAOA/")]), Some(half.clone()));
    assert_eq!(of(&[(FORM, "BIN CQAAAAAAAOA/")]), Some(half.clone()));
    assert_eq!(of(&[(FORM, "TEXT cpu_utilization=0.5")]), Some(half.clone()));
    assert_eq!(of(&[(FORM, r#"JSON {"cpuUtilization": 0.5, "unknown": 1}"#)]), Some(half.clone()));
    let named = Load { named_metrics: BTreeMap::from([("q".to_owned(), 5.0)]), errors_per_second: 1.0, ..half.clone() };
    assert_eq!(of(&[(FORM, "TEXT cpu_utilization=0.5, eps=1,named_metrics.q=5")]), Some(named.clone()));
    assert_eq!(of(&[(FORM, r#"JSON {"cpu_utilization": 0.5, "eps": 1, "named_metrics": {"q": 5}}"#)]), Some(named));
    let eps = Load { errors_per_second: 1.0, request_cost: BTreeMap::from([("d".to_owned(), 1.0)]), ..half };
    let bare = eps.to_header();
    let bare = bare.to_str().unwrap();
    let padding = "=".repeat((4 - bare.len() % 4) % 4);
    assert!(!padding.is_empty(), "{bare}");
    assert_eq!(of(&[(BIN, bare)]), Some(eps.clone()));
    assert_eq!(of(&[(BIN, &format!("{bare}{padding}"))]), Some(eps), "with padding too");
    assert!(of(&[(BIN, "CQ==")]).is_none(), "a field that is cut off");
    for bad in
        ["", "XML <a/>", "TEXT", "TEXT cpu=1", "TEXT cpu_utilization", "JSON {", "BIN !", "TEXT named_metrics.=1"]
    {
        assert_eq!(of(&[(FORM, bad)]), None, "{bad}");
    }
    assert_eq!(of(&[(BIN, "CQAAAAAAAOA/"), (BIN, "CQAAAAAAAOA/")]), None, "which of the two?");
    assert_eq!(of(&[]), None);
}

#[test]
fn large_reports_are_read_too() {
    let named_metrics: BTreeMap<String, f64> = (0..200).map(|at| (format!("metric-{at}"), f64::from(at))).collect();
    let load = Load { named_metrics, ..Load::default() };
    let headers = HeaderMap::from_iter([(LOAD_REPORT, load.to_header())]);
    assert!(load.to_header().len() > 4096);
    assert!(LoadReport::of(&headers, |report| assert_eq!(Load::from(report), load)));
}

#[test]
fn a_requests_values_beat_its_servers() {
    let named = |name: &str, value| BTreeMap::from([(name.to_owned(), value)]);
    let server = Load { cpu_utilization: 0.1, mem_utilization: 0.2, named_metrics: named("a", 1.0), ..Load::default() };
    let request = Load {
        cpu_utilization: 0.9,
        named_metrics: named("a", 2.0),
        request_cost: named("db", 3.0),
        ..Load::default()
    };
    let expected = Load { mem_utilization: 0.2, ..request.clone() };
    assert_eq!(server.overlaid(&request), expected);
}

// -- counting --

fn key(cluster: &str) -> ClusterKey {
    ClusterKey { cluster: cluster.into(), service: "service".into() }
}

fn place(zone: &str) -> Arc<Locality> {
    Arc::new(Locality { zone: zone.into(), ..Locality::default() })
}

fn server(uri: &str) -> Arc<ServerConfig> {
    Arc::new(ServerConfig::insecure(uri))
}

#[test]
fn counts_are_differences_and_requests_under_way_a_number() {
    let (store, now) = (LoadStore::new(), Instant::now());
    let lease = store.lease(&server("a"), key("blue"), now);
    let load = lease.load().locality(&place("z"));
    for _ in 0..4 {
        load.begin();
    }
    load.end(Outcome::Succeeded);
    load.end(Outcome::Failed);
    load.end(Outcome::Abandoned);
    lease.load().dropped(Some("throttle"));
    lease.load().dropped(Some("throttle"));
    lease.load().dropped(None);

    let taken = store.take(&server("a"), &Selection::All, now + Duration::from_secs(3));
    let first = LocalityCounts { issued: 4, in_progress: 1, succeeded: 1, failed: 2, ..LocalityCounts::default() };
    let expected = ClusterCounts {
        key: key("blue"),
        localities: vec![(place("z"), first)],
        dropped: 3,
        categories: vec![("throttle".into(), 2)],
        elapsed: Duration::from_secs(3),
    };
    assert_eq!(taken, [expected]);

    let taken = store.take(&server("a"), &Selection::All, now + Duration::from_secs(5));
    let still = LocalityCounts { in_progress: 1, ..LocalityCounts::default() };
    let expected = ClusterCounts {
        key: key("blue"),
        localities: vec![(place("z"), still)],
        dropped: 0,
        categories: vec![],
        elapsed: Duration::from_secs(2),
    };
    assert_eq!(taken, [expected]);
    load.end(Outcome::Succeeded);
    store.take(&server("a"), &Selection::All, now);
    assert_eq!(store.take(&server("a"), &Selection::All, now), [], "nothing is left to say");
}

#[test]
fn a_server_is_told_of_its_own_clusters_and_of_those_it_asked_for() {
    let (store, now) = (LoadStore::new(), Instant::now());
    let blue = store.lease(&server("a"), key("blue"), now);
    let green = store.lease(&server("a"), key("green"), now);
    let red = store.lease(&server("b"), key("red"), now);
    for lease in [&blue, &green, &red] {
        lease.load().dropped(None);
    }
    let names = |taken: Vec<ClusterCounts>| taken.iter().map(|one| one.key.cluster.to_string()).collect::<Vec<_>>();
    let only = |name: &str| Selection::Named(vec![name.into()]);
    assert_eq!(names(store.take(&server("a"), &only("green"), now)), ["green"]);
    assert_eq!(names(store.take(&server("a"), &only("red"), now)), Vec::<String>::new(), "it is another server's");
    assert_eq!(names(store.take(&server("a"), &Selection::All, now)), ["blue"], "green was told");
    assert_eq!(names(store.take(&server("b"), &Selection::All, now)), ["red"]);
}

#[test]
fn a_cluster_counts_on_until_its_last_request_is_over() {
    let (store, now) = (LoadStore::new(), Instant::now());
    let kept = store.lease(&server("a"), key("kept"), now);
    let lease = store.lease(&server("a"), key("blue"), now);
    let again = store.lease(&server("a"), key("blue"), now);
    assert!(Arc::ptr_eq(lease.load(), again.load()), "users of a cluster share its counts");
    let load = lease.load().locality(&place("z"));
    load.begin();
    drop((lease, again));
    assert_eq!(store.take(&server("a"), &Selection::All, now)[0].localities[0].1.issued, 1);
    load.end(Outcome::Succeeded);
    drop(load);
    assert_eq!(store.take(&server("a"), &Selection::All, now)[0].localities[0].1.succeeded, 1);
    assert_eq!(store.take(&server("a"), &Selection::All, now), []);
    assert!(store.is_wanted(&server("a")));
    drop(kept);
    assert!(!store.is_wanted(&server("a")) && store.wanted().is_empty());
}

#[test]
fn a64_a85_only_metrics_that_are_asked_for_are_added_up() {
    use EndpointMetric::{AllNamed, Application, Cpu, Memory, Named};
    let report = |cpu, named: &[(&str, f64)]| Load {
        cpu_utilization: cpu,
        application_utilization: 0.5,
        named_metrics: named.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        ..Load::default()
    };
    let counts = |wanted: &[EndpointMetric]| {
        let store = LoadStore::new();
        let lease = store.lease(&server("a"), key("blue"), Instant::now());
        let load = lease.load().locality(&place("z"));
        for report in [report(0.25, &[("a", 1.0), ("b", 2.0)]), report(0.0, &[("a", 0.5), ("a.b", 4.0)])] {
            load.add(&LoadReport::read(&report.encode()).unwrap(), wanted);
        }
        let mut taken = store.take(&server("a"), &Selection::All, Instant::now());
        taken.pop().map(|mut cluster| cluster.localities.remove(0).1).unwrap_or_default()
    };
    let summed = |count, total| Summed { count, total };
    let named = |name: &str, count, total| (Name::from(name), summed(count, total));
    assert!(counts(&[]).is_zero());
    let some = counts(&[Cpu, Memory, Application, Named("a".into())]);
    assert_eq!((some.cpu, some.memory, some.application), (Some(summed(1, 0.25)), None, Some(summed(2, 1.0))));
    assert_eq!(some.named, [named("a", 2, 1.5)]);
    let all = counts(&[Named("a".into()), AllNamed]);
    assert_eq!(all.named, [named("a", 2, 1.5), named("b", 1, 2.0), named("a.b", 1, 4.0)]);
    assert_eq!(all.cpu, None);
}

#[test]
fn a_backend_cannot_make_the_counts_grow_without_bound() {
    let store = LoadStore::new();
    let lease = store.lease(&server("a"), key("blue"), Instant::now());
    let load = lease.load().locality(&place("z"));
    for at in 0..1000 {
        let named_metrics = BTreeMap::from([(format!("metric-{at}"), 1.0), ("x".repeat(300), 1.0)]);
        let bytes = Load { named_metrics, ..Load::default() }.encode();
        load.add(&LoadReport::read(&bytes).unwrap(), &[EndpointMetric::AllNamed]);
    }
    let taken = store.take(&server("a"), &Selection::All, Instant::now());
    assert_eq!(taken[0].localities[0].1.named.len(), 128);
}

#[test]
fn nothing_is_lost_between_threads() {
    let (store, now) = (LoadStore::new(), Instant::now());
    let lease = store.lease(&server("a"), key("blue"), now);
    let bytes = Load { named_metrics: BTreeMap::from([("m".to_owned(), 1.0)]), ..Load::default() }.encode();
    let (mut issued, mut succeeded, mut dropped, mut sum) = (0, 0, 0, 0.0);
    let mut add = |store: &LoadStore| {
        for cluster in store.take(&server("a"), &Selection::All, now) {
            dropped += cluster.dropped;
            for (_, counts) in cluster.localities {
                issued += counts.issued;
                succeeded += counts.succeeded;
                sum += counts.named.iter().map(|(_, summed)| summed.total).sum::<f64>();
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let load = lease.load().locality(&place("z"));
                    for _ in 0..5000 {
                        load.begin();
                        load.add(&LoadReport::read(&bytes).unwrap(), &[EndpointMetric::AllNamed]);
                        load.end(Outcome::Succeeded);
                        lease.load().dropped(Some("c"));
                    }
                })
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            add(&store);
        }
    });
    add(&store);
    // A sum whose count came later is told with it.
    assert_eq!((issued, succeeded, dropped, sum), (20_000, 20_000, 20_000, 20_000.0));
}
