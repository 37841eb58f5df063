//! External authorization: what Envoy checks, and what we refuse beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as pb;
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use http::StatusCode;
use pb::ext_authz::Services;
use pb::ext_authz_per_route::Override;

use super::listener::{chain, server};
use super::*;
use crate::decode::{ExtAuthzFilter, ExtensionValue, HttpFilterType};
use crate::model::{ExtAuthz, ExtAuthzOverride, Listener};
use crate::resource::LISTENER;

fn service(specifier: Option<core::grpc_service::TargetSpecifier>) -> Option<Services> {
    let service = core::GrpcService { target_specifier: specifier, ..Default::default() };
    Some(Services::GrpcService(service))
}

fn envoy(cluster: &str, authority: &str) -> Option<Services> {
    let envoy = core::grpc_service::EnvoyGrpc {
        cluster_name: cluster.to_owned(),
        authority: authority.to_owned(),
        ..Default::default()
    };
    service(Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(envoy)))
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
        (0, "http_service", |config| config.services = Some(Services::HttpService(Default::default()))),
        (0, "grpc_service", |config| config.services = service(None)),
        (0, "grpc_service.google_grpc", |config| {
            let google = core::grpc_service::TargetSpecifier::GoogleGrpc(Default::default());
            config.services = service(Some(google));
        }),
        (0, "grpc_service.envoy_grpc.cluster_name", |config| config.services = envoy("", "")),
        (0, "grpc_service.envoy_grpc.authority", |config| config.services = envoy("authz", "a b")),
        (0, "grpc_service.retry_policy", |config| grpc(config).retry_policy = Some(Default::default())),
        (0, "grpc_service.timeout", |config| grpc(config).timeout = Some(Default::default())),
        (0, "grpc_service.initial_metadata[0].key", |config| {
            grpc(config).initial_metadata = vec![core::HeaderValue::default()];
        }),
        (0, "with_request_body", |config| config.with_request_body = Some(Default::default())),
        (0, "clear_route_cache", |config| config.clear_route_cache = true),
        (0, "filter_enabled_metadata", |config| config.filter_enabled_metadata = Some(Default::default())),
        (0, "shadow_mode", |config| config.shadow_mode = true),
        (0, "encode_raw_headers", |config| config.encode_raw_headers = true),
        (0, "decoder_header_mutation_rules", |config| config.decoder_header_mutation_rules = Some(Default::default())),
        (0, "status_on_error.code", |config| config.status_on_error = Some(HttpStatus { code: 99 })),
        (0, "allowed_headers.patterns", |config| config.allowed_headers = Some(Default::default())),
    ]);
}

#[test]
fn extauthz_the_defaults_fail_closed() {
    let plain = filter(|_| {});
    assert_eq!(
        (&*plain.cluster, plain.authority.as_str(), plain.timeout),
        ("authz", "authz", Duration::from_millis(200))
    );
    assert_eq!((plain.failure_mode_allow, plain.status_on_error), (false, StatusCode::FORBIDDEN));
    assert!(plain.enabled.contains(u64::MAX) && plain.enabled.contains(0), "every request is asked about");
    let said = filter(|config| {
        config.services = envoy("outbound|9000||authz.ns.svc", "");
        grpc(config).timeout = Some(protobuf::Duration { seconds: 2, nanos: 0 });
        config.status_on_error = Some(HttpStatus { code: 503 });
        config.failure_mode_allow = true;
    });
    assert_eq!((&*said.cluster, said.timeout), ("outbound|9000||authz.ns.svc", Duration::from_secs(2)));
    assert_eq!((said.status_on_error, said.failure_mode_allow), (StatusCode::SERVICE_UNAVAILABLE, true));
}

#[test]
fn extauthz_an_override_disables_or_says_more() {
    let over = |value: Option<Override>| {
        let bytes = pb::ExtAuthzPerRoute { r#override: value }.encode_to_vec();
        let over = ExtAuthzFilter.decode_override(ExtensionValue::Proto(&bytes));
        over.map(|over| downcast::<ExtAuthzOverride>(&*over).clone()).map_err(|faults| faults[0].path.clone())
    };
    let settings =
        pb::CheckSettings { context_extensions: [("k".to_owned(), "v".to_owned())].into(), ..Default::default() };
    assert_eq!(over(Some(Override::Disabled(true))), Ok(ExtAuthzOverride::Disabled));
    let context = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    assert_eq!(over(Some(Override::CheckSettings(settings.clone()))), Ok(ExtAuthzOverride::Context(context)));
    assert_eq!(over(Some(Override::Disabled(false))), Err("disabled".to_owned()));
    assert_eq!(over(None), Err(String::new()));
    let body = pb::CheckSettings { with_request_body: Some(Default::default()), ..settings };
    assert_eq!(over(Some(Override::CheckSettings(body))), Err("check_settings.with_request_body".to_owned()));
}

#[test]
fn extauthz_only_servers_ask() {
    super::listener::client_manager().refuses(&[(21, "http_filters[0].typed_config", |manager| {
        manager.http_filters.insert(0, http_filter("ext_authz", any(&ext_authz().base)));
    })]);
}
