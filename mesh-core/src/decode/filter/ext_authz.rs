//! External authorization, as Envoy checks it. What cannot be honoured is refused: a server that is asked something else may
//! answer something else.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::grpc_service::TargetSpecifier;
use envoy_types::pb::envoy::config::core::v3::{GrpcService, HeaderValue as PbHeaderValue};
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as pb;
use envoy_types::pb::envoy::r#type::matcher::v3::ListStringMatcher;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, StatusCode};
use pb::ext_authz::Services;
use pb::ext_authz_per_route::Override;

use crate::decode::at::{At, Findings};
use crate::decode::envelope::proto;
use crate::decode::value::{header_name, positive_duration, runtime_fraction};
use crate::decode::{ExtensionValue, Fault, HttpFilterType, Side, matcher};
use crate::model::{ExtAuthz, ExtAuthzOverride, FilterConfig, Fraction, StringMatch};

/// `core.v3.ApiVersion.V3`; the versions before are not spoken.
const V3: i32 = 2;
/// Envoy's default.
const TIMEOUT: Duration = Duration::from_millis(200);
/// Where the cluster's name is no authority.
const NO_AUTHORITY: Authority = Authority::from_static("ext-authz");

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
            let here = at.field("check_settings");
            refuse(
                &[
                    ("with_request_body", value.with_request_body.is_some()),
                    ("grpc_service", value.service_override.is_some()),
                ],
                &here,
            );
            let context = value.context_extensions.iter().map(|(key, text)| (key.clone(), text.clone()));
            return ExtAuthzOverride::Context(context.collect());
        }
        None => at.fault("must have disabled or check_settings"),
    }
    ExtAuthzOverride::Disabled
}

/// Says of each field that is present that it is not done.
fn refuse(fields: &[(&str, bool)], at: &At<'_>) {
    for (field, _) in fields.iter().filter(|(_, present)| *present) {
        at.field(field).fault("is not supported");
    }
}

fn config(value: &pb::ExtAuthz, at: &At<'_>) -> ExtAuthz {
    if value.transport_api_version != V3 {
        at.field("transport_api_version").fault("must be V3");
    }
    refuse(
        &[
            ("with_request_body", value.with_request_body.is_some()),
            ("clear_route_cache", value.clear_route_cache),
            ("typed_metadata_context_namespaces", !value.typed_metadata_context_namespaces.is_empty()),
            ("route_metadata_context_namespaces", !value.route_metadata_context_namespaces.is_empty()),
            ("route_typed_metadata_context_namespaces", !value.route_typed_metadata_context_namespaces.is_empty()),
            ("filter_enabled_metadata", value.filter_enabled_metadata.is_some()),
            ("encode_raw_headers", value.encode_raw_headers),
            ("decoder_header_mutation_rules", value.decoder_header_mutation_rules.is_some()),
            ("shadow_mode", value.shadow_mode),
        ],
        at,
    );
    let service = match &value.services {
        Some(Services::GrpcService(service)) => grpc(service, &at.field("grpc_service")),
        Some(Services::HttpService(_)) => {
            at.field("http_service").fault("is not supported; give grpc_service");
            None
        }
        None => {
            at.fault("must have grpc_service");
            None
        }
    };
    let (cluster, authority, metadata, timeout) =
        service.unwrap_or_else(|| (String::new(), NO_AUTHORITY, Vec::new(), TIMEOUT));
    let deny = value.deny_at_disable.as_ref().and_then(|flag| flag.default_value);
    let headers =
        |list: &Option<ListStringMatcher>, name: &str| list.as_ref().map(|list| strings(list, &at.field(name)));
    ExtAuthz {
        cluster: cluster.into(),
        authority,
        metadata,
        timeout,
        failure_mode_allow: value.failure_mode_allow,
        failure_mode_allow_header_add: value.failure_mode_allow_header_add,
        status_on_error: status(value.status_on_error.as_ref().map(|status| status.code), &at.field("status_on_error")),
        allowed_headers: headers(&value.allowed_headers, "allowed_headers"),
        disallowed_headers: headers(&value.disallowed_headers, "disallowed_headers").unwrap_or_default(),
        enabled: value
            .filter_enabled
            .as_ref()
            .and_then(|share| runtime_fraction(share, &at.field("filter_enabled")))
            .unwrap_or(Fraction { numerator: 100, denominator: 100 }),
        deny_at_disable: deny.is_some_and(|deny| deny.value),
        include_peer_certificate: value.include_peer_certificate,
        include_tls_session: value.include_tls_session,
        metadata_namespaces: value.metadata_context_namespaces.clone(),
        takes_metadata: value.enable_dynamic_metadata_ingestion.is_none_or(|flag| flag.value),
        most_denied_body: usize::try_from(value.max_denied_response_body_bytes).ok().filter(|most| *most > 0),
    }
}

fn strings(list: &ListStringMatcher, at: &At<'_>) -> Vec<StringMatch> {
    if list.patterns.is_empty() {
        at.field("patterns").fault("is empty");
    }
    matcher::strings(&list.patterns, "patterns", at)
}

fn status(code: Option<i32>, at: &At<'_>) -> StatusCode {
    let Some(code) = code.filter(|code| *code != 0) else { return StatusCode::FORBIDDEN };
    let parsed = u16::try_from(code).ok().filter(|code| (200..600).contains(code));
    parsed.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or_else(|| {
        at.field("code").fault("must be the number of an HTTP status");
        StatusCode::FORBIDDEN
    })
}

type Service = (String, Authority, Vec<(HeaderName, HeaderValue)>, Duration);

fn grpc(value: &GrpcService, at: &At<'_>) -> Option<Service> {
    refuse(&[("retry_policy", value.retry_policy.is_some())], at);
    let metadata = value.initial_metadata.iter().enumerate();
    let metadata = metadata.filter_map(|(index, value)| header(value, &at.item("initial_metadata", index))).collect();
    let timeout = positive_duration(value.timeout.as_ref(), &at.field("timeout")).unwrap_or(TIMEOUT);
    match &value.target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(envoy)) => {
            let here = at.field("envoy_grpc");
            refuse(&[("retry_policy", envoy.retry_policy.is_some())], &here);
            if envoy.cluster_name.is_empty() {
                here.field("cluster_name").fault("is empty");
            }
            let said = (!envoy.authority.is_empty()).then_some(&envoy.authority);
            let authority = said.unwrap_or(&envoy.cluster_name).parse().ok();
            if authority.is_none() && said.is_some() {
                here.field("authority").fault("is no authority");
            }
            // A cluster's name may be anything; the server is found by the cluster.
            Some((envoy.cluster_name.clone(), authority.unwrap_or(NO_AUTHORITY), metadata, timeout))
        }
        Some(TargetSpecifier::GoogleGrpc(_)) => {
            at.field("google_grpc")
                .fault("is not supported: whom a process may ask beside the mesh is not the control plane's");
            None
        }
        None => {
            at.fault("must have envoy_grpc");
            None
        }
    }
}

fn header(value: &PbHeaderValue, at: &At<'_>) -> Option<(HeaderName, HeaderValue)> {
    let name = header_name(&value.key, &at.field("key"));
    let parsed = HeaderValue::try_from(&value.value).ok();
    if parsed.is_none() {
        at.field("value").fault("is not the value of a header");
    }
    name.zip(parsed)
}
