//! Rules 67 to 84: what happens to a route's requests.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use pb::route::Action;
use pb::route_action::hash_policy::{Cookie, Header, PolicySpecifier, QueryParameter};
use pb::route_action::{ClusterSpecifier, HashPolicy, HostRewriteSpecifier, MaxStreamDuration, RequestMirrorPolicy};
use pb::weighted_cluster::ClusterWeight;

use super::*;

fn wrap_action(action: Action) -> Vec<u8> {
    let mut table = routes();
    table.virtual_hosts[0].routes[0].action = Some(action);
    table.encode_to_vec()
}

fn part<P: Default>(base: P, wrap: fn(P) -> Vec<u8>, path: &'static str) -> Part<P> {
    Part { type_url: ROUTE_CONFIGURATION, base, wrap, path }
}

fn forward() -> pb::RouteAction {
    match route_part().base.action {
        Some(Action::Route(action)) => action,
        other => panic!("{other:?}"),
    }
}

pub(super) fn route_action() -> Part<pb::RouteAction> {
    part(forward(), |action| wrap_action(Action::Route(action)), "virtual_hosts[0].routes[0].route")
}

fn weight(name: &str, weight: Option<u32>) -> ClusterWeight {
    ClusterWeight { name: name.to_owned(), weight: weight.and_then(u32_value), ..Default::default() }
}

pub(super) fn weighted_clusters() -> Part<pb::WeightedCluster> {
    let clusters = vec![weight("blue", Some(90)), weight("green", Some(10))];
    let wrap = |clusters| {
        let specifier = Some(ClusterSpecifier::WeightedClusters(clusters));
        wrap_action(Action::Route(pb::RouteAction { cluster_specifier: specifier, ..forward() }))
    };
    let base = pb::WeightedCluster { clusters, ..Default::default() };
    part(base, wrap, "virtual_hosts[0].routes[0].route.weighted_clusters")
}

pub(super) fn retry_policy() -> Part<pb::RetryPolicy> {
    let wrap = |policy| wrap_action(Action::Route(pb::RouteAction { retry_policy: Some(policy), ..forward() }));
    let base = pb::RetryPolicy { retry_on: "unavailable".to_owned(), ..Default::default() };
    part(base, wrap, "virtual_hosts[0].routes[0].route.retry_policy")
}

#[test]
pub(in crate::decode::tests) fn rules_67_to_69_actions_and_clusters() {
    route_action().refuses(&[
        (68, "cluster", |action| action.cluster_specifier = Some(ClusterSpecifier::Cluster(String::new()))),
        (69, "cluster_header", |action| {
            action.cluster_specifier = Some(ClusterSpecifier::ClusterHeader("a b".to_owned()));
        }),
        (69, "cluster_not_found_response_code", |action| action.cluster_not_found_response_code = 9),
    ]);
    route_action().takes(&[
        // gRPC can't.
        (69, "a cluster by header", |action| {
            action.cluster_specifier = Some(ClusterSpecifier::ClusterHeader("x-cluster".to_owned()));
        }),
        // gRPC passes it over, and the requests would go to the next.
        (69, "kept, and its requests fail", |action| action.cluster_specifier = None),
    ]);
    route_part().takes(&[
        (67, "a redirect", |route| route.action = Some(Action::Redirect(pb::RedirectAction::default()))),
        (67, "an answer", |route| {
            let answer = pb::DirectResponseAction { status: 200, ..Default::default() };
            route.action = Some(Action::DirectResponse(answer));
        }),
        (67, "for a server", |route| route.action = Some(Action::NonForwardingAction(pb::NonForwardingAction {}))),
        (67, "kept, and its requests fail", |route| {
            route.action = Some(Action::FilterAction(pb::FilterAction::default()));
        }),
        (67, "kept, and its requests fail", |route| route.action = None),
    ]);
}

fn plugin(name: &str, is_optional: bool) -> pb::ClusterSpecifierPlugin {
    let extension = core::TypedExtensionConfig { name: name.to_owned(), ..extension(&pb::Route::default()) };
    pb::ClusterSpecifierPlugin { extension: Some(extension), is_optional }
}

fn use_plugin(table: &mut pb::RouteConfiguration, name: &str) {
    if let Some(Action::Route(action)) = &mut table.virtual_hosts[0].routes[0].action {
        action.cluster_specifier = Some(ClusterSpecifier::ClusterSpecifierPlugin(name.to_owned()));
    }
}

#[test]
pub(in crate::decode::tests) fn rules_73_to_76_plugins() {
    table().refuses(&[
        (73, "virtual_hosts[0].routes[0].route.cluster_specifier_plugin", |table| use_plugin(table, "p")),
        (74, "cluster_specifier_plugins[1].extension.name", |table| {
            table.cluster_specifier_plugins = vec![plugin("p", true), plugin("p", true)];
        }),
        (75, "cluster_specifier_plugins[0].extension.typed_config", |table| {
            table.cluster_specifier_plugins = vec![plugin("p", false)];
        }),
        (75, "cluster_specifier_plugins[0].extension", |table| {
            table.cluster_specifier_plugins.push(pb::ClusterSpecifierPlugin::default());
        }),
        (76, "cluster_specifier_plugins[0].extension.typed_config", |table| {
            let typed_config = Some(garbage("grpc.lookup.v1.RouteLookupClusterSpecifier"));
            let extension = Some(core::TypedExtensionConfig { name: "p".to_owned(), typed_config });
            table.cluster_specifier_plugins = vec![pb::ClusterSpecifierPlugin { extension, is_optional: false }];
        }),
    ]);
    // gRPC ignores the route; Envoy keeps it, and its requests fail. Ours do: the next route was not meant for them.
    table().takes(&[(75, "optional", |table| {
        table.cluster_specifier_plugins = vec![plugin("p", true)];
        use_plugin(table, "p");
    })]);
}

/// gRFC A28.
#[test]
pub(in crate::decode::tests) fn rules_70_to_72_weights() {
    weighted_clusters().refuses(&[
        (70, "clusters", |value| value.clusters.clear()),
        (70, "clusters", |value| value.clusters.iter_mut().for_each(|cluster| cluster.weight = u32_value(0))),
        (71, "clusters", |value| value.clusters[0].weight = u32_value(u32::MAX)),
        (72, "clusters[1].name", |value| value.clusters[1].name.clear()),
        (72, "clusters[1].weight", |value| value.clusters[1].weight = None),
        (72, "header_name", |value| {
            let name = "a b".to_owned();
            value.random_value_specifier = Some(pb::weighted_cluster::RandomValueSpecifier::HeaderName(name));
        }),
    ]);
    weighted_clusters().takes(&[
        (70, "one of them 0", |value| value.clusters[0].weight = u32_value(0)),
        (71, "the largest sum", |value| value.clusters[0].weight = u32_value(u32::MAX - 10)),
        (71, "total_weight is not read", |value| value.total_weight = u32_value(7)),
    ]);
}

/// gRFC A44.
#[test]
pub(in crate::decode::tests) fn rules_77_to_82_retries() {
    retry_policy().refuses(&[
        (77, "num_retries", |policy| policy.num_retries = u32_value(0)),
        (78, "retry_back_off.base_interval", |policy| {
            policy.retry_back_off.get_or_insert_default().max_interval = seconds(1);
        }),
        (79, "retry_back_off.base_interval", |policy| {
            policy.retry_back_off.get_or_insert_default().base_interval = seconds(0);
        }),
        (79, "retry_back_off.base_interval", |policy| {
            policy.retry_back_off.get_or_insert_default().base_interval = seconds(-1);
        }),
        (80, "retry_back_off.max_interval", |policy| {
            let back_off = policy.retry_back_off.get_or_insert_default();
            (back_off.base_interval, back_off.max_interval) = (seconds(1), seconds(0));
        }),
        (81, "retry_back_off.max_interval", |policy| {
            let back_off = policy.retry_back_off.get_or_insert_default();
            (back_off.base_interval, back_off.max_interval) = (seconds(2), seconds(1));
        }),
        // Envoy's.
        (77, "per_try_timeout", |policy| policy.per_try_timeout = seconds(-1)),
        (77, "rate_limited_retry_back_off.reset_headers", |policy| {
            policy.rate_limited_retry_back_off = Some(pb::retry_policy::RateLimitedRetryBackOff::default());
        }),
        (77, "retriable_headers[0]", |policy| {
            let name = "x".to_owned();
            policy.retriable_headers.push(pb::HeaderMatcher { name, ..Default::default() });
        }),
    ]);
    retry_policy().takes(&[
        (77, "any number", |policy| policy.num_retries = u32_value(u32::MAX)),
        (81, "the same", |policy| {
            let back_off = policy.retry_back_off.get_or_insert_default();
            (back_off.base_interval, back_off.max_interval) = (seconds(1), seconds(1));
        }),
        (82, "words that are not known", |policy| policy.retry_on = "5xx,nonsense".to_owned()),
        (82, "a status that is none", |policy| policy.retriable_status_codes = vec![1000, 503]),
    ]);
}

/// gRFC A31.
#[test]
pub(in crate::decode::tests) fn rule_83_durations() {
    route_action().refuses(&[
        (83, "max_stream_duration.max_stream_duration", |action| {
            action.max_stream_duration =
                Some(MaxStreamDuration { max_stream_duration: seconds(-1), ..Default::default() });
        }),
        (83, "max_stream_duration.grpc_timeout_header_max", |action| {
            action.max_stream_duration =
                Some(MaxStreamDuration { grpc_timeout_header_max: seconds(315_576_000_001), ..Default::default() });
        }),
        // Envoy's: it counts in nanoseconds of 63 bits.
        (83, "timeout", |action| action.timeout = seconds(9_223_372_036)),
        (83, "idle_timeout", |action| action.idle_timeout = seconds(-1)),
    ]);
    route_action().takes(&[(83, "the longest", |action| action.timeout = seconds(9_223_372_035))]);
}

fn hash(action: &mut pb::RouteAction, how: PolicySpecifier) {
    action.hash_policy.push(HashPolicy { policy_specifier: Some(how), terminal: false });
}

fn substitute(pattern: &str, substitution: &str) -> matcher::RegexMatchAndSubstitute {
    matcher::RegexMatchAndSubstitute { pattern: Some(regex(pattern)), substitution: substitution.to_owned() }
}

/// gRFC A42.
#[test]
pub(in crate::decode::tests) fn rule_84_hash_policies() {
    route_action().refuses(&[
        (84, "hash_policy[0].header.header_name", |action| hash(action, PolicySpecifier::Header(Header::default()))),
        (84, "hash_policy[0].header.regex_rewrite.pattern", |action| {
            let regex_rewrite = Some(matcher::RegexMatchAndSubstitute::default());
            hash(action, PolicySpecifier::Header(Header { header_name: "x".to_owned(), regex_rewrite }));
        }),
        (84, "hash_policy[0].header.regex_rewrite.pattern.regex", |action| {
            let regex_rewrite = Some(substitute("", ""));
            hash(action, PolicySpecifier::Header(Header { header_name: "x".to_owned(), regex_rewrite }));
        }),
        (84, "hash_policy[0].header.regex_rewrite.pattern.regex", |action| {
            let regex_rewrite = Some(substitute("(", ""));
            hash(action, PolicySpecifier::Header(Header { header_name: "x".to_owned(), regex_rewrite }));
        }),
        // Envoy's.
        (84, "hash_policy[0].cookie.name", |action| hash(action, PolicySpecifier::Cookie(Cookie::default()))),
        (84, "hash_policy[0].query_parameter.name", |action| {
            hash(action, PolicySpecifier::QueryParameter(QueryParameter::default()));
        }),
    ]);
    route_action().takes(&[
        (84, "a kind that is not known", |action| action.hash_policy.push(HashPolicy::default())),
        (84, "a cookie, which gRPC can't", |action| {
            hash(action, PolicySpecifier::Cookie(Cookie { name: "c".to_owned(), ..Default::default() }));
        }),
    ]);
}

#[test]
fn envoys_rewrites() {
    route_action().refuses(&[
        (0, "", |action| {
            action.prefix_rewrite = "/a".to_owned();
            action.regex_rewrite = Some(substitute("a", "b"));
        }),
        (0, "prefix_rewrite", |action| action.prefix_rewrite = "/a\nb".to_owned()),
        (0, "regex_rewrite.pattern.regex", |action| action.regex_rewrite = Some(substitute("(", ""))),
        (0, "regex_rewrite.substitution", |action| action.regex_rewrite = Some(substitute("(a)", "\\2"))),
        (0, "regex_rewrite.substitution", |action| action.regex_rewrite = Some(substitute("a", "\\x"))),
        (0, "regex_rewrite.substitution", |action| action.regex_rewrite = Some(substitute("a", "\\"))),
        (0, "path_rewrite_policy.typed_config.path_template_rewrite", |action| {
            let config = UriTemplateRewriteConfig { path_template_rewrite: "/{a}".to_owned() };
            action.path_rewrite_policy = Some(extension(&config));
        }),
        (0, "host_rewrite_literal", |action| {
            action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral("a\r\nb".to_owned()));
        }),
        (0, "request_mirror_policies[0]", |action| {
            action.request_mirror_policies.push(RequestMirrorPolicy::default());
        }),
        (0, "cors.allow_origin_string_match[0]", |action| {
            action.cors.get_or_insert_default().allow_origin_string_match.push(matcher::StringMatcher::default());
        }),
    ]);
    route_action().takes(&[
        (0, "the last group", |action| action.regex_rewrite = Some(substitute("(a)(b)", "\\2\\1\\0\\\\"))),
        (0, "nothing in its place", |action| action.regex_rewrite = Some(substitute("a", ""))),
    ]);
}

fn direct() -> Part<pb::DirectResponseAction> {
    let base = pb::DirectResponseAction { status: 200, ..Default::default() };
    let wrap = |action| wrap_action(Action::DirectResponse(action));
    part(base, wrap, "virtual_hosts[0].routes[0].direct_response")
}

fn body(text: &str) -> Option<core::DataSource> {
    let specifier = Some(core::data_source::Specifier::InlineString(text.to_owned()));
    Some(core::DataSource { specifier, ..Default::default() })
}

#[test]
fn envoys_answers_and_redirects() {
    direct().refuses(&[
        (0, "status", |action| action.status = 99),
        (0, "status", |action| action.status = 199),
        (0, "status", |action| action.status = 600),
        (0, "body", |action| action.body = body(&"x".repeat(4097))),
        (0, "body", |action| action.body = Some(core::DataSource::default())),
    ]);
    direct().takes(&[
        (0, "the longest body", |action| action.body = body(&"x".repeat(4096))),
        (0, "the last status", |action| action.status = 599),
    ]);
    let redirect = part(
        pb::RedirectAction::default(),
        |action| wrap_action(Action::Redirect(action)),
        "virtual_hosts[0].routes[0].redirect",
    );
    redirect.refuses(&[
        (0, "host_redirect", |action| action.host_redirect = "a\nb".to_owned()),
        (0, "response_code", |action| action.response_code = 9),
        (0, "path_redirect", |action| {
            let path = "/a\nb".to_owned();
            action.path_rewrite_specifier = Some(pb::redirect_action::PathRewriteSpecifier::PathRedirect(path));
        }),
    ]);
    redirect.takes(&[(0, "a port that is none fails its requests", |action| action.port_redirect = 70_000)]);
}

/// Envoy answers with what it can read; whoever writes routes is not to read what this process can.
#[test]
fn a_direct_response_tells_nothing_of_the_process() {
    use core::data_source::Specifier;
    fn say(action: &mut pb::DirectResponseAction, specifier: Specifier) {
        action.body = Some(core::DataSource { specifier: Some(specifier), ..Default::default() });
    }
    let direct = part(
        pb::DirectResponseAction { status: 200, ..Default::default() },
        |action| wrap_action(Action::DirectResponse(action)),
        "virtual_hosts[0].routes[0].direct_response",
    );
    direct.refuses(&[
        (0, "body.filename", |action| say(action, Specifier::Filename("/etc/hostname".to_owned()))),
        (0, "body.filename", |action| say(action, Specifier::Filename("/nonexistent".to_owned()))),
        (0, "body.environment_variable", |action| say(action, Specifier::EnvironmentVariable("HOME".to_owned()))),
    ]);
    direct.takes(&[(0, "inline", |action| say(action, Specifier::InlineString("x".to_owned())))]);
}

fn add(route: &mut pb::Route, key: &str, value: &str) {
    let header = core::HeaderValue { key: key.to_owned(), value: value.to_owned(), ..Default::default() };
    route.request_headers_to_add.push(core::HeaderValueOption { header: Some(header), ..Default::default() });
}

#[test]
fn envoys_header_mutations() {
    route_part().refuses(&[
        (0, "request_headers_to_add[0].header", |route| {
            route.request_headers_to_add.push(core::HeaderValueOption::default());
        }),
        (0, "request_headers_to_add[0].header.key", |route| add(route, "host", "x")),
        (0, "request_headers_to_add[0].header.key", |route| add(route, ":path", "x")),
        (0, "request_headers_to_add[0].header.key", |route| add(route, "", "x")),
        // Envoy takes it, and would send what no one can read.
        (0, "request_headers_to_add[0].header.key", |route| add(route, "a b", "x")),
        (0, "request_headers_to_add[0].header.value", |route| add(route, "x", "a\nb")),
        (0, "request_headers_to_add[0].header.value", |route| add(route, "x", "%REQ(a")),
        (0, "request_headers_to_add[0]", |route| {
            add(route, "x", "y");
            route.request_headers_to_add[0].append = bool_value(true);
            route.request_headers_to_add[0].append_action = 2;
        }),
        (0, "request_headers_to_add[0].append_action", |route| {
            add(route, "x", "y");
            route.request_headers_to_add[0].append_action = 9;
        }),
        (0, "request_headers_to_remove[0]", |route| route.request_headers_to_remove.push(":path".to_owned())),
    ]);
    route_part().takes(&[(0, "a percent sign", |route| add(route, "x", "100%%"))]);
}

/// An action that says something everywhere.
pub(super) fn everything() -> pb::RouteAction {
    let mut action = forward();
    action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(weighted_clusters().base));
    action.retry_policy = Some(pb::RetryPolicy { num_retries: u32_value(2), ..retry_policy().base });
    action.max_stream_duration = Some(MaxStreamDuration { max_stream_duration: seconds(2), ..Default::default() });
    hash(&mut action, PolicySpecifier::QueryParameter(QueryParameter { name: "q".to_owned() }));
    action.regex_rewrite = Some(substitute("(a)b", "\\1"));
    action
}
