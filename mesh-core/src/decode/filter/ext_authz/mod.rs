//! External authorization, as Envoy checks it. What cannot be honoured is refused: a server that is asked something else may
//! answer something else.

mod service;

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as pb;
use envoy_types::pb::envoy::r#type::matcher::v3::ListStringMatcher;
use http::StatusCode;
use pb::check_settings::ServiceOverride;
use pb::ext_authz::Services;
use pb::ext_authz_per_route::Override;

use crate::decode::at::{At, Findings};
use crate::decode::envelope::proto;
use crate::decode::metadata::matches;
use crate::decode::value::runtime_fraction;
use crate::decode::{ExtensionValue, Fault, HttpFilterType, Side, matcher};
use crate::model::{
    AuthzBody, AuthzSettings, AuthzTransport, ExtAuthz, ExtAuthzOverride, FilterConfig, Fraction, MetadataSource,
    Pattern, StringMatch,
};
use service::{grpc, http, nobody};

/// `core.v3.ApiVersion.V3`; the versions before are not spoken.
const V3: i32 = 2;

/// `extensions.filters.http.ext_authz.v3.ExtAuthz`, for servers; an [`ExtAuthz`](crate::model::ExtAuthz). Its overrides are an
/// [`ExtAuthzOverride`](crate::model::ExtAuthzOverride) each, from an `ExtAuthzPerRoute`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtAuthzFilter;

impl ExtAuthzFilter {
    /// The type of its configuration.
    pub const TYPE_URL: &'static str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";
}

impl HttpFilterType for ExtAuthzFilter {
    fn type_url(&self) -> &'static str {
        Self::TYPE_URL
    }

    fn override_type_url(&self) -> Option<&str> {
        Some("envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute")
    }

    fn supports(&self, side: Side) -> bool {
        side == Side::Server
    }

    fn decode(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        let value = proto::<pb::ExtAuthz>(value)?;
        let findings = Findings::default();
        let config = config(&value, &findings.root());
        let faults = findings.into_faults();
        if faults.is_empty() { Ok(Arc::new(config)) } else { Err(faults) }
    }

    fn decode_override(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        let value = proto::<pb::ExtAuthzPerRoute>(value)?;
        let findings = Findings::default();
        let over = over(value.r#override.as_ref(), &findings.root());
        let faults = findings.into_faults();
        if faults.is_empty() { Ok(Arc::new(over)) } else { Err(faults) }
    }
}

fn over(value: Option<&Override>, at: &At<'_>) -> ExtAuthzOverride {
    match value {
        Some(Override::Disabled(true)) => {}
        Some(Override::Disabled(false)) => at.field("disabled").fault("can only be true"),
        Some(Override::CheckSettings(value)) => {
            return ExtAuthzOverride::Settings(Box::new(settings(value, &at.field("check_settings"))));
        }
        None => at.fault("must have disabled or check_settings"),
    }
    ExtAuthzOverride::Disabled
}

fn settings(value: &pb::CheckSettings, at: &At<'_>) -> AuthzSettings {
    let with_body = value.with_request_body.as_ref().map(|value| body(value, &at.field("with_request_body")));
    if with_body.is_some() && value.disable_request_body_buffering {
        at.field("with_request_body").fault("must not be there beside disable_request_body_buffering");
    }
    let service = match &value.service_override {
        Some(ServiceOverride::GrpcService(service)) => grpc(service, &at.field("grpc_service")),
        Some(ServiceOverride::HttpService(service)) => {
            let here = at.field("http_service");
            if older_allowed_headers(service, &here).is_some() {
                here.field("authorization_request").field("allowed_headers").fault("is only for the filter");
            }
            http(service, &here)
        }
        None => None,
    };
    AuthzSettings {
        context: value.context_extensions.iter().map(|(key, text)| (key.clone(), text.clone())).collect(),
        body: if value.disable_request_body_buffering { Some(None) } else { with_body.map(Some) },
        service,
    }
}

fn body(value: &pb::BufferSettings, at: &At<'_>) -> AuthzBody {
    if value.max_request_bytes == 0 {
        at.field("max_request_bytes").fault("must be greater than 0");
    }
    AuthzBody {
        most: usize::try_from(value.max_request_bytes).unwrap_or(usize::MAX),
        partial: value.allow_partial_message,
        bytes: value.pack_as_bytes,
    }
}

/// Says of each field that is present that it is not done.
fn refuse(fields: &[(&str, bool)], at: &At<'_>) {
    for (field, _) in fields.iter().filter(|(_, present)| *present) {
        at.field(field).fault("is not supported");
    }
}

/// What else there is (`stat_prefix`, `charge_cluster_response_stats`, `filter_metadata`, `emit_filter_state_stats`,
/// `emit_client_span`) is for Envoy's statistics, spans and logs, and changes nothing of what is asked and answered.
/// `validate_mutations` is always so here.
fn refuse_what_is_not_done(value: &pb::ExtAuthz, at: &At<'_>) {
    refuse(
        &[
            ("clear_route_cache", value.clear_route_cache),
            ("typed_metadata_context_namespaces", !value.typed_metadata_context_namespaces.is_empty()),
            ("route_typed_metadata_context_namespaces", !value.route_typed_metadata_context_namespaces.is_empty()),
            ("bootstrap_metadata_labels_key", !value.bootstrap_metadata_labels_key.is_empty()),
            ("decoder_header_mutation_rules", value.decoder_header_mutation_rules.is_some()),
            ("enforce_response_header_limits", value.enforce_response_header_limits),
            ("shadow_mode", value.shadow_mode),
        ],
        at,
    );
}

fn config(value: &pb::ExtAuthz, at: &At<'_>) -> ExtAuthz {
    if value.transport_api_version != V3 {
        at.field("transport_api_version").fault("must be V3");
    }
    refuse_what_is_not_done(value, at);
    let service = match &value.services {
        Some(Services::GrpcService(service)) => grpc(service, &at.field("grpc_service")),
        Some(Services::HttpService(service)) => http(service, &at.field("http_service")),
        None => {
            at.fault("must have grpc_service or http_service");
            None
        }
    };
    let deny = value.deny_at_disable.as_ref().and_then(|flag| flag.default_value);
    let metadata = value.filter_enabled_metadata.as_ref();
    let config = ExtAuthz {
        service: service.unwrap_or_else(nobody),
        body: value.with_request_body.as_ref().map(|value| body(value, &at.field("with_request_body"))),
        failure_mode_allow: value.failure_mode_allow,
        failure_mode_allow_header_add: value.failure_mode_allow_header_add,
        status_on_error: status(value.status_on_error.as_ref().map(|status| status.code), &at.field("status_on_error")),
        allowed_headers: allowed_headers(value, at),
        disallowed_headers: strings(value.disallowed_headers.as_ref(), &at.field("disallowed_headers"))
            .unwrap_or_default(),
        enabled: value
            .filter_enabled
            .as_ref()
            .and_then(|share| runtime_fraction(share, &at.field("filter_enabled")))
            .unwrap_or(Fraction { numerator: 100, denominator: 100 }),
        enabled_metadata: metadata
            .and_then(|value| matches(value, MetadataSource::Dynamic, &at.field("filter_enabled_metadata"))),
        deny_at_disable: deny.is_some_and(|deny| deny.value),
        include_peer_certificate: value.include_peer_certificate,
        include_tls_session: value.include_tls_session,
        raw_headers: value.encode_raw_headers,
        metadata_namespaces: value.metadata_context_namespaces.clone(),
        route_metadata_namespaces: value.route_metadata_context_namespaces.clone(),
        takes_metadata: value.enable_dynamic_metadata_ingestion.is_none_or(|flag| flag.value),
        most_denied_body: usize::try_from(value.max_denied_response_body_bytes).ok().filter(|most| *most > 0),
    };
    check_askable(&config, at);
    config
}

/// HTTP has its own, older field for the same; and what is not allowed over HTTP is not told, but for these four.
fn allowed_headers(value: &pb::ExtAuthz, at: &At<'_>) -> Option<Vec<StringMatch>> {
    let list = strings(value.allowed_headers.as_ref(), &at.field("allowed_headers"));
    let Some(Services::HttpService(service)) = &value.services else { return list };
    let older = older_allowed_headers(service, &at.field("http_service"));
    if older.is_some() && list.is_some() {
        at.field("allowed_headers")
            .fault("must not be there beside http_service.authorization_request.allowed_headers");
    }
    let always = ["authorization", ":method", ":path", ":authority"];
    let always = always.map(|name| StringMatch { pattern: Pattern::Exact(name.to_owned()), ignore_case: false });
    Some(always.into_iter().chain(list.or(older).unwrap_or_default()).collect())
}

#[allow(deprecated)] // Servers go on saying it.
fn older_allowed_headers(service: &pb::HttpService, at: &At<'_>) -> Option<Vec<StringMatch>> {
    let list = service.authorization_request.as_ref()?.allowed_headers.as_ref();
    strings(list, &at.field("authorization_request").field("allowed_headers"))
}

/// A question over HTTP is a request, which without these is none.
fn check_askable(config: &ExtAuthz, at: &At<'_>) {
    let asked_over_http = matches!(config.service.transport, AuthzTransport::Http(_));
    let kept_back = |name: &&str| config.disallowed_headers.iter().any(|list| list.is_match(name.as_bytes()));
    if let Some(name) = [":method", ":path", ":authority"].iter().find(|name| asked_over_http && kept_back(name)) {
        at.field("disallowed_headers").fault(format!("matches `{name}`, without which http_service cannot be asked"));
    }
}

fn strings(list: Option<&ListStringMatcher>, at: &At<'_>) -> Option<Vec<StringMatch>> {
    let list = list?;
    if list.patterns.is_empty() {
        at.field("patterns").fault("is empty");
    }
    Some(matcher::strings(&list.patterns, "patterns", at))
}

fn status(code: Option<i32>, at: &At<'_>) -> StatusCode {
    let Some(code) = code.filter(|code| *code != 0) else { return StatusCode::FORBIDDEN };
    let parsed = u16::try_from(code).ok().filter(|code| (200..600).contains(code));
    parsed.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or_else(|| {
        at.field("code").fault("must be the number of an HTTP status");
        StatusCode::FORBIDDEN
    })
}
