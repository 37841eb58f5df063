//! Virtual hosts and their domains: rules 52 and 53.

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::google::protobuf::{UInt32Value, UInt64Value};

use super::{action, cors, matches, mirror, mutation, rate_limit, retry};
use crate::decode::at::At;
use crate::decode::value::{check_line, metadata};
use crate::decode::{Decoder, Dialect};
use crate::model::{Action, BodyLimit, Cors, Domain, Route, RouteMatch, TlsRequirement, VirtualHost};
use crate::policy::cors::merged;

/// The virtual hosts of a table. A domain that two of them claim is refused, as in Envoy: gRPC takes the first, and which
/// one the operator meant cannot be known.
pub(super) fn virtual_hosts(
    decoder: &Decoder,
    values: Vec<pb::VirtualHost>,
    max_body: u32,
    at: &At<'_>,
) -> Vec<Arc<VirtualHost>> {
    let mut seen = BTreeSet::new();
    let mut hosts = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let at = at.item("virtual_hosts", index);
        check_unique(&value.domains, &mut seen, &at);
        hosts.push(Arc::new(virtual_host(decoder, value, max_body, &at)));
    }
    hosts
}

fn check_unique(domains: &[String], seen: &mut BTreeSet<String>, at: &At<'_>) {
    for (index, domain) in domains.iter().enumerate() {
        if !seen.insert(domain.to_ascii_lowercase()) {
            at.item("domains", index).fault(format!("is `{domain}`, which the table has already"));
        }
    }
}

fn virtual_host(decoder: &Decoder, value: pb::VirtualHost, max_body: u32, at: &At<'_>) -> VirtualHost {
    let limit = body_limit(value.request_body_buffer_limit, value.per_request_buffer_limit_bytes, at);
    // A route's own policy, in the deprecated spelling, takes from the virtual host's what it does not say.
    let cors = value.cors.map(|policy| Arc::new(cors::route_policy(&policy, &at.field("cors"))));
    let routes = value.routes.into_iter().enumerate();
    let routes = routes.map(|(index, value)| {
        let route = route(decoder, value, cors.as_ref(), max_body, &at.item("routes", index));
        Arc::new(Route { body_limit: route.body_limit.or(limit), ..route })
    });
    let routes = routes.collect();
    if value.name.is_empty() {
        at.field("name").envoy_fault("is empty");
    }
    virtual_clusters(&value.virtual_clusters, at);
    // After the routes, which take their own notes.
    let mark = at.mark();
    at.all_fail_requests(&[
        ("matcher", value.matcher.is_some()),
        ("retry_policy_typed_config", value.retry_policy_typed_config.is_some()),
        ("route_specifiers", !value.route_specifiers.is_empty()),
    ]);
    at.all_left_out(&[
        ("virtual_clusters", !value.virtual_clusters.is_empty()),
        ("include_is_timeout_retry_header", value.include_is_timeout_retry_header),
    ]);
    let host = VirtualHost {
        name: value.name.into(),
        domains: domains(&value.domains, at),
        routes,
        headers: mutation::mutations(
            &value.request_headers_to_add,
            &value.request_headers_to_remove,
            &value.response_headers_to_add,
            &value.response_headers_to_remove,
            at,
        ),
        retry: value.retry_policy.map(|policy| Arc::new(retry::retry(&policy, &at.field("retry_policy")))),
        hedge: value.hedge_policy.map(|policy| retry::hedge(&policy, &at.field("hedge_policy"))),
        overrides: decoder.overrides(&value.typed_per_filter_config, at),
        mirrors: mirror::mirrors(&value.request_mirror_policies, at),
        request_attempt_count: value.include_request_attempt_count,
        response_attempt_count: value.include_attempt_count_in_response,
        limits: rate_limit::rules(&value.rate_limits, at),
        cors,
        require_tls: require_tls(value.require_tls, &at.field("require_tls")),
        unsupported: Vec::new(),
    };
    VirtualHost { unsupported: at.notes_since(mark), ..host }
}

/// They are for statistics only, which we have by route; Envoy refuses them where they say nothing.
fn virtual_clusters(values: &[pb::VirtualCluster], at: &At<'_>) {
    for (index, value) in values.iter().enumerate() {
        let at = at.item("virtual_clusters", index);
        if value.name.is_empty() {
            at.field("name").envoy_fault("is empty");
        }
        if value.headers.is_empty() {
            at.field("headers").envoy_fault("is empty");
        }
    }
}

fn require_tls(value: i32, at: &At<'_>) -> TlsRequirement {
    match pb::virtual_host::TlsRequirementType::try_from(value) {
        Ok(pb::virtual_host::TlsRequirementType::None) => TlsRequirement::None,
        Ok(pb::virtual_host::TlsRequirementType::ExternalOnly) => TlsRequirement::ExternalOnly,
        Ok(pb::virtual_host::TlsRequirementType::All) => TlsRequirement::All,
        Err(_) => {
            at.fault(format!("is {value}, which is not known"));
            TlsRequirement::All
        }
    }
}

/// The newer field and its older spelling; the newer one wins (Envoy).
fn body_limit(exactly: Option<UInt64Value>, at_most: Option<UInt32Value>, at: &At<'_>) -> Option<BodyLimit> {
    match (exactly, at_most) {
        (Some(_), Some(_)) => {
            at.field("request_body_buffer_limit").grpc_fault("is set together with per_request_buffer_limit_bytes");
            exactly.map(|bytes| BodyLimit::Exactly(bytes.value))
        }
        (Some(bytes), None) => Some(BodyLimit::Exactly(bytes.value)),
        (None, Some(bytes)) => Some(BodyLimit::AtMost(bytes.value)),
        (None, None) => None,
    }
}

fn domains(values: &[String], at: &At<'_>) -> Vec<Domain> {
    // Rule 53.
    if values.is_empty() {
        at.field("domains").fault("is empty");
    }
    values.iter().enumerate().filter_map(|(index, value)| domain(value, &at.item("domains", index))).collect()
}

/// Rule 52.
fn domain(text: &str, at: &At<'_>) -> Option<Domain> {
    check_line(text, at);
    let text = text.to_ascii_lowercase();
    if Dialect::is_envoy() {
        return Some(domain_of_envoy(&text));
    }
    let parsed = match (text.as_str(), text.strip_prefix('*'), text.strip_suffix('*')) {
        ("", ..) => None,
        ("*", ..) => Some(Domain::Any),
        (_, Some(suffix), _) if !suffix.contains('*') => Some(Domain::Suffix(suffix.to_owned())),
        (_, None, Some(prefix)) if !prefix.contains('*') => Some(Domain::Prefix(prefix.to_owned())),
        (exact, None, None) if !exact.contains('*') => Some(Domain::Exact(exact.to_owned())),
        _ => None,
    };
    if parsed.is_none() {
        at.fault("must be a name, `*`, `*` and an ending, or a beginning and `*`");
    }
    parsed
}

/// Any text is a domain to Envoy: one `*` at its beginning or else at its end is a wildcard, others stand for themselves, and
/// so match nobody.
fn domain_of_envoy(text: &str) -> Domain {
    match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
        ("*", ..) => Domain::Any,
        (_, Some(suffix), _) => Domain::Suffix(suffix.to_owned()),
        (_, None, Some(prefix)) => Domain::Prefix(prefix.to_owned()),
        (exact, None, None) => Domain::Exact(exact.to_owned()),
    }
}

fn route(decoder: &Decoder, value: pb::Route, host_cors: Option<&Arc<Cors>>, max_body: u32, at: &At<'_>) -> Route {
    let mark = at.mark();
    at.all_fail_requests(&[("route_specifiers", !value.route_specifiers.is_empty())]);
    at.all_left_out(&[("tracing", value.tracing.is_some())]);
    let matches = match &value.r#match {
        Some(matcher) => matches::route_match(matcher, &at.field("match")),
        None => {
            // Rule 54.
            at.field("match").fault("is missing");
            RouteMatch::never()
        }
    };
    let mut action = action::action(decoder, value.action, &matches, max_body, at);
    if let Action::Forward(forward) = &mut action {
        let levels = host_cors.into_iter().chain(&forward.cors).map(AsRef::as_ref);
        forward.cors = merged(levels).map(Arc::new);
    }
    let route = Route {
        name: value.name.into(),
        action,
        matches,
        headers: mutation::mutations(
            &value.request_headers_to_add,
            &value.request_headers_to_remove,
            &value.response_headers_to_add,
            &value.response_headers_to_remove,
            at,
        ),
        overrides: decoder.overrides(&value.typed_per_filter_config, at),
        metadata: metadata(value.metadata),
        operation: operation(value.decorator, at),
        body_limit: body_limit(value.request_body_buffer_limit, value.per_request_buffer_limit_bytes, at),
        unsupported: Vec::new(),
    };
    Route { unsupported: at.notes_since(mark), ..route }
}

/// What spans of the route's requests are called.
fn operation(decorator: Option<pb::Decorator>, at: &At<'_>) -> Option<String> {
    let operation = decorator?.operation;
    if operation.is_empty() {
        at.field("decorator").field("operation").envoy_fault("is empty");
    }
    Some(operation).filter(|operation| !operation.is_empty())
}
