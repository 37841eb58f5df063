//! Load reports: asks every client that offers them, and remembers what they say.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use envoy_types::pb::google::protobuf;
use mesh_core::model::{Locality, Name};
use prost::Message;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::faults::{Mode, State};
use super::grpc::Outgoing;
use super::log::{Event, What};
use super::plane::Shared;

/// What a client says about the requests to one cluster since its report before.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadReport {
    /// The cluster.
    pub cluster: Name,
    /// Its EDS service name; empty if it has none.
    pub service: Name,
    /// The time it is about.
    pub interval: Duration,
    /// Requests that were dropped, for whatever reason.
    pub dropped: u64,
    /// Those that a category of `drop_overloads` dropped.
    pub categories: Vec<(Name, u64)>,
    /// What was sent to each locality.
    pub localities: Vec<LocalityReport>,
}

/// What a client says about the requests to one locality of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityReport {
    /// The locality.
    pub locality: Locality,
    /// Requests that were sent.
    pub issued: u64,
    /// Requests that are under way.
    pub in_progress: u64,
    /// Requests that ended with success.
    pub succeeded: u64,
    /// Requests that ended with an error.
    pub failed: u64,
    /// What the endpoints said of themselves: the metric, how often, and the sum.
    pub metrics: Vec<(Name, u64, f64)>,
}

/// One load reporting stream, from its first request to its end.
pub(super) struct Listening {
    shared: Arc<Shared>,
    id: u64,
    node: Name,
    outgoing: mpsc::Sender<Outgoing>,
}

impl Listening {
    pub(super) fn new(shared: Arc<Shared>, peer: SocketAddr, outgoing: mpsc::Sender<Outgoing>) -> Self {
        // Faults strike the streams that configuration comes by.
        let (id, _) = shared.streams.open(peer, None);
        shared.log.add(Event { stream: id, node: "".into(), what: What::Opened { peer } });
        Self { shared, id, node: "".into(), outgoing }
    }

    pub(super) async fn run(mut self, mut requests: Streaming<Bytes>) {
        let reason = self.listen(&mut requests).await;
        self.shared.streams.close(self.id);
        self.record(What::Closed { reason });
    }

    /// Listens until the stream ends, and says why it did.
    async fn listen(&mut self, requests: &mut Streaming<Bytes>) -> String {
        let mut mode = self.shared.faults.subscribe();
        // What is asked for, which is said once.
        let mut answer: Option<Bytes> = None;
        loop {
            let State { mode: now, delay } = *mode.borrow_and_update();
            if now == Mode::Refuse {
                let status = Status::unavailable("the control plane refuses, on purpose");
                let _ = self.outgoing.send(Outgoing::End(status)).await;
                return "refused".to_owned();
            }
            if let Some(answer) = answer.take_if(|_| now == Mode::Answer) {
                tokio::time::sleep(delay).await;
                if self.outgoing.send(Outgoing::Message(answer)).await.is_err() {
                    return "the client is gone".to_owned();
                }
            }
            let message = tokio::select! {
                () = self.outgoing.closed() => return "the client is gone".to_owned(),
                // The sender is in `shared`, which this has.
                _ = mode.changed() => continue,
                message = requests.message() => message,
            };
            match message {
                Ok(Some(request)) => answer = self.hear(&request).or(answer),
                Ok(None) => {
                    let _ = self.outgoing.send(Outgoing::End(Status::ok(""))).await;
                    return "the client ended the stream".to_owned();
                }
                Err(status) => return status.message().to_owned(),
            }
        }
    }

    /// Records what a request says; the first one is answered.
    fn hear(&mut self, request: &[u8]) -> Option<Bytes> {
        let request = match LoadStatsRequest::decode(request) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(target: "mesh", "stream {} sent what is no LoadStatsRequest: {error}", self.id);
                return None;
            }
        };
        for stats in request.cluster_stats {
            self.record(What::Load(report(stats)));
        }
        let node = request.node?;
        self.node = node.id.into();
        let node = self.node.clone();
        self.shared.streams.update(self.id, |info| info.node = node);
        Some(self.ask())
    }

    fn ask(&self) -> Bytes {
        let interval = self.shared.load_interval;
        let interval = protobuf::Duration {
            seconds: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(interval.subsec_nanos()).unwrap_or_default(),
        };
        let response = LoadStatsResponse {
            send_all_clusters: true,
            load_reporting_interval: Some(interval),
            ..LoadStatsResponse::default()
        };
        response.encode_to_vec().into()
    }

    fn record(&self, what: What) {
        self.shared.log.add(Event { stream: self.id, node: self.node.clone(), what });
    }
}

fn report(stats: pb::ClusterStats) -> LoadReport {
    let interval = stats.load_report_interval.unwrap_or_default();
    let seconds = Duration::from_secs(interval.seconds.unsigned_abs());
    LoadReport {
        cluster: stats.cluster_name.into(),
        service: stats.cluster_service_name.into(),
        interval: seconds.saturating_add(Duration::from_nanos(interval.nanos.unsigned_abs().into())),
        dropped: stats.total_dropped_requests,
        categories: stats.dropped_requests.into_iter().map(|drop| (drop.category.into(), drop.dropped_count)).collect(),
        localities: stats.upstream_locality_stats.into_iter().map(locality).collect(),
    }
}

fn locality(stats: pb::UpstreamLocalityStats) -> LocalityReport {
    let place = stats.locality.unwrap_or_default();
    let of_itself = [
        ("cpu_utilization", stats.cpu_utilization),
        ("mem_utilization", stats.mem_utilization),
        ("application_utilization", stats.application_utilization),
    ];
    let of_itself = of_itself.into_iter().filter_map(|(name, sum)| {
        sum.map(|sum| (Name::from(name), sum.num_requests_finished_with_metric, sum.total_metric_value))
    });
    let named = stats.load_metric_stats.into_iter();
    let named =
        named.map(|sum| (sum.metric_name.into(), sum.num_requests_finished_with_metric, sum.total_metric_value));
    LocalityReport {
        locality: Locality { region: place.region.into(), zone: place.zone.into(), sub_zone: place.sub_zone.into() },
        issued: stats.total_issued_requests,
        in_progress: stats.total_requests_in_progress,
        succeeded: stats.total_successful_requests,
        failed: stats.total_error_requests,
        metrics: of_itself.chain(named).collect(),
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sent `{}` in {:?}", self.cluster, self.interval)?;
        for at in &self.localities {
            let LocalityReport { locality, issued, in_progress, succeeded, failed, .. } = at;
            write!(f, "; {locality}: {issued} requests, {in_progress} under way, {succeeded} good, {failed} bad")?;
            for (name, count, total) in &at.metrics {
                write!(f, ", {name} {total} in {count}")?;
            }
        }
        if self.dropped > 0 {
            write!(f, "; {} dropped", self.dropped)?;
        }
        for (category, count) in &self.categories {
            write!(f, ", {count} by `{category}`")?;
        }
        Ok(())
    }
}
