//! Rewrites, redirects and header mutations. What comes out is recorded behaviour of Envoy 1.40.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

use super::*;
use crate::model::matcher::UriTemplate;
use crate::model::{
    AppendAction, ByteRegex, HeaderAppend, HeaderStep, HostRewrite, PathRewrite, Pattern, Redirect, RegexRewrite,
    StringMatch, WeightedCluster, WeightedClusters,
};
use crate::route::format::{BadFormat, FormatFacts, check, expand};
use crate::route::mutate::{append_to_list, mutate_in_steps, mutate_request, mutate_response};
use crate::route::redirect::location;
use crate::route::rewrite::{rewrite_authority, rewrite_path};
use crate::route::{Decision, RouteIndex};

fn regex_rewrite(pattern: &str, substitution: &str) -> RegexRewrite {
    RegexRewrite { pattern: ByteRegex::new(pattern).unwrap(), substitution: substitution.into() }
}

#[test]
fn prefixes_are_replaced_by_what_they_matched() {
    use PathMatch::{Exact, Prefix, Regex, SeparatedPrefix};
    let to = |text: &str| PathRewrite::Prefix(text.into());
    let cases = [
        (Prefix("/api".into()), "/v1", "/api", "/v1"),
        (Prefix("/api".into()), "/v1", "/api/x", "/v1/x"),
        (Prefix("/api".into()), "/v1", "/api?q=1", "/v1?q=1"),
        (Prefix("/api".into()), "/v1", "/API/x", "/v1/x"),
        (Prefix("/api".into()), "/v1", "/api/%2e%2e/x", "/v1/%2e%2e/x"),
        (Prefix("/api/".into()), "/v1", "/api/x", "/v1x"),
        (Prefix("/api".into()), "/", "/api", "/"),
        (Prefix("/api".into()), "/", "/api/x", "//x"),
        (SeparatedPrefix("/api".into()), "/v1", "/api/x", "/v1/x"),
        (Exact("/api".into()), "/v1", "/api?q=1", "/v1?q=1"),
        (Regex(ByteRegex::new("/api.*").unwrap()), "/v1", "/api/x?q=1", "/v1?q=1"),
    ];
    for (path, rewrite, from, expected) in cases {
        let rewritten = rewrite_path(&to(rewrite), &at(path.clone()), from).unwrap().unwrap();
        assert_eq!(rewritten.as_str(), expected, "{path:?} -> {rewrite} on {from}");
    }
}

#[test]
fn expressions_replace_every_match_in_the_path_alone() {
    let cases = [
        (r"^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api", "/v1/api/instance/foo"),
        ("a", "b", "/service/foo/v1/api?a=a", "/service/foo/v1/bpi?a=a"),
        ("x+", r"[\0]", "/drop/xx/x", "/drop/[xx]/[x]"),
        ("^/a/(.*)", r"/z/\1", "/aaa/a?a=1", "/aaa/a?a=1"),
        ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"),
        ("/a", r"/\\", "/a", r"/\"),
        ("/(a)|b", r"/\1\2", "/a", "/a"),
        ("/drop", "?x", "/drop", "/?x"),
    ];
    for (pattern, substitution, from, expected) in cases {
        let rewrite = PathRewrite::Regex(regex_rewrite(pattern, substitution));
        let rewritten = rewrite_path(&rewrite, &any_path(), from);
        assert_eq!(rewritten.unwrap().unwrap().as_str(), expected, "{pattern} -> {substitution} on {from}");
    }
    let bad = PathRewrite::Regex(regex_rewrite("/", "x y"));
    assert_eq!(rewrite_path(&bad, &any_path(), "/").unwrap_err().what, "path");
    let nothing = PathRewrite::Regex(regex_rewrite("/drop", ""));
    assert_eq!(rewrite_path(&nothing, &any_path(), "/drop?q"), Ok(None));
}

#[test]
fn templates_and_whole_paths_keep_the_query() {
    let from = UriTemplate { text: String::new(), regex: ByteRegex::new("/m/(?<x>[^/]+)/(?<y>.*)").unwrap() };
    let swap = PathRewrite::Template { from, to: "/{y}/at/{x}".into() };
    assert_eq!(rewrite_path(&swap, &any_path(), "/m/1/2/3?z=1").unwrap().unwrap(), "/2/3/at/1?z=1");
    let whole = PathRewrite::Full("/new".into());
    assert_eq!(rewrite_path(&whole, &any_path(), "/old?q=1").unwrap().unwrap(), "/new?q=1");
    let query = PathRewrite::Full("/new?z=1".into());
    assert_eq!(rewrite_path(&query, &any_path(), "/old?q=1").unwrap().unwrap(), "/new?z=1?q=1");
}

fn weighted_cluster(host_rewrite: Option<&str>, headers: HeaderMutations) -> WeightedCluster {
    WeightedCluster {
        header: None,
        name: "a".into(),
        weight: 1,
        headers,
        overrides: FilterOverrides::default(),
        metadata_match: None,
        host_rewrite: host_rewrite.map(str::to_owned),
    }
}

#[test]
fn authorities_are_rewritten() {
    let request = Request::get("/abc/def?x=/y/z").with("x-host", "h.test").with("x-bad", "a b");
    let header = |name| Some(HostRewrite::Header(HeaderName::from_static(name)));
    let path = Some(HostRewrite::PathRegex(regex_rewrite("^/(.+)/.+$", r"\1.test")));
    let format = |text| Some(HostRewrite::Format(HeaderValue::from_static(text)));
    let cases = [
        (None, None, "", Ok(None)),
        (Some(HostRewrite::Literal("new.test".into())), None, "", Ok(Some("new.test"))),
        (header("x-host"), None, "", Ok(Some("h.test"))),
        (header("x-none"), None, "", Ok(None)),
        (header("x-bad"), None, "", Err(())),
        (path, None, "", Ok(Some("abc.test"))),
        (format("%REQ(x-host)%.fmt"), None, "", Ok(Some("h.test.fmt"))),
        (format("%REQ(x-none)%.fmt"), None, "", Ok(Some("-.fmt"))),
        (Some(HostRewrite::Auto), None, "", Ok(None)),
        (Some(HostRewrite::Auto), None, "ep.test", Ok(Some("ep.test"))),
        (Some(HostRewrite::Literal("new.test".into())), Some("wc.test"), "", Ok(Some("wc.test"))),
    ];
    for (host_rewrite, of_weighted, hostname, expected) in cases {
        let forward = Forward { host_rewrite: host_rewrite.clone(), ..forward(ClusterChoice::Cluster("a".into())) };
        let weighted = weighted_cluster(of_weighted, HeaderMutations::default());
        let got = rewrite_authority(&forward, Some(&weighted), &facts(&request), hostname);
        let got = got.as_ref().map(|some| some.as_ref().map(http::uri::Authority::as_str)).map_err(|_| ());
        assert_eq!(got, expected, "{host_rewrite:?}");
    }
}

#[test]
fn redirects_point_where_envoy_points() {
    let none = Redirect {
        scheme: None,
        host: None,
        port: None,
        path: None,
        status: StatusCode::MOVED_PERMANENTLY,
        strip_query: false,
    };
    let https = || Redirect { scheme: Some("https".into()), ..none.clone() };
    let to_path = |path: &str| Redirect { path: Some(PathRewrite::Full(path.into())), ..none.clone() };
    let plain = ("svc.test", "/api/x?q=1");
    let port = ("svc.test:80", "/api");
    let v6 = ("[::1]:8080", "/api");
    let host = Redirect { host: Some("new.test".into()), ..none.clone() };
    let to_port = |redirect, port| Redirect { port: Some(port), ..redirect };
    let prefix = |to: &str| Redirect { path: Some(PathRewrite::Prefix(to.into())), ..none.clone() };
    let cases = [
        (none.clone(), plain, "http://svc.test/api/x?q=1"),
        (none.clone(), port, "http://svc.test:80/api"),
        (host.clone(), plain, "http://new.test/api/x?q=1"),
        (host, v6, "http://new.test/api"),
        (https(), plain, "https://svc.test/api/x?q=1"),
        (https(), port, "https://svc.test/api"),
        (https(), v6, "https://[::1]:8080/api"),
        (Redirect { scheme: Some("ftp".into()), ..none.clone() }, port, "ftp://svc.test/api"),
        (to_port(none.clone(), 8443), port, "http://svc.test:8443/api"),
        (to_port(none.clone(), 8443), v6, "http://[::1]:8443/api"),
        (to_port(https(), 443), v6, "https://[::1]:443/api"),
        (to_path("/new"), port, "http://svc.test:80/new"),
        (to_path("/new"), plain, "http://svc.test/new?q=1"),
        (to_path("/new?z=1"), plain, "http://svc.test/new?z=1"),
        (Redirect { strip_query: true, ..to_path("/new?z=1") }, plain, "http://svc.test/new?z=1"),
        (Redirect { strip_query: true, ..https() }, plain, "https://svc.test/api/x"),
        (prefix("/v2"), plain, "http://svc.test/v2/x?q=1"),
        (prefix("/"), plain, "http://svc.test//x?q=1"),
        (
            Redirect { path: Some(PathRewrite::Regex(regex_rewrite("^/api/(.*)$", r"/r/\1"))), ..none.clone() },
            plain,
            "http://svc.test/r/x?q=1",
        ),
        // Never a longer host.
        (to_path("new"), plain, "http://svc.test/new?q=1"),
        (to_path("@evil.test"), plain, "http://svc.test/@evil.test?q=1"),
        (to_path(".evil.test?z=1"), plain, "http://svc.test/.evil.test?z=1"),
        (to_path("?z=1"), plain, "http://svc.test/?z=1"),
        (prefix("v2"), port, "http://svc.test:80/v2"),
        (Redirect { strip_query: true, ..prefix("v2") }, plain, "http://svc.test/v2/x"),
        (
            Redirect { path: Some(PathRewrite::Regex(regex_rewrite("^/api.*$", ""))), ..none.clone() },
            plain,
            "http://svc.test/api/x?q=1",
        ),
    ];
    for (redirect, (authority, path), expected) in cases {
        let request = Request { authority: authority.into(), ..Request::get(path) };
        let got = location(&redirect, &at(PathMatch::Prefix("/api".into())), &request.facts());
        assert_eq!(String::from_utf8(got).unwrap(), expected, "{redirect:?} on {authority}{path}");
    }
}

fn add(name: &'static str, value: &'static str, action: AppendAction) -> HeaderAppend {
    let name = HeaderName::from_static(name);
    HeaderAppend { name, value: HeaderValue::from_static(value), action, keep_empty: false }
}

fn facts(request: &Request) -> FormatFacts<'_> {
    FormatFacts {
        request: request.facts(),
        version: Version::HTTP_11,
        remote: Some(([127, 0, 0, 1], 4567).into()),
        local: None,
        peer: None,
        status: None,
    }
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).into_iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

#[test]
fn each_append_action_does_what_it_does_in_envoy() {
    use AppendAction::{AddIfAbsent, AppendOrAdd, OverwriteIfExists, OverwriteOrAdd};
    let cases: [(AppendAction, &[&str], &[&str]); 4] = [
        (AppendOrAdd, &["new"], &["in1", "in2", "new"]),
        (AddIfAbsent, &["new"], &["in1", "in2"]),
        (OverwriteOrAdd, &["new"], &["new"]),
        (OverwriteIfExists, &[], &["new"]),
    ];
    for (action, on_none, on_two) in cases {
        let entries = vec![add("x-a", "new", action)];
        let request = HeaderMutations { request_append: entries.clone(), ..HeaderMutations::default() };
        let response = HeaderMutations { response_append: entries, ..HeaderMutations::default() };
        let none = Request::get("/");
        let two = Request::get("/").with("x-a", "in1").with("x-a", "in2");
        for (start, expected) in [(&none, on_none), (&two, on_two)] {
            let mut headers = start.headers.clone();
            mutate_request(&request, &mut headers, &facts(start));
            assert_eq!(values(&headers, "x-a"), expected, "request, {action:?}");
            let mut headers = start.headers.clone();
            mutate_response(&response, &mut headers, &facts(start));
            assert_eq!(values(&headers, "x-a"), expected, "response, {action:?}");
        }
    }
}

#[test]
fn headers_are_removed_before_others_are_added() {
    let level = HeaderMutations {
        request_remove: vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-b")],
        request_append: vec![
            add("x-a", "new", AppendAction::AddIfAbsent),
            add("x-a", "second", AppendAction::AddIfAbsent),
            add("x-empty", "", AppendAction::AppendOrAdd),
            HeaderAppend { keep_empty: true, ..add("x-kept", "", AppendAction::AppendOrAdd) },
        ],
        ..HeaderMutations::default()
    };
    let request = Request::get("/").with("x-a", "1").with("x-b", "2").with("x-c", "3").with("x-a", "4");
    let mut headers = request.headers.clone();
    mutate_request(&level, &mut headers, &facts(&request));
    assert_eq!(values(&headers, "x-a"), ["new", "second"], "neither sees the other");
    assert_eq!(values(&headers, "x-b"), Vec::<String>::new());
    assert_eq!(values(&headers, "x-c"), ["3"]);
    assert!(!headers.contains_key("x-empty"));
    assert_eq!(values(&headers, "x-kept"), [""]);
}

fn leveled(action: AppendAction, most_specific_wins: bool) -> (RouteIndex, Decision) {
    let level =
        |value| HeaderMutations { request_append: vec![add("x-l", value, action)], ..HeaderMutations::default() };
    let weighted = WeightedClusters {
        clusters: vec![weighted_cluster(None, level("cluster"))],
        total: 1,
        random_header: None,
        use_hash: false,
    };
    let action = Action::Forward(Box::new(forward(ClusterChoice::Weighted(Arc::new(weighted)))));
    let mut route = Arc::unwrap_or_clone(route("r", any_path(), action));
    route.headers = level("route");
    let mut host = Arc::unwrap_or_clone(host("v", &["*"], vec![Arc::new(route)]));
    host.headers = level("vhost");
    let table = RouteTable {
        headers: level("config"),
        most_specific_mutations_win: most_specific_wins,
        ..table(vec![Arc::new(host)])
    };
    let index = RouteIndex::new(Arc::new(table));
    let decision = index.decide("x", &Request::get("/").facts(), 0).unwrap();
    (index, decision)
}

#[test]
fn levels_apply_from_the_most_specific_or_to_it() {
    use AppendAction::{AddIfAbsent, AppendOrAdd, OverwriteOrAdd};
    let cases: [(AppendAction, bool, &[&str]); 6] = [
        (AppendOrAdd, false, &["cluster", "route", "vhost", "config"]),
        (AppendOrAdd, true, &["config", "vhost", "route", "cluster"]),
        (OverwriteOrAdd, false, &["config"]),
        (OverwriteOrAdd, true, &["cluster"]),
        (AddIfAbsent, false, &["cluster"]),
        (AddIfAbsent, true, &["config"]),
    ];
    for (action, most_specific_wins, expected) in cases {
        let (index, decision) = leveled(action, most_specific_wins);
        let request = Request::get("/");
        let mut headers = HeaderMap::new();
        for level in decision.mutations(index.table()) {
            mutate_request(level, &mut headers, &facts(&request));
        }
        assert_eq!(values(&headers, "x-l"), expected, "{action:?}, most specific wins: {most_specific_wins}");
    }
}

#[test]
fn formats_are_filled_in() {
    let request = Request::get("/p?q=7").with("x-in", "hello");
    let response = Request::get("/").with("x-b", "bee").headers;
    let out = facts(&request);
    let back = FormatFacts { status: Some(StatusCode::OK), ..out };
    let cases = [
        ("plain", "plain"),
        ("%REQ(x-none)%", ""),
        ("%REQ(x-in):2%", "he"),
        ("%REQ(X-In)%", "hello"),
        ("%REQ(x-none?x-in)%", "hello"),
        ("%REQ(:method)%", "GET"),
        ("%REQ(:path)%", "/p?q=7"),
        ("%PROTOCOL%", "HTTP/1.1"),
        ("a%REQ(x-in)%b%REQ(x-none)%c", "ahellobc"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "127.0.0.1"),
        ("%DOWNSTREAM_REMOTE_ADDRESS%", "127.0.0.1:4567"),
        ("%QUERY_PARAM(q)%", "7"),
        ("100%%", "100%"),
    ];
    for (format, expected) in cases {
        let value = HeaderValue::from_static(format);
        assert_eq!(check(&value), Ok(()), "{format}");
        assert_eq!(expand(&value, &request.headers, &out).unwrap(), expected, "{format}");
    }
    for (format, expected) in
        [("%RESPONSE_CODE%", "200"), ("%RESP(x-b)%", "bee"), ("%RESP(x-none)%", ""), ("%REQ(x-in)%", "hello")]
    {
        assert_eq!(expand(&HeaderValue::from_static(format), &response, &back).unwrap(), expected, "{format}");
    }
}

/// What Envoy 1.40 makes of them.
#[test]
fn query_parameters_in_formats_are_decoded() {
    for (path, format, expected) in [
        ("/?%71=1", "%QUERY_PARAM(q)%", "1"),
        ("/?q=a%20b", "%QUERY_PARAM(q)%", "a b"),
        ("/?q=a+b", "%QUERY_PARAM(q)%", "a+b"),
        ("/?q=%41%zz%2", "%QUERY_PARAM(q)%", "A%zz%2"),
        ("/?q=%41%42%43", "%QUERY_PARAM(q):2%", "AB"),
        ("/?a%20b=1", "%QUERY_PARAM(a b)%", "1"),
        ("/?x=1&q=2&q=3", "%QUERY_PARAM(q)%", "2"),
    ] {
        let request = Request::get(path);
        let made = expand(&HeaderValue::from_static(format), &request.headers, &facts(&request));
        assert_eq!(made.as_ref().map(HeaderValue::as_bytes), Some(expected.as_bytes()), "{format} of {path}");
    }
    // What would end the header's line makes no header.
    let request = Request::get("/?q=%0ax");
    assert_eq!(expand(&HeaderValue::from_static("%QUERY_PARAM(q)%"), &request.headers, &facts(&request)), None);
}

#[test]
fn formats_we_do_not_know_are_named() {
    for (format, expected) in [
        ("%START_TIME%", BadFormat::Unknown("START_TIME".into())),
        ("%REQ%", BadFormat::Misused("REQ".into())),
        ("%REQ()%", BadFormat::Misused("REQ".into())),
        ("%PROTOCOL:3%", BadFormat::Misused("PROTOCOL".into())),
        ("%PROTOCOL(x)%", BadFormat::Misused("PROTOCOL".into())),
        ("50%", BadFormat::Broken),
        ("%REQ(x%", BadFormat::Broken),
        ("%REQ(x):a%", BadFormat::Broken),
        ("%()%", BadFormat::Broken),
    ] {
        assert_eq!(check(&HeaderValue::from_static(format)), Err(expected), "{format}");
    }
}

#[test]
fn forwarded_hosts_are_a_list_in_one_value() {
    let name = HeaderName::from_static("x-forwarded-host");
    let mut headers = HeaderMap::new();
    append_to_list(&mut headers, name.clone(), &HeaderValue::from_static("a"));
    append_to_list(&mut headers, name, &HeaderValue::from_static("b:80"));
    assert_eq!(values(&headers, "x-forwarded-host"), ["a,b:80"]);
}

#[test]
fn steps_are_done_each_after_the_other() {
    let request = Request::get("/").with("x-a", "1").with("x-a", "2").with("y", "k");
    let star = StringMatch { pattern: Pattern::Prefix("x-".into()), ignore_case: false };
    let append = |name, value, action| HeaderStep::Append(add(name, value, action));
    let steps = [
        append("x-a", "%REQ(y)%", AppendAction::OverwriteOrAdd),
        append("z", "%REQ(x-a)%", AppendAction::AppendOrAdd),
        append("z", "no", AppendAction::AddIfAbsent),
        HeaderStep::Remove(HeaderName::from_static("y")),
    ];
    let mut headers = request.headers.clone();
    mutate_in_steps(&steps, &mut headers, &facts(&request));
    assert_eq!((values(&headers, "x-a"), values(&headers, "z")), (vec!["k".to_owned()], vec!["k".to_owned()]));
    assert!(!headers.contains_key("y"));
    mutate_in_steps(&[HeaderStep::RemoveMatching(star)], &mut headers, &facts(&request));
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["z"]);
}
