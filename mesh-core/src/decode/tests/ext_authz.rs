//! External authorization: what Envoy checks, and what we refuse beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as pb;
use envoy_types::pb::envoy::r#type::matcher::v3::metadata_matcher::PathSegment;
use envoy_types::pb::envoy::r#type::matcher::v3::metadata_matcher::path_segment::Segment;
use envoy_types::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{
    ListStringMatcher, MetadataMatcher, StringMatcher, ValueMatcher, string_matcher,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use http::StatusCode;
use pb::check_settings::ServiceOverride;
use pb::ext_authz::Services;
use pb::ext_authz_per_route::Override;

use super::listener::{chain, server};
use super::*;
use crate::decode::{ExtAuthzFilter, ExtensionValue, HttpFilterType};
use crate::model::{AuthzBody, AuthzSettings, ExtAuthz, ExtAuthzOverride, Listener};
use crate::resource::LISTENER;

fn target(specifier: Option<core::grpc_service::TargetSpecifier>) -> Option<Services> {
    let service = core::GrpcService { target_specifier: specifier, ..Default::default() };
    Some(Services::GrpcService(service))
}

fn envoy(cluster: &str, authority: &str) -> Option<Services> {
    let envoy = core::grpc_service::EnvoyGrpc {
        cluster_name: cluster.to_owned(),
        authority: authority.to_owned(),
        ..Default::default()
    };
    target(Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(envoy)))
}

/// A server's Listener that asks the cluster `authz`.
fn ext_authz() -> Part<pb::ExtAuthz> {
    Part {
        type_url: LISTENER,
        base: pb::ExtAuthz {
            transport_api_version: core::ApiVersion::V3.into(),
            services: envoy("authz", ""),
            ..Default::default()
        },
        wrap: |config| {
            let mut manager = manager();
            manager.http_filters.insert(0, http_filter("ext_authz", any(&config)));
            server(chain(&manager)).encode_to_vec()
        },
        path: "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config",
    }
}

fn grpc(config: &mut pb::ExtAuthz) -> &mut core::GrpcService {
    match &mut config.services {
        Some(Services::GrpcService(service)) => service,
        other => panic!("{other:?}"),
    }
}

fn filter(change: fn(&mut pb::ExtAuthz)) -> ExtAuthz {
    let listener: Arc<Listener> = ext_authz().value(change);
    downcast::<ExtAuthz>(&*listener.connections()[0].filters[0].config).clone()
}

#[test]
fn extauthz_what_cannot_be_honoured_is_refused() {
    ext_authz().refuses(&[
        (0, "transport_api_version", |config| config.transport_api_version = core::ApiVersion::Auto.into()),
        (0, "", |config| config.services = None),
        (0, "http_service.server_uri", |config| config.services = Some(Services::HttpService(Default::default()))),
        (0, "grpc_service", |config| config.services = target(None)),
        (0, "grpc_service.google_grpc", |config| {
            let google = core::grpc_service::TargetSpecifier::GoogleGrpc(Default::default());
            config.services = target(Some(google));
        }),
        (0, "grpc_service.envoy_grpc.cluster_name", |config| config.services = envoy("", "")),
        (0, "grpc_service.envoy_grpc.authority", |config| config.services = envoy("authz", "a b")),
        (0, "grpc_service.retry_policy", |config| grpc(config).retry_policy = Some(Default::default())),
        (0, "grpc_service.timeout", |config| grpc(config).timeout = Some(Default::default())),
        (0, "grpc_service.initial_metadata[0].key", |config| {
            grpc(config).initial_metadata = vec![core::HeaderValue::default()];
        }),
        (0, "with_request_body.max_request_bytes", |config| config.with_request_body = Some(Default::default())),
        (0, "clear_route_cache", |config| config.clear_route_cache = true),
        (0, "filter_enabled_metadata.filter", |config| {
            config.filter_enabled_metadata = Some(MetadataMatcher {
                path: vec![PathSegment { segment: Some(Segment::Key("k".to_owned())) }],
                value: Some(ValueMatcher { match_pattern: Some(MatchPattern::PresentMatch(true)) }),
                ..Default::default()
            });
        }),
        (0, "typed_metadata_context_namespaces", |config| {
            config.typed_metadata_context_namespaces = vec!["a".to_owned()];
        }),
        (0, "route_typed_metadata_context_namespaces", |config| {
            config.route_typed_metadata_context_namespaces = vec!["a".to_owned()];
        }),
        (0, "bootstrap_metadata_labels_key", |config| config.bootstrap_metadata_labels_key = "a".to_owned()),
        (0, "enforce_response_header_limits", |config| config.enforce_response_header_limits = true),
        (0, "shadow_mode", |config| config.shadow_mode = true),
        (0, "decoder_header_mutation_rules", |config| config.decoder_header_mutation_rules = Some(Default::default())),
        (0, "status_on_error.code", |config| config.status_on_error = Some(HttpStatus { code: 99 })),
        (0, "allowed_headers.patterns", |config| config.allowed_headers = Some(Default::default())),
    ]);
}

#[test]
fn extauthz_the_defaults_fail_closed() {
    let plain = filter(|_| {});
    assert_eq!(
        (&*plain.service.cluster, plain.service.authority.as_str(), plain.service.timeout),
        ("authz", "authz", Duration::from_millis(200))
    );
    assert_eq!((plain.body, plain.allowed_headers.as_ref()), (None, None));
    assert_eq!((plain.failure_mode_allow, plain.status_on_error), (false, StatusCode::FORBIDDEN));
    assert!(plain.enabled.contains(u64::MAX) && plain.enabled.contains(0), "every request is asked about");
    let said = filter(|config| {
        config.services = envoy("outbound|9000||authz.ns.svc", "");
        grpc(config).timeout = Some(protobuf::Duration { seconds: 2, nanos: 0 });
        config.status_on_error = Some(HttpStatus { code: 503 });
        config.failure_mode_allow = true;
    });
    assert_eq!((&*said.service.cluster, said.service.timeout), ("outbound|9000||authz.ns.svc", Duration::from_secs(2)));
    assert_eq!((said.status_on_error, said.failure_mode_allow), (StatusCode::SERVICE_UNAVAILABLE, true));
}

#[test]
fn extauthz_an_override_disables_or_says_more() {
    let over = |value: Option<Override>| {
        let bytes = pb::ExtAuthzPerRoute { r#override: value }.encode_to_vec();
        let over = ExtAuthzFilter.decode_override(ExtensionValue::Proto(&bytes));
        over.map(|over| downcast::<ExtAuthzOverride>(&*over).clone()).map_err(|faults| faults[0].path.clone())
    };
    let context = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let settings =
        pb::CheckSettings { context_extensions: context.clone().into_iter().collect(), ..Default::default() };
    let buffer = |most| Some(pb::BufferSettings { max_request_bytes: most, pack_as_bytes: true, ..Default::default() });
    let plain = AuthzSettings { context, body: None, service: None };
    let check = |settings: pb::CheckSettings| over(Some(Override::CheckSettings(settings)));
    let expected = |settings: AuthzSettings| Ok(ExtAuthzOverride::Settings(Box::new(settings)));
    assert_eq!(over(Some(Override::Disabled(true))), Ok(ExtAuthzOverride::Disabled));
    assert_eq!(check(settings.clone()), expected(plain.clone()));
    assert_eq!(over(Some(Override::Disabled(false))), Err("disabled".to_owned()));
    assert_eq!(over(None), Err(String::new()));
    let body = AuthzBody { most: 9, partial: false, bytes: true };
    assert_eq!(
        check(pb::CheckSettings { with_request_body: buffer(9), ..settings.clone() }),
        expected(AuthzSettings { body: Some(Some(body)), ..plain.clone() })
    );
    assert_eq!(
        check(pb::CheckSettings { disable_request_body_buffering: true, ..settings.clone() }),
        expected(AuthzSettings { body: Some(None), ..plain })
    );
    let both = pb::CheckSettings { with_request_body: buffer(9), disable_request_body_buffering: true, ..settings };
    assert_eq!(check(both), Err("check_settings.with_request_body".to_owned()));
}

#[test]
fn extauthz_an_override_may_ask_somebody_else() {
    let over = |service: ServiceOverride| {
        let settings = pb::CheckSettings { service_override: Some(service), ..Default::default() };
        let bytes = pb::ExtAuthzPerRoute { r#override: Some(Override::CheckSettings(settings)) }.encode_to_vec();
        match ExtAuthzFilter.decode_override(ExtensionValue::Proto(&bytes)) {
            Ok(over) => match downcast::<ExtAuthzOverride>(&*over) {
                ExtAuthzOverride::Settings(settings) => Ok(settings.service.clone().map(|service| service.cluster)),
                other => panic!("{other:?}"),
            },
            Err(faults) => Err(faults[0].path.clone()),
        }
    };
    let Some(Services::HttpService(mut service)) = http("other") else { panic!("http") };
    assert_eq!(over(ServiceOverride::HttpService(service.clone())), Ok(Some("other".into())));
    request_of(&mut service).allowed_headers = list(&["a"]);
    let path = "check_settings.http_service.authorization_request.allowed_headers";
    assert_eq!(over(ServiceOverride::HttpService(service)), Err(path.to_owned()));
    let Some(Services::GrpcService(service)) = envoy("other", "") else { panic!("gRPC") };
    assert_eq!(over(ServiceOverride::GrpcService(service)), Ok(Some("other".into())));
}

fn http(cluster: &str) -> Option<Services> {
    let server = core::HttpUri {
        uri: "http://authz.test/".to_owned(),
        timeout: Some(protobuf::Duration { seconds: 1, nanos: 0 }),
        http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(cluster.to_owned())),
    };
    Some(Services::HttpService(pb::HttpService { server_uri: Some(server), ..Default::default() }))
}

fn list(names: &[&str]) -> Option<ListStringMatcher> {
    let exact = |name: &&str| StringMatcher {
        match_pattern: Some(string_matcher::MatchPattern::Exact((*name).to_owned())),
        ..Default::default()
    };
    Some(ListStringMatcher { patterns: names.iter().map(exact).collect() })
}

fn request_of(service: &mut pb::HttpService) -> &mut pb::AuthorizationRequest {
    service.authorization_request.get_or_insert_default()
}

/// A server's Listener that asks by HTTP.
fn by_http() -> Part<pb::ExtAuthz> {
    let base = pb::ExtAuthz { services: http("authz"), ..ext_authz().base };
    Part { base, ..ext_authz() }
}

fn service(config: &mut pb::ExtAuthz) -> &mut pb::HttpService {
    match &mut config.services {
        Some(Services::HttpService(service)) => service,
        other => panic!("{other:?}"),
    }
}

fn server_uri(config: &mut pb::ExtAuthz) -> &mut core::HttpUri {
    service(config).server_uri.as_mut().unwrap()
}

fn adds(config: &mut pb::ExtAuthz, key: &str, value: &str) {
    let header = core::HeaderValue { key: key.to_owned(), value: value.to_owned(), ..Default::default() };
    request_of(service(config)).headers_to_add = vec![header];
}

#[test]
#[allow(deprecated)] // Servers go on saying it.
fn extauthz_http_what_cannot_be_honoured_is_refused() {
    by_http().refuses(&[
        (0, "http_service.server_uri.uri", |config| server_uri(config).uri.clear()),
        (0, "http_service.server_uri.cluster", |config| server_uri(config).http_upstream_type = None),
        (0, "http_service.server_uri.timeout", |config| server_uri(config).timeout = None),
        (0, "http_service.server_uri.timeout", |config| server_uri(config).timeout = Some(Default::default())),
        (0, "http_service.path_prefix", |config| service(config).path_prefix = "pre".to_owned()),
        (0, "http_service.path_override", |config| service(config).path_override = "over".to_owned()),
        (0, "http_service.path_override", |config| {
            service(config).path_prefix = "/pre".to_owned();
            service(config).path_override = "/over".to_owned();
        }),
        (0, "http_service.retry_policy", |config| service(config).retry_policy = Some(Default::default())),
        (0, "allowed_headers", |config| {
            config.allowed_headers = list(&["a"]);
            request_of(service(config)).allowed_headers = list(&["a"]);
        }),
        (0, "disallowed_headers", |config| config.disallowed_headers = list(&[":path"])),
        (0, "http_service.authorization_request.headers_to_add[0].key", |config| adds(config, ":path", "/")),
        (0, "http_service.authorization_request.headers_to_add[0].key", |config| adds(config, "host", "h")),
        (0, "http_service.authorization_request.headers_to_add[0].value", |config| adds(config, "a", "%START_TIME%")),
        (0, "http_service.authorization_request.headers_to_add[0].raw_value", |config| {
            adds(config, "a", "b");
            request_of(service(config)).headers_to_add[0].raw_value = b"c".to_vec();
        }),
        (0, "http_service.authorization_response.allowed_client_headers.patterns", |config| {
            service(config).authorization_response =
                Some(pb::AuthorizationResponse { allowed_client_headers: list(&[]), ..Default::default() });
        }),
    ]);
}

#[test]
#[allow(deprecated)] // Servers go on saying it.
fn extauthz_http_tells_little_unless_more_is_allowed() {
    let found = |change: fn(&mut pb::ExtAuthz)| {
        let listener: Arc<Listener> = by_http().value(change);
        downcast::<ExtAuthz>(&*listener.connections()[0].filters[0].config).clone()
    };
    let told = |config: &ExtAuthz, name: &str| {
        config.allowed_headers.as_ref().unwrap().iter().any(|list| list.is_match(name.as_bytes()))
    };
    let plain = found(|_| {});
    assert_eq!((&*plain.service.cluster, plain.service.timeout), ("authz", Duration::from_secs(1)));
    assert!(["authorization", ":method", ":path", ":authority"].iter().all(|name| told(&plain, name)));
    assert!(!told(&plain, "cookie") && !told(&plain, "x-a"));
    for config in [
        found(|config| config.allowed_headers = list(&["x-a"])),
        found(|config| request_of(service(config)).allowed_headers = list(&["x-a"])),
    ] {
        assert!(told(&config, "x-a") && told(&config, "authorization") && !told(&config, "x-b"));
    }
}

#[test]
fn extauthz_only_servers_ask() {
    super::listener::client_manager().refuses(&[(21, "http_filters[0].typed_config", |manager| {
        manager.http_filters.insert(0, http_filter("ext_authz", any(&ext_authz().base)));
    })]);
}
