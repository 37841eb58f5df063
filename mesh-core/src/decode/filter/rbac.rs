//! RBAC (gRFC A41, A59): rule 87. What cannot be honoured is refused: a policy with a part left out is another policy.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{CidrRange, TypedExtensionConfig};
use envoy_types::pb::envoy::config::rbac::v3 as rbac;
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as pb;
use envoy_types::pb::envoy::extensions::rbac::audit_loggers::stream::v3::StdoutAuditLog;
use envoy_types::pb::envoy::extensions::rbac::principals::mtls_authenticated::v3 as mtls_authenticated;
use envoy_types::pb::envoy::r#type::matcher::v3::PathMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::path_matcher;
use ipnet::IpNet;
use prost::Name as _;
use rbac::permission::Rule;
use rbac::principal::Identifier;
use rbac::rbac::audit_logging_options::AuditCondition;
use rbac::rbac::{Action, AuditLoggingOptions};

use crate::decode::at::{At, Findings};
use crate::decode::envelope::{bare, expect, proto};
use crate::decode::metadata::matches as metadata;
use crate::decode::route::uri_template;
use crate::decode::tls::san;
use crate::decode::value::cidr;
use crate::decode::{ExtensionValue, Fault, HttpFilterType, Side, matcher};
use crate::model::matcher::MatchName;
use crate::model::{
    Audit, FilterConfig, HeaderMatch, MetadataSource, Permission, Principal, Rbac, RbacAction, RbacPolicy, RbacRules,
    StringMatch,
};

/// `extensions.filters.http.rbac.v3.RBAC`, for servers; an [`Rbac`](crate::model::Rbac). Its overrides are another one each,
/// from an `RBACPerRoute`; one that is empty turns the filter off.
#[derive(Debug, Clone, Copy, Default)]
pub struct RbacFilter;

impl RbacFilter {
    /// The type of its configuration.
    pub const TYPE_URL: &'static str = "envoy.extensions.filters.http.rbac.v3.RBAC";
}

impl HttpFilterType for RbacFilter {
    fn type_url(&self) -> &'static str {
        Self::TYPE_URL
    }

    fn override_type_url(&self) -> Option<&str> {
        Some("envoy.extensions.filters.http.rbac.v3.RBACPerRoute")
    }

    fn supports(&self, side: Side) -> bool {
        side == Side::Server
    }

    fn decode(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        let value = proto::<pb::Rbac>(value)?;
        found(|at| config(&value, at))
    }

    fn decode_override(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        let value = proto::<pb::RbacPerRoute>(value)?;
        found(|at| value.rbac.as_ref().map(|value| config(value, &at.field("rbac"))).unwrap_or_default())
    }
}

fn found(read: impl FnOnce(&At<'_>) -> Rbac) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
    let findings = Findings::default();
    let config = read(&findings.root());
    let faults = findings.into_faults();
    if faults.is_empty() { Ok(Arc::new(config)) } else { Err(faults) }
}

fn config(value: &pb::Rbac, at: &At<'_>) -> Rbac {
    if value.matcher.is_some() {
        at.field("matcher").fault("is not supported; give rules");
    }
    if value.shadow_matcher.is_some() {
        at.field("shadow_matcher").fault("is not supported; give shadow_rules");
    }
    Rbac {
        rules: value.rules.as_ref().map(|value| rules(value, &at.field("rules"))),
        shadow: value.shadow_rules.as_ref().map(|value| rules(value, &at.field("shadow_rules"))),
    }
}

fn rules(value: &rbac::Rbac, at: &At<'_>) -> RbacRules {
    let action = match Action::try_from(value.action) {
        Ok(Action::Allow) => RbacAction::Allow,
        Ok(Action::Deny) => RbacAction::Deny,
        Ok(Action::Log) => RbacAction::Log,
        Err(_) => {
            at.field("action").fault(format!("is {}, which is not known", value.action));
            RbacAction::Deny
        }
    };
    // In the order of their names, as in Envoy; and so the faults come in the same order every time.
    let policies: BTreeMap<&String, &rbac::Policy> = value.policies.iter().collect();
    let policies = policies.into_iter().map(|(name, value)| policy(name, value, &at.key("policies", name))).collect();
    let audit = value.audit_logging_options.as_ref();
    let audit = audit.map(|value| audit_options(value, &at.field("audit_logging_options"))).unwrap_or_default();
    RbacRules { action, policies, audit }
}

fn policy(name: &str, value: &rbac::Policy, at: &At<'_>) -> RbacPolicy {
    let expressions = [
        ("condition", value.condition.is_some()),
        ("checked_condition", value.checked_condition.is_some()),
        ("cel_config", value.cel_config.is_some()),
    ];
    for (name, _) in expressions.into_iter().filter(|(_, present)| *present) {
        at.field(name).fault("is not supported, and leaving it out would match more than was meant");
    }
    RbacPolicy {
        name: name.into(),
        permissions: list(&value.permissions, "permissions", at, permission),
        principals: list(&value.principals, "principals", at, principal),
    }
}

/// One or more of something: an empty list would match nothing, and nobody means that.
fn list<V, T>(values: &[V], name: &str, at: &At<'_>, read: fn(&V, &At<'_>) -> Option<T>) -> Vec<T> {
    if values.is_empty() {
        at.field(name).fault("is empty");
    }
    values.iter().enumerate().filter_map(|(index, value)| read(value, &at.item(name, index))).collect()
}

/// prost bounds the depth.
fn permission(value: &rbac::Permission, at: &At<'_>) -> Option<Permission> {
    match value.rule.as_ref() {
        Some(Rule::Any(any)) => always(*any, at).then_some(Permission::Any),
        Some(Rule::AndRules(set)) => {
            Some(Permission::And(list(&set.rules, "rules", &at.field("and_rules"), permission)))
        }
        Some(Rule::OrRules(set)) => Some(Permission::Or(list(&set.rules, "rules", &at.field("or_rules"), permission))),
        Some(Rule::NotRule(not)) => permission(not, &at.field("not_rule")).map(|not| Permission::Not(Box::new(not))),
        Some(Rule::Header(value)) => header(value, &at.field("header")).map(Permission::Header),
        Some(Rule::UrlPath(value)) => url_path(value, &at.field("url_path")).map(Permission::UrlPath),
        Some(Rule::UriTemplate(value)) => uri_template(value, &at.field("uri_template")).map(Permission::UriTemplate),
        Some(Rule::DestinationIp(value)) => range(value, &at.field("destination_ip")).map(Permission::DestinationIp),
        Some(Rule::DestinationPort(value)) => {
            let port = u16::try_from(*value).map_err(|_| at.field("destination_port").fault("must be at most 65535"));
            port.ok().map(Permission::DestinationPort)
        }
        Some(Rule::DestinationPortRange(range)) => {
            let at = at.field("destination_port_range");
            let good = 0 <= range.start && range.start < range.end && range.end <= 65_536;
            if !good {
                at.envoy_fault("must be from a port to a later one, 65536 at most");
            }
            Some(Permission::DestinationPortRange { start: range.start, end: range.end })
        }
        Some(Rule::RequestedServerName(value)) => {
            matcher::string(value, &at.field("requested_server_name")).map(Permission::ServerName)
        }
        Some(Rule::Metadata(value)) => {
            metadata(value, MetadataSource::Dynamic, &at.field("metadata")).map(Permission::Metadata)
        }
        Some(Rule::SourcedMetadata(value)) => sourced(value, &at.field("sourced_metadata")).map(Permission::Metadata),
        Some(Rule::Matcher(value)) => unknown(value, &at.field("matcher")),
        None => unsaid(at),
    }
}

/// prost bounds the depth.
fn principal(value: &rbac::Principal, at: &At<'_>) -> Option<Principal> {
    match value.identifier.as_ref() {
        Some(Identifier::Any(any)) => always(*any, at).then_some(Principal::Any),
        Some(Identifier::AndIds(set)) => Some(Principal::And(list(&set.ids, "ids", &at.field("and_ids"), principal))),
        Some(Identifier::OrIds(set)) => Some(Principal::Or(list(&set.ids, "ids", &at.field("or_ids"), principal))),
        Some(Identifier::NotId(not)) => principal(not, &at.field("not_id")).map(|not| Principal::Not(Box::new(not))),
        Some(Identifier::Authenticated(value)) => {
            let name = value.principal_name.as_ref();
            let at = at.field("authenticated");
            match name.map(|name| matcher::string(name, &at.field("principal_name"))) {
                Some(None) => None,
                name => Some(Principal::Authenticated(name.flatten())),
            }
        }
        Some(Identifier::SourceIp(value)) => range(value, &at.field("source_ip")).map(Principal::DirectRemoteIp),
        Some(Identifier::DirectRemoteIp(value)) => {
            range(value, &at.field("direct_remote_ip")).map(Principal::DirectRemoteIp)
        }
        Some(Identifier::RemoteIp(value)) => range(value, &at.field("remote_ip")).map(Principal::RemoteIp),
        Some(Identifier::Header(value)) => header(value, &at.field("header")).map(Principal::Header),
        Some(Identifier::UrlPath(value)) => url_path(value, &at.field("url_path")).map(Principal::UrlPath),
        Some(Identifier::Metadata(value)) => {
            metadata(value, MetadataSource::Dynamic, &at.field("metadata")).map(Principal::Metadata)
        }
        Some(Identifier::SourcedMetadata(value)) => {
            sourced(value, &at.field("sourced_metadata")).map(Principal::Metadata)
        }
        Some(Identifier::Custom(value)) => custom(value, &at.field("custom")),
        Some(Identifier::FilterState(_)) => {
            at.field("filter_state").fault("is not supported: no filter sets any");
            None
        }
        None => unsaid(at),
    }
}

fn always(any: bool, at: &At<'_>) -> bool {
    if !any {
        at.field("any").fault("must be true");
    }
    any
}

fn unsaid<T>(at: &At<'_>) -> Option<T> {
    at.fault("says nothing, or says it in a way that is not known here");
    None
}

fn unknown<T>(value: &TypedExtensionConfig, at: &At<'_>) -> Option<T> {
    let kind = value.typed_config.as_ref().map_or("", |any| bare(&any.type_url));
    at.fault(format!("is a `{kind}`, which is not known here"));
    None
}

/// Envoy matches no IPv4 peer with an IPv4 range in IPv6's clothes, and gRPC does: where Envoy's rules count, nobody can say
/// what is meant.
fn range(value: &CidrRange, at: &At<'_>) -> Option<IpNet> {
    let clothed = value.address_prefix.parse::<Ipv6Addr>().is_ok_and(|address| address.to_ipv4_mapped().is_some());
    if clothed && value.prefix_len.is_some_and(|length| length.value >= 96) {
        at.field("address_prefix")
            .envoy_fault("is an IPv4 address written as IPv6, which matches nobody; write it as IPv4");
    }
    cidr(value, at)
}

/// A41: what gRPC itself sends tells nothing of who calls or what is called.
fn header(value: &HeaderMatcher, at: &At<'_>) -> Option<HeaderMatch> {
    let header = matcher::header(value, at)?;
    let reserved = match &header.name {
        MatchName::Scheme => true,
        MatchName::Header(name) => name.as_str().starts_with("grpc-"),
        _ => false,
    };
    if reserved {
        at.field("name").fault("must be neither `:scheme` nor begin with `grpc-`");
    }
    Some(header)
}

fn url_path(value: &PathMatcher, at: &At<'_>) -> Option<StringMatch> {
    match &value.rule {
        Some(path_matcher::Rule::Path(value)) => matcher::string(value, &at.field("path")),
        None => unsaid(at),
    }
}

fn sourced(value: &rbac::SourcedMetadata, at: &At<'_>) -> Option<crate::model::MetadataMatch> {
    let source = match rbac::MetadataSource::try_from(value.metadata_source) {
        Ok(rbac::MetadataSource::Dynamic) => MetadataSource::Dynamic,
        Ok(rbac::MetadataSource::Route) => MetadataSource::Route,
        Err(_) => {
            at.field("metadata_source").fault(format!("is {}, which is not known", value.metadata_source));
            return None;
        }
    };
    let Some(value) = &value.metadata_matcher else {
        at.field("metadata_matcher").fault("is missing");
        return None;
    };
    metadata(value, source, &at.field("metadata_matcher"))
}

/// The one kind of custom principal there is: a certificate that was verified, and one of its names.
fn custom(value: &TypedExtensionConfig, at: &At<'_>) -> Option<Principal> {
    let Some(any) = value.typed_config.as_ref().filter(|any| is::<mtls_authenticated::Config>(&any.type_url)) else {
        return unknown(value, at);
    };
    let at = at.field("typed_config");
    let value: mtls_authenticated::Config = expect(any, &at)?;
    match (&value.san_matcher, value.any_validated_client_certificate) {
        (Some(name), false) => san(name, &at.field("san_matcher")).map(|name| Principal::Verified(Some(name))),
        (None, true) => Some(Principal::Verified(None)),
        _ => {
            at.fault("must have either san_matcher or any_validated_client_certificate");
            None
        }
    }
}

fn is<M: prost::Name>(type_url: &str) -> bool {
    bare(type_url) == M::full_name()
}

/// gRFC A59. The one logger there is writes to standard output.
fn audit_options(value: &AuditLoggingOptions, at: &At<'_>) -> Audit {
    let mut logs = false;
    for (index, logger) in value.logger_configs.iter().enumerate() {
        let at = at.item("logger_configs", index);
        let at = at.field("audit_logger");
        let any = logger.audit_logger.as_ref().and_then(|logger| logger.typed_config.as_ref());
        let here = at.field("typed_config");
        match any {
            None => here.fault("is missing"),
            Some(any) if bare(&any.type_url) == StdoutAuditLog::full_name() => logs = true,
            Some(_) if logger.is_optional => {}
            Some(any) => here.fault(format!("is a `{}`, which is not known here", bare(&any.type_url))),
        }
    }
    let (denials, admissions) = match AuditCondition::try_from(value.audit_condition) {
        Ok(AuditCondition::None) => (false, false),
        Ok(AuditCondition::OnDeny) => (true, false),
        Ok(AuditCondition::OnAllow) => (false, true),
        Ok(AuditCondition::OnDenyAndAllow) => (true, true),
        Err(_) => {
            at.field("audit_condition").fault(format!("is {}, which is not known", value.audit_condition));
            (true, true)
        }
    };
    Audit { denials: logs && denials, admissions: logs && admissions }
}
