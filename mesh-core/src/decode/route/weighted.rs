//! `WeightedCluster`: rules 70 to 72.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as pb;
use pb::weighted_cluster::{ClusterWeight, RandomValueSpecifier, cluster_weight};

use super::forward::wanted_metadata;
use super::{mutation, rewrite};
use crate::decode::Decoder;
use crate::decode::at::At;
use crate::decode::value::{header_name, wanted_header};
use crate::model::{HostRewrite, Metadata, WeightedCluster, WeightedClusters};
use crate::resource::canonical_name;

/// Clusters by weight. `wanted` is what the route asks of endpoints.
pub(super) fn weighted(
    decoder: &Decoder,
    value: &pb::WeightedCluster,
    wanted: Option<&Arc<Metadata>>,
    at: &At<'_>,
) -> WeightedClusters {
    let mut clusters = Vec::new();
    let mut total: u64 = 0;
    for (index, value) in value.clusters.iter().enumerate() {
        let at = at.item("clusters", index);
        let cluster = cluster(decoder, value, wanted, &at);
        total += u64::from(cluster.weight);
        // Rule 70: entries of weight 0 are dropped.
        if cluster.weight > 0 {
            clusters.push(cluster);
        }
    }
    if clusters.is_empty() {
        at.field("clusters").fault("has no cluster with a weight above 0");
    }
    // Rule 71.
    let total = u32::try_from(total).unwrap_or_else(|_| {
        at.field("clusters").fault("has weights whose sum is more than 4294967295");
        u32::MAX
    });
    let (random_header, use_hash) = match &value.random_value_specifier {
        Some(RandomValueSpecifier::HeaderName(name)) => (wanted_header(name, &at.field("header_name")), false),
        Some(RandomValueSpecifier::UseHashPolicy(value)) => (None, value.value),
        None => (None, false),
    };
    WeightedClusters { clusters, total, random_header, use_hash }
}

fn cluster(decoder: &Decoder, value: &ClusterWeight, wanted: Option<&Arc<Metadata>>, at: &At<'_>) -> WeightedCluster {
    // Rule 72; gRPC can't take the name from a header.
    let header = match (value.name.is_empty(), value.cluster_header.is_empty()) {
        (true, true) => {
            at.field("name").fault("is empty");
            None
        }
        (false, false) => {
            at.field("cluster_header").fault("is given together with name");
            None
        }
        (true, false) => header_name(&value.cluster_header, &at.field("cluster_header")),
        (false, true) => None,
    };
    if value.weight.is_none() {
        at.field("weight").fault("is missing");
    }
    let host_rewrite = value.host_rewrite_specifier.as_ref().and_then(|specifier| match specifier {
        cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host) => {
            match rewrite::host_literal(host, &at.field("host_rewrite_literal")) {
                Some(HostRewrite::Literal(host)) => Some(host),
                _ => None,
            }
        }
    });
    WeightedCluster {
        name: canonical_name(value.name.as_str()),
        header,
        weight: value.weight.map_or(0, |weight| weight.value),
        headers: mutation::mutations(
            &value.request_headers_to_add,
            &value.request_headers_to_remove,
            &value.response_headers_to_add,
            &value.response_headers_to_remove,
            at,
        ),
        overrides: decoder.overrides(&value.typed_per_filter_config, at),
        metadata_match: wanted_metadata(value.metadata_match.as_ref(), wanted),
        host_rewrite,
    }
}
