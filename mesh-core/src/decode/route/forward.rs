//! `RouteAction`: where requests go and how.

use std::collections::BTreeSet;
use std::sync::Arc;

use core::{RoutingPriority, TypedExtensionConfig};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as pb;
use http::StatusCode;
use pb::route_action::ClusterSpecifier;

use super::{cors, hash, internal_redirect, mirror, rate_limit, retry, rewrite, timeout, weighted};
use crate::decode::Decoder;
use crate::decode::at::At;
use crate::decode::envelope::bare;
use crate::decode::value::{header_name, metadata, short_duration, wanted_header};
use crate::model::{Action, ClusterChoice, Forward, HostRewrite, LB_METADATA, Metadata, RouteMatch};
use crate::resource::canonical_name;

/// Forwarding to a cluster.
pub(super) fn forward(decoder: &Decoder, value: &pb::RouteAction, matched: &RouteMatch, at: &At<'_>) -> Action {
    note_unsupported(value, at);
    if value.early_data_policy.as_ref().is_some_and(|policy| !is_early_data(policy)) {
        at.field("early_data_policy").envoy_fault("is not a policy that is known");
    }
    at.field("priority").envoy_known::<RoutingPriority>(value.priority);
    upgrades(&value.upgrade_configs, at);
    let wanted = wanted_metadata(value.metadata_match.as_ref(), None);
    let cluster = match cluster(decoder, value, wanted.as_ref(), at) {
        Choice::Known(cluster) => cluster,
        Choice::Unknown(what) => return Action::Unknown(what),
    };
    Action::Forward(Box::new(Forward {
        cluster,
        cluster_not_found: not_found(value.cluster_not_found_response_code, at),
        timeout: short_duration(value.timeout.as_ref(), &at.field("timeout")),
        idle_timeout: short_duration(value.idle_timeout.as_ref(), &at.field("idle_timeout")),
        max_stream_duration: timeout::max_stream_duration(value, at),
        retry: value.retry_policy.as_ref().map(|policy| Arc::new(retry::retry(policy, &at.field("retry_policy")))),
        hedge: value.hedge_policy.as_ref().map(|policy| retry::hedge(policy, &at.field("hedge_policy"))),
        internal_redirect: internal_redirect::internal_redirect(value, at),
        path_rewrite: rewrite::path(value, matched, at),
        host_rewrite: host(value, at),
        append_x_forwarded_host: value.append_x_forwarded_host,
        hash: hash::policies(&value.hash_policy, at),
        metadata_match: wanted,
        mirrors: mirror::mirrors(&value.request_mirror_policies, at),
        high_priority: value.priority == 1,
        limits: rate_limit::rules(&value.rate_limits, at),
        include_host_limits: value.include_vh_rate_limits.is_some_and(|value| value.value),
        cors: value.cors.as_ref().map(|policy| Arc::new(cors::route_policy(policy, &at.field("cors")))),
    }))
}

fn note_unsupported(value: &pb::RouteAction, at: &At<'_>) {
    at.all_fail_requests(&[("retry_policy_typed_config", value.retry_policy_typed_config.is_some())]);
    at.all_left_out(&[
        ("early_data_policy", value.early_data_policy.as_ref().is_some_and(is_early_data)),
        ("flush_timeout", value.flush_timeout.is_some()),
        ("upgrade_configs", !value.upgrade_configs.is_empty()),
    ]);
}

/// Whether it is the one policy there is.
fn is_early_data(value: &TypedExtensionConfig) -> bool {
    let kind = value.typed_config.as_ref().map_or("", |any| bare(&any.type_url));
    kind == "envoy.extensions.early_data.v3.DefaultEarlyDataPolicy"
}

/// What a proxy lets pass; here every upgrade passes that the application speaks. Envoy refuses what contradicts itself.
fn upgrades(values: &[pb::route_action::UpgradeConfig], at: &At<'_>) {
    let mut seen = BTreeSet::new();
    for (index, value) in values.iter().enumerate() {
        let at = at.item("upgrade_configs", index);
        let kind = value.upgrade_type.to_ascii_lowercase();
        if kind.is_empty() {
            at.field("upgrade_type").envoy_fault("is empty");
        }
        if value.connect_config.is_some() && kind != "connect" {
            at.field("connect_config").envoy_fault("is for the upgrade CONNECT only");
        }
        if !seen.insert(kind) {
            at.field("upgrade_type").envoy_fault(format!("is `{}`, which another one has", value.upgrade_type));
        }
    }
}

enum Choice {
    Known(ClusterChoice),
    Unknown(String),
}

fn cluster(decoder: &Decoder, value: &pb::RouteAction, wanted: Option<&Arc<Metadata>>, at: &At<'_>) -> Choice {
    let unused = ClusterChoice::Cluster("".into());
    match &value.cluster_specifier {
        // Rule 68.
        Some(ClusterSpecifier::Cluster(name)) => {
            if name.is_empty() {
                at.field("cluster").fault("is empty");
            }
            Choice::Known(ClusterChoice::Cluster(canonical_name(name.as_str())))
        }
        // Rule 69 is a "gRPC can't".
        Some(ClusterSpecifier::ClusterHeader(name)) => {
            Choice::Known(header_name(name, &at.field("cluster_header")).map_or(unused, ClusterChoice::Header))
        }
        Some(ClusterSpecifier::WeightedClusters(value)) => {
            let clusters = weighted::weighted(decoder, value, wanted, &at.field("weighted_clusters"));
            Choice::Known(ClusterChoice::Weighted(Arc::new(clusters)))
        }
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_)) => Choice::Unknown("cluster_specifier_plugin".into()),
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            Choice::Unknown("inline_cluster_specifier_plugin".into())
        }
        // Of a later version, or none. gRPC passes the route over: here it matches, and its requests fail, as what is meant
        // for it is not meant for the next one.
        None => {
            at.envoy_fault("does not say which cluster, or says it in a way that is not known here");
            Choice::Unknown("a cluster that is not named, or in a way that is not known here".into())
        }
    }
}

fn not_found(value: i32, at: &At<'_>) -> StatusCode {
    match value {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        1 => StatusCode::NOT_FOUND,
        2 => StatusCode::INTERNAL_SERVER_ERROR,
        other => {
            at.field("cluster_not_found_response_code").fault(format!("is {other}, which is not known"));
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

fn host(value: &pb::RouteAction, at: &At<'_>) -> Option<HostRewrite> {
    use pb::route_action::HostRewriteSpecifier as Pb;
    match value.host_rewrite_specifier.as_ref()? {
        Pb::HostRewriteLiteral(host) => rewrite::host_literal(host, &at.field("host_rewrite_literal")),
        Pb::AutoHostRewrite(auto) => auto.value.then_some(HostRewrite::Auto),
        Pb::HostRewriteHeader(name) if name.is_empty() => {
            at.field("host_rewrite_header").grpc_fault("is empty");
            None
        }
        Pb::HostRewriteHeader(name) => wanted_header(name, &at.field("host_rewrite_header")).map(HostRewrite::Header),
        Pb::HostRewritePathRegex(value) => {
            crate::decode::matcher::rewrite(value, &at.field("host_rewrite_path_regex")).map(HostRewrite::PathRegex)
        }
        Pb::HostRewrite(format) => {
            let at = at.field("host_rewrite");
            match rewrite::format(format, &at) {
                Some(value) => Some(HostRewrite::Format(value)),
                None => rewrite::host_literal(format, &at),
            }
        }
    }
}

/// What a route asks of endpoints; what it does not say is as in `above`.
pub(super) fn wanted_metadata(value: Option<&core::Metadata>, above: Option<&Arc<Metadata>>) -> Option<Arc<Metadata>> {
    let said = endpoint_metadata(value.cloned());
    if said.is_empty() {
        return above.cloned();
    }
    let mut all = above.map(|above| Metadata::clone(above)).unwrap_or_default();
    all.extend(said);
    Some(Arc::new(all))
}

/// The values that endpoints must have: only the namespace `envoy.lb` chooses endpoints.
pub(super) fn endpoint_metadata(value: Option<core::Metadata>) -> Metadata {
    let mut all = metadata(value);
    match all.remove(LB_METADATA) {
        Some(serde_json::Value::Object(fields)) => fields.into_iter().collect(),
        _ => Metadata::new(),
    }
}
