//! CORS policies: the route's own field and the filter's override have the same fields.

use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as filter;
use pb::cors_policy::EnabledSpecifier;

use crate::decode::at::At;
use crate::decode::matcher;
use crate::decode::value::{check_line, runtime_fraction};
use crate::model::{Cors, Fraction};

/// Never.
const NEVER: Fraction = Fraction { numerator: 0, denominator: 100 };

/// `config.route.v3.CorsPolicy`.
pub(super) fn route_policy(value: &pb::CorsPolicy, at: &At<'_>) -> Cors {
    let enabled = value.enabled_specifier.as_ref().map(|EnabledSpecifier::FilterEnabled(value)| value);
    Cors {
        allow_origins: matcher::strings(&value.allow_origin_string_match, "allow_origin_string_match", at),
        allow_methods: line(&value.allow_methods, &at.field("allow_methods")),
        allow_headers: line(&value.allow_headers, &at.field("allow_headers")),
        expose_headers: line(&value.expose_headers, &at.field("expose_headers")),
        max_age: line(&value.max_age, &at.field("max_age")),
        allow_credentials: value.allow_credentials.map(|value| value.value),
        enabled: share(enabled, Fraction::ALWAYS, &at.field("filter_enabled")),
        shadow: share(value.shadow_enabled.as_ref(), NEVER, &at.field("shadow_enabled")),
        allow_private_network: value.allow_private_network_access.map(|value| value.value),
        forward_not_matching_preflights: value.forward_not_matching_preflights.map(|value| value.value),
    }
}

/// `extensions.filters.http.cors.v3.CorsPolicy`.
pub(in crate::decode) fn filter_policy(value: &filter::CorsPolicy, at: &At<'_>) -> Cors {
    Cors {
        allow_origins: matcher::strings(&value.allow_origin_string_match, "allow_origin_string_match", at),
        allow_methods: line(&value.allow_methods, &at.field("allow_methods")),
        allow_headers: line(&value.allow_headers, &at.field("allow_headers")),
        expose_headers: line(&value.expose_headers, &at.field("expose_headers")),
        max_age: line(&value.max_age, &at.field("max_age")),
        allow_credentials: value.allow_credentials.map(|value| value.value),
        enabled: share(value.filter_enabled.as_ref(), Fraction::ALWAYS, &at.field("filter_enabled")),
        shadow: share(value.shadow_enabled.as_ref(), NEVER, &at.field("shadow_enabled")),
        allow_private_network: value.allow_private_network_access.map(|value| value.value),
        forward_not_matching_preflights: value.forward_not_matching_preflights.map(|value| value.value),
    }
}

fn line(text: &str, at: &At<'_>) -> String {
    check_line(text, at);
    text.to_owned()
}

fn share(value: Option<&RuntimeFractionalPercent>, default: Fraction, at: &At<'_>) -> Fraction {
    value.and_then(|value| runtime_fraction(value, at)).unwrap_or(default)
}
