//! Tokens on the whole way: real signatures, over both protocols, then authorization by what a token says.

use std::sync::Arc;

use http::Request;
use http_body_util::Full;
use mesh_core::decode::{DecodeResource, Decoded, Decoder, JwtAuthnFilter, JwtOverride, RbacFilter, Registry};
use mesh_core::model::{
    Action, Domain, FilterOverride, HttpFilter, Listener, MetadataMatch, MetadataSource, Name, Pattern, Permission,
    Principal, Rbac, RbacAction, RbacPolicy, RbacRules, Route, StringMatch, ValueMatch,
};
use mesh_core::policy::jwt::Algorithm;
use mesh_core::source::file::resource_from_json;
use serde_json::{Value, json};

use super::client::{Answer, BOTH, Client, Http};
use super::{Server, start};
use crate::inbound::testing::{Config, route, table};
use crate::inbound::{BoxError, InboundOptions, RequestBody, ServingState};
use crate::secure::tests::tokens::TokenKey;

/// Long after this test.
const LATER: u64 = 4_900_000_000;

fn claims() -> Value {
    json!({"iss": "i", "sub": "ann", "aud": "api", "exp": LATER, "groups": ["admin"]})
}

/// The filters of a Listener that a control plane sends, this one's beside the router.
fn filters(config: Value) -> Vec<HttpFilter> {
    let mut config = config;
    config["@type"] = format!("type.googleapis.com/{}", JwtAuthnFilter::TYPE_URL).into();
    let router = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "route_config": {"name": "r"},
        "http_filters": [{"name": "jwt", "typed_config": config}, {"name": "router", "typed_config": router}],
    });
    let listener = json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": "listener",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    });
    let resource = resource_from_json(&listener).unwrap();
    let decoder = Decoder::new(Arc::new(Registry::standard()), std::iter::empty::<Name>());
    match decoder.decode(&resource.key.type_url, &resource.bytes) {
        Decoded::Ok { value, .. } => {
            let listener = value.downcast::<Listener>().unwrap();
            listener.connections()[0].filters.clone()
        }
        Decoded::Err { faults, .. } => panic!("{faults:?}"),
    }
}

/// As istiod makes it of a RequestAuthentication: a token need not be there, and what it says is for RBAC.
fn istio(jwks: &str) -> Value {
    json!({
        "providers": {"origins-0": {
            "issuer": "i",
            "local_jwks": {"inline_string": jwks},
            "payload_in_metadata": "payload",
            "claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}],
        }},
        "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": [
            {"provider_name": "origins-0"}, {"allow_missing": {}},
        ]}}}],
        "bypass_cors_preflight": true,
    })
}

/// `source.requestPrincipals: ["i/ann"]` and `request.auth.claims[groups]: ["admin"]` of an AuthorizationPolicy.
fn only_ann() -> HttpFilter {
    let claim = |path: &str, value| {
        Principal::Metadata(MetadataMatch {
            source: MetadataSource::Dynamic,
            filter: "envoy.filters.http.jwt_authn".to_owned(),
            path: vec!["payload".to_owned(), path.to_owned()],
            value,
            invert: false,
        })
    };
    let exact =
        |text: &str| ValueMatch::String(StringMatch { pattern: Pattern::Exact(text.to_owned()), ignore_case: false });
    let who = Principal::And(vec![
        claim("iss", exact("i")),
        claim("sub", exact("ann")),
        claim("groups", ValueMatch::OneOf(Box::new(exact("admin")))),
    ]);
    let policy = RbacPolicy { name: "ann".into(), permissions: vec![Permission::Any], principals: vec![who] };
    let rules = RbacRules { action: RbacAction::Allow, policies: vec![policy], audit: Default::default() };
    let config = Arc::new(Rbac { rules: Some(rules), shadow: None });
    HttpFilter { name: "rbac".into(), type_url: RbacFilter::TYPE_URL.into(), config, disabled: false }
}

async fn tell(request: Request<RequestBody>) -> Result<http::Response<Full<bytes::Bytes>>, BoxError> {
    let header = |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
    let text = format!("{} sub={} authorization={}", request.uri().path(), header("x-sub"), header("authorization"));
    Ok(http::Response::new(Full::from(text)))
}

async fn server(filters: Vec<HttpFilter>) -> Server {
    let server = start(tower::service_fn(tell), InboundOptions::default()).await;
    let over = |prefix: &str, over: JwtOverride| {
        let config = FilterOverride::Config { type_url: JwtAuthnFilter::TYPE_URL.into(), config: Arc::new(over) };
        let plain = route(prefix, Action::NonForwarding);
        Arc::new(Route { overrides: [("jwt".into(), config)].into(), ..(*plain).clone() })
    };
    let routes = vec![
        over("/open", JwtOverride::Disabled),
        over("/named", JwtOverride::Requirement("named".to_owned())),
        over("/nowhere", JwtOverride::Requirement("nowhere".to_owned())),
        route("/", Action::NonForwarding),
    ];
    server
        .slot
        .apply(Config { routes: Ok(table(Domain::Any, routes)), filters, ..Config::new(server.address) }.build(1));
    server
}

async fn get(server: &Server, http: Http, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut client = Client::connect(http, server.address).await.unwrap().0;
    let request = match http {
        Http::One => Request::builder().uri(path).header("host", "a.test"),
        Http::Two => Request::builder().uri(format!("http://a.test{path}")),
    };
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    client.send(request.body(Full::default()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_token_lets_in_and_what_it_says_decides() {
    let (key, stranger) = (TokenKey::new(Algorithm::Es256), TokenKey::new(Algorithm::Es256));
    let mut all = filters(istio(&key.jwks("k")));
    all.push(only_ann());
    let server = server(all).await;
    let bearer = |key: &TokenKey, claims: &Value| format!("Bearer {}", key.token("k", claims));
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        claims
    };
    for http in BOTH {
        for (token, status, text) in [
            (Some(bearer(&key, &claims())), 200, "/ sub=ann authorization=-"),
            (None, 403, "RBAC: access denied\n"),
            (Some(bearer(&key, &with("sub", json!("bob")))), 403, "RBAC: access denied\n"),
            (Some(bearer(&key, &with("groups", json!(["user"])))), 403, "RBAC: access denied\n"),
            (Some(bearer(&stranger, &claims())), 401, "Jwt verification fails\n"),
            (Some(bearer(&key, &with("exp", json!(1_600_000_000)))), 401, "Jwt is expired\n"),
        ] {
            let forged = ("x-sub", "ann");
            let token = token.as_deref().map(|token| ("authorization", token));
            let headers: Vec<_> = std::iter::once(forged).chain(token).collect();
            let answer = get(&server, http, "/", &headers).await;
            assert_eq!((answer.status.as_u16(), answer.text.as_str()), (status, text), "{http:?}");
            assert_eq!(answer.code(), if status == 200 { "" } else { "MESH-313" });
        }
    }
}

#[tokio::test]
async fn what_is_missing_is_said_and_routes_ask_for_more_or_less() {
    let key = TokenKey::new(Algorithm::Es256);
    let config = json!({
        "providers": {"p": {"local_jwks": {"inline_string": key.jwks("k")}}},
        "rules": [{"match": {"prefix": "/named"}}, {"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}],
        "requirement_map": {"named": {"provider_and_audiences": {"provider_name": "p", "audiences": ["other"]}}},
    });
    let token = format!("Bearer {}", key.token("k", &claims()));
    let server = server(filters(config)).await;
    for (path, headers, status, challenge) in [
        ("/a?b", vec![], 401, "Bearer realm=\"http://a.test/a?b\""),
        ("/", vec![("authorization", "Bearer x")], 401, "Bearer realm=\"http://a.test/\", error=\"invalid_token\""),
        ("/", vec![("authorization", token.as_str())], 200, ""),
        ("/open", vec![], 200, ""),
        (
            "/named",
            vec![("authorization", token.as_str())],
            403,
            "Bearer realm=\"http://a.test/named\", error=\"invalid_token\"",
        ),
        ("/nowhere", vec![("authorization", token.as_str())], 403, ""),
    ] {
        let answer = get(&server, Http::Two, path, &headers).await;
        let found = answer.headers.get("www-authenticate").map_or("", |value| value.to_str().unwrap());
        assert_eq!((answer.status.as_u16(), found), (status, challenge), "{path}: {}", answer.text);
    }
    let grpc = super::client::call(server.address, "/pkg.Service/Method").await.unwrap();
    assert_eq!((grpc.status.as_u16(), grpc.grpc_status()), (200, "16"), "UNAUTHENTICATED");
}

#[tokio::test]
async fn strip_failure_response_tells_nothing() {
    let key = TokenKey::new(Algorithm::Es256);
    let config = json!({
        "providers": {"p": {"local_jwks": {"inline_string": key.jwks("k")}}},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}],
        "strip_failure_response": true,
    });
    let server = server(filters(config)).await;
    let answer = get(&server, Http::One, "/", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (401, ""));
    assert!(!answer.headers.contains_key("www-authenticate"));
}

#[tokio::test]
async fn keys_that_are_not_there_let_nobody_in() {
    let key = TokenKey::new(Algorithm::Es256);
    let token = format!("Bearer {}", key.token("k", &claims()));
    for jwks in ["", "{}", "{\"keys\": []}"] {
        let server = server(filters(istio(jwks))).await;
        let answer = get(&server, Http::One, "/", &[("authorization", &token)]).await;
        let expected = "Jwks doesn't have any valid public key\n";
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (401, expected), "{jwks}");
    }
    let config = json!({"providers": {"p": {"local_jwks": {"filename": "/nonexistent/jwks.json"}}}});
    let refused = server(filters(config)).await;
    let ServingState::NotServing(error) = refused.slot.state() else { panic!("serving") };
    assert!(error.to_string().contains("/nonexistent/jwks.json"), "{error}");
}
