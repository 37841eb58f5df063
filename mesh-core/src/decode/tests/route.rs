//! Rules 52 to 84: route tables; and what Envoy asks of what gRPC doesn't have.

pub(super) mod actions;
mod redirects;
mod values;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3 as types;
use pb::header_matcher::HeaderMatchSpecifier;
use pb::route_action::ClusterSpecifier;
use pb::route_match::PathSpecifier;

use super::*;
use crate::model::RouteTable;
use crate::resource::ROUTE_CONFIGURATION;

/// One virtual host for every name, one route for every path, to the cluster `blue`.
pub(super) fn routes() -> pb::RouteConfiguration {
    let action =
        pb::RouteAction { cluster_specifier: Some(ClusterSpecifier::Cluster("blue".to_owned())), ..Default::default() };
    let route = pb::Route {
        r#match: Some(pb::RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        action: Some(pb::route::Action::Route(action)),
        ..Default::default()
    };
    let host = pb::VirtualHost { domains: vec!["*".to_owned()], routes: vec![route], ..Default::default() };
    pb::RouteConfiguration { name: "routes".to_owned(), virtual_hosts: vec![host], ..Default::default() }
}

pub(super) fn table() -> Part<pb::RouteConfiguration> {
    Part { type_url: ROUTE_CONFIGURATION, base: routes(), wrap: |table| table.encode_to_vec(), path: "" }
}

fn route_part() -> Part<pb::Route> {
    let wrap = |route| {
        let mut table = routes();
        table.virtual_hosts[0].routes[0] = route;
        table.encode_to_vec()
    };
    let base = routes().virtual_hosts.remove(0).routes.remove(0);
    Part { type_url: ROUTE_CONFIGURATION, base, wrap, path: "virtual_hosts[0].routes[0]" }
}

fn route_match() -> Part<pb::RouteMatch> {
    let wrap = |matches| {
        let mut table = routes();
        table.virtual_hosts[0].routes[0].r#match = Some(matches);
        table.encode_to_vec()
    };
    let base = route_part().base.r#match.expect("the base has one");
    Part { type_url: ROUTE_CONFIGURATION, base, wrap, path: "virtual_hosts[0].routes[0].match" }
}

fn regex(pattern: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: pattern.to_owned(), ..Default::default() }
}

pub(super) fn metadata_matcher() -> matcher::MetadataMatcher {
    use matcher::metadata_matcher::{PathSegment, path_segment::Segment};
    matcher::MetadataMatcher {
        filter: "jwt".to_owned(),
        path: vec![PathSegment { segment: Some(Segment::Key("sub".to_owned())) }],
        value: Some(matcher::ValueMatcher {
            match_pattern: Some(matcher::value_matcher::MatchPattern::PresentMatch(true)),
        }),
        ..Default::default()
    }
}

fn string(pattern: matcher::string_matcher::MatchPattern) -> matcher::StringMatcher {
    matcher::StringMatcher { match_pattern: Some(pattern), ..Default::default() }
}

fn header(matches: &mut pb::RouteMatch, test: Option<HeaderMatchSpecifier>) {
    matches.headers.push(pb::HeaderMatcher {
        name: "x".to_owned(),
        header_match_specifier: test,
        ..Default::default()
    });
}

fn template(text: &str) -> PathSpecifier {
    let config = UriTemplateMatchConfig { path_template: text.to_owned() };
    PathSpecifier::PathMatchPolicy(extension(&config))
}

#[test]
pub(super) fn rules_52_and_53_domains() {
    table().refuses(&[
        (52, "virtual_hosts[0].domains[0]", |table| table.virtual_hosts[0].domains[0].clear()),
        (52, "virtual_hosts[0].domains[0]", |table| table.virtual_hosts[0].domains[0] = "a.*.test".to_owned()),
        (52, "virtual_hosts[0].domains[0]", |table| table.virtual_hosts[0].domains[0] = "*.a.*".to_owned()),
        (52, "virtual_hosts[0].domains[0]", |table| table.virtual_hosts[0].domains[0] = "**".to_owned()),
        // Envoy's.
        (52, "virtual_hosts[0].domains[0]", |table| table.virtual_hosts[0].domains[0] = "a\n".to_owned()),
        (53, "virtual_hosts[0].domains", |table| table.virtual_hosts[0].domains.clear()),
        // gRPC takes the first of two; which one was meant can't be known, so Envoy's answer is ours.
        (53, "virtual_hosts[1].domains[0]", |table| {
            let again = table.virtual_hosts[0].clone();
            table.virtual_hosts.push(again);
        }),
        (53, "virtual_hosts[0].domains[1]", |table| {
            table.virtual_hosts[0].domains = vec!["a.test".to_owned(), "A.test".to_owned()];
        }),
    ]);
    table().takes(&[
        (52, "with a port", |table| table.virtual_hosts[0].domains = vec!["a:80".to_owned(), "a".to_owned()]),
        (52, "beginning and end", |table| {
            table.virtual_hosts[0].domains = vec!["*.a".to_owned(), "a.*".to_owned()];
        }),
        (53, "no virtual host", |table| table.virtual_hosts.clear()),
        (53, "no route", |table| table.virtual_hosts[0].routes.clear()),
    ]);
}

#[test]
pub(super) fn rules_54_to_58_the_path() {
    route_part().refuses(&[(54, "match", |route| route.r#match = None)]);
    route_match().refuses(&[
        (55, "", |matches| matches.path_specifier = None),
        (56, "safe_regex.regex", |matches| {
            matches.path_specifier = Some(PathSpecifier::SafeRegex(matcher::RegexMatcher::default()));
        }),
        (56, "safe_regex.regex", |matches| matches.path_specifier = Some(PathSpecifier::SafeRegex(regex("/a(")))),
        // RE2 has no backreferences, and no repetition of more than 1,000.
        (56, "safe_regex.regex", |matches| {
            matches.path_specifier = Some(PathSpecifier::SafeRegex(regex("(a)\\1")));
        }),
        (56, "safe_regex.regex", |matches| {
            matches.path_specifier = Some(PathSpecifier::SafeRegex(regex("a{1001}")));
        }),
        // Nor repetitions of repetitions, which the `regex` crate has.
        (56, "safe_regex.regex", |matches| {
            matches.path_specifier = Some(PathSpecifier::SafeRegex(regex("a**")));
        }),
        // Envoy's.
        (55, "path_separated_prefix", |matches| {
            matches.path_specifier = Some(PathSpecifier::PathSeparatedPrefix("/a/".to_owned()));
        }),
        (55, "path_separated_prefix", |matches| {
            matches.path_specifier = Some(PathSpecifier::PathSeparatedPrefix("/a?b".to_owned()));
        }),
        (55, "path_match_policy.typed_config.path_template", |matches| {
            matches.path_specifier = Some(template("/**/*"));
        }),
        (55, "path_match_policy.typed_config", |matches| {
            let policy = PathSpecifier::PathMatchPolicy(core::TypedExtensionConfig::default());
            matches.path_specifier = Some(policy);
        }),
        (55, "path_match_policy.typed_config", |matches| {
            let policy = PathSpecifier::PathMatchPolicy(extension(&pb::Route::default()));
            matches.path_specifier = Some(policy);
        }),
    ]);
    // gRPC can't.
    route_match().takes(&[
        (55, "CONNECT", |matches| {
            let connect = PathSpecifier::ConnectMatcher(pb::route_match::ConnectMatcher {});
            matches.path_specifier = Some(connect);
        }),
        (55, "a separated prefix", |matches| {
            matches.path_specifier = Some(PathSpecifier::PathSeparatedPrefix("/a".to_owned()));
        }),
        (55, "a template", |matches| matches.path_specifier = Some(template("/a/{b}/**"))),
        (58, "what no gRPC method is", |matches| {
            matches.path_specifier = Some(PathSpecifier::Path("no-slash".to_owned()));
        }),
        (58, "what no gRPC method is", |matches| {
            matches.path_specifier = Some(PathSpecifier::Prefix("/a/b/c/d".to_owned()));
        }),
    ]);
    route_match().takes(&[
        (56, "1,000 times", |matches| {
            matches.path_specifier = Some(PathSpecifier::SafeRegex(regex("a{1000}")));
        }),
        (56, "longer than Envoy's max_program_size, which gRPC ignores", |matches| {
            let words: Vec<String> = (0..400).map(|index| format!("abc{index}def")).collect();
            matches.path_specifier = Some(PathSpecifier::SafeRegex(regex(&words.join("|"))));
        }),
    ]);
}

/// gRFCs A28 and A63.
#[test]
pub(super) fn rules_57_to_64_headers_and_queries() {
    use HeaderMatchSpecifier as Test;
    use matcher::string_matcher::MatchPattern;
    route_match().refuses(&[
        // Envoy reads it as "is present". It would read a matcher that is newer than itself so too, and so would we.
        (59, "headers[0]", |matches| header(matches, None)),
        (59, "headers[0].name", |matches| {
            header(matches, Some(Test::PresentMatch(true)));
            matches.headers[0].name.clear();
        }),
        (59, "headers[0].name", |matches| {
            header(matches, Some(Test::PresentMatch(true)));
            matches.headers[0].name = "a b".to_owned();
        }),
        (60, "headers[0].prefix_match", |matches| header(matches, Some(Test::PrefixMatch(String::new())))),
        (60, "headers[0].suffix_match", |matches| header(matches, Some(Test::SuffixMatch(String::new())))),
        (60, "headers[0].contains_match", |matches| header(matches, Some(Test::ContainsMatch(String::new())))),
        (60, "headers[0].string_match.prefix", |matches| {
            header(matches, Some(Test::StringMatch(string(MatchPattern::Prefix(String::new())))));
        }),
        (60, "headers[0].string_match.suffix", |matches| {
            header(matches, Some(Test::StringMatch(string(MatchPattern::Suffix(String::new())))));
        }),
        (60, "headers[0].string_match.contains", |matches| {
            header(matches, Some(Test::StringMatch(string(MatchPattern::Contains(String::new())))));
        }),
        (61, "headers[0].safe_regex_match.regex", |matches| header(matches, Some(Test::SafeRegexMatch(regex("("))))),
        (61, "headers[0].string_match.safe_regex.regex", |matches| {
            header(matches, Some(Test::StringMatch(string(MatchPattern::SafeRegex(regex("("))))));
        }),
        (62, "headers[0].string_match", |matches| {
            header(matches, Some(Test::StringMatch(matcher::StringMatcher::default())));
        }),
        (63, "headers[0].range_match", |matches| {
            header(matches, Some(Test::RangeMatch(types::Int64Range { start: 2, end: 1 })));
        }),
        // Envoy's.
        (57, "query_parameters[0].name", |matches| {
            matches.query_parameters.push(pb::QueryParameterMatcher::default());
        }),
        (57, "query_parameters[0].name", |matches| {
            let name = "q".repeat(1025);
            matches.query_parameters.push(pb::QueryParameterMatcher { name, ..Default::default() });
        }),
    ]);
    // gRPC can't: it ignores the route (57) or the matcher (64).
    route_match().takes(&[
        (57, "a query parameter", |matches| {
            let name = "q".repeat(1024);
            matches.query_parameters.push(pb::QueryParameterMatcher { name, ..Default::default() });
        }),
        (64, "gRPC requests only", |matches| {
            matches.grpc = Some(pb::route_match::GrpcRouteMatchOptions::default());
        }),
        (64, "TLS", |matches| matches.tls_context = Some(pb::route_match::TlsContextMatchOptions::default())),
        (64, "metadata", |matches| matches.dynamic_metadata.push(metadata_matcher())),
        (64, "filter state", |matches| matches.filter_state.push(matcher::FilterStateMatcher::default())),
    ]);
    route_match().takes(&[
        (60, "an empty exact match", |matches| header(matches, Some(Test::ExactMatch(String::new())))),
        (60, "an empty exact match", |matches| {
            header(matches, Some(Test::StringMatch(string(MatchPattern::Exact(String::new())))));
        }),
        (62, "case in a regular expression", |matches| {
            let test = matcher::StringMatcher { ignore_case: true, ..string(MatchPattern::SafeRegex(regex("a"))) };
            header(matches, Some(Test::StringMatch(test)));
        }),
        (57, "none", |matches| matches.query_parameters.clear()),
        (63, "an empty range", |matches| {
            header(matches, Some(Test::RangeMatch(types::Int64Range { start: 1, end: 1 })));
        }),
    ]);
}

fn runtime(numerator: u32, denominator: i32) -> Option<core::RuntimeFractionalPercent> {
    let default_value = Some(types::FractionalPercent { numerator, denominator });
    Some(core::RuntimeFractionalPercent { default_value, runtime_key: "key".to_owned() })
}

#[test]
pub(super) fn rules_65_and_66_fractions_and_case() {
    route_match().refuses(&[(65, "runtime_fraction.default_value.denominator", |matches| {
        matches.runtime_fraction = runtime(1, 3);
    })]);
    route_match().takes(&[
        (65, "more than the whole", |matches| matches.runtime_fraction = runtime(200, 0)),
        (66, "unset", |matches| matches.case_sensitive = None),
    ]);
    let case = |change: fn(&mut pb::RouteMatch)| {
        let table: Arc<RouteTable> = route_match().value(change);
        table.virtual_hosts[0].routes[0].matches.case_sensitive
    };
    assert!(case(|_| {}), "rule 66");
    assert!(!case(|matches| matches.case_sensitive = bool_value(false)));
}

/// A table that says something everywhere.
pub(super) fn rich() -> Vec<u8> {
    let mut table = routes();
    let host = &mut table.virtual_hosts[0];
    host.domains = vec!["*.a.test".to_owned(), "b.test".to_owned()];
    let matches = host.routes[0].r#match.get_or_insert_default();
    header(matches, Some(HeaderMatchSpecifier::PrefixMatch("v".to_owned())));
    let safe = matcher::string_matcher::MatchPattern::SafeRegex(regex("a{1,9}(b|c)"));
    header(matches, Some(HeaderMatchSpecifier::StringMatch(string(safe))));
    matches.runtime_fraction = runtime(1, 2);
    host.routes.push(pb::Route {
        r#match: Some(pb::RouteMatch { path_specifier: Some(template("/a/{b}/**")), ..Default::default() }),
        action: Some(pb::route::Action::Route(actions::everything())),
        ..Default::default()
    });
    table.encode_to_vec()
}

/// A table with clusters of these weights.
pub(super) fn weighted(weights: &[Option<u32>]) -> Vec<u8> {
    let clusters = weights.iter().enumerate().map(|(index, weight)| pb::weighted_cluster::ClusterWeight {
        name: format!("c{index}"),
        weight: weight.and_then(u32_value),
        ..Default::default()
    });
    let clusters = pb::WeightedCluster { clusters: clusters.collect(), ..Default::default() };
    (actions::weighted_clusters().wrap)(clusters)
}
