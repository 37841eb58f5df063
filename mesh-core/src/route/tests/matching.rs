//! Paths, headers, query parameters and the rest of a match.

use super::*;
use crate::model::matcher::{MatchName, UriTemplate};
use crate::model::{ByteRegex, Fraction, HeaderMatch, HeaderTest, Pattern, QueryMatch, QueryTest, StringMatch};
use crate::route::facts::is_grpc;
use crate::route::{Binary, Mismatch, TlsFacts};

fn regex(pattern: &str) -> ByteRegex {
    ByteRegex::new(pattern).unwrap()
}

fn string(pattern: Pattern) -> StringMatch {
    StringMatch { pattern, ignore_case: false }
}

fn exact(text: &str) -> StringMatch {
    string(Pattern::Exact(text.into()))
}

/// The paths of `hits` match, those of `misses` do not.
fn check_paths(path: &PathMatch, case_sensitive: bool, hits: &[&str], misses: &[&str]) {
    for (paths, expected) in [(hits, true), (misses, false)] {
        for text in paths {
            let request = Request::get(text);
            assert_eq!(path.is_match(&request.facts(), case_sensitive), expected, "{path:?} on {text}");
        }
    }
}

#[test]
fn paths_match_as_in_envoy() {
    let prefix = PathMatch::Prefix("/api".into());
    check_paths(&prefix, true, &["/api", "/api/", "/apix", "/api?x=1", "/api%2fv1"], &["/", "/API", "//api", "/%61pi"]);
    let exact = PathMatch::Exact("/api".into());
    check_paths(&exact, true, &["/api", "/api?x=1", "/api#f"], &["/api/", "/API", "/", "/api%3Fx=1"]);
    let separated = PathMatch::SeparatedPrefix("/api".into());
    check_paths(&separated, true, &["/api", "/api/v1", "/api/?x=1", "/api//v1", "/api?q"], &["/apix", "/api;v=1"]);
    check_paths(&PathMatch::Prefix(String::new()), true, &["/", "", "*"], &[]);
    check_paths(&PathMatch::Prefix("/".into()), true, &["/", "/x"], &["", "*"]);
}

#[test]
fn caseless_paths_match_as_in_envoy() {
    let prefix = PathMatch::Prefix("/api".into());
    check_paths(&prefix, false, &["/API", "/apI/v1", "/api%00"], &["/x/../api", "/./api"]);
    let upper = PathMatch::Prefix("/API".into());
    check_paths(&upper, false, &["/api", "/Api/V1"], &["/ap"]);
    check_paths(&PathMatch::Exact("/api".into()), false, &["/API"], &["/apix", "/api;v=1"]);
    check_paths(&PathMatch::SeparatedPrefix("/api".into()), false, &["/API", "/apI/v1"], &["/ap", "/api%2Fv1"]);
    // It says nothing about expressions.
    check_paths(&PathMatch::Regex(regex("/api")), false, &["/api"], &["/API"]);
}

#[test]
fn regular_expressions_match_the_whole_path_without_its_query() {
    check_paths(&PathMatch::Regex(regex("/api(/.*)?")), true, &["/api", "/api/", "/api?x=1"], &["/", "/apix", "/API"]);
    check_paths(&PathMatch::Regex(regex("/ap")), true, &["/ap"], &["/api"]);
    check_paths(&PathMatch::Regex(regex("(?i)/api")), true, &["/API"], &["/API/"]);
    check_paths(&PathMatch::Regex(regex("/api|/api/v1")), true, &["/api", "/api/v1"], &["/api/v1/"]);
    let template = UriTemplate { text: "/u/{id}".into(), regex: regex("/u/(?<id>[^/]+)") };
    check_paths(&PathMatch::Template(template), true, &["/u/1", "/u/1?q"], &["/u/", "/u/1/2"]);
}

#[test]
fn a_connect_matcher_takes_connect_requests_only() {
    let mut request = Request::get("");
    assert!(!PathMatch::Connect.is_match(&request.facts(), true));
    request.method = Method::CONNECT;
    assert!(PathMatch::Connect.is_match(&request.facts(), true));
    assert!(!PathMatch::Prefix("/".into()).is_match(&request.facts(), true), "a CONNECT has no path");
}

/// Envoy passes over every other route where there is no path; a policy must not.
#[test]
fn a_request_without_a_path_takes_no_route_but_one_for_connect() {
    let tunnel = Request { method: Method::CONNECT, ..Request::get("") };
    for matches in [at(PathMatch::Prefix(String::new())), at(PathMatch::Regex(regex(".*")))] {
        assert!(matches.mismatch(&tunnel.facts(), 0).is_some(), "{matches:?}");
        assert!(matches.is_policy_match(&tunnel.facts()), "{matches:?}");
        assert!(matches.mismatch(&Request::get("/").facts(), 0).is_none(), "{matches:?}");
    }
    assert!(at(PathMatch::Connect).mismatch(&tunnel.facts(), 0).is_none());
}

fn header(test: HeaderTest) -> HeaderMatch {
    HeaderMatch {
        name: MatchName::Header(HeaderName::from_static("x-h")),
        test,
        invert: false,
        treat_missing_as_empty: false,
    }
}

/// Checks a header test on lists of values: (values, matches, matches inverted).
fn check_header(test: &HeaderTest, missing_is_empty: bool, cases: &[(&[&str], bool, bool)]) {
    for (values, plain, inverted) in cases {
        let request = values.iter().fold(Request::get("/"), |request, value| request.with("x-h", value));
        for (invert, expected) in [(false, plain), (true, inverted)] {
            let matcher = HeaderMatch { invert, treat_missing_as_empty: missing_is_empty, ..header(test.clone()) };
            assert_eq!(matcher.is_match(&request.facts(), Binary::Hidden), *expected, "{matcher:?} on {values:?}");
        }
    }
}

#[test]
fn header_strings_match_as_in_envoy() {
    use Pattern::{Contains, Exact, Prefix, Regex, Suffix};
    let text = |pattern| HeaderTest::String(string(pattern));
    // An absent header matches neither way; of several values any may match, and `invert` inverts that.
    check_header(
        &text(Exact("foo".into())),
        false,
        &[
            (&[], false, false),
            (&["foo"], true, false),
            (&["FOO"], false, true),
            (&[""], false, true),
            (&["bar", "foo"], true, false),
            (&["foo,bar"], false, true),
        ],
    );
    check_header(
        &text(Exact(String::new())),
        false,
        &[(&[], false, false), (&[""], true, false), (&["x"], false, true)],
    );
    check_header(&text(Prefix("foo".into())), false, &[(&["foobar"], true, false), (&["fo"], false, true)]);
    check_header(&text(Suffix("bar".into())), false, &[(&["foobar"], true, false), (&["ar"], false, true)]);
    check_header(&text(Contains("ob".into())), false, &[(&["foobar"], true, false), (&["foo", "bar"], false, true)]);
    check_header(&text(Regex(regex("fo+"))), false, &[(&["foo"], true, false), (&["foobar"], false, true)]);
    check_header(&text(Regex(regex(".*"))), false, &[(&[], false, false), (&[""], true, false)]);
}

/// gRFC A63.
#[test]
fn header_strings_can_ignore_case() {
    for pattern in [
        Pattern::Exact("FooBar".into()),
        Pattern::Prefix("FOO".into()),
        Pattern::Suffix("BAR".into()),
        Pattern::Contains("oB".into()),
    ] {
        let test = HeaderTest::String(StringMatch { pattern, ignore_case: true });
        check_header(&test, false, &[(&["fOObAR"], true, false), (&["nothing"], false, true)]);
    }
    let test = HeaderTest::String(StringMatch { pattern: Pattern::Regex(regex("foo")), ignore_case: true });
    check_header(&test, false, &[(&["FOO"], false, true)]);
}

#[test]
fn header_numbers_match_as_in_envoy() {
    check_header(
        &HeaderTest::Range { start: -10, end: 10 },
        false,
        &[
            (&[], false, false),
            (&["5"], true, false),
            (&["-10"], true, false),
            (&["10"], false, true),
            (&["-11"], false, true),
            (&["05"], true, false),
            (&["+5"], true, false),
            (&[" 5 "], true, false),
            (&["0x5"], false, true),
            (&["5a"], false, true),
            (&["5.0"], false, true),
            (&["1e0"], false, true),
            (&[""], false, true),
            (&["9223372036854775808"], false, true),
            (&["-9223372036854775808"], false, true),
            (&["x", "5"], true, false),
        ],
    );
}

#[test]
fn presence_matches_as_in_envoy() {
    check_header(&HeaderTest::Present(true), false, &[(&[], false, true), (&[""], true, false), (&["x"], true, false)]);
    check_header(&HeaderTest::Present(false), false, &[(&[], true, false), (&["x"], false, true)]);
    check_header(&HeaderTest::Present(true), true, &[(&[], true, false)]);
    check_header(&HeaderTest::Present(false), true, &[(&[], false, true)]);
}

#[test]
fn a_missing_header_can_count_as_empty() {
    check_header(&HeaderTest::String(exact("foo")), true, &[(&[], false, true), (&["foo"], true, false)]);
    check_header(&HeaderTest::String(exact("")), true, &[(&[], true, false)]);
    check_header(&HeaderTest::String(string(Pattern::Regex(regex(".+")))), true, &[(&[], false, true)]);
    check_header(&HeaderTest::Range { start: -1, end: 1 }, true, &[(&[], false, true)]);
}

/// CVE-2026-73552: what the expression sees is Latin-1.
#[test]
fn headers_are_bytes() {
    let matcher = header(HeaderTest::String(string(Pattern::Regex(regex("admin.")))));
    let one_byte = Request::get("/").with("x-h", b"admin\xff");
    let two_bytes = Request::get("/").with("x-h", b"admin\xc3\xa9");
    assert!(matcher.is_match(&one_byte.facts(), Binary::Hidden));
    assert!(!matcher.is_match(&two_bytes.facts(), Binary::Hidden));
}

#[test]
fn pseudo_headers_are_what_they_say() {
    let request = Request { authority: "one.test".into(), ..Request::get("/q?x=1") }.with("path", "/other");
    let cases = [
        (MatchName::Method, "GET", true),
        (MatchName::Method, "get", false),
        (MatchName::Authority, "one.test", true),
        (MatchName::Authority, "ONE.test", false),
        (MatchName::Path, "/q?x=1", true),
        (MatchName::Path, "/q", false),
        (MatchName::Scheme, "http", true),
        (MatchName::Header(HeaderName::from_static("path")), "/other", true),
    ];
    for (name, value, expected) in cases {
        let matcher = HeaderMatch { name, ..header(HeaderTest::String(exact(value))) };
        assert_eq!(matcher.is_match(&request.facts(), Binary::Hidden), expected, "{matcher:?}");
    }
}

fn binary_is_there() -> HeaderMatch {
    HeaderMatch { name: MatchName::Header(HeaderName::from_static("x-bin")), ..header(HeaderTest::Present(true)) }
}

/// gRFC A28.
#[test]
fn binary_headers_are_not_there_in_grpc() {
    let http = Request::get("/").with("x-bin", "AA");
    assert!(binary_is_there().is_match(&http.facts(), Binary::Hidden), "HTTP sees it");
    assert!(!binary_is_there().is_match(&http.grpc().facts(), Binary::Hidden));
}

/// gRFC A41: they are in base64, as on the wire.
#[test]
fn a41_policies_see_binary_headers_whatever_a_request_calls_itself() {
    let grpc = Request::get("/").with("x-bin", "AA==").grpc();
    let value = HeaderMatch { test: HeaderTest::String(exact("AA==")), ..binary_is_there() };
    assert!(binary_is_there().is_match(&grpc.facts(), Binary::Visible));
    assert!(value.is_match(&grpc.facts(), Binary::Visible));
    let rule = RouteMatch { headers: vec![binary_is_there()], ..any_path() };
    assert!(rule.is_policy_match(&grpc.facts()));
    assert_eq!(rule.mismatch(&grpc.facts(), 0), Some(Mismatch::Header(&rule.headers[0])), "a route does not");
}

#[test]
fn query_parameters_match_as_in_envoy() {
    let equals = QueryTest::String(exact("v"));
    let cases: &[(QueryTest, &[&str], &[&str])] = &[
        (
            equals,
            &["/?q=v", "/?a=1&q=v", "/?q=v&q=x", "/?&&q=v"],
            &["/", "/?q=V", "/?q", "/?Q=v", "/?q=x&q=v", "/?q=%76", "/?%71=v", "/?a;q=v", "/?q=v=w", "/?q+=v", "/q=v"],
        ),
        (QueryTest::String(string(Pattern::Prefix("v".into()))), &["/?q=v=w"], &["/?q=+v"]),
        (QueryTest::String(exact("")), &["/?q", "/?q="], &["/", "/?q=x"]),
        (QueryTest::Present(true), &["/?q", "/?q=", "/?q=a%26", "/?q=v#f"], &["/", "/?;q=v", "/#?q"]),
        (QueryTest::Present(false), &["/", "/?Q=v", "/?a;q=v"], &["/?q", "/?q=v"]),
    ];
    for (test, hits, misses) in cases {
        let matcher = QueryMatch { name: "q".into(), test: test.clone() };
        for (paths, expected) in [(hits, true), (misses, false)] {
            for path in *paths {
                assert_eq!(matcher.is_match(&Request::get(path).facts()), expected, "{matcher:?} on {path}");
            }
        }
    }
}

#[test]
fn only_application_grpc_is_grpc() {
    for (value, expected) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc-web", false),
        ("Application/GRPC", false),
        ("text/plain", false),
        ("application/grp", false),
    ] {
        assert_eq!(is_grpc(&Request::get("/").with("content-type", value).headers), expected, "{value}");
    }
}

#[test]
fn tls_is_matched_only_where_there_is_tls() {
    let wants = |presented, validated| RouteMatch { tls_presented: presented, tls_validated: validated, ..any_path() };
    let presented = Some(TlsFacts { presented: true, validated: false });
    let cases = [
        (wants(None, None), None, true, "nothing is asked"),
        (wants(Some(false), None), None, false, "plaintext meets no question about TLS"),
        (wants(Some(true), None), presented, true, "presented"),
        (wants(Some(false), None), presented, false, "not absent"),
        (wants(Some(true), Some(true)), presented, false, "not validated"),
        (wants(None, Some(false)), presented, true, "not validated, as asked"),
    ];
    for (matches, tls, expected, why) in cases {
        let request = Request::get("/");
        let facts = RequestFacts { tls, ..request.facts() };
        assert_eq!(matches.mismatch(&facts, 0).is_none(), expected, "{why}");
    }
}

/// gRFC A28.
#[test]
fn a_fraction_takes_its_share_and_zero_takes_none() {
    let request = Request::get("/");
    for (numerator, expected) in [(0, 0), (30, 30), (100, 100), (200, 100)] {
        let matches = RouteMatch { fraction: Some(Fraction { numerator, denominator: 100 }), ..any_path() };
        let taken = (0..100).filter(|draw| matches.mismatch(&request.facts(), *draw).is_none()).count();
        assert_eq!(taken, expected);
    }
}
