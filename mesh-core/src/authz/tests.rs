//! What is asked, and what answers mean.

use http::Method;
use pb::check_response::HttpResponse;
use prost::Message as _;
use serde_json::json;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3 as pb;
use envoy_types::pb::envoy::r#type::v3::{HttpStatus, StatusCode as PbStatus};
use envoy_types::pb::google::{protobuf, rpc};

use super::*;
use crate::identity::Sans;
use crate::model::{ExtAuthz, Fraction, Pattern, StringMatch};

fn config() -> ExtAuthz {
    ExtAuthz {
        cluster: "authz".into(),
        authority: http::uri::Authority::from_static("authz"),
        metadata: Vec::new(),
        timeout: Duration::from_millis(200),
        failure_mode_allow: false,
        failure_mode_allow_header_add: false,
        status_on_error: StatusCode::FORBIDDEN,
        allowed_headers: None,
        disallowed_headers: Vec::new(),
        enabled: Fraction { numerator: 100, denominator: 100 },
        deny_at_disable: false,
        include_peer_certificate: false,
        include_tls_session: false,
        metadata_namespaces: Vec::new(),
        takes_metadata: true,
        most_denied_body: None,
    }
}

fn exact(text: &str) -> StringMatch {
    StringMatch { pattern: Pattern::Exact(text.to_owned()), ignore_case: false }
}

fn asked(config: &ExtAuthz) -> pb::AttributeContext {
    let mut headers = HeaderMap::new();
    for (name, value) in
        [("x-a", "1"), ("x-a", "2"), ("x-b", "\u{e9}"), ("x-request-id", "id"), ("content-length", "7")]
    {
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
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
        path: "/p?q=1",
        headers: &headers,
        is_grpc: false,
        tls: None,
        source_ip: None,
        is_internal: false,
        channel_id: 0,
        metadata: None,
    };
    let facts = CheckFacts {
        request,
        version: Version::HTTP_2,
        source: ([10, 0, 0, 1], 1234).into(),
        destination: ([10, 0, 0, 2], 443).into(),
        peer: Some(&peer),
        local: &["spiffe://a/us".to_owned()],
        server_name: Some("a.test"),
        time: Duration::new(5, 6),
        metadata: &metadata,
        context: &BTreeMap::from([("k".to_owned(), "v".to_owned())]),
    };
    let question = question(config, &facts);
    pb::CheckRequest::decode(&question[..]).unwrap().attributes.unwrap()
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
    let denied = |status| Ok(Answer::Denied(Denial { status, headers: Vec::new(), body: String::new() }));
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
            value.headers_to_remove = vec!["x-gone".to_owned()];
            value.headers = vec![
                option("x-set", "new"),
                append(option("x-more", "2"), true),
                append(option("x-one", "2"), false),
                act(option("x-set", "absent"), 1),
                act(option("x-absent", "added"), 1),
                act(option("x-never", "there"), 3),
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
    assert_eq!((all("x-one"), all("x-absent"), all("x-never")), (vec!["2"], vec!["added"], vec![]));
    for (uri, expected) in [("/p?a=1&b=2&c=3&a=4", "/p?c=3&a=9"), ("/p", "/p?a=9"), ("http://h/?b", "http://h/?a=9")] {
        let mut uri: Uri = uri.parse().unwrap();
        amendments.change_query(&mut uri);
        assert_eq!(uri.to_string(), expected);
    }
}
