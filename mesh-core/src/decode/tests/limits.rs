//! Local rate limits, as Envoy checks them; gRPC has no rule.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3 as common;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3 as pb;
use envoy_types::pb::envoy::r#type::v3 as types;
use http::StatusCode;
use route::rate_limit::action::{ActionSpecifier, GenericKey, RemoteAddress, SourceCluster};

use super::listener::{chain, client_manager, server};
use super::route::{routes, table};
use super::*;
use crate::model::{Action, Fraction, LimitAction, Listener, LocalRateLimit, RouteTable, TokenBucket};
use crate::resource::{LISTENER, ROUTE_CONFIGURATION};

fn bucket() -> Option<types::TokenBucket> {
    Some(types::TokenBucket { max_tokens: 10, tokens_per_fill: None, fill_interval: seconds(1) })
}

fn base() -> pb::LocalRateLimit {
    pb::LocalRateLimit { stat_prefix: "limit".to_owned(), token_bucket: bucket(), ..Default::default() }
}

/// In a Listener's list.
fn listed() -> Part<pb::LocalRateLimit> {
    let wrap = |config: pb::LocalRateLimit| {
        let mut manager = client_manager().base;
        manager.http_filters.insert(0, http_filter("limit", any(&config)));
        server(chain(&manager)).encode_to_vec()
    };
    let path = "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config";
    Part { type_url: LISTENER, base: base(), wrap, path }
}

/// As a route's override.
fn overriding() -> Part<pb::LocalRateLimit> {
    let wrap = |config: pb::LocalRateLimit| {
        let mut table = routes();
        let overrides = &mut table.virtual_hosts[0].routes[0].typed_per_filter_config;
        overrides.insert("limit".to_owned(), any(&config));
        table.encode_to_vec()
    };
    let path = "virtual_hosts[0].routes[0].typed_per_filter_config[\"limit\"]";
    Part { type_url: ROUTE_CONFIGURATION, base: base(), wrap, path }
}

fn descriptor(key: &str, value: &str, interval: i64) -> common::LocalRateLimitDescriptor {
    let entry = common::rate_limit_descriptor::Entry { key: key.to_owned(), value: value.to_owned() };
    let bucket = types::TokenBucket { max_tokens: 1, tokens_per_fill: u32_value(2), fill_interval: seconds(interval) };
    common::LocalRateLimitDescriptor { entries: vec![entry], token_bucket: Some(bucket), shadow_mode: false }
}

fn added(name: &str) -> core::HeaderValueOption {
    let header = core::HeaderValue { key: name.to_owned(), value: "v".to_owned(), ..Default::default() };
    core::HeaderValueOption { header: Some(header), ..Default::default() }
}

fn by(action: ActionSpecifier) -> route::RateLimit {
    let action = route::rate_limit::Action { action_specifier: Some(action) };
    route::RateLimit { actions: vec![action], ..Default::default() }
}

#[test]
fn what_is_no_limit_is_refused() {
    listed().refuses(&[
        (0, "stat_prefix", |limit| limit.stat_prefix.clear()),
        (0, "token_bucket.fill_interval", |limit| limit.token_bucket.as_mut().unwrap().fill_interval = None),
        (0, "token_bucket.fill_interval", |limit| limit.token_bucket.as_mut().unwrap().fill_interval = millis(49)),
        (0, "token_bucket.tokens_per_fill", |limit| {
            limit.token_bucket.as_mut().unwrap().tokens_per_fill = u32_value(0);
        }),
        (0, "stage", |limit| limit.stage = 11),
        (0, "max_dynamic_descriptors", |limit| limit.max_dynamic_descriptors = u32_value(0)),
        (0, "descriptors[0].token_bucket", |limit| {
            limit.descriptors = vec![descriptor("k", "v", 1)];
            limit.descriptors[0].token_bucket = None;
        }),
        (0, "status.code", |limit| limit.status = Some(types::HttpStatus::default())),
        (0, "response_headers_to_add", |limit| {
            limit.response_headers_to_add = vec![added("x"); 11];
        }),
        (0, "descriptors[1]", |limit| {
            limit.descriptors = vec![descriptor("k", "v", 1), descriptor("k", "v", 2)];
        }),
        (0, "descriptors[0].entries[0].key", |limit| limit.descriptors = vec![descriptor("", "v", 1)]),
        // A limit that is not the one asked for is none.
        (0, "local_rate_limit_per_downstream_connection", |limit| {
            limit.local_rate_limit_per_downstream_connection = true;
        }),
        (0, "rate_limits[0].actions[0]", |limit| {
            limit.rate_limits = vec![by(ActionSpecifier::SourceCluster(SourceCluster {}))];
        }),
        (0, "rate_limits[0].actions", |limit| limit.rate_limits = vec![route::RateLimit::default()]),
    ]);
    overriding().refuses(&[(0, "token_bucket", |limit| limit.token_bucket = None)]);
    listed().takes(&[
        (0, "limits of routes only", |limit| limit.token_bucket = None),
        (0, "fills at times of their own", |limit| {
            limit.token_bucket.as_mut().unwrap().fill_interval = seconds(2);
            limit.descriptors = vec![descriptor("k", "v", 3)];
        }),
        (0, "ten headers", |limit| limit.response_headers_to_add = vec![added("x"); 10]),
    ]);
}

#[test]
fn a_limit_becomes_what_it_says() {
    let listener: Arc<Listener> = listed().value(|limit| {
        limit.status = Some(types::HttpStatus { code: 503 });
        limit.descriptors = vec![descriptor("k", "", 5)];
        limit.rate_limits = vec![by(ActionSpecifier::RemoteAddress(RemoteAddress {}))];
        limit.always_consume_default_token_bucket = Some(protobuf::BoolValue { value: false });
    });
    let limit = downcast::<LocalRateLimit>(&*listener.connections()[0].filters[0].config);
    let second = Duration::from_secs(1);
    assert_eq!(limit.bucket, Some(TokenBucket { max: 10, per_fill: 1, interval: second }));
    assert_eq!((limit.status, limit.always_default), (StatusCode::SERVICE_UNAVAILABLE, false));
    assert_eq!(limit.enabled, Fraction { numerator: 0, denominator: 100 }, "nobody, unless it says whom");
    assert_eq!(limit.descriptors[0].entries, [("k".to_owned(), None)], "an empty value is any");
    assert_eq!(limit.descriptors[0].bucket, TokenBucket { max: 1, per_fill: 2, interval: second * 5 });
    assert_eq!(limit.rules[0].actions, [LimitAction::RemoteAddress]);
    let low: Arc<Listener> = listed().value(|limit| limit.status = Some(types::HttpStatus { code: 200 }));
    let low = downcast::<LocalRateLimit>(&*low.connections()[0].filters[0].config);
    assert_eq!(low.status, StatusCode::TOO_MANY_REQUESTS, "200 is no refusal");
}

#[test]
fn routes_and_virtual_hosts_describe_their_requests() {
    let generic = |value: &str| {
        by(ActionSpecifier::GenericKey(GenericKey { descriptor_value: value.to_owned(), ..Default::default() }))
    };
    let mut proto = table().base;
    let host = &mut proto.virtual_hosts[0];
    host.rate_limits = vec![generic("host"), route::RateLimit { disable_key: "off".to_owned(), ..generic("never") }];
    let Some(route::route::Action::Route(action)) = &mut host.routes[0].action else { panic!() };
    action.rate_limits = vec![generic("%REQ(x)%")];
    action.include_vh_rate_limits = Some(protobuf::BoolValue { value: true });
    let table: Arc<RouteTable> = taken(decoder().decode(ROUTE_CONFIGURATION, &proto.encode_to_vec()));
    let host = &table.virtual_hosts[0];
    assert_eq!((host.limits.len(), host.unsupported.len()), (1, 0));
    let Action::Forward(forward) = &host.routes[0].action else { panic!() };
    assert!(forward.include_host_limits);
    let LimitAction::Generic { key, value, .. } = &forward.limits[0].actions[0] else { panic!() };
    assert_eq!((key.as_str(), value.as_bytes()), ("generic_key", &b"%REQ(x)%"[..]));
}
