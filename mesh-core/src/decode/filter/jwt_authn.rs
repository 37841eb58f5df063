//! JWT authentication, as Envoy checks it. What cannot be honoured is refused: a requirement with a part left out is
//! another one.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::http_uri::HttpUpstreamType;
use envoy_types::pb::envoy::config::core::v3::{DataSource, RetryPolicy};
use envoy_types::pb::envoy::config::route::v3::RouteMatch as PbRouteMatch;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as pb;
use http::Uri;
use pb::jwt_provider::JwksSourceSpecifier;
use pb::jwt_requirement::RequiresType;
use pb::per_route_config::RequirementSpecifier;
use pb::requirement_rule::RequirementType;

use crate::decode::at::{At, Findings};
use crate::decode::envelope::proto;
use crate::decode::route::route_match;
use crate::decode::value::{check_line, duration, header_name, positive_duration, short_duration};
use crate::decode::{ExtensionValue, Fault, HttpFilterType, Side, matcher};
use crate::model::{
    ClaimHeader, FilterConfig, JwksSource, JwtAuthn, JwtProvider, JwtRequirement, JwtRule, Name, RemoteJwks,
    RouteMatch, TokenHeader,
};

/// Envoy's default of `clock_skew_seconds`.
const CLOCK_SKEW: u32 = 60;
/// Envoy's default of `cache_duration`.
const CACHE: Duration = Duration::from_secs(600);
/// Envoy's bound: what expires sooner is fetched all the time.
const SHORTEST_CACHE: Duration = Duration::from_millis(1);
/// Envoy's default of `failed_refetch_duration`.
const FAILED_REFETCH: Duration = Duration::from_secs(1);
/// prost bounds the depth of messages as well; this bounds the stack of whoever walks a requirement.
const DEEPEST: usize = 16;

/// `extensions.filters.http.jwt_authn.v3.JwtAuthentication`, for servers; a [`JwtAuthn`](crate::model::JwtAuthn). Its
/// overrides are a [`JwtOverride`] each, from a `PerRouteConfig`.
#[derive(Debug, Clone, Copy, Default)]
pub struct JwtAuthnFilter;

/// `PerRouteConfig`: what a route requires in place of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtOverride {
    /// Nothing.
    Disabled,
    /// What the Listener's `requirement_map` has under this name. If it has none, requests are denied, as in Envoy.
    Requirement(String),
}

impl JwtAuthnFilter {
    /// The type of its configuration.
    pub const TYPE_URL: &'static str = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
}

impl HttpFilterType for JwtAuthnFilter {
    fn type_url(&self) -> &'static str {
        Self::TYPE_URL
    }

    fn override_type_url(&self) -> Option<&str> {
        Some("envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig")
    }

    fn supports(&self, side: Side) -> bool {
        side == Side::Server
    }

    fn decode(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        let value = proto::<pb::JwtAuthentication>(value)?;
        let findings = Findings::default();
        let config = config(&value, &findings.root());
        let faults = findings.into_faults();
        if faults.is_empty() { Ok(Arc::new(config)) } else { Err(faults) }
    }

    fn decode_override(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        let fault = |field: &str, rule: &str| Err(vec![Fault::new(field, rule)]);
        match proto::<pb::PerRouteConfig>(value)?.requirement_specifier {
            Some(RequirementSpecifier::Disabled(true)) => Ok(Arc::new(JwtOverride::Disabled)),
            Some(RequirementSpecifier::Disabled(false)) => fault("disabled", "can only be true"),
            Some(RequirementSpecifier::RequirementName(name)) if !name.is_empty() => {
                Ok(Arc::new(JwtOverride::Requirement(name)))
            }
            Some(RequirementSpecifier::RequirementName(_)) => fault("requirement_name", "is empty"),
            None => fault("", "must have disabled or requirement_name"),
        }
    }
}

fn config(value: &pb::JwtAuthentication, at: &At<'_>) -> JwtAuthn {
    if value.filter_state_rules.is_some() {
        at.field("filter_state_rules").fault("is not supported; give rules");
    }
    let named: BTreeMap<&String, &pb::JwtProvider> = value.providers.iter().collect();
    let names = Names(named.keys().enumerate().map(|(index, name)| (name.as_str(), index)).collect());
    let providers = named.iter().map(|(name, value)| Arc::new(provider(name, value, &at.key("providers", name))));
    let providers = providers.collect();
    let map: BTreeMap<&String, &pb::JwtRequirement> = value.requirement_map.iter().collect();
    let requirements = map
        .into_iter()
        .map(|(name, value)| (name.clone(), names.requirement(value, 0, &at.key("requirement_map", name))));
    let requirements: BTreeMap<_, _> = requirements.collect();
    let rules = value.rules.iter().enumerate();
    JwtAuthn {
        providers,
        rules: rules.map(|(index, value)| rule(value, &names, &requirements, &at.item("rules", index))).collect(),
        requirements,
        bypass_cors_preflight: value.bypass_cors_preflight,
        strip_failure_response: value.strip_failure_response,
    }
}

fn rule(
    value: &pb::RequirementRule,
    names: &Names<'_>,
    requirements: &BTreeMap<String, JwtRequirement>,
    at: &At<'_>,
) -> JwtRule {
    let requirement = match &value.requirement_type {
        None => None,
        Some(RequirementType::Requires(value)) => Some(names.requirement(value, 0, &at.field("requires"))),
        Some(RequirementType::RequirementName(name)) => {
            let found = requirements.get(name);
            if found.is_none() {
                at.field("requirement_name").fault(format!("is `{name}`, which is not in requirement_map"));
            }
            found.cloned()
        }
    };
    let here = at.field("match");
    if value.r#match.is_none() {
        here.fault("is missing");
    }
    JwtRule { matches: matches(&value.r#match.clone().unwrap_or_default(), &here), requirement }
}

/// A rule that matches fewer requests than Envoy's leaves some without one, and Envoy does not look at these.
fn matches(value: &PbRouteMatch, at: &At<'_>) -> RouteMatch {
    for (field, present) in [
        ("runtime_fraction", value.runtime_fraction.is_some()),
        ("dynamic_metadata", !value.dynamic_metadata.is_empty()),
        ("filter_state", !value.filter_state.is_empty()),
        ("cookies", !value.cookies.is_empty()),
        ("grpc", value.grpc.is_some()),
        ("tls_context", value.tls_context.is_some()),
    ] {
        if present {
            at.field(field).fault("is not supported in a rule");
        }
    }
    route_match(value, at)
}

/// The providers' places, by name.
struct Names<'a>(HashMap<&'a str, usize>);

impl Names<'_> {
    fn requirement(&self, value: &pb::JwtRequirement, depth: usize, at: &At<'_>) -> JwtRequirement {
        if depth > DEEPEST {
            at.fault(format!("is more than {DEEPEST} deep"));
            return JwtRequirement::Nothing;
        }
        let list = |values: &[pb::JwtRequirement], name: &str| {
            let here = at.field(name);
            if values.len() < 2 {
                here.field("requirements").fault("must have at least 2");
            }
            let each = values.iter().enumerate();
            each.map(|(index, value)| self.requirement(value, depth + 1, &here.item("requirements", index))).collect()
        };
        match &value.requires_type {
            None => JwtRequirement::Nothing,
            Some(RequiresType::ProviderName(name)) => self.provider(name, &[], &at.field("provider_name")),
            Some(RequiresType::ProviderAndAudiences(value)) => {
                let here = at.field("provider_and_audiences");
                self.provider(&value.provider_name, &value.audiences, &here.field("provider_name"))
            }
            Some(RequiresType::RequiresAny(any)) => JwtRequirement::Any(list(&any.requirements, "requires_any")),
            Some(RequiresType::RequiresAll(all)) => JwtRequirement::All(list(&all.requirements, "requires_all")),
            Some(RequiresType::AllowMissingOrFailed(_)) => JwtRequirement::AllowMissingOrFailed,
            Some(RequiresType::AllowMissing(_)) => JwtRequirement::AllowMissing,
            Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
                at.field("extract_only_without_validation")
                    .fault("is not supported: anybody can say anything in a token that nobody verifies");
                JwtRequirement::Nothing
            }
        }
    }

    fn provider(&self, name: &str, audiences: &[String], at: &At<'_>) -> JwtRequirement {
        let provider = self.0.get(name).copied();
        if provider.is_none() {
            at.fault(format!("is `{name}`, which is not in providers"));
        }
        JwtRequirement::Provider { provider: provider.unwrap_or_default(), audiences: audiences.to_vec() }
    }
}

fn provider(name: &str, value: &pb::JwtProvider, at: &At<'_>) -> JwtProvider {
    if value.clear_route_cache {
        at.field("clear_route_cache").fault("is not supported: a server's route is chosen before its filters run");
    }
    let header = &value.forward_payload_header;
    let places = [("from_params", &value.from_params), ("from_cookies", &value.from_cookies)];
    for (field, names) in places {
        if names.iter().any(String::is_empty) {
            at.field(field).fault("has an empty name");
        }
    }
    let skew = if value.clock_skew_seconds == 0 { CLOCK_SKEW } else { value.clock_skew_seconds };
    let most = duration(value.max_lifetime.as_ref(), &at.field("max_lifetime"));
    let normalize = value.normalize_payload_in_metadata.as_ref();
    JwtProvider {
        name: name.into(),
        issuer: value.issuer.clone(),
        audiences: value.audiences.clone(),
        subjects: value.subjects.as_ref().and_then(|value| matcher::string(value, &at.field("subjects"))),
        max_lifetime: most.or(value.require_expiration.then_some(Duration::MAX)),
        clock_skew: Duration::from_secs(skew.into()),
        keys: keys(value.jwks_source_specifier.as_ref(), at),
        forward: value.forward,
        from_headers: from_headers(&value.from_headers, at),
        from_params: value.from_params.clone(),
        from_cookies: value.from_cookies.clone(),
        forward_payload_header: (!header.is_empty())
            .then(|| header_name(header, &at.field("forward_payload_header")))
            .flatten(),
        pad_forward_payload_header: value.pad_forward_payload_header,
        claim_to_headers: claim_headers(&value.claim_to_headers, at),
        payload_in_metadata: value.payload_in_metadata.clone(),
        header_in_metadata: value.header_in_metadata.clone(),
        failed_status_in_metadata: value.failed_status_in_metadata.clone(),
        space_delimited_claims: normalize.map(|value| value.space_delimited_claims.clone()).unwrap_or_default(),
    }
}

fn from_headers(values: &[pb::JwtHeader], at: &At<'_>) -> Vec<TokenHeader> {
    let each = values.iter().enumerate().filter_map(|(index, value)| {
        let here = at.item("from_headers", index);
        check_line(&value.value_prefix, &here.field("value_prefix"));
        let name = header_name(&value.name, &here.field("name"))?;
        Some(TokenHeader { name, value_prefix: value.value_prefix.clone() })
    });
    each.collect()
}

fn claim_headers(values: &[pb::JwtClaimToHeader], at: &At<'_>) -> Vec<ClaimHeader> {
    let each = values.iter().enumerate().filter_map(|(index, value)| {
        let here = at.item("claim_to_headers", index);
        if value.claim_name.is_empty() == value.claim_path.is_empty() {
            here.fault("must have one of claim_name and claim_path");
        }
        let path = if value.claim_path.is_empty() {
            value.claim_name.split('.').map(str::to_owned).collect()
        } else {
            value.claim_path.iter().map(|segment| segment.key.clone()).collect()
        };
        Some(ClaimHeader { header: header_name(&value.header_name, &here.field("header_name"))?, path })
    });
    each.collect()
}

fn keys(value: Option<&JwksSourceSpecifier>, at: &At<'_>) -> JwksSource {
    match value {
        Some(JwksSourceSpecifier::LocalJwks(value)) => local(value, &at.field("local_jwks")),
        Some(JwksSourceSpecifier::RemoteJwks(value)) => remote(value, &at.field("remote_jwks")),
        None => {
            at.fault("must have local_jwks or remote_jwks");
            JwksSource::Inline(String::new())
        }
    }
}

fn local(value: &DataSource, at: &At<'_>) -> JwksSource {
    match &value.specifier {
        Some(Specifier::InlineString(text)) => JwksSource::Inline(text.clone()),
        Some(Specifier::InlineBytes(bytes)) => JwksSource::Inline(String::from_utf8_lossy(bytes).into_owned()),
        Some(Specifier::Filename(name)) if !name.is_empty() => JwksSource::File(PathBuf::from(name)),
        Some(Specifier::Filename(_)) => {
            at.field("filename").fault("is empty");
            JwksSource::Inline(String::new())
        }
        Some(Specifier::EnvironmentVariable(_)) => {
            at.field("environment_variable").fault("is not supported; give inline_string or filename");
            JwksSource::Inline(String::new())
        }
        None => {
            at.fault("does not say where it is");
            JwksSource::Inline(String::new())
        }
    }
}

fn remote(value: &pb::RemoteJwks, at: &At<'_>) -> JwksSource {
    let here = at.field("http_uri");
    let http = value.http_uri.clone().unwrap_or_default();
    let uri = http.uri.parse::<Uri>().ok().filter(|uri| uri.host().is_some() && is_http(uri));
    if uri.is_none() {
        here.field("uri").fault(format!("is `{}`, which is not an http or https URI", http.uri.escape_debug()));
    }
    let HttpUpstreamType::Cluster(cluster) =
        http.http_upstream_type.unwrap_or_else(|| HttpUpstreamType::Cluster(String::new()));
    if cluster.is_empty() {
        here.field("cluster").fault("is empty");
    }
    if http.timeout.is_none() {
        here.field("timeout").fault("is missing");
    }
    let cache = short_duration(value.cache_duration.as_ref(), &at.field("cache_duration"));
    if cache.is_some_and(|cache| cache < SHORTEST_CACHE) {
        at.field("cache_duration").fault("must be at least 1 ms");
    }
    JwksSource::Remote(RemoteJwks {
        uri: uri.unwrap_or_default(),
        cluster: Name::from(cluster),
        timeout: positive_duration(http.timeout.as_ref(), &here.field("timeout")).unwrap_or_default(),
        cache_duration: cache.unwrap_or(CACHE),
        failed_refetch: failed_refetch(value, at),
    })
}

fn is_http(uri: &Uri) -> bool {
    matches!(uri.scheme_str(), Some("http" | "https"))
}

/// Keys are always fetched ahead of requests, so that both policies say the same: when to try again.
fn failed_refetch(value: &pb::RemoteJwks, at: &At<'_>) -> Duration {
    let of_fetch = value.async_fetch.as_ref().and_then(|fetch| {
        positive_duration(
            fetch.failed_refetch_duration.as_ref(),
            &at.field("async_fetch").field("failed_refetch_duration"),
        )
    });
    let of_retry = |retry: &RetryPolicy| {
        let here = at.field("retry_policy");
        let here = here.field("retry_back_off");
        positive_duration(retry.retry_back_off.as_ref()?.base_interval.as_ref(), &here.field("base_interval"))
    };
    of_fetch.or_else(|| value.retry_policy.as_ref().and_then(of_retry)).unwrap_or(FAILED_REFETCH)
}
