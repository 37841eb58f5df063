//! Rule 87: RBAC, in a Listener and in overrides.

use envoy_types::pb::envoy::config::core::v3::{CidrRange, TypedExtensionConfig};
use envoy_types::pb::envoy::config::rbac::v3 as pb;
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as filter;
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use envoy_types::pb::envoy::extensions::rbac::audit_loggers::stream::v3::StdoutAuditLog;
use envoy_types::pb::envoy::extensions::rbac::principals::mtls_authenticated::v3 as mtls_authenticated;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::SubjectAltNameMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3::Int32Range;
use envoy_types::pb::google::api::expr::v1alpha1::{CheckedExpr, Expr};
use matcher::metadata_matcher::{PathSegment, path_segment::Segment};
use matcher::string_matcher::MatchPattern;
use matcher::value_matcher;
use pb::permission::{self, Rule};
use pb::principal::{self, Identifier};
use pb::rbac::AuditLoggingOptions;
use pb::rbac::audit_logging_options::AuditLoggerConfig;

use super::listener::{chain, server};
use super::*;
use crate::decode::{ExtensionValue, HttpFilterType, RbacFilter};
use crate::model::{Audit, Listener, Permission, Principal, Rbac, RbacAction};
use crate::resource::LISTENER;

const PATH: &str = "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config";

fn may(rule: Rule) -> pb::Permission {
    pb::Permission { rule: Some(rule) }
}

fn who(identifier: Identifier) -> pb::Principal {
    pb::Principal { identifier: Some(identifier) }
}

/// A server's Listener with an RBAC filter that allows everything to everyone.
fn rbac() -> Part<filter::Rbac> {
    let policy = pb::Policy {
        permissions: vec![may(Rule::Any(true))],
        principals: vec![who(Identifier::Any(true))],
        ..Default::default()
    };
    let rules = pb::Rbac { policies: [("p".to_owned(), policy)].into(), ..Default::default() };
    Part {
        type_url: LISTENER,
        base: filter::Rbac { rules: Some(rules), ..Default::default() },
        wrap: |config| {
            let mut manager = manager();
            manager.http_filters.insert(0, http_filter("rbac", any(&config)));
            server(chain(&manager)).encode_to_vec()
        },
        path: PATH,
    }
}

fn rules(config: &mut filter::Rbac) -> &mut pb::Rbac {
    config.rules.as_mut().expect("it has rules")
}

fn policy(config: &mut filter::Rbac) -> &mut pb::Policy {
    rules(config).policies.get_mut("p").expect("it has a policy")
}

fn permit(config: &mut filter::Rbac, rule: Rule) {
    policy(config).permissions = vec![may(rule)];
}

fn admit(config: &mut filter::Rbac, identifier: Identifier) {
    policy(config).principals = vec![who(identifier)];
}

fn exact(text: &str) -> matcher::StringMatcher {
    matcher::StringMatcher { match_pattern: Some(MatchPattern::Exact(text.to_owned())), ignore_case: false }
}

fn header(name: &str) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
        ..Default::default()
    }
}

fn range(prefix: &str) -> CidrRange {
    CidrRange { address_prefix: prefix.to_owned(), prefix_len: u32_value(8) }
}

fn metadata(key: &str) -> matcher::MetadataMatcher {
    let value = matcher::ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::PresentMatch(true)) };
    let step = PathSegment { segment: Some(Segment::Key(key.to_owned())) };
    matcher::MetadataMatcher { filter: "jwt".to_owned(), path: vec![step], value: Some(value), invert: false }
}

fn bad_regex() -> matcher::StringMatcher {
    let regex = matcher::RegexMatcher { regex: "(".to_owned(), ..Default::default() };
    matcher::StringMatcher { match_pattern: Some(MatchPattern::SafeRegex(regex)), ignore_case: false }
}

/// gRFC A41.
#[test]
pub(super) fn rule_87_what_is_no_rule() {
    rbac().refuses(&[
        (87, "matcher", |config| config.matcher = Some(Default::default())),
        (87, "shadow_matcher", |config| config.shadow_matcher = Some(Default::default())),
        (87, "rules.action", |config| rules(config).action = 9),
        (87, "rules.policies[\"p\"].condition", |config| policy(config).condition = Some(Expr::default())),
        (87, "rules.policies[\"p\"].checked_condition", |config| {
            policy(config).checked_condition = Some(CheckedExpr::default());
        }),
        (87, "rules.policies[\"p\"].cel_config", |config| policy(config).cel_config = Some(Default::default())),
        (87, "rules.policies[\"p\"].permissions", |config| policy(config).permissions.clear()),
        (87, "rules.policies[\"p\"].principals", |config| policy(config).principals.clear()),
        (87, "shadow_rules.action", |config| {
            config.shadow_rules = Some(pb::Rbac { action: 9, ..Default::default() });
        }),
    ]);
    rbac().takes(&[
        (87, "no rules at all", |config| config.rules = None),
        (87, "no policies: nothing is allowed", |config| rules(config).policies.clear()),
        (87, "LOG", |config| rules(config).action = pb::rbac::Action::Log.into()),
    ]);
}

/// gRFC A41.
#[test]
pub(super) fn rule_87_permissions() {
    rbac().refuses(&[
        (87, "rules.policies[\"p\"].permissions[0]", |config| policy(config).permissions[0].rule = None),
        (87, "rules.policies[\"p\"].permissions[0].any", |config| permit(config, Rule::Any(false))),
        (87, "rules.policies[\"p\"].permissions[0].header.name", |config| {
            permit(config, Rule::Header(header("Grpc-Timeout")));
        }),
        (87, "rules.policies[\"p\"].permissions[0].and_rules.rules[0].not_rule.header.name", |config| {
            let not = may(Rule::NotRule(Box::new(may(Rule::Header(header(":scheme"))))));
            permit(config, Rule::AndRules(permission::Set { rules: vec![not] }));
        }),
        (87, "rules.policies[\"p\"].permissions[0].or_rules.rules", |config| {
            permit(config, Rule::OrRules(permission::Set::default()));
        }),
        (87, "rules.policies[\"p\"].permissions[0].url_path", |config| {
            permit(config, Rule::UrlPath(matcher::PathMatcher::default()));
        }),
        (87, "rules.policies[\"p\"].permissions[0].url_path.path.safe_regex.regex", |config| {
            permit(
                config,
                Rule::UrlPath(matcher::PathMatcher { rule: Some(matcher::path_matcher::Rule::Path(bad_regex())) }),
            );
        }),
        (87, "rules.policies[\"p\"].permissions[0].destination_ip.address_prefix", |config| {
            permit(config, Rule::DestinationIp(range("10.0.0")));
        }),
        (87, "rules.policies[\"p\"].permissions[0].destination_port", |config| {
            permit(config, Rule::DestinationPort(65_536));
        }),
        (87, "rules.policies[\"p\"].permissions[0].metadata.path[0]", |config| {
            permit(config, Rule::Metadata(metadata("")));
        }),
        (87, "rules.policies[\"p\"].permissions[0].matcher", |config| {
            permit(
                config,
                Rule::Matcher(TypedExtensionConfig {
                    typed_config: Some(any(&StdoutAuditLog {})),
                    name: String::new(),
                }),
            );
        }),
        (87, "rules.policies[\"p\"].permissions[0].sourced_metadata.metadata_source", |config| {
            let metadata_matcher = Some(metadata("k"));
            permit(config, Rule::SourcedMetadata(pb::SourcedMetadata { metadata_matcher, metadata_source: 7 }));
        }),
    ]);
    rbac().takes(&[
        (87, "a header of the application's", |config| permit(config, Rule::Header(header("x-grpc-timeout")))),
        (87, "the last port", |config| permit(config, Rule::DestinationPort(65_535))),
        (87, "a range of ports, which gRPC can't", |config| {
            permit(config, Rule::DestinationPortRange(Int32Range { start: 1, end: 2 }));
        }),
        (87, "a template, which gRPC can't", |config| {
            let template = UriTemplateMatchConfig { path_template: "/a/{x}".to_owned() };
            permit(config, Rule::UriTemplate(extension(&template)));
        }),
        (87, "metadata of the route, which gRPC can't", |config| {
            let metadata_matcher = Some(metadata("k"));
            permit(config, Rule::SourcedMetadata(pb::SourcedMetadata { metadata_matcher, metadata_source: 1 }));
        }),
    ]);
}

/// gRFC A41.
#[test]
pub(super) fn rule_87_principals() {
    rbac().refuses(&[
        (87, "rules.policies[\"p\"].principals[0]", |config| policy(config).principals[0].identifier = None),
        (87, "rules.policies[\"p\"].principals[0].any", |config| admit(config, Identifier::Any(false))),
        (87, "rules.policies[\"p\"].principals[0].or_ids.ids[0].not_id.header.name", |config| {
            let not = who(Identifier::NotId(Box::new(who(Identifier::Header(header("grpc-encoding"))))));
            admit(config, Identifier::OrIds(principal::Set { ids: vec![not] }));
        }),
        (87, "rules.policies[\"p\"].principals[0].and_ids.ids", |config| {
            admit(config, Identifier::AndIds(principal::Set::default()));
        }),
        (87, "rules.policies[\"p\"].principals[0].authenticated.principal_name.safe_regex.regex", |config| {
            admit(config, Identifier::Authenticated(principal::Authenticated { principal_name: Some(bad_regex()) }));
        }),
        (87, "rules.policies[\"p\"].principals[0].direct_remote_ip.address_prefix", |config| {
            admit(config, Identifier::DirectRemoteIp(range("")));
        }),
        (87, "rules.policies[\"p\"].principals[0].filter_state", |config| {
            admit(config, Identifier::FilterState(Default::default()));
        }),
        (87, "rules.policies[\"p\"].principals[0].custom", |config| {
            admit(config, Identifier::Custom(extension(&StdoutAuditLog {})));
        }),
        (87, "rules.policies[\"p\"].principals[0].custom.typed_config", |config| {
            admit(config, Identifier::Custom(extension(&mtls_authenticated::Config::default())));
        }),
    ]);
    rbac().takes(&[(87, "a name of a verified certificate, which gRPC can't", |config| {
        let san_matcher =
            Some(SubjectAltNameMatcher { san_type: 3, matcher: Some(exact("spiffe://td/a")), ..Default::default() });
        let config_ = mtls_authenticated::Config { san_matcher, ..Default::default() };
        admit(config, Identifier::Custom(extension(&config_)));
    })]);
}

fn audited(config: &mut filter::Rbac, logger: Any, is_optional: bool) {
    let audit_logger = Some(TypedExtensionConfig { name: "logger".to_owned(), typed_config: Some(logger) });
    rules(config).audit_logging_options = Some(AuditLoggingOptions {
        audit_condition: 3,
        logger_configs: vec![AuditLoggerConfig { audit_logger, is_optional }],
    });
}

/// gRFC A59.
#[test]
pub(super) fn rule_87_audit_loggers() {
    rbac().refuses(&[
        (87, "rules.audit_logging_options.logger_configs[0].audit_logger.typed_config", |config| {
            audited(config, any(&UriTemplateMatchConfig::default()), false);
        }),
        (87, "rules.audit_logging_options.audit_condition", |config| {
            audited(config, any(&StdoutAuditLog {}), false);
            rules(config).audit_logging_options.as_mut().expect("it was set").audit_condition = 9;
        }),
    ]);
    rbac().takes(&[(87, "unknown and optional", |config| {
        audited(config, any(&UriTemplateMatchConfig::default()), true);
    })]);
    let audit = |change: fn(&mut filter::Rbac)| model(change).rules.expect("it has rules").audit;
    let known = audit(|config| audited(config, any(&StdoutAuditLog {}), false));
    assert_eq!(known, Audit { denials: true, admissions: true });
    let nobody = audit(|config| audited(config, any(&UriTemplateMatchConfig::default()), true));
    assert_eq!(nobody, Audit::default(), "without a logger nothing is logged");
}

fn model(change: fn(&mut filter::Rbac)) -> Rbac {
    let listener: Arc<Listener> = rbac().value(change);
    downcast::<Rbac>(&*listener.connections()[0].filters[0].config).clone()
}

#[test]
fn policies_are_in_the_order_of_their_names_and_mean_what_they_say() {
    let config = model(|config| {
        rules(config).action = pb::rbac::Action::Deny.into();
        let first = policy(config).clone();
        admit(config, Identifier::SourceIp(range("::ffff:10.1.2.3")));
        permit(
            config,
            Rule::UrlPath(matcher::PathMatcher { rule: Some(matcher::path_matcher::Rule::Path(exact("/a"))) }),
        );
        for name in ["z", "a"] {
            rules(config).policies.insert(name.to_owned(), first.clone());
        }
    });
    let rules = config.rules.expect("it has rules");
    let names: Vec<&str> = rules.policies.iter().map(|policy| &*policy.name).collect();
    assert_eq!((rules.action, &names[..]), (RbacAction::Deny, &["a", "p", "z"][..]));
    assert!(matches!(&rules.policies[1].permissions[..], [Permission::UrlPath(_)]));
    let [Principal::DirectRemoteIp(range)] = &rules.policies[1].principals[..] else { panic!("{rules:?}") };
    assert_eq!(range.to_string(), "::/8", "an IPv6 range of 8 bits, host bits cleared");
}

/// gRFC A41.
#[test]
fn an_empty_override_turns_the_filter_off() {
    let over = |config: &filter::RbacPerRoute| {
        let bytes = config.encode_to_vec();
        let over = RbacFilter.decode_override(ExtensionValue::Proto(&bytes));
        over.map(|over| downcast::<Rbac>(&*over).clone())
    };
    assert_eq!(over(&filter::RbacPerRoute::default()), Ok(Rbac::default()));
    let mut base = rbac().base;
    let some = over(&filter::RbacPerRoute { rbac: Some(base.clone()) }).expect("it is taken");
    assert_eq!(some.rules.expect("it has rules").policies.len(), 1);
    policy(&mut base).permissions.clear();
    let faults = over(&filter::RbacPerRoute { rbac: Some(base) }).expect_err("it is refused");
    assert_eq!(faults[0].path, "rbac.rules.policies[\"p\"].permissions");
}

/// gRFC A41.
#[test]
fn clients_have_no_such_filter() {
    super::listener::client_manager().refuses(&[(21, "http_filters[0].typed_config", |manager| {
        manager.http_filters.insert(0, http_filter("envoy.filters.http.rbac", any(&filter::Rbac::default())));
    })]);
}
