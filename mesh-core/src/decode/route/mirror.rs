//! `RequestMirrorPolicy`, as Envoy checks it.

use envoy_types::pb::envoy::config::route::v3 as pb;
use pb::route_action::RequestMirrorPolicy;

use crate::decode::at::At;
use crate::decode::value::{runtime_fraction, wanted_header};
use crate::model::{ClusterChoice, Fraction, Mirror};
use crate::resource::canonical_name;

/// The mirrors of one level.
pub(super) fn mirrors(values: &[RequestMirrorPolicy], at: &At<'_>) -> Vec<Mirror> {
    let values = values.iter().enumerate();
    values.filter_map(|(index, value)| mirror(value, &at.item("request_mirror_policies", index))).collect()
}

fn mirror(value: &RequestMirrorPolicy, at: &At<'_>) -> Option<Mirror> {
    at.all_left_out(&[
        ("trace_sampled", value.trace_sampled.is_some()),
        ("request_headers_mutations", !value.request_headers_mutations.is_empty()),
        ("host_rewrite_literal", !value.host_rewrite_literal.is_empty()),
    ]);
    let cluster = match (value.cluster.is_empty(), value.cluster_header.is_empty()) {
        (false, true) => ClusterChoice::Cluster(canonical_name(value.cluster.as_str())),
        (true, false) => ClusterChoice::Header(wanted_header(&value.cluster_header, &at.field("cluster_header"))?),
        _ => {
            at.fault("must have either cluster or cluster_header");
            return None;
        }
    };
    let fraction = value.runtime_fraction.as_ref();
    let fraction = fraction.and_then(|value| runtime_fraction(value, &at.field("runtime_fraction")));
    Some(Mirror {
        cluster,
        fraction: fraction.unwrap_or(Fraction::ALWAYS),
        keep_host: value.disable_shadow_host_suffix_append,
    })
}
