//! Rules 16 to 27 (HTTP filters), 85, 86 (overrides) and 88 (fault injection).

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common;
use envoy_types::pb::envoy::extensions::filters::http::composite::v3::Composite;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault;
use envoy_types::pb::envoy::extensions::filters::http::gcp_authn::v3::GcpAuthnFilterConfig;
use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3::StatefulSession;
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use http::StatusCode;

use super::listener::{chain, client_manager, server, server_manager};
use super::route::{routes, table};
use super::*;
use crate::decode::{CorsFilter, ExtensionValue, Fault, FaultFilter, HttpFilterType, Side};
use crate::model::{
    FaultDelayAmount, FaultOutcome, FaultPolicy, FilterConfig, FilterOverride, Fraction, Listener, RouteTable,
    Unsupported, UnsupportedEffect,
};
use crate::resource::{LISTENER, ROUTE_CONFIGURATION};

fn unknown() -> Any {
    Any { type_url: format!("{TYPE_URL_PREFIX}example.Nothing"), value: Vec::new() }
}

fn optional(mut filter: hcm::HttpFilter) -> hcm::HttpFilter {
    filter.is_optional = true;
    filter
}

fn faults() -> hcm::HttpFilter {
    http_filter("fault", any(&fault::HttpFault::default()))
}

/// gRFC A39.
#[test]
pub(super) fn rules_16_to_25_of_the_list() {
    client_manager().refuses(&[
        (16, "http_filters", |manager| manager.http_filters.clear()),
        (16, "http_filters", |manager| manager.http_filters = vec![optional(http_filter("x", unknown()))]),
        (17, "http_filters[0].name", |manager| manager.http_filters[0].name.clear()),
        (18, "http_filters[1].name", |manager| {
            manager.http_filters = vec![faults(), faults(), router()];
        }),
        (19, "http_filters[0].typed_config", |manager| manager.http_filters[0].config_type = None),
        (19, "http_filters[0].config_discovery", |manager| {
            let discovery = envoy_types::pb::envoy::config::core::v3::ExtensionConfigSource::default();
            manager.http_filters[0].config_type = Some(hcm::http_filter::ConfigType::ConfigDiscovery(discovery));
        }),
        (20, "http_filters[0].typed_config", |manager| {
            manager.http_filters.insert(0, http_filter("x", unknown()));
        }),
        (22, "http_filters[0].typed_config", |manager| {
            manager.http_filters.insert(0, http_filter("fault", garbage(FaultFilter::TYPE_URL)));
        }),
        // Optional is no excuse.
        (22, "http_filters[0].typed_config", |manager| {
            manager.http_filters.insert(0, optional(http_filter("fault", garbage(FaultFilter::TYPE_URL))));
        }),
        (23, "http_filters[0].typed_config", |manager| {
            manager.http_filters.insert(0, http_filter("cors", any(&cors::CorsPolicy::default())));
        }),
        (24, "http_filters[0]", |manager| manager.http_filters.push(faults())),
        (24, "http_filters[0]", |manager| {
            manager.http_filters.push(hcm::HttpFilter { name: "again".to_owned(), ..router() });
        }),
        (25, "http_filters", |manager| manager.http_filters = vec![faults()]),
        // Envoy's.
        (25, "http_filters[0].disabled", |manager| manager.http_filters[0].disabled = true),
    ]);
    client_manager().takes(&[
        (20, "unknown but optional", |manager| manager.http_filters.insert(0, optional(http_filter("x", unknown())))),
        (25, "the router's fields are not read", |manager| {
            let router = Router { suppress_envoy_headers: true, ..Default::default() };
            manager.http_filters = vec![http_filter("router", any(&router))];
        }),
    ]);
}

/// A filter for servers only.
struct ServersOnly;

impl HttpFilterType for ServersOnly {
    fn type_url(&self) -> &str {
        "example.ServersOnly"
    }

    fn supports(&self, side: Side) -> bool {
        side == Side::Server
    }

    fn decode(&self, _value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        Ok(Arc::new("served"))
    }
}

#[test]
pub(super) fn rule_21_a_filter_for_the_other_side() {
    let decoder = Decoder::new(Arc::new(Registry::standard().with_filter(Arc::new(ServersOnly))), []);
    let config = Any { type_url: format!("{TYPE_URL_PREFIX}example.ServersOnly"), value: Vec::new() };
    let mut manager = manager();
    manager.http_filters.insert(0, http_filter("x", config));
    let client = |manager: &hcm::HttpConnectionManager| (client_manager().wrap)(manager.clone());
    let faults = refused(decoder.decode(LISTENER, &client(&manager)));
    assert!(faults[0].starts_with("api_listener.api_listener.http_filters[0].typed_config: "), "{faults:?}");
    table::shown(21, Answer::Refused);

    manager.http_filters[0].is_optional = true;
    let listener: Arc<Listener> = taken(decoder.decode(LISTENER, &client(&manager)));
    let http = listener.connections()[0];
    assert_eq!((http.filters.len(), http.unsupported.len()), (0, 1), "an optional one is left out, with a note");
    table::shown(21, Answer::Taken);

    manager.http_filters[0].is_optional = false;
    let listener: Arc<Listener> = taken(decoder.decode(LISTENER, &server(chain(&manager)).encode_to_vec()));
    let filters = &listener.connections()[0].filters;
    assert_eq!((filters.len(), &*filters[0].type_url), (1, "example.ServersOnly"));
    assert_eq!(*downcast::<&str>(&*filters[0].config), "served");
}

/// gRFC A39: an optional filter that is not there is no fault; whoever wrote it is told.
#[test]
fn a39_what_is_optional_and_unknown_is_noted() {
    let noted = |notes: &[Unsupported]| {
        notes.iter().map(|note| (note.field.clone(), note.effect)).collect::<Vec<(String, UnsupportedEffect)>>()
    };
    for part in [client_manager(), server_manager()] {
        let listener: Arc<Listener> =
            part.value(|manager| manager.http_filters.insert(0, optional(http_filter("x", unknown()))));
        let field = format!("{}.http_filters[0].typed_config", part.path);
        assert_eq!(noted(&listener.connections()[0].unsupported), [(field, UnsupportedEffect::LeftOut)]);
    }
    let table: Arc<RouteTable> = table().value(|table| {
        over(table).insert("x".to_owned(), wrapped(Some(unknown()), true, false));
    });
    let field = "virtual_hosts[0].routes[0].typed_per_filter_config[\"x\"].config".to_owned();
    assert_eq!(noted(&table.virtual_hosts[0].routes[0].unsupported), [(field, UnsupportedEffect::LeftOut)]);
}

#[test]
pub(super) fn rules_26_and_27_which_filters_there_are() {
    for part in [client_manager(), server_manager()] {
        part.takes(&[
            (26, "fault injection", |manager| manager.http_filters.insert(0, faults())),
            (26, "CORS", |manager| manager.http_filters.insert(0, http_filter("cors", any(&cors::Cors::default())))),
            (27, "one that is off", |manager| {
                manager.http_filters.insert(0, hcm::HttpFilter { disabled: true, ..faults() });
            }),
        ]);
        part.refuses(&[(26, "http_filters[0].typed_config", |manager| {
            manager.http_filters.insert(0, http_filter("x", any(&Composite::default())));
        })]);
    }
}

/// Whatever they say: until there is such a filter, any of them is refused by its name (rule 20).
#[test]
pub(super) fn rules_89_and_90_filters_that_are_not_there() {
    const FIRST: &str = "http_filters[0].typed_config";
    client_manager().refuses(&[
        (89, FIRST, |manager| {
            manager.http_filters.insert(0, http_filter("affinity", any(&StatefulSession::default())));
        }),
        (90, FIRST, |manager| {
            manager.http_filters.insert(0, http_filter("gcp", any(&GcpAuthnFilterConfig::default())));
        }),
        (90, FIRST, |manager| manager.http_filters.insert(0, http_filter("tree", any(&Composite::default())))),
    ]);
}

#[test]
fn filters_keep_their_order_and_their_switch() {
    let listener: Arc<Listener> = client_manager().value(|manager| {
        let off = hcm::HttpFilter { disabled: true, ..http_filter("cors", any(&cors::Cors::default())) };
        manager.http_filters = vec![faults(), off, router()];
    });
    let filters = &listener.connections()[0].filters;
    let list: Vec<(&str, &str, bool)> =
        filters.iter().map(|filter| (&*filter.name, &*filter.type_url, filter.disabled)).collect();
    assert_eq!(list, [("fault", FaultFilter::TYPE_URL, false), ("cors", CorsFilter::TYPE_URL, true)]);
}

fn over(table: &mut route::RouteConfiguration) -> &mut std::collections::HashMap<String, Any> {
    &mut table.virtual_hosts[0].routes[0].typed_per_filter_config
}

fn wrapped(config: Option<Any>, is_optional: bool, disabled: bool) -> Any {
    any(&route::FilterConfig { config, is_optional, disabled })
}

/// gRFC A39.
#[test]
pub(super) fn rules_85_and_86_overrides() {
    table().refuses(&[
        (85, "virtual_hosts[0].routes[0].typed_per_filter_config[\"\"]", |table| {
            over(table).insert(String::new(), any(&fault::HttpFault::default()));
        }),
        (85, "virtual_hosts[0].routes[0].typed_per_filter_config[\"x\"]", |table| {
            over(table).insert("x".to_owned(), unknown());
        }),
        (85, "virtual_hosts[0].routes[0].typed_per_filter_config[\"x\"].config", |table| {
            over(table).insert("x".to_owned(), wrapped(Some(unknown()), false, false));
        }),
        (85, "virtual_hosts[0].typed_per_filter_config[\"x\"].config", |table| {
            let host = &mut table.virtual_hosts[0].typed_per_filter_config;
            host.insert("x".to_owned(), wrapped(None, false, false));
        }),
        (85, "virtual_hosts[0].routes[0].typed_per_filter_config[\"f\"]", |table| {
            over(table).insert("f".to_owned(), garbage(FaultFilter::TYPE_URL));
        }),
        (85, "typed_per_filter_config[\"f\"].abort.http_status", |table| {
            let abort = fault::FaultAbort {
                error_type: Some(fault::fault_abort::ErrorType::HttpStatus(99)),
                ..Default::default()
            };
            let config = fault::HttpFault { abort: Some(abort), ..Default::default() };
            table.typed_per_filter_config.insert("f".to_owned(), any(&config));
        }),
        // The list's own type where the override's must be.
        (85, "virtual_hosts[0].routes[0].typed_per_filter_config[\"cors\"]", |table| {
            over(table).insert("cors".to_owned(), any(&cors::Cors::default()));
        }),
    ]);
    table().takes(&[
        (85, "unknown but optional", |table| {
            over(table).insert("x".to_owned(), wrapped(Some(unknown()), true, false));
        }),
        (86, "no filter has that name", |table| {
            over(table).insert("nobody".to_owned(), any(&fault::HttpFault::default()));
        }),
    ]);
}

#[test]
fn overrides_become_what_they_say() {
    let table: Arc<RouteTable> = table().value(|table| {
        let delay = common::FaultDelay {
            fault_delay_secifier: Some(common::fault_delay::FaultDelaySecifier::FixedDelay(
                millis(250).expect("it is given"),
            )),
            percentage: Some(FractionalPercent { numerator: 5, denominator: 1 }),
        };
        let config = fault::HttpFault { delay: Some(delay), ..Default::default() };
        over(table).insert("fault".to_owned(), wrapped(Some(any(&config)), false, false));
        over(table).insert("cors".to_owned(), wrapped(None, false, true));
        over(table).insert("x".to_owned(), wrapped(Some(unknown()), true, false));
    });
    let overrides = &table.virtual_hosts[0].routes[0].overrides;
    assert_eq!(overrides.len(), 2, "what is optional and unknown is not there: {overrides:?}");
    assert!(matches!(overrides["cors"], FilterOverride::Disabled));
    let FilterOverride::Config { config, .. } = &overrides["fault"] else { panic!("{overrides:?}") };
    let delay = downcast::<FaultPolicy>(&**config).delay.expect("there is one");
    assert_eq!(delay.amount, FaultDelayAmount::Fixed(Duration::from_millis(250)));
    assert_eq!(delay.share, Fraction { numerator: 5, denominator: 10_000 });
}

fn fault_override() -> Part<fault::HttpFault> {
    let wrap = |config: fault::HttpFault| {
        let mut table = routes();
        over(&mut table).insert("f".to_owned(), any(&config));
        table.encode_to_vec()
    };
    let path = "virtual_hosts[0].routes[0].typed_per_filter_config[\"f\"]";
    Part { type_url: ROUTE_CONFIGURATION, base: fault::HttpFault::default(), wrap, path }
}

fn delay(config: &mut fault::HttpFault, how: common::fault_delay::FaultDelaySecifier) {
    config.delay = Some(common::FaultDelay { fault_delay_secifier: Some(how), ..Default::default() });
}

fn abort(config: &mut fault::HttpFault, with: fault::fault_abort::ErrorType) {
    config.abort = Some(fault::FaultAbort { error_type: Some(with), ..Default::default() });
}

/// gRFC A33.
#[test]
pub(super) fn rule_88_faults() {
    use common::fault_delay::{FaultDelaySecifier, HeaderDelay};
    use fault::fault_abort::{ErrorType, HeaderAbort};
    fault_override().refuses(&[
        (88, "delay.fixed_delay", |config| delay(config, FaultDelaySecifier::FixedDelay(seconds(-1).unwrap()))),
        (88, "delay.percentage.denominator", |config| {
            delay(config, FaultDelaySecifier::FixedDelay(seconds(1).unwrap()));
            config.delay.as_mut().unwrap().percentage = Some(FractionalPercent { numerator: 1, denominator: 7 });
        }),
        (88, "abort.percentage.denominator", |config| {
            abort(config, ErrorType::GrpcStatus(14));
            config.abort.as_mut().unwrap().percentage = Some(FractionalPercent { numerator: 1, denominator: 7 });
        }),
        // Envoy's: a fault that does not say what it is.
        (88, "delay", |config| config.delay = Some(common::FaultDelay::default())),
        (88, "abort", |config| config.abort = Some(fault::FaultAbort::default())),
        (88, "abort.http_status", |config| abort(config, ErrorType::HttpStatus(199))),
        (88, "abort.http_status", |config| abort(config, ErrorType::HttpStatus(600))),
        (88, "response_rate_limit", |config| config.response_rate_limit = Some(common::FaultRateLimit::default())),
        (88, "response_rate_limit.fixed_limit.limit_kbps", |config| {
            let limit = common::fault_rate_limit::FixedLimit { limit_kbps: 0 };
            config.response_rate_limit = Some(common::FaultRateLimit {
                limit_type: Some(common::fault_rate_limit::LimitType::FixedLimit(limit)),
                ..Default::default()
            });
        }),
    ]);
    fault_override().takes(&[
        (88, "header driven", |config| delay(config, FaultDelaySecifier::HeaderDelay(HeaderDelay {}))),
        (88, "header driven", |config| abort(config, ErrorType::HeaderAbort(HeaderAbort {}))),
        (88, "any gRPC code", |config| abort(config, ErrorType::GrpcStatus(99))),
        (88, "the first and the last status", |config| abort(config, ErrorType::HttpStatus(200))),
        (88, "the first and the last status", |config| abort(config, ErrorType::HttpStatus(599))),
    ]);
}

#[test]
fn a_fault_becomes_what_it_says() {
    use fault::fault_abort::ErrorType;
    let table: Arc<RouteTable> = fault_override().value(|config| {
        abort(config, ErrorType::HttpStatus(503));
        config.max_active_faults = u32_value(3);
        config.upstream_cluster = "blue".to_owned();
        config.downstream_nodes = vec!["n".to_owned()];
    });
    let overrides = &table.virtual_hosts[0].routes[0].overrides;
    let FilterOverride::Config { config, .. } = &overrides["f"] else { panic!("{overrides:?}") };
    let policy = downcast::<FaultPolicy>(&**config);
    let abort = policy.abort.expect("there is one");
    assert_eq!(abort.outcome, FaultOutcome::Http(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(abort.share.numerator, 0, "no percentage is none");
    assert_eq!((policy.max_active, policy.upstream_cluster.as_deref()), (Some(3), Some("blue")));
    assert_eq!(policy.downstream_nodes, ["n"]);
    assert!(policy.delay.is_none() && !policy.is_inert());
}
