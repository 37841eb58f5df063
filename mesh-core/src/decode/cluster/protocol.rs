//! Which HTTP a cluster's endpoints speak: rule 125 and Envoy's fields.

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3::UpstreamHttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as http;
use http::HttpProtocolOptions;
use http::http_protocol_options::UpstreamProtocolOptions;
use http::http_protocol_options::explicit_http_config::ProtocolConfig;

use crate::decode::at::At;
use crate::decode::envelope::expect;
use crate::decode::value::duration;
use crate::model::HttpProtocol;

/// The key of `typed_extension_protocol_options` for HTTP.
const HTTP: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The protocol: the typed options, `upstream_config`, or the older fields.
pub(super) fn protocol(value: &pb::Cluster, at: &At<'_>) -> HttpProtocol {
    check_names(value.upstream_http_protocol_options.as_ref(), &at.field("upstream_http_protocol_options"));
    let typed = value.typed_extension_protocol_options.get(HTTP).and_then(|any| {
        let at = at.key("typed_extension_protocol_options", HTTP);
        expect::<HttpProtocolOptions>(any, &at).map(|options| read(&options, &at))
    });
    // Rule 125.
    let upstream = value.upstream_config.as_ref().and_then(|config| {
        let at = at.field("upstream_config");
        let at = at.field("typed_config");
        let Some(any) = &config.typed_config else {
            at.fault("is missing");
            return None;
        };
        expect::<HttpProtocolOptions>(any, &at).map(|options| read(&options, &at))
    });
    typed.or(upstream).unwrap_or_else(|| {
        if value.http2_protocol_options.is_some() {
            HttpProtocol::Http2
        } else if value.protocol_selection == 1 {
            HttpProtocol::SameAsRequest
        } else {
            HttpProtocol::Default
        }
    })
}

fn read(value: &HttpProtocolOptions, at: &At<'_>) -> HttpProtocol {
    check_names(value.upstream_http_protocol_options.as_ref(), &at.field("upstream_http_protocol_options"));
    let common_at = at.field("common_http_protocol_options");
    let common = value.common_http_protocol_options.as_ref();
    duration(common.and_then(|common| common.idle_timeout.as_ref()), &common_at.field("idle_timeout"));
    at.all_fail_requests(&[("http_filters", !value.http_filters.is_empty())]);
    at.all_left_out(&[
        ("request_mirror_policies", !value.request_mirror_policies.is_empty()),
        ("hash_policy", !value.hash_policy.is_empty()),
        ("retry_policy", value.retry_policy.is_some()),
        ("outlier_detection", value.outlier_detection.is_some()),
    ]);
    match &value.upstream_protocol_options {
        None => HttpProtocol::Default,
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => HttpProtocol::SameAsRequest,
        Some(UpstreamProtocolOptions::AutoConfig(_)) => HttpProtocol::Alpn,
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => match &config.protocol_config {
            Some(ProtocolConfig::HttpProtocolOptions(_)) => HttpProtocol::Http1,
            Some(ProtocolConfig::Http2ProtocolOptions(_)) => HttpProtocol::Http2,
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                at.field("explicit_http_config").field("http3_protocol_options").fails_requests();
                HttpProtocol::Http2
            }
            None => {
                at.field("explicit_http_config").fault("does not say which protocol");
                HttpProtocol::Default
            }
        },
    }
}

/// Both say that the request's authority decides about TLS, which our connections, shared by requests, cannot do.
fn check_names(value: Option<&UpstreamHttpProtocolOptions>, at: &At<'_>) {
    let Some(value) = value else { return };
    if value.auto_san_validation {
        at.field("auto_san_validation").fault("is not supported, and leaving it out would trust more than was meant");
    }
    at.all_left_out(&[("auto_sni", value.auto_sni)]);
}
