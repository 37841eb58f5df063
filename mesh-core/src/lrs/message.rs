//! The messages of load reporting: requests written, responses read.

use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use envoy_types::pb::google::protobuf;
use pb::cluster_stats::DroppedRequests;
use prost::Message;

use crate::load::{ClusterCounts, LocalityCounts, Selection, Summed};
use crate::model::Locality;

/// What we say of ourselves on a load reporting stream, beside what ADS is told.
const SUPPORTS_SEND_ALL: &str = "envoy.lrs.supports_send_all_clusters";
/// What the names of the endpoints' own metrics are reported under (gRFC A85).
const NAMED: &str = "named_metrics.";
/// Reports more often than this are asked for by mistake; as gRPC core.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// What a server asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) selection: Selection,
    /// At least [`SHORTEST_INTERVAL`].
    pub(super) interval: Duration,
    /// `report_endpoint_granularity`, which we do not have.
    pub(super) by_endpoint: bool,
}

/// The first request of a stream: who we are.
pub(super) fn hello(mut node: core::Node) -> Bytes {
    node.client_features.push(SUPPORTS_SEND_ALL.to_owned());
    LoadStatsRequest { node: Some(node), ..LoadStatsRequest::default() }.encode_to_vec().into()
}

/// A report.
pub(super) fn report(counts: Vec<ClusterCounts>) -> Bytes {
    let cluster_stats = counts.into_iter().map(cluster).collect();
    LoadStatsRequest { cluster_stats, ..LoadStatsRequest::default() }.encode_to_vec().into()
}

fn cluster(counts: ClusterCounts) -> pb::ClusterStats {
    let dropped = |(category, dropped_count): (crate::model::Name, u64)| DroppedRequests {
        category: category.to_string(),
        dropped_count,
    };
    pb::ClusterStats {
        cluster_name: counts.key.cluster.to_string(),
        cluster_service_name: counts.key.service.to_string(),
        upstream_locality_stats: counts.localities.iter().map(|(place, counts)| locality(place, counts)).collect(),
        total_dropped_requests: counts.dropped,
        dropped_requests: counts.categories.into_iter().map(dropped).collect(),
        load_report_interval: Some(duration(counts.elapsed)),
    }
}

fn locality(place: &Locality, counts: &LocalityCounts) -> pb::UpstreamLocalityStats {
    let unnamed = |summed: Option<Summed>| {
        summed.map(|summed| pb::UnnamedEndpointLoadMetricStats {
            num_requests_finished_with_metric: summed.count,
            total_metric_value: summed.total,
        })
    };
    let named = counts.named.iter().map(|(name, summed)| pb::EndpointLoadMetricStats {
        metric_name: format!("{NAMED}{name}"),
        num_requests_finished_with_metric: summed.count,
        total_metric_value: summed.total,
    });
    pb::UpstreamLocalityStats {
        locality: Some(core::Locality {
            region: place.region.to_string(),
            zone: place.zone.to_string(),
            sub_zone: place.sub_zone.to_string(),
        }),
        total_issued_requests: counts.issued,
        total_requests_in_progress: counts.in_progress,
        total_successful_requests: counts.succeeded,
        total_error_requests: counts.failed,
        cpu_utilization: unnamed(counts.cpu),
        mem_utilization: unnamed(counts.memory),
        application_utilization: unnamed(counts.application),
        load_metric_stats: named.collect(),
        ..pb::UpstreamLocalityStats::default()
    }
}

fn duration(elapsed: Duration) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(elapsed.subsec_nanos()).unwrap_or_default(),
    }
}

/// Reads a response.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn read(bytes: &[u8]) -> Result<Asked, String> {
    let response = LoadStatsResponse::decode(bytes).map_err(|error| error.to_string())?;
    let interval = response.load_reporting_interval.unwrap_or_default();
    let interval = u64::try_from(interval.seconds)
        .ok()
        .zip(u32::try_from(interval.nanos).ok().filter(|nanos| *nanos < 1_000_000_000))
        .map(|(seconds, nanos)| Duration::new(seconds, nanos))
        .ok_or("load_reporting_interval must be a duration of 0 or more")?;
    let named = || response.clusters.iter().map(|name| name.as_str().into()).collect();
    Ok(Asked {
        selection: if response.send_all_clusters { Selection::All } else { Selection::Named(named()) },
        interval: interval.max(SHORTEST_INTERVAL),
        by_endpoint: response.report_endpoint_granularity,
    })
}
