//! What route tables become.

use std::collections::BTreeMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::extensions::retry as extensions;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use extensions::host::omit_host_metadata::v3::OmitHostMetadataConfig;
use extensions::host::previous_hosts::v3::PreviousHostsPredicate;
use extensions::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use http::{HeaderValue, StatusCode};
use pb::retry_policy::retry_priority::ConfigType as PriorityConfig;
use pb::route::Action as PbAction;
use pb::route_action::hash_policy::{ConnectionProperties, Cookie, FilterState, PolicySpecifier};
use pb::route_action::{ClusterSpecifier, HashPolicy as PbHash, HostRewriteSpecifier, MaxStreamDuration};

use super::actions::{retry_policy, route_action, weighted_clusters};
use super::*;
use crate::model::matcher::MatchName;
use crate::model::{
    Action, AppendAction, Backoff, ClusterChoice, Domain, Forward, Fraction, HashSource, HeaderMatch, HeaderTest,
    HostRewrite, PathMatch, PathRewrite, Pattern, QueryTest, RetryOn, RetryPolicy, Route, RouteMatch, RouteTable,
    StringMatch, UnsupportedEffect, WeightedClusters,
};

pub(super) fn first(table: &RouteTable) -> &Route {
    &table.virtual_hosts[0].routes[0]
}

pub(super) fn forwarding(table: &RouteTable) -> &Forward {
    match &first(table).action {
        Action::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plain_route_has_every_default() {
    let table: Arc<RouteTable> = table().value(|_| {});
    assert_eq!((&*table.name, table.max_direct_response_body), ("routes", 4096));
    assert_eq!(table.virtual_hosts[0].domains, [Domain::Any]);
    let route = first(&table);
    assert_eq!(route.matches.path, PathMatch::Prefix("/".to_owned()));
    assert!(route.matches.case_sensitive, "rule 66: unset is true");
    assert!(!route.matches.never && route.unsupported.is_empty());
    let forward = forwarding(&table);
    assert!(matches!(&forward.cluster, ClusterChoice::Cluster(name) if &**name == "blue"));
    assert_eq!(forward.cluster_not_found, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((forward.timeout, forward.idle_timeout, forward.max_stream_duration.max), (None, None, None));
    assert!(forward.retry.is_none() && forward.hedge.is_none() && forward.hash.is_empty());
}

/// Two spellings are one cluster, whose connections and limits are counted once.
#[test]
fn a47_clusters_are_known_by_their_one_spelling() {
    const WRITTEN: &str = "xdstp://a/envoy.config.cluster.v3.Cluster/x?b=2&a=1";
    const KNOWN: &str = "xdstp://a/envoy.config.cluster.v3.Cluster/x?a=1&b=2";
    let tables: [Arc<RouteTable>; 3] = [
        route_action().value(|action| action.cluster_specifier = Some(ClusterSpecifier::Cluster(WRITTEN.to_owned()))),
        weighted_clusters().value(|weighted| {
            weighted.clusters[0].name = WRITTEN.to_owned();
            weighted.clusters[1].name = KNOWN.to_owned();
        }),
        route_action().value(|action| {
            let mirror =
                |name: &str| pb::route_action::RequestMirrorPolicy { cluster: name.to_owned(), ..Default::default() };
            action.cluster_specifier = Some(ClusterSpecifier::Cluster(KNOWN.to_owned()));
            action.request_mirror_policies = vec![mirror(WRITTEN)];
        }),
    ];
    for table in tables {
        let names = table.clusters_of(&table.virtual_hosts[0]);
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), [KNOWN]);
    }
}

#[test]
fn domains_become_what_they_are_without_case() {
    let table: Arc<RouteTable> = table().value(|table| {
        table.virtual_hosts[0].domains = ["A.test", "*.B.test", "c.*", "*"].map(str::to_owned).to_vec();
    });
    let [exact, suffix, prefix] = ["a.test", ".b.test", "c."].map(str::to_owned);
    let expected = [Domain::Exact(exact), Domain::Suffix(suffix), Domain::Prefix(prefix), Domain::Any];
    assert_eq!(table.virtual_hosts[0].domains, expected);
}

fn matched(change: fn(&mut pb::RouteMatch)) -> RouteMatch {
    let table: Arc<RouteTable> = route_match().value(change);
    first(&table).matches.clone()
}

#[test]
fn paths_become_what_they_are() {
    let path = |change: fn(&mut pb::RouteMatch)| matched(change).path;
    assert_eq!(
        path(|matches| matches.path_specifier = Some(PathSpecifier::Path("/a".to_owned()))),
        PathMatch::Exact("/a".to_owned())
    );
    assert_eq!(
        path(|matches| matches.path_specifier = Some(PathSpecifier::PathSeparatedPrefix("/a".to_owned()))),
        PathMatch::SeparatedPrefix("/a".to_owned())
    );
    assert!(matches!(
        path(|matches| matches.path_specifier = Some(PathSpecifier::SafeRegex(regex("/a.")))),
        PathMatch::Regex(regex) if regex.as_str() == "/a."
    ));
    assert!(matches!(
        path(|matches| matches.path_specifier = Some(template("/a/{b}"))),
        PathMatch::Template(template) if template.text == "/a/{b}"
    ));
    let insensitive = matched(|matches| matches.case_sensitive = bool_value(false));
    assert!(!insensitive.case_sensitive);
}

fn text(pattern: Pattern) -> HeaderTest {
    HeaderTest::String(StringMatch { pattern, ignore_case: false })
}

#[test]
fn header_matchers_become_what_they_ask() {
    use HeaderMatchSpecifier as Test;
    use matcher::string_matcher::MatchPattern;
    let one = |change: fn(&mut pb::RouteMatch)| -> HeaderMatch { matched(change).headers.remove(0) };
    let x = MatchName::Header(http::HeaderName::from_static("x"));
    let exact = one(|matches| {
        header(matches, Some(Test::ExactMatch("v".to_owned())));
        matches.headers[0].name = "X".to_owned();
    });
    assert_eq!((exact.name, exact.test), (x, text(Pattern::Exact("v".to_owned()))));
    assert!(!exact.invert && !exact.treat_missing_as_empty);
    let inverted = one(|matches| {
        header(matches, Some(Test::PrefixMatch("v".to_owned())));
        matches.headers[0].invert_match = true;
        matches.headers[0].treat_missing_header_as_empty = true;
    });
    assert_eq!(inverted.test, text(Pattern::Prefix("v".to_owned())));
    assert!(inverted.invert && inverted.treat_missing_as_empty);
    let insensitive = one(|matches| {
        let test = string(MatchPattern::Suffix("V".to_owned()));
        header(matches, Some(Test::StringMatch(matcher::StringMatcher { ignore_case: true, ..test })));
    });
    let suffix = StringMatch { pattern: Pattern::Suffix("V".to_owned()), ignore_case: true };
    assert_eq!(insensitive.test, HeaderTest::String(suffix));
    let range = one(|matches| header(matches, Some(Test::RangeMatch(types::Int64Range { start: -1, end: 5 }))));
    assert_eq!(range.test, HeaderTest::Range { start: -1, end: 5 });
    let absent = one(|matches| header(matches, Some(Test::PresentMatch(false))));
    assert_eq!(absent.test, HeaderTest::Present(false));
}

#[test]
fn pseudo_headers_are_names_of_their_own() {
    for (name, expected) in [
        (":method", MatchName::Method),
        (":authority", MatchName::Authority),
        ("Host", MatchName::Authority),
        (":path", MatchName::Path),
        (":scheme", MatchName::Scheme),
    ] {
        let mut table = routes();
        let matches = table.virtual_hosts[0].routes[0].r#match.as_mut().unwrap();
        header(matches, Some(HeaderMatchSpecifier::PresentMatch(true)));
        matches.headers[0].name = name.to_owned();
        let table: Arc<RouteTable> = taken(decoder().decode(ROUTE_CONFIGURATION, &table.encode_to_vec()));
        assert_eq!(first(&table).matches.headers[0].name, expected);
    }
}

#[test]
fn what_grpc_ignores_is_matched() {
    let matches = matched(|matches| {
        matches.query_parameters.push(pb::QueryParameterMatcher { name: "q".to_owned(), ..Default::default() });
        matches.grpc = Some(pb::route_match::GrpcRouteMatchOptions::default());
        let presented = bool_value(true);
        matches.tls_context = Some(pb::route_match::TlsContextMatchOptions { presented, ..Default::default() });
        matches.runtime_fraction = runtime(5, 2);
    });
    assert_eq!((matches.query[0].name.as_str(), &matches.query[0].test), ("q", &QueryTest::Present(true)));
    assert!(matches.grpc_only && matches.tls_presented == Some(true) && matches.tls_validated.is_none());
    assert_eq!(matches.fraction, Some(Fraction { numerator: 5, denominator: 1_000_000 }));
    assert!(!matches.never);
    assert_eq!(matched(|matches| matches.dynamic_metadata.push(metadata_matcher())).metadata.len(), 1);
    // Nothing sets filter state: a route that asks for it must not take other requests (rule 64 would).
    assert!(matched(|matches| matches.filter_state.push(matcher::FilterStateMatcher::default())).never);
}

fn weights(change: fn(&mut pb::WeightedCluster)) -> Arc<WeightedClusters> {
    let table: Arc<RouteTable> = weighted_clusters().value(change);
    match &forwarding(&table).cluster {
        ClusterChoice::Weighted(weighted) => weighted.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn weighted_clusters_have_no_zero_and_the_right_total() {
    let weighted = weights(|value| {
        value.clusters.push(pb::weighted_cluster::ClusterWeight {
            name: "grey".to_owned(),
            weight: u32_value(0),
            ..Default::default()
        });
        value.clusters[1].host_rewrite_specifier = Some(
            pb::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral("green.test".to_owned()),
        );
        value.total_weight = u32_value(7);
    });
    let list: Vec<(&str, u32)> = weighted.clusters.iter().map(|it| (&*it.name, it.weight)).collect();
    assert_eq!((list, weighted.total), (vec![("blue", 90), ("green", 10)], 100));
    assert_eq!(weighted.clusters[1].host_rewrite.as_deref(), Some("green.test"));
    assert!(weighted.random_header.is_none() && !weighted.use_hash);
}

fn retrying(change: fn(&mut pb::RetryPolicy)) -> Option<Arc<RetryPolicy>> {
    let table: Arc<RouteTable> = retry_policy().value(change);
    forwarding(&table).retry.clone()
}

#[test]
fn a_retry_policy_has_every_default() {
    let policy = retrying(|_| {}).expect("there is one");
    assert_eq!((policy.on, policy.num_retries), (RetryOn::GRPC_UNAVAILABLE, 1));
    assert_eq!(policy.backoff, Backoff { base: Duration::from_millis(25), max: Duration::from_millis(250) });
    assert_eq!((policy.per_try_timeout, policy.per_try_idle_timeout), (None, None));
    assert_eq!((policy.host_selection_attempts, policy.avoid_previous_hosts), (1, false));
    assert!(policy.rate_limited_backoff.is_none() && policy.status_codes.is_empty());
}

#[test]
fn a_retry_policy_becomes_what_it_says() {
    let policy = retrying(|policy| {
        policy.retry_on = "5xx, reset ,nonsense,cancelled".to_owned();
        policy.num_retries = u32_value(3);
        policy.per_try_timeout = millis(500);
        policy.retriable_status_codes = vec![503, 1000];
        policy.retry_back_off.get_or_insert_default().base_interval = millis(40);
        policy.host_selection_retry_max_attempts = 5;
        policy.retry_host_predicate = vec![
            host_predicate(&PreviousHostsPredicate {}),
            host_predicate(&OmitHostMetadataConfig { metadata_match: Some(stage("envoy.lb")) }),
            // Envoy looks at one namespace, and a predicate of none is for nobody.
            host_predicate(&OmitHostMetadataConfig { metadata_match: Some(stage("other")) }),
        ];
        policy.retry_priority = Some(pb::retry_policy::RetryPriority {
            name: "p".to_owned(),
            config_type: Some(PriorityConfig::TypedConfig(any(&PreviousPrioritiesConfig { update_frequency: 2 }))),
        });
    })
    .expect("there is one");
    assert_eq!(policy.on, RetryOn::FIVE_XX.union(RetryOn::RESET).union(RetryOn::GRPC_CANCELLED));
    assert_eq!((policy.num_retries, policy.host_selection_attempts), (3, 5));
    assert_eq!(policy.per_try_timeout, Some(Duration::from_millis(500)));
    assert_eq!(policy.status_codes, [StatusCode::SERVICE_UNAVAILABLE], "1000 is no status");
    assert_eq!(policy.backoff, Backoff { base: Duration::from_millis(40), max: Duration::from_millis(400) });
    assert!(policy.avoid_previous_hosts && !policy.omit_canary_hosts);
    assert_eq!(policy.previous_priorities, Some(2));
    let named = BTreeMap::from([("stage".to_owned(), "old".into())]);
    assert_eq!(policy.omit_metadata, [named, BTreeMap::new()]);
}

fn host_predicate<M: Message + prost::Name>(config: &M) -> pb::retry_policy::RetryHostPredicate {
    use pb::retry_policy::retry_host_predicate::ConfigType;
    let config_type = Some(ConfigType::TypedConfig(any(config)));
    pb::retry_policy::RetryHostPredicate { name: "p".to_owned(), config_type }
}

/// Metadata that says `stage: old`.
fn stage(namespace: &str) -> core::Metadata {
    let value = protobuf::Value { kind: Some(protobuf::value::Kind::StringValue("old".to_owned())) };
    let fields = protobuf::Struct { fields: [("stage".to_owned(), value)].into() };
    core::Metadata { filter_metadata: [(namespace.to_owned(), fields)].into(), ..Default::default() }
}

#[test]
fn rules_81_and_82_short_delays_and_no_condition() {
    let policy = retrying(|policy| {
        let nanos = |nanos| Some(protobuf::Duration { seconds: 0, nanos });
        let back_off = policy.retry_back_off.get_or_insert_default();
        (back_off.base_interval, back_off.max_interval) = (nanos(1), nanos(2));
    });
    let millisecond = Duration::from_millis(1);
    assert_eq!(policy.expect("there is one").backoff, Backoff { base: millisecond, max: millisecond });
    let hiding = retrying(|policy| policy.retry_on = "nonsense".to_owned()).expect("it hides the virtual host's");
    assert!(hiding.on.is_empty());
}

#[test]
fn a_route_action_becomes_what_it_says() {
    let table: Arc<RouteTable> = route_action().value(|action| {
        action.cluster_specifier = Some(ClusterSpecifier::ClusterHeader("x-cluster".to_owned()));
        action.cluster_not_found_response_code = 1;
        action.timeout = seconds(0);
        action.max_stream_duration = Some(MaxStreamDuration {
            max_stream_duration: seconds(2),
            grpc_timeout_header_max: seconds(0),
            grpc_timeout_header_offset: None,
        });
        action.prefix_rewrite = "/b".to_owned();
        action.host_rewrite_specifier =
            Some(HostRewriteSpecifier::AutoHostRewrite(protobuf::BoolValue { value: true }));
        action.hedge_policy = Some(pb::HedgePolicy { hedge_on_per_try_timeout: true, ..Default::default() });
        action.priority = 1;
    });
    let forward = forwarding(&table);
    assert!(matches!(&forward.cluster, ClusterChoice::Header(name) if name == "x-cluster"));
    assert_eq!(forward.cluster_not_found, StatusCode::NOT_FOUND);
    assert_eq!(forward.timeout, Some(Duration::ZERO));
    assert_eq!(forward.max_stream_duration.max, Some(Duration::from_secs(2)));
    assert_eq!(forward.max_stream_duration.grpc_header_max, Some(Duration::ZERO));
    assert_eq!(forward.path_rewrite, Some(PathRewrite::Prefix("/b".to_owned())));
    assert_eq!(forward.host_rewrite, Some(HostRewrite::Auto));
    let hedge = forward.hedge.expect("there is one");
    assert!(hedge.on_per_try_timeout && hedge.initial_requests == 1 && forward.high_priority);
}

#[test]
fn a_host_may_be_a_format() {
    let host = |change: fn(&mut pb::RouteAction)| {
        let table: Arc<RouteTable> = route_action().value(change);
        (forwarding(&table).host_rewrite.clone(), first(&table).unsupported.len())
    };
    fn say(action: &mut pb::RouteAction, format: &str) {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewrite(format.to_owned()));
    }
    let made = HeaderValue::from_static("%REQ(x)%.a");
    assert_eq!(host(|action| say(action, "%REQ(x)%.a")), (Some(HostRewrite::Format(made)), 0));
    assert_eq!(host(|action| say(action, "plain.a")), (Some(HostRewrite::Literal("plain.a".to_owned())), 0));
    assert_eq!(host(|action| say(action, "%NONSENSE%")).1, 1, "requests to what cannot be computed fail");
}

#[test]
fn rule_84_hash_policies_keep_their_places() {
    let table: Arc<RouteTable> = route_action().value(|action| {
        let policies = [
            Some(PolicySpecifier::Cookie(Cookie { name: "c".to_owned(), ttl: seconds(9), ..Default::default() })),
            None,
            Some(PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })),
            Some(PolicySpecifier::FilterState(FilterState { key: "io.grpc.channel_id".to_owned() })),
            Some(PolicySpecifier::FilterState(FilterState { key: "other".to_owned() })),
        ];
        action.hash_policy = policies.map(|policy_specifier| PbHash { policy_specifier, terminal: true }).to_vec();
    });
    let sources: Vec<&HashSource> = forwarding(&table).hash.iter().map(|policy| &policy.source).collect();
    let cookie = HashSource::Cookie { name: "c".to_owned(), ttl: Some(Duration::from_secs(9)), path: String::new() };
    assert_eq!(
        sources,
        [&cookie, &HashSource::Nothing, &HashSource::SourceIp, &HashSource::ChannelId, &HashSource::Nothing]
    );
    assert!(forwarding(&table).hash.iter().all(|policy| policy.terminal));
}

#[test]
fn actions_that_are_not_known_fail_their_requests_by_name() {
    for (action, name) in [
        (Some(PbAction::FilterAction(pb::FilterAction::default())), "filter_action"),
        (None, "an action that is not known here"),
        (
            Some(PbAction::Route(pb::RouteAction::default())),
            "a cluster that is not named, or in a way that is not known here",
        ),
    ] {
        let mut table = routes();
        table.virtual_hosts[0].routes[0].action = action;
        let table: Arc<RouteTable> = taken(decoder().decode(ROUTE_CONFIGURATION, &table.encode_to_vec()));
        assert!(matches!(&first(&table).action, Action::Unknown(what) if what == name));
    }
    let table: Arc<RouteTable> = route_part().value(|route| {
        route.action = Some(PbAction::NonForwardingAction(pb::NonForwardingAction {}));
    });
    assert!(matches!(first(&table).action, Action::NonForwarding));
}

#[test]
fn redirects_and_answers_become_what_they_say() {
    let table: Arc<RouteTable> = route_part().value(|route| {
        route.action = Some(PbAction::Redirect(pb::RedirectAction {
            host_redirect: "other.test".to_owned(),
            port_redirect: 8443,
            response_code: 4,
            strip_query: true,
            scheme_rewrite_specifier: Some(pb::redirect_action::SchemeRewriteSpecifier::HttpsRedirect(true)),
            path_rewrite_specifier: Some(pb::redirect_action::PathRewriteSpecifier::PathRedirect("/p".to_owned())),
        }));
    });
    let Action::Redirect(redirect) = &first(&table).action else { panic!("{table:?}") };
    assert_eq!((redirect.scheme.as_deref(), redirect.host.as_deref()), (Some("https"), Some("other.test")));
    assert_eq!((redirect.port, redirect.status), (Some(8443), StatusCode::PERMANENT_REDIRECT));
    assert_eq!(redirect.path, Some(PathRewrite::Full("/p".to_owned())));
    assert!(redirect.strip_query);

    let table: Arc<RouteTable> = route_part().value(|route| {
        let specifier = Some(core::data_source::Specifier::InlineBytes(vec![0xff]));
        let body = Some(core::DataSource { specifier, ..Default::default() });
        let direct = pb::DirectResponseAction { status: 418, body, ..Default::default() };
        route.action = Some(PbAction::DirectResponse(direct));
    });
    let Action::Direct(direct) = &first(&table).action else { panic!("{table:?}") };
    assert_eq!((direct.status, &direct.body[..]), (StatusCode::IM_A_TEAPOT, &[0xff][..]));
}

#[test]
fn header_mutations_become_what_they_say() {
    let add = |append, append_action| core::HeaderValueOption {
        header: Some(core::HeaderValue { key: "X-A".to_owned(), value: "v".to_owned(), ..Default::default() }),
        append,
        append_action,
        ..Default::default()
    };
    let mut table = routes();
    let route = &mut table.virtual_hosts[0].routes[0];
    route.request_headers_to_add = vec![
        add(None, 0),
        add(None, 1),
        add(None, 2),
        add(None, 3),
        // The older spelling, which istiod sends.
        add(bool_value(true), 0),
        add(bool_value(false), 0),
    ];
    route.response_headers_to_remove = vec!["X-B".to_owned()];
    let table: Arc<RouteTable> = taken(decoder().decode(ROUTE_CONFIGURATION, &table.encode_to_vec()));
    let headers = &first(&table).headers;
    let actions: Vec<AppendAction> = headers.request_append.iter().map(|append| append.action).collect();
    use AppendAction::{AddIfAbsent, AppendOrAdd, OverwriteIfExists, OverwriteOrAdd};
    assert_eq!(actions, [AppendOrAdd, AddIfAbsent, OverwriteOrAdd, OverwriteIfExists, AppendOrAdd, OverwriteOrAdd]);
    assert_eq!(headers.request_append[0].name, "x-a");
    assert_eq!(headers.response_remove, ["x-b"]);
}

#[test]
fn what_is_not_implemented_is_noted_where_it_is_said() {
    let table: Arc<RouteTable> = table().value(|table| {
        table.ignore_path_parameters_in_path_matching = true;
        let host = &mut table.virtual_hosts[0];
        host.retry_policy_typed_config = Some(Default::default());
        host.virtual_clusters.push(pb::VirtualCluster::default());
        if let Some(PbAction::Route(action)) = &mut host.routes[0].action {
            action.retry_policy_typed_config = Some(Default::default());
        }
    });
    let fails = |field: &str| (field.to_owned(), UnsupportedEffect::FailsRequests);
    let notes = |list: &[crate::model::Unsupported]| -> Vec<(String, UnsupportedEffect)> {
        list.iter().map(|note| (note.field.clone(), note.effect)).collect()
    };
    let host = &table.virtual_hosts[0];
    assert_eq!(notes(&table.unsupported), [fails("ignore_path_parameters_in_path_matching")]);
    let left_out = ("virtual_hosts[0].virtual_clusters".to_owned(), UnsupportedEffect::LeftOut);
    assert_eq!(notes(&host.unsupported), [fails("virtual_hosts[0].retry_policy_typed_config"), left_out]);
    assert_eq!(
        notes(&host.routes[0].unsupported),
        [fails("virtual_hosts[0].routes[0].route.retry_policy_typed_config")]
    );
}

/// What Envoy's `RouteConfiguration`, `VirtualHost` and `Route` say of which requests they take, and what is kept of them.
#[test]
#[allow(deprecated, reason = "the older spelling is still sent")]
fn the_virtual_hosts_header_its_tls_and_what_is_kept_of_a_body() {
    use envoy_types::pb::google::protobuf::{UInt32Value, UInt64Value};

    use crate::model::{BodyLimit, TlsRequirement};
    let changed = |change: &dyn Fn(&mut pb::RouteConfiguration)| {
        let mut table = routes();
        change(&mut table);
        decoder().decode(ROUTE_CONFIGURATION, &table.encode_to_vec())
    };
    let table = |change: &dyn Fn(&mut pb::RouteConfiguration)| -> Arc<RouteTable> { taken(changed(change)) };
    let faulty = |path: &str, change: &dyn Fn(&mut pb::RouteConfiguration)| {
        let faults = refused(changed(change));
        assert!(faults.len() == 1 && faults[0].contains(path), "{faults:?}");
    };
    for (said, expected) in [("", None), ("Host", None), (":authority", None), ("X-Vhost", Some("x-vhost"))] {
        let header = table(&|table| table.vhost_header = said.to_owned()).vhost_header.clone();
        assert_eq!(header.as_ref().map(http::HeaderName::as_str), expected, "{said}");
    }
    faulty("vhost_header", &|table| table.vhost_header = "no header".to_owned());
    for (said, expected) in [(0, TlsRequirement::None), (1, TlsRequirement::ExternalOnly), (2, TlsRequirement::All)] {
        assert_eq!(table(&|table| table.virtual_hosts[0].require_tls = said).virtual_hosts[0].require_tls, expected);
    }
    faulty("virtual_hosts[0].require_tls", &|table| table.virtual_hosts[0].require_tls = 7);
    let exactly = |bytes| Some(UInt64Value { value: bytes });
    let at_most = |bytes| Some(UInt32Value { value: bytes });
    let set = |table: &mut pb::RouteConfiguration, host, route| {
        let of_host = &mut table.virtual_hosts[0];
        (of_host.request_body_buffer_limit, of_host.per_request_buffer_limit_bytes) = host;
        let of_route = &mut of_host.routes[0];
        (of_route.request_body_buffer_limit, of_route.per_request_buffer_limit_bytes) = route;
    };
    for (host, route, expected) in [
        ((None, None), (None, None), None),
        ((None, at_most(1)), (None, None), Some(BodyLimit::AtMost(1))),
        ((exactly(1), None), (None, at_most(2)), Some(BodyLimit::AtMost(2))),
        ((None, at_most(1)), (exactly(2), None), Some(BodyLimit::Exactly(2))),
    ] {
        assert_eq!(first(&table(&|table| set(table, host, route))).body_limit, expected);
    }
    let both = (exactly(1), at_most(1));
    faulty("virtual_hosts[0].routes[0].request_body_buffer_limit", &|table| set(table, (None, None), both));
}

/// The precedence that the fields' own documentation gives.
#[test]
fn the_most_specific_word_on_what_is_kept_counts() {
    use crate::model::BodyLimit::{self, AtMost, Exactly};
    const MIB: usize = 1024 * 1024;
    for (route, listener, expected) in [
        (None, None, 7),
        (None, Some(9), 9),
        (Some(AtMost(5)), Some(9), 5),
        (Some(AtMost(50)), Some(9), 9),
        (Some(AtMost(u32::MAX)), None, MIB),
        (Some(Exactly(50)), Some(9), 50),
        (Some(Exactly(0)), Some(9), 0),
    ] {
        assert_eq!(BodyLimit::bytes(route, listener, 7), expected, "{route:?} {listener:?}");
    }
}
