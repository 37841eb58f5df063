//! JWT authentication: what Envoy checks, and what we refuse beside it.

use std::path::Path;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as pb;
use pb::jwt_provider::JwksSourceSpecifier;
use pb::jwt_requirement::RequiresType;
use pb::requirement_rule::RequirementType;

use super::listener::{chain, server};
use super::*;
use crate::decode::{ExtensionValue, HttpFilterType, JwtAuthnFilter, JwtOverride};
use crate::model::{JwksSource, JwtAuthn, JwtRequirement, Listener};
use crate::resource::LISTENER;

fn requires(kind: RequiresType) -> pb::JwtRequirement {
    pb::JwtRequirement { requires_type: Some(kind) }
}

fn named(name: &str) -> pb::JwtRequirement {
    requires(RequiresType::ProviderName(name.to_owned()))
}

fn any_of(requirements: Vec<pb::JwtRequirement>) -> pb::JwtRequirement {
    requires(RequiresType::RequiresAny(pb::JwtRequirementOrList { requirements }))
}

fn local(specifier: core::data_source::Specifier) -> Option<JwksSourceSpecifier> {
    let source = core::DataSource { specifier: Some(specifier), ..Default::default() };
    Some(JwksSourceSpecifier::LocalJwks(source))
}

fn prefix(path: &str) -> Option<route::RouteMatch> {
    let path_specifier = Some(route::route_match::PathSpecifier::Prefix(path.to_owned()));
    Some(route::RouteMatch { path_specifier, ..Default::default() })
}

/// A server's Listener that asks for a token of provider `p`.
fn jwt() -> Part<pb::JwtAuthentication> {
    let inline = core::data_source::Specifier::InlineString("{}".to_owned());
    let provider = pb::JwtProvider { jwks_source_specifier: local(inline), ..Default::default() };
    let rule =
        pb::RequirementRule { r#match: prefix("/"), requirement_type: Some(RequirementType::Requires(named("p"))) };
    Part {
        type_url: LISTENER,
        base: pb::JwtAuthentication {
            providers: [("p".to_owned(), provider)].into(),
            rules: vec![rule],
            requirement_map: [("n".to_owned(), named("p"))].into(),
            ..Default::default()
        },
        wrap: |config| {
            let mut manager = manager();
            manager.http_filters.insert(0, http_filter("jwt", any(&config)));
            server(chain(&manager)).encode_to_vec()
        },
        path: "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config",
    }
}

fn provider(config: &mut pb::JwtAuthentication) -> &mut pb::JwtProvider {
    config.providers.get_mut("p").expect("it has a provider")
}

fn rule(config: &mut pb::JwtAuthentication, kind: RequirementType) {
    config.rules[0].requirement_type = Some(kind);
}

fn require(config: &mut pb::JwtAuthentication, requirement: pb::JwtRequirement) {
    rule(config, RequirementType::Requires(requirement));
}

fn remote(config: &mut pb::JwtAuthentication) -> &mut pb::RemoteJwks {
    let second = protobuf::Duration { seconds: 1, nanos: 0 };
    let upstream = core::http_uri::HttpUpstreamType::Cluster("keys".to_owned());
    let http_uri = core::HttpUri {
        uri: "https://keys.test/jwks".to_owned(),
        timeout: Some(second),
        http_upstream_type: Some(upstream),
    };
    let source = pb::RemoteJwks { http_uri: Some(http_uri), ..Default::default() };
    let source = provider(config).jwks_source_specifier.insert(JwksSourceSpecifier::RemoteJwks(source));
    let JwksSourceSpecifier::RemoteJwks(source) = source else { unreachable!("it was just put there") };
    source
}

fn filter(change: fn(&mut pb::JwtAuthentication)) -> JwtAuthn {
    let listener: Arc<Listener> = jwt().value(change);
    downcast::<JwtAuthn>(&*listener.connections()[0].filters[0].config).clone()
}

fn claim(name: &str, keys: &[&str]) -> pb::JwtClaimToHeader {
    let segment = |key: &&str| pb::jwt_claim_to_header::PathSegment { key: (*key).to_owned() };
    pb::JwtClaimToHeader {
        header_name: "x".to_owned(),
        claim_name: name.to_owned(),
        claim_path: keys.iter().map(segment).collect(),
    }
}

#[test]
fn what_a_provider_cannot_say() {
    jwt().refuses(&[
        (0, "providers[\"p\"]", |config| provider(config).jwks_source_specifier = None),
        (0, "providers[\"p\"].local_jwks", |config| {
            provider(config).jwks_source_specifier = Some(JwksSourceSpecifier::LocalJwks(Default::default()));
        }),
        (0, "providers[\"p\"].local_jwks.environment_variable", |config| {
            let specifier = core::data_source::Specifier::EnvironmentVariable("JWKS".to_owned());
            provider(config).jwks_source_specifier = local(specifier);
        }),
        (0, "providers[\"p\"].local_jwks.filename", |config| {
            provider(config).jwks_source_specifier = local(core::data_source::Specifier::Filename(String::new()));
        }),
        (0, "providers[\"p\"].clear_route_cache", |config| provider(config).clear_route_cache = true),
        (0, "providers[\"p\"].from_params", |config| provider(config).from_params = vec![String::new()]),
        (0, "providers[\"p\"].from_cookies", |config| provider(config).from_cookies = vec![String::new()]),
        (0, "providers[\"p\"].from_headers[0].name", |config| {
            provider(config).from_headers = vec![pb::JwtHeader::default()];
        }),
        (0, "providers[\"p\"].from_headers[0].value_prefix", |config| {
            let header = pb::JwtHeader { name: "a".to_owned(), value_prefix: "a\n".to_owned() };
            provider(config).from_headers = vec![header];
        }),
        (0, "providers[\"p\"].forward_payload_header", |config| {
            provider(config).forward_payload_header = "a b".to_owned();
        }),
        (0, "providers[\"p\"].claim_to_headers[0]", |config| provider(config).claim_to_headers = vec![claim("", &[])]),
        (0, "providers[\"p\"].claim_to_headers[0]", |config| {
            provider(config).claim_to_headers = vec![claim("a", &["a"])];
        }),
        (0, "providers[\"p\"].max_lifetime", |config| {
            provider(config).max_lifetime = Some(protobuf::Duration { seconds: -1, nanos: 0 });
        }),
        (0, "providers[\"p\"].subjects", |config| provider(config).subjects = Some(Default::default())),
    ]);
}

#[test]
fn what_remote_keys_must_say() {
    const AT: &str = "providers[\"p\"].remote_jwks";
    let part =
        |path: &'static str| Part { path: Box::leak(format!("{}.{AT}{path}", jwt().path).into_boxed_str()), ..jwt() };
    part(".http_uri").refuses(&[
        (0, "uri cluster timeout", |config| remote(config).http_uri = None),
        (0, "uri", |config| remote(config).http_uri.as_mut().expect("set").uri = "/jwks".to_owned()),
        (0, "uri", |config| remote(config).http_uri.as_mut().expect("set").uri = "ftp://keys.test/".to_owned()),
        (0, "timeout", |config| remote(config).http_uri.as_mut().expect("set").timeout = None),
    ]);
    part("").refuses(&[
        (0, "cache_duration", |config| remote(config).cache_duration = Some(Default::default())),
        (0, "async_fetch.failed_refetch_duration", |config| {
            let fetch = pb::JwksAsyncFetch { failed_refetch_duration: Some(Default::default()), ..Default::default() };
            remote(config).async_fetch = Some(fetch);
        }),
    ]);
    let filter = filter(|config| {
        remote(config).cache_duration = Some(protobuf::Duration { seconds: 30, nanos: 0 });
    });
    let JwksSource::Remote(source) = &filter.providers[0].keys else { panic!("{filter:?}") };
    assert_eq!((&*source.cluster, source.uri.to_string().as_str()), ("keys", "https://keys.test/jwks"));
    assert_eq!((source.timeout, source.cache_duration), (Duration::from_secs(1), Duration::from_secs(30)));
    assert_eq!(source.failed_refetch, Duration::from_secs(1), "Envoy's default");
}

#[test]
fn what_a_rule_cannot_ask_for() {
    jwt().refuses(&[
        (0, "filter_state_rules", |config| config.filter_state_rules = Some(Default::default())),
        (0, "rules[0].match rules[0].match", |config| config.rules[0].r#match = None),
        (0, "rules[0].requires.provider_name", |config| require(config, named("other"))),
        (0, "rules[0].requirement_name", |config| {
            rule(config, RequirementType::RequirementName("other".to_owned()));
        }),
        (0, "requirement_map[\"n\"].provider_name", |config| {
            config.requirement_map.insert("n".to_owned(), named(""));
        }),
        (0, "rules[0].requires.requires_any.requirements", |config| require(config, any_of(vec![named("p")]))),
        (0, "rules[0].requires.requires_any.requirements[1].provider_name", |config| {
            require(config, any_of(vec![named("p"), named("q")]));
        }),
        (0, "rules[0].requires.requires_all.requirements", |config| {
            require(config, requires(RequiresType::RequiresAll(Default::default())));
        }),
        (0, "rules[0].requires.extract_only_without_validation", |config| {
            require(config, requires(RequiresType::ExtractOnlyWithoutValidation(Default::default())));
        }),
        (0, "rules[0].match.runtime_fraction", |config| {
            let r#match = config.rules[0].r#match.as_mut().expect("it has a match");
            r#match.runtime_fraction = Some(core::RuntimeFractionalPercent::default());
        }),
        // Envoy does not look at these two, and so its rule takes more requests than it says.
        (0, "rules[0].match.grpc", |config| {
            let r#match = config.rules[0].r#match.as_mut().expect("it has a match");
            r#match.grpc = Some(Default::default());
        }),
        (0, "rules[0].match.tls_context", |config| {
            let r#match = config.rules[0].r#match.as_mut().expect("it has a match");
            r#match.tls_context = Some(Default::default());
        }),
        (0, "rules[0].match.dynamic_metadata", |config| {
            let r#match = config.rules[0].r#match.as_mut().expect("it has a match");
            r#match.dynamic_metadata = vec![super::route::metadata_matcher()];
        }),
    ]);
    let mut deep = named("p");
    for _ in 0..40 {
        deep = any_of(vec![deep, named("p")]);
    }
    let mut config = jwt().base;
    require(&mut config, deep);
    let bytes = config.encode_to_vec();
    let faults = JwtAuthnFilter.decode(ExtensionValue::Proto(&bytes)).expect_err("it is refused");
    assert!(faults[0].rule.contains("deep"), "{faults:?}");
}

#[test]
fn a_filter_is_read_whole() {
    let filter = filter(|config| {
        let also = pb::JwtProvider { issuer: "a".to_owned(), ..provider(config).clone() };
        config.providers.insert("a".to_owned(), also);
        *provider(config) = pb::JwtProvider {
            issuer: "i".to_owned(),
            require_expiration: true,
            clock_skew_seconds: 5,
            claim_to_headers: vec![claim("a.b", &[]), claim("", &["a.b", "c"])],
            jwks_source_specifier: local(core::data_source::Specifier::Filename("/keys".to_owned())),
            jwt_cache_config: Some(Default::default()),
            ..Default::default()
        };
        let audiences = pb::ProviderWithAudiences { provider_name: "p".to_owned(), audiences: vec!["x".to_owned()] };
        require(config, any_of(vec![requires(RequiresType::ProviderAndAudiences(audiences)), named("a")]));
        let empty = pb::RequirementRule { r#match: prefix("/open"), requirement_type: None };
        config.rules.push(empty);
    });
    let names: Vec<_> = filter.providers.iter().map(|provider| &*provider.name).collect();
    assert_eq!(names, ["a", "p"], "in the order of their names");
    let [a, p] = &filter.providers[..] else { panic!("{filter:?}") };
    assert_eq!((a.clock_skew, p.clock_skew), (Duration::from_secs(60), Duration::from_secs(5)));
    assert_eq!((a.max_lifetime, p.max_lifetime), (None, Some(Duration::MAX)));
    assert_eq!(p.keys, JwksSource::File(Path::new("/keys").to_owned()));
    let paths: Vec<_> = p.claim_to_headers.iter().map(|claim| claim.path.join("|")).collect();
    assert_eq!(paths, ["a|b", "a.b|c"]);
    let of = |provider, audiences: &[&str]| {
        let audiences = audiences.iter().map(|&audience| audience.to_owned()).collect();
        JwtRequirement::Provider { provider, audiences }
    };
    let asked: Vec<_> = filter.rules.iter().map(|rule| rule.requirement.clone()).collect();
    assert_eq!(asked, [Some(JwtRequirement::Any(vec![of(1, &["x"]), of(0, &[])])), None]);
}

#[test]
fn an_override_disables_or_names_a_requirement() {
    use pb::per_route_config::RequirementSpecifier as S;
    let over = |specifier| {
        let bytes = pb::PerRouteConfig { requirement_specifier: specifier }.encode_to_vec();
        let over = JwtAuthnFilter.decode_override(ExtensionValue::Proto(&bytes));
        over.map(|over| downcast::<JwtOverride>(&*over).clone()).map_err(|faults| faults[0].path.clone())
    };
    assert_eq!(over(Some(S::Disabled(true))), Ok(JwtOverride::Disabled));
    assert_eq!(over(Some(S::RequirementName("n".to_owned()))), Ok(JwtOverride::Requirement("n".to_owned())));
    assert_eq!(over(Some(S::Disabled(false))), Err("disabled".to_owned()));
    assert_eq!(over(Some(S::RequirementName(String::new()))), Err("requirement_name".to_owned()));
    assert_eq!(over(None), Err(String::new()));
}

#[test]
fn only_servers_authenticate_by_token() {
    super::listener::client_manager().refuses(&[(21, "http_filters[0].typed_config", |manager| {
        manager.http_filters.insert(0, http_filter("jwt", any(&pb::JwtAuthentication::default())));
    })]);
}
