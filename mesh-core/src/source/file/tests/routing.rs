//! HTTPRoute and GRPCRoute, asked where requests go.

use http::{HeaderMap, HeaderName, Method};

use super::*;
use crate::model::{Action, ClusterChoice, Forward, RetryOn};
use crate::route::format::FormatFacts;
use crate::route::mutate::mutate_request;
use crate::route::redirect::location;
use crate::route::rewrite::rewrite_path;
use crate::route::{Decision, RequestFacts, RouteIndex};

/// The routes of `echo`, with `rules` in one HTTPRoute.
fn echo(rules: &str) -> Echo {
    let route = "{kind: HTTPRoute, metadata: {name: r}, spec: {parentRefs: [{kind: Service, name: echo}], rules: ";
    Echo::of(&format!("{SERVICES}{route}{rules}}}}}"))
}

struct Echo(RouteIndex);

impl Echo {
    fn of(yaml: &str) -> Self {
        Self(RouteIndex::new(table(yaml, "echo.default.svc.cluster.local:80")))
    }

    /// `GET /path name:value name:value`.
    fn decide(&self, request: &str) -> Option<Decision> {
        let (method, rest) = request.split_once(' ').unwrap();
        let (path, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut headers = HeaderMap::new();
        for (name, value) in rest.split_whitespace().map(|pair| pair.split_once(':').unwrap()) {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let method: Method = method.parse().unwrap();
        self.0.decide("echo", &facts(&method, path, &headers), 0).ok()
    }

    /// Where `request` goes: the Service's name, a status, or `404`.
    fn ask(&self, request: &str) -> String {
        let Some(decision) = self.decide(request) else { return "404".to_owned() };
        match &decision.route.action {
            Action::Direct(direct) => direct.status.as_u16().to_string(),
            _ => decision.cluster.unwrap().name.split(['|', '.']).nth(3).unwrap().to_owned(),
        }
    }

    fn location(&self, path: &str) -> (u16, String) {
        let decision = self.decide(&format!("GET {path}")).unwrap();
        let Action::Redirect(redirect) = &decision.route.action else { panic!("{decision:?}") };
        let headers = HeaderMap::new();
        let text = location(redirect, &decision.route.matches, &facts(&Method::GET, path, &headers));
        (redirect.status.as_u16(), String::from_utf8(text).unwrap())
    }

    fn rewritten(&self, path: &str) -> String {
        let decision = self.decide(&format!("GET {path}")).unwrap();
        let rewrite = forward(&decision).path_rewrite.clone().unwrap();
        rewrite_path(&rewrite, &decision.route.matches, path).unwrap().expect("something is left").to_string()
    }
}

fn facts<'a>(method: &'a Method, path: &'a str, headers: &'a HeaderMap) -> RequestFacts<'a> {
    RequestFacts {
        method,
        scheme: "http",
        authority: "echo",
        path,
        headers,
        is_grpc: false,
        tls: None,
        source_ip: None,
        is_internal: false,
        channel_id: 1,
        metadata: None,
    }
}

fn forward(decision: &Decision) -> &Forward {
    let Action::Forward(forward) = &decision.route.action else { panic!("{decision:?}") };
    forward
}

fn all(echo: &Echo, cases: &[(&str, &str)]) {
    for (request, expected) in cases {
        assert_eq!(echo.ask(request), *expected, "{request}");
    }
}

#[test]
fn a_service_without_routes_is_its_own_backend_without_a_timeout() {
    let echo = Echo::of(SERVICES);
    assert_eq!(echo.ask("GET /any"), "echo");
    let decision = echo.decide("GET /").unwrap();
    assert_eq!(forward(&decision).timeout, Some(std::time::Duration::ZERO));
}

#[test]
fn traffic_is_split_by_exact_path_and_the_rest_is_not_found() {
    let echo = echo(
        "[{matches: [{path: {type: Exact, value: /v1}}], backendRefs: [{name: v1, port: 80}]},
          {matches: [{path: {type: Exact, value: /v2}}], backendRefs: [{name: v2, port: 80}]}]",
    );
    all(&echo, &[("GET /v1", "v1"), ("GET /v2", "v2"), ("GET /v2/", "404"), ("GET /", "404")]);
}

#[test]
fn paths_match_by_elements_and_header_matches_stand_beside_them() {
    let echo = echo(
        "[{matches: [{path: {value: /}, headers: [{name: Version, value: one}]}], backendRefs: [{name: v1, port: 80}]},
          {matches: [{path: {value: /v2}}, {headers: [{name: version, value: two}]}],
           backendRefs: [{name: v2, port: 80}]},
          {backendRefs: [{name: echo, port: 80}]}]",
    );
    all(
        &echo,
        &[
            ("GET / version:one", "v1"),
            ("GET /v2", "v2"),
            ("GET /v2/example", "v2"),
            ("GET /v2example", "echo"),
            ("GET / version:two", "v2"),
            ("GET /v2 version:one", "v2"),
            ("GET /foo/v2", "echo"),
        ],
    );
}

#[test]
fn query_parameters_match_together_with_the_rest() {
    let echo = echo(
        "[{matches: [{queryParams: [{name: animal, value: whale}]}], backendRefs: [{name: v1, port: 80}]},
          {matches: [{queryParams: [{name: animal, value: dolphin}, {name: color, value: blue}]},
                     {path: {value: /p}, queryParams: [{name: animal, type: RegularExpression, value: 'd.*'}],
                      headers: [{name: version, value: one}]}], backendRefs: [{name: v2, port: 80}]}]",
    );
    all(
        &echo,
        &[
            ("GET /?animal=whale", "v1"),
            ("GET /?animal=dolphin&color=blue", "v2"),
            ("GET /?animal=dolphin", "404"),
            ("GET /p?animal=dog version:one", "v2"),
            ("GET /p?animal=dog", "404"),
            ("GET /", "404"),
        ],
    );
}

#[test]
fn precedence_is_by_match_and_not_by_the_order_in_the_file() {
    // From the weakest to the strongest, so that the order in the file is wrong everywhere.
    let matches = [
        ("/a/b?x=1", "{}"),
        ("/a/b?x=1", "{queryParams: [{name: x, value: '1'}]}"),
        ("/a/b?x=1", "{headers: [{name: h, value: '1'}]}"),
        ("/a/b?x=1", "{headers: [{name: h, value: '1'}], queryParams: [{name: x, value: '1'}]}"),
        ("/a/b?x=1", "{headers: [{name: h, value: '1'}, {name: i, value: '1'}]}"),
        ("/a/b?x=1", "{method: GET}"),
        ("/a/b?x=1", "{path: {value: /a}}"),
        ("/a/b?x=1", "{path: {value: /a}, method: GET}"),
        ("/a/b?x=1", "{path: {value: /a/b}}"),
        ("/a/b?x=1", "{path: {type: RegularExpression, value: '/./.'}}"),
        ("/a/b?x=1", "{path: {type: Exact, value: /a/b}}"),
    ];
    for (index, (path, stronger)) in matches.iter().enumerate() {
        for (_, weaker) in &matches[..index] {
            let echo = echo(&format!(
                "[{{matches: [{weaker}], backendRefs: [{{name: v1, port: 80}}]}},
                  {{matches: [{stronger}], backendRefs: [{{name: v2, port: 80}}]}}]"
            ));
            assert_eq!(echo.ask(&format!("GET {path} h:1 i:1")), "v2", "{stronger} against {weaker}");
        }
    }
}

#[test]
fn among_equals_the_oldest_route_then_the_first_name_then_the_first_rule_wins() {
    let route = |name: &str, created: &str, backend: &str| {
        format!(
            "---\n{{kind: HTTPRoute, metadata: {{name: {name}{created}}}, spec: {{parentRefs: [{{kind: Service, name: echo}}],
             rules: [{{backendRefs: [{{name: {backend}, port: 80}}]}}, {{backendRefs: [{{name: echo, port: 80}}]}}]}}}}\n"
        )
    };
    let old = ", creationTimestamp: '2024-01-01T00:00:00Z'";
    let new = ", creationTimestamp: '2025-01-01T00:00:00Z'";
    for (first, second) in [
        (route("a", "", "v1"), route("b", "", "v2")),
        (route("z", old, "v1"), route("a", new, "v2")),
        (route("z", old, "v1"), route("a", "", "v2")),
    ] {
        for yaml in [format!("{SERVICES}{first}{second}"), format!("{SERVICES}{second}{first}")] {
            assert_eq!(Echo::of(&yaml.replace("---\n---", "---")).ask("GET /"), "v1", "{yaml}");
        }
    }
}

#[test]
fn weights_are_kept_and_a_backend_that_is_missing_answers_500() {
    let echo = echo(
        "[{matches: [{path: {value: /split}}], backendRefs: [{name: v1, port: 80, weight: 70}, {name: v2, port: 80, weight: 30}]},
          {matches: [{path: {value: /part}}], backendRefs: [{name: v1, port: 80}, {name: gone, port: 80}]},
          {matches: [{path: {value: /gone}}], backendRefs: [{name: gone, port: 80}]},
          {matches: [{path: {value: /port}}], backendRefs: [{name: v1, port: 81}]},
          {matches: [{path: {value: /zero}}], backendRefs: [{name: v1, port: 80, weight: 0}]},
          {matches: [{path: {value: /none}}]}]",
    );
    all(&echo, &[("GET /gone", "500"), ("GET /port", "500"), ("GET /zero", "500"), ("GET /none", "500")]);
    let weights = |path: &str| {
        let decision = echo.decide(path).unwrap();
        let forward = forward(&decision);
        let ClusterChoice::Weighted(clusters) = &forward.cluster else { panic!("{forward:?}") };
        let weights = clusters.clusters.iter().map(|cluster| cluster.weight).collect::<Vec<_>>();
        (weights, forward.cluster_not_found.as_u16())
    };
    assert_eq!(weights("GET /split"), (vec![70, 30], 500));
    assert_eq!(weights("GET /part"), (vec![1, 1], 500));
}

#[test]
fn headers_are_set_added_and_removed_at_the_route_and_at_the_backend() {
    let filter = "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {
        set: [{name: X-Set, value: '50%'}], add: [{name: X-Add, value: more}], remove: [X-Remove]}}]";
    let of_rule = echo(&format!("[{{{filter}, backendRefs: [{{name: v1, port: 80}}]}}]"));
    let of_backend = echo(&format!("[{{backendRefs: [{{name: v1, port: 80, {filter}}}]}}]"));
    for echo in [of_rule, of_backend] {
        let decision = echo.decide("GET /").unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-set", "old"), ("x-add", "one"), ("x-remove", "x"), ("other", "kept")] {
            headers.insert(name, value.parse().unwrap());
        }
        let before = headers.clone();
        let request = facts(&Method::GET, "/", &before);
        let facts = FormatFacts {
            request,
            version: http::Version::HTTP_2,
            remote: None,
            local: None,
            peer: None,
            status: None,
        };
        for level in decision.mutations(echo.0.table()) {
            mutate_request(level, &mut headers, &facts);
        }
        let all = |name: &str| headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("x-set"), all("x-add")), (vec!["50%"], vec!["one", "more"]));
        assert_eq!((all("x-remove"), all("other")), (vec![], vec!["kept"]));
    }
}

#[test]
fn response_headers_and_mirrors_are_kept() {
    let echo = echo(
        "[{filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x, value: y}]}},
                     {type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 80}, percent: 25}},
                     {type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 80}}}],
           backendRefs: [{name: v1, port: 80}]}]",
    );
    let decision = echo.decide("GET /").unwrap();
    assert_eq!(decision.route.headers.response_append.len(), 1);
    let mirrors = &forward(&decision).mirrors;
    assert_eq!((mirrors.len(), mirrors[0].fraction.numerator), (1, 25));
}

#[test]
fn redirects_say_where_to() {
    for (redirect, path, status, expected) in [
        ("{hostname: example.org}", "/a?b", 302, "http://example.org/a?b"),
        ("{hostname: example.org, statusCode: 301}", "/", 301, "http://example.org/"),
        ("{scheme: https, hostname: example.org}", "/", 302, "https://example.org/"),
        ("{scheme: https, statusCode: 308}", "/", 308, "https://echo:443/"),
        ("{port: 8083, statusCode: 307}", "/a", 307, "http://echo:8083/a"),
        ("{port: 80, hostname: example.org, statusCode: 303}", "/a", 303, "http://example.org/a"),
        ("{path: {type: ReplaceFullPath, replaceFullPath: /full}}", "/p/x", 302, "http://echo/full"),
        ("{path: {type: ReplacePrefixMatch, replacePrefixMatch: /q}}", "/p/x", 302, "http://echo/q/x"),
        ("{path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}", "/p/x", 302, "http://echo/x"),
    ] {
        let path_match = if path.starts_with("/p") { "/p" } else { "/" };
        let echo = echo(&format!(
            "[{{matches: [{{path: {{value: {path_match}}}}}], filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]}}]"
        ));
        assert_eq!(echo.location(path), (status, expected.to_owned()), "{redirect}");
    }
}

/// The table in the Gateway API's text of `ReplacePrefixMatch`.
#[test]
fn prefixes_are_replaced_as_the_gateway_api_shows() {
    for (path, prefix, replacement, expected) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo.x/bar", "/foo.x", "/", "/bar"),
        ("/bar?q", "/", "/xyz", "/xyz/bar?q"),
    ] {
        let echo = echo(&format!(
            "[{{matches: [{{path: {{value: {prefix}}}}}], backendRefs: [{{name: v1, port: 80}}], filters: [{{type: URLRewrite,
              urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: '{replacement}'}}}}}}]}}]"
        ));
        assert_eq!(echo.rewritten(path), expected, "{path}: {prefix} -> {replacement}");
    }
}

#[test]
fn a_whole_path_and_a_host_can_be_replaced() {
    let echo = echo(
        "[{backendRefs: [{name: v1, port: 80}], filters: [{type: URLRewrite, urlRewrite: {
          hostname: other.example, path: {type: ReplaceFullPath, replaceFullPath: /one}}}]}]",
    );
    assert_eq!(echo.rewritten("/a/b?c=d"), "/one?c=d");
    assert!(forward(&echo.decide("GET /").unwrap()).host_rewrite.is_some());
}

#[test]
fn timeouts_and_retries_mean_what_the_api_says() {
    use std::time::Duration;
    let echo = echo(
        "[{matches: [{path: {value: /total}}], timeouts: {request: 2s}, backendRefs: [{name: v1, port: 80}]},
          {matches: [{path: {value: /try}}], timeouts: {request: 2s, backendRequest: 500ms}, backendRefs: [{name: v1, port: 80}]},
          {matches: [{path: {value: /off}}], timeouts: {request: 0s}, backendRefs: [{name: v1, port: 80}]},
          {matches: [{path: {value: /retry}}], timeouts: {request: 2s, backendRequest: 500ms},
           retry: {codes: [503, 429], attempts: 4, backoff: 20ms}, backendRefs: [{name: v1, port: 80}]}]",
    );
    let millis = |path: &str| forward(&echo.decide(&format!("GET {path}")).unwrap()).timeout.unwrap().as_millis();
    assert_eq!(["/total", "/try", "/off", "/retry"].map(millis), [2_000, 500, 0, 2_000]);
    let decision = echo.decide("GET /retry").unwrap();
    let retry = forward(&decision).retry.clone().unwrap();
    assert_eq!((retry.num_retries, retry.per_try_timeout), (4, Some(Duration::from_millis(500))));
    assert_eq!(retry.status_codes.iter().map(http::StatusCode::as_u16).collect::<Vec<_>>(), [503, 429]);
    assert!(retry.avoid_previous_hosts);
    assert!(retry.on.intersects(RetryOn::RESET), "the API asks for it");
    assert!(forward(&echo.decide("GET /total").unwrap()).retry.is_none());
}

#[test]
fn grpc_methods_match_and_the_longest_service_goes_first() {
    let route = |rules: &str| {
        Echo::of(&format!(
            "{SERVICES}{{kind: GRPCRoute, metadata: {{name: r}}, spec: {{parentRefs: [{{kind: Service, name: echo, port: 80}}],
             rules: {rules}}}}}"
        ))
    };
    let echo = route(
        "[{matches: [{method: {method: Say}}], backendRefs: [{name: echo, port: 80}]},
          {matches: [{method: {service: a.Greeter}}, {headers: [{name: version, value: one}]}],
           backendRefs: [{name: v1, port: 80}]},
          {matches: [{method: {service: a.Greeter, method: Say}},
                     {method: {type: RegularExpression, service: 'b\\..*', method: 'S.y'}}],
           backendRefs: [{name: v2, port: 80}]}]",
    );
    all(
        &echo,
        &[
            ("POST /a.Greeter/Say", "v2"),
            ("POST /a.Greeter/Other", "v1"),
            ("POST /a.GreeterX/Other", "404"),
            ("POST /x.Y/Say", "echo"),
            ("POST /x.Y/SayMore", "404"),
            ("POST /x.Y/Other version:one", "v1"),
            ("POST /b.C/Sxy", "v2"),
            ("POST /b.C/Sxxy", "404"),
        ],
    );
}

#[test]
fn a_route_is_for_the_port_it_names_or_for_all() {
    let services =
        SERVICES.replacen("[{name: http, port: 80}]", "[{name: http, port: 80}, {name: alt, port: 8080}]", 1);
    for (parent, expected) in
        [("", ["v1", "v1"]), (", port: 80", ["v1", "echo"]), (", sectionName: alt", ["echo", "v1"])]
    {
        let yaml = format!(
            "{services}{{kind: HTTPRoute, metadata: {{name: r}}, spec: {{parentRefs: [{{kind: Service, name: echo{parent}}}],
             rules: [{{name: named, backendRefs: [{{name: v1, port: 80}}]}}]}}}}"
        );
        let asked = ["80", "8080"].map(|port| {
            Echo(RouteIndex::new(table(&yaml, &format!("echo.default.svc.cluster.local:{port}")))).ask("GET /")
        });
        assert_eq!(asked, expected, "{parent}");
    }
}
