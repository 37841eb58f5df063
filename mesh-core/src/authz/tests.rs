//! What is asked, and what answers mean.

use ::http::Method;
use pb::check_response::HttpResponse;
use prost::Message as _;
use serde_json::json;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3 as pb;
use envoy_types::pb::envoy::r#type::v3::{HttpStatus, StatusCode as PbStatus};
use envoy_types::pb::google::{protobuf, rpc};

use super::*;
use crate::identity::Sans;
use crate::model::{AuthzPath, AuthzService, AuthzTransport, ExtAuthz, Fraction, HttpAuthz, Pattern, StringMatch};
use crate::route::format::FormatFacts;

fn config() -> ExtAuthz {
    ExtAuthz {
        service: AuthzService {
            cluster: "authz".into(),
            authority: ::http::uri::Authority::from_static("authz"),
            timeout: Duration::from_millis(200),
            transport: AuthzTransport::Grpc { metadata: Vec::new() },
        },
        body: None,
        failure_mode_allow: false,
        failure_mode_allow_header_add: false,
        status_on_error: StatusCode::FORBIDDEN,
        allowed_headers: None,
        disallowed_headers: Vec::new(),
        enabled: Fraction { numerator: 100, denominator: 100 },
        enabled_metadata: None,
        deny_at_disable: false,
        include_peer_certificate: false,
        include_tls_session: false,
        raw_headers: false,
        metadata_namespaces: Vec::new(),
        route_metadata_namespaces: Vec::new(),
        takes_metadata: true,
        most_denied_body: None,
    }
}

fn exact(text: &str) -> StringMatch {
    StringMatch { pattern: Pattern::Exact(text.to_owned()), ignore_case: false }
}

/// Does something with what is known of a request.
fn with_facts<T>(body: Option<&CheckBody>, path: &str, ask: impl FnOnce(&CheckFacts<'_>) -> T) -> T {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-a", &b"1"[..]),
        ("x-a", b"2"),
        ("x-b", "\u{e9}".as_bytes()),
        ("x-bin", b"a\xffb\xc3\xa9\xe2\x82"),
        ("x-request-id", b"id"),
        ("content-length", b"7"),
        ("connection", b"x-a"),
        ("authorization", b"Bearer t"),
        ("x-envoy-auth-partial-body", b"forged"),
    ] {
        headers.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    let peer = PeerIdentity::of_names(Sans { uris: vec!["spiffe://a/b".to_owned()], ..Sans::default() }, "CN=x");
    let metadata = Metadata::from([
        ("seen".to_owned(), json!({"a": [1, null, true, {"b": "c"}]})),
        ("other".to_owned(), json!({"a": 1})),
    ]);
    let request = RequestFacts {
        method: &Method::POST,
        scheme: "https",
        authority: "a.test",
        path,
        headers: &headers,
        is_grpc: false,
        tls: None,
        source_ip: None,
        is_internal: false,
        channel_id: 0,
        metadata: None,
    };
    ask(&CheckFacts {
        request,
        version: Version::HTTP_2,
        source: ([10, 0, 0, 1], 1234).into(),
        destination: ([10, 0, 0, 2], 443).into(),
        peer: Some(&peer),
        local: &["spiffe://a/us".to_owned()],
        server_name: Some("a.test"),
        time: Duration::new(5, 6),
        metadata: &metadata,
        route_metadata: &Metadata::from([("route".to_owned(), json!({"team": "red"}))]),
        context: &BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        body,
    })
}

fn asked_with(config: &ExtAuthz, body: Option<&CheckBody>) -> pb::AttributeContext {
    let question = with_facts(body, "/p?q=1", |facts| question(config, facts));
    pb::CheckRequest::decode(&question[..]).unwrap().attributes.unwrap()
}

fn asked(config: &ExtAuthz) -> pb::AttributeContext {
    asked_with(config, None)
}

#[test]
fn extauthz_a_question_says_what_is_known_of_the_request() {
    let said = asked(&ExtAuthz { include_tls_session: true, metadata_namespaces: vec!["seen".to_owned()], ..config() });
    let (source, destination) = (said.source.unwrap(), said.destination.unwrap());
    assert_eq!((&*source.principal, &*destination.principal), ("spiffe://a/b", "spiffe://a/us"));
    assert_eq!(source.certificate, "", "not unless it is asked for");
    let Some(core::address::Address::SocketAddress(address)) = source.address.unwrap().address else {
        panic!("a socket")
    };
    assert_eq!(address.address, "10.0.0.1");
    let request = said.request.unwrap();
    assert_eq!(request.time, Some(protobuf::Timestamp { seconds: 5, nanos: 6 }));
    let http = request.http.unwrap();
    assert_eq!((&*http.method, &*http.path, &*http.host, &*http.scheme), ("POST", "/p?q=1", "a.test", "https"));
    assert_eq!((&*http.id, &*http.protocol, http.size), ("id", "HTTP/2", 7));
    assert_eq!((&*http.headers["x-a"], &*http.headers["x-b"], &*http.headers[":path"]), ("1,2", "\u{e9}", "/p?q=1"));
    // CVE-2023-27488.
    assert_eq!(&*http.headers["x-bin"], "a!b\u{e9}!!", "one for each byte that is no UTF-8, as in Envoy");
    assert_eq!(said.context_extensions["k"], "v");
    assert_eq!(said.tls_session.unwrap().sni, "a.test");
    let metadata = said.metadata_context.unwrap().filter_metadata;
    let seen = metadata.into_iter().map(|(name, value)| (name, crate::decode::json_struct(value)));
    assert_eq!(seen.collect::<Vec<_>>(), [("seen".to_owned(), json!({"a": [1, null, true, {"b": "c"}]}))]);
}

#[test]
fn extauthz_headers_are_told_as_far_as_they_may_be() {
    let all = asked(&ExtAuthz { disallowed_headers: vec![exact("x-a")], ..config() });
    let headers = all.request.unwrap().http.unwrap().headers;
    assert!(!headers.contains_key("x-a") && headers.contains_key("x-b"));
    let allowed_headers = Some(vec![exact("x-a"), exact("x-b")]);
    let some = asked(&ExtAuthz { allowed_headers, disallowed_headers: vec![exact("x-b")], ..config() });
    let headers = some.request.unwrap().http.unwrap().headers;
    assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-a"], "what is disallowed is not told, whatever is allowed");
}

fn option(name: &str, value: &str) -> core::HeaderValueOption {
    let header = core::HeaderValue { key: name.to_owned(), value: value.to_owned(), ..Default::default() };
    core::HeaderValueOption { header: Some(header), ..Default::default() }
}

fn said(code: i32, response: Option<HttpResponse>) -> Result<Answer, String> {
    let status = Some(rpc::Status { code, ..Default::default() });
    let value = pb::CheckResponse { status, http_response: response, ..Default::default() };
    answer(&value.encode_to_vec())
}

fn ok(change: impl FnOnce(&mut pb::OkHttpResponse)) -> Option<HttpResponse> {
    let mut value = pb::OkHttpResponse::default();
    change(&mut value);
    Some(HttpResponse::OkResponse(value))
}

fn no(code: i32) -> Option<HttpResponse> {
    let status = Some(HttpStatus { code });
    Some(HttpResponse::DeniedResponse(pb::DeniedHttpResponse { status, ..Default::default() }))
}

#[test]
fn extauthz_only_a_status_of_ok_allows() {
    let denied = |status| Ok(Answer::Denied(Denial { status, headers: Vec::new(), body: Bytes::new() }));
    let allowed = || Ok(Answer::Allowed(Amendments::default()));
    assert_eq!(said(0, None), allowed());
    assert_eq!(said(0, ok(|_| {})), allowed());
    assert_eq!(said(7, None), denied(StatusCode::FORBIDDEN));
    assert_eq!(said(7, ok(|_| {})), denied(StatusCode::FORBIDDEN), "the status counts");
    assert_eq!(said(16, no(PbStatus::Unauthorized.into())), denied(StatusCode::UNAUTHORIZED));
    assert_eq!(said(16, no(0)), denied(StatusCode::FORBIDDEN));
    for (code, response) in [(0, no(403)), (7, no(99)), (7, no(700)), (7, no(-1))] {
        assert!(said(code, response.clone()).is_err(), "{code} {response:?}");
    }
    assert!(answer(&pb::CheckResponse::default().encode_to_vec()).is_err(), "no status is none");
    assert!(answer(b"\xff\xff").is_err());
    let failed = Some(HttpResponse::ErrorResponse(pb::DeniedHttpResponse::default()));
    assert!(said(0, failed).is_err());
}

#[test]
fn extauthz_an_answer_with_changes_that_cannot_be_made_is_none() {
    for name in [":path", "host", "content-length", "transfer-encoding", "a b", ""] {
        assert!(said(0, ok(|value| value.headers = vec![option(name, "x")])).is_err(), "{name}");
        assert!(said(0, ok(|value| value.headers_to_remove = vec![name.to_owned()])).is_err(), "{name}");
        assert!(said(0, ok(|value| value.response_headers_to_add = vec![option(name, "x")])).is_err(), "{name}");
    }
    assert!(said(0, ok(|value| value.headers = vec![option("a", "x\r\ny: z")])).is_err());
    assert!(said(0, ok(|value| value.headers = vec![core::HeaderValueOption::default()])).is_err());
}

#[test]
#[allow(deprecated)] // Servers go on saying `append`.
fn extauthz_changes_are_made_in_order() {
    let append = |mut value: core::HeaderValueOption, append| {
        value.append = Some(protobuf::BoolValue { value: append });
        value
    };
    let act = |mut value: core::HeaderValueOption, action| {
        value.append_action = action;
        value
    };
    let Ok(Answer::Allowed(amendments)) = said(
        0,
        ok(|value| {
            value.headers_to_remove = vec!["x-gone".to_owned(), "x-back".to_owned()];
            value.headers = vec![
                option("x-set", "new"),
                append(option("x-more", "2"), true),
                append(option("x-one", "2"), false),
                act(option("x-set", "absent"), 1),
                act(option("x-absent", "added"), 1),
                act(option("x-never", "there"), 3),
                option("x-back", "set, and removed"),
            ];
            value.query_parameters_to_remove = vec!["b".to_owned()];
            value.query_parameters_to_set = vec![core::QueryParameter { key: "a".to_owned(), value: "9".to_owned() }];
        }),
    ) else {
        panic!("allowed")
    };
    let mut headers = HeaderMap::new();
    for name in ["x-gone", "x-set", "x-more", "x-one"] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
    }
    change(&amendments.request, &mut headers);
    let all = |name: &str| headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!((all("x-gone"), all("x-set"), all("x-more")), (vec![], vec!["new"], vec!["1", "2"]));
    assert_eq!(all("x-back"), Vec::<&str>::new(), "what is to go is not set again");
    assert_eq!((all("x-one"), all("x-absent"), all("x-never")), (vec!["2"], vec!["added"], vec![]));
    for (uri, expected) in [("/p?a=1&b=2&c=3&a=4", "/p?c=3&a=9"), ("/p", "/p?a=9"), ("http://h/?b", "http://h/?a=9")] {
        let mut uri: Uri = uri.parse().unwrap();
        amendments.change_query(&mut uri);
        assert_eq!(uri.to_string(), expected);
    }
}

fn of_body(bytes: &'static [u8], partial: bool, raw: bool) -> CheckBody {
    CheckBody { bytes: Bytes::from_static(bytes), partial, raw }
}

#[test]
fn extauthz_a_question_has_the_body_as_text_or_as_bytes() {
    let http = |body: Option<&CheckBody>| asked_with(&config(), body).request.unwrap().http.unwrap();
    let text = http(Some(&of_body(b"a\xffb", true, false)));
    assert_eq!((&*text.body, &text.raw_body[..]), ("a!b", &b""[..]));
    assert_eq!(text.headers["x-envoy-auth-partial-body"], "true", "not what the client says");
    let bytes = http(Some(&of_body(b"a\xffb", false, true)));
    assert_eq!((&*bytes.body, &bytes.raw_body[..]), ("", &b"a\xffb"[..]));
    assert_eq!(bytes.headers["x-envoy-auth-partial-body"], "false");
    assert_eq!((http(None).body, http(None).raw_body), (String::new(), Vec::new()));
}

#[test]
fn extauthz_headers_are_told_as_they_are_where_that_is_asked_for() {
    let config = ExtAuthz { raw_headers: true, disallowed_headers: vec![exact("x-b")], ..config() };
    let body = of_body(b"b", false, false);
    let http = asked_with(&config, Some(&body)).request.unwrap().http.unwrap();
    assert!(http.headers.is_empty());
    let all = http.header_map.unwrap().headers;
    let of = |name: &str| all.iter().filter(|one| one.key == name).map(|one| &one.raw_value[..]).collect::<Vec<_>>();
    assert_eq!((of("x-a"), of("x-bin")), (vec![&b"1"[..], b"2"], vec![&b"a\xffb\xc3\xa9\xe2\x82"[..]]));
    assert_eq!((of(":path"), of("x-b")), (vec![&b"/p?q=1"[..]], vec![]));
    assert_eq!(of("x-envoy-auth-partial-body"), [b"false"]);
}

#[test]
fn extauthz_the_routes_metadata_is_told_by_name() {
    let config = ExtAuthz { route_metadata_namespaces: vec!["route".to_owned(), "none".to_owned()], ..config() };
    let told = asked(&config).route_metadata_context.unwrap().filter_metadata;
    assert_eq!(told.keys().collect::<Vec<_>>(), ["route"]);
    assert_eq!(crate::decode::json_struct(told["route"].clone()), json!({"team": "red"}));
    assert!(asked(&super::tests::config()).route_metadata_context.unwrap().filter_metadata.is_empty());
}

/// A policy of HTTP, as the decoder makes it.
fn over_http(allowed: &[&str]) -> ExtAuthz {
    let always = ["authorization", ":method", ":path", ":authority"];
    ExtAuthz { allowed_headers: Some(always.iter().chain(allowed).map(|name| exact(name)).collect()), ..config() }
}

fn http_question(
    config: &ExtAuthz,
    http: &HttpAuthz,
    body: Option<&CheckBody>,
    path: &str,
) -> Result<::http::Request<Bytes>, String> {
    with_facts(body, path, |facts| {
        let format = FormatFacts {
            request: facts.request,
            version: facts.version,
            remote: Some(facts.source),
            local: Some(facts.destination),
            peer: facts.peer,
            status: None,
        };
        http::question(config, http, facts, &format)
    })
}

/// The names of headers in order, each with all its values.
fn listed(headers: &HeaderMap) -> Vec<String> {
    let mut listed: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))).collect();
    listed.sort();
    listed
}

#[test]
fn extauthz_a_question_over_http_is_like_the_request() {
    let http = HttpAuthz::default();
    let plain = http_question(&over_http(&[]), &http, None, "/p?q=1").unwrap();
    assert_eq!((plain.method(), &*plain.uri().to_string()), (&Method::POST, "http://a.test/p?q=1"));
    assert_eq!(listed(plain.headers()), ["authorization: Bearer t", "content-length: 0"], "and nothing else");
    // CVE-2021-32777: all values in one.
    let told = over_http(&["x-a", "content-length", "connection", "host", "transfer-encoding"]);
    let told = http_question(&told, &http, None, "/").unwrap();
    assert_eq!(listed(told.headers()), ["authorization: Bearer t", "content-length: 0", "x-a: 1,2"]);
    let kept = ExtAuthz { disallowed_headers: vec![exact("authorization")], ..over_http(&["x-b"]) };
    let kept = http_question(&kept, &http, None, "/").unwrap();
    assert_eq!(listed(kept.headers()), ["content-length: 0", "x-b: \u{e9}"]);
    let body = of_body(b"a\xff", true, false);
    let with = http_question(&over_http(&[]), &http, Some(&body), "/").unwrap();
    assert_eq!(&with.body()[..], b"a\xff", "bytes, whatever is said");
    assert_eq!(
        listed(with.headers()),
        ["authorization: Bearer t", "content-length: 2", "x-envoy-auth-partial-body: true"]
    );
}

#[test]
fn extauthz_a_question_over_http_has_another_path_and_more_headers_where_that_is_said() {
    let uri = |path: AuthzPath, of: &str| {
        let question = http_question(&over_http(&[]), &HttpAuthz { path, ..HttpAuthz::default() }, None, of);
        question.map(|question| question.uri().to_string())
    };
    assert_eq!(uri(AuthzPath::Prefix("/pre".to_owned()), "/p?q=1").unwrap(), "http://a.test/pre/p?q=1");
    assert_eq!(uri(AuthzPath::Override("/over".to_owned()), "/p?q=1").unwrap(), "http://a.test/over");
    assert!(uri(AuthzPath::Same, "/a b").is_err(), "what cannot be asked is not");
    let add = [("authorization", "own"), ("x-of", "%REQ(:path)%"), ("x-k", "v")];
    let add = add.map(|(name, text)| (HeaderName::from_static(name), HeaderValue::from_static(text)));
    let http = HttpAuthz { headers_to_add: add.to_vec(), ..HttpAuthz::default() };
    let question = http_question(&over_http(&[]), &http, None, "/p").unwrap();
    assert_eq!(listed(question.headers()), ["authorization: own", "content-length: 0", "x-k: v", "x-of: /p"]);
    let blind = ExtAuthz { disallowed_headers: vec![exact(":path")], ..over_http(&[]) };
    assert!(http_question(&blind, &HttpAuthz::default(), None, "/").is_err());
}

const ANSWERED: [(&str, &str); 9] = [
    ("x-user", "ann"),
    ("x-user", "bob"),
    ("x-more", "2"),
    ("x-seen", "s"),
    ("set-cookie", "a=1"),
    ("set-cookie", "b=2"),
    ("location", "/login"),
    ("content-length", "3"),
    ("x-envoy-auth-headers-to-remove", "x-secret, Host,, :path, a b, x-late"),
];

fn answered(http: &HttpAuthz, status: u16) -> Result<Answer, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in ANSWERED {
        headers.append(name, HeaderValue::from_static(value));
    }
    http::answer(http, StatusCode::from_u16(status).unwrap(), &headers, Bytes::from_static(b"no!"))
}

#[test]
fn extauthz_an_http_200_allows_and_nothing_else() {
    let plain = HttpAuthz::default();
    assert!(matches!(answered(&plain, 200), Ok(Answer::Allowed(_))));
    for status in [201, 204, 206, 299, 300, 302, 304, 400, 401, 403, 404, 429, 499, 600, 999] {
        let Ok(Answer::Denied(denial)) = answered(&plain, status) else { panic!("{status} denies") };
        assert_eq!((denial.status.as_u16(), &denial.body[..]), (status, &b"no!"[..]));
    }
    for status in [100, 101, 199, 500, 503, 599] {
        assert!(answered(&plain, status).is_err(), "{status} is no answer");
    }
}

#[test]
fn extauthz_of_an_http_answer_that_allows_goes_what_is_said() {
    let http = HttpAuthz {
        upstream: vec![exact("x-user"), exact("x-late"), exact("content-length")],
        upstream_append: vec![exact("x-more")],
        client_on_success: vec![exact("set-cookie")],
        metadata: vec![exact("x-seen"), exact("x-user")],
        ..HttpAuthz::default()
    };
    let Ok(Answer::Allowed(amendments)) = answered(&http, 200) else { panic!("allowed") };
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-user", "root"), ("x-more", "1"), ("x-secret", "s"), ("host", "h"), ("x-late", "l")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    change(&amendments.request, &mut headers);
    assert_eq!(listed(&headers), ["host: h", "x-more: 1", "x-more: 2", "x-user: bob"]);
    let mut headers = HeaderMap::from_iter([(HeaderName::from_static("set-cookie"), HeaderValue::from_static("c=3"))]);
    change(&amendments.response, &mut headers);
    assert_eq!(listed(&headers), ["set-cookie: a=1", "set-cookie: b=2", "set-cookie: c=3"]);
    assert_eq!(amendments.metadata, Some(json!({"x-seen": "s", "x-user": "bob"})));
    let Ok(Answer::Allowed(nothing)) = answered(&HttpAuthz::default(), 200) else { panic!("allowed") };
    let removes = ["x-secret", "x-late"].map(|name| HeaderChange::Remove(HeaderName::from_static(name)));
    assert_eq!(nothing, Amendments { request: removes.to_vec(), ..Amendments::default() });
}

#[test]
fn extauthz_of_an_http_answer_that_denies_the_client_sees_all_or_what_is_said() {
    let shown = |client: Option<Vec<StringMatch>>| {
        let http = HttpAuthz { client, ..HttpAuthz::default() };
        let Ok(Answer::Denied(denial)) = answered(&http, 302) else { panic!("denied") };
        let mut headers = HeaderMap::new();
        change(&denial.headers, &mut headers);
        listed(&headers)
    };
    assert_eq!(
        shown(None),
        [
            "location: /login",
            "set-cookie: a=1",
            "set-cookie: b=2",
            "x-more: 2",
            "x-seen: s",
            "x-user: ann",
            "x-user: bob"
        ]
    );
    assert_eq!(shown(Some(vec![exact("x-seen")])), ["location: /login", "x-seen: s"]);
}
