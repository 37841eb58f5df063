//! Requirements, tokens and keys, each by table. Signatures here are the key's own bytes: who computes is an argument.

use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use http::{HeaderMap, HeaderValue, Uri};
use serde_json::{Value, json};

use super::*;
use crate::model::{ClaimHeader, JwksSource, Pattern, StringMatch, TokenHeader};

const NOW: u64 = 1_800_000_000;
const KEY: &[u8] = b"key";

/// Whoever has the key's bytes has signed.
struct Keys(Vec<Result<Arc<Jwks>, JwtStatus>>);

impl SignatureCheck for Keys {
    fn is_signature(&self, key: &JwkKey, _: Algorithm, _: &[u8], signature: &[u8]) -> bool {
        matches!(key, JwkKey::Secret(secret) if secret == signature)
    }
}

impl JwtKeys for Keys {
    fn keys(&self, provider: usize) -> Result<Arc<Jwks>, JwtStatus> {
        self.0[provider].clone()
    }
}

fn keys() -> Keys {
    let set = json!({"keys": [{"kty": "oct", "kid": "k", "k": BASE64_URL_SAFE_NO_PAD.encode(KEY)}]});
    let set = Arc::new(Jwks::parse(set.to_string().as_bytes()).unwrap());
    Keys(vec![Ok(set.clone()), Ok(set)])
}

fn token_of(header: &str, payload: &str, signature: &[u8]) -> String {
    let parts = [header.as_bytes(), payload.as_bytes(), signature];
    parts.map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".")
}

fn token(claims: &Value) -> String {
    token_of(r#"{"alg":"HS256"}"#, &claims.to_string(), KEY)
}

fn good() -> Value {
    json!({"iss": "i", "sub": "ann", "aud": "api", "exp": NOW + 100})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

fn provider(issuer: &str) -> JwtProvider {
    JwtProvider {
        name: issuer.into(),
        issuer: issuer.to_owned(),
        audiences: vec!["api".to_owned()],
        subjects: None,
        max_lifetime: None,
        clock_skew: Duration::from_secs(60),
        keys: JwksSource::Inline(String::new()),
        forward: false,
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        forward_payload_header: None,
        pad_forward_payload_header: false,
        claim_to_headers: Vec::new(),
        payload_in_metadata: String::new(),
        header_in_metadata: String::new(),
        failed_status_in_metadata: String::new(),
        space_delimited_claims: Vec::new(),
    }
}

fn of(providers: Vec<JwtProvider>) -> Authenticator {
    Authenticator::new(JwtAuthn { providers: providers.into_iter().map(Arc::new).collect(), ..JwtAuthn::default() })
}

fn needs(provider: usize) -> JwtRequirement {
    JwtRequirement::Provider { provider, audiences: Vec::new() }
}

/// A request on its way, and what came of it.
struct Asked {
    headers: HeaderMap,
    uri: Uri,
    metadata: Value,
    result: Result<(), JwtStatus>,
}

fn ask_at(of: &Authenticator, needs: &JwtRequirement, uri: &str, headers: &[(&str, &str)], keys: &Keys) -> Asked {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    let mut uri: Uri = uri.parse().unwrap();
    let found = of.authenticate(needs, JwtRequest { headers: &mut map, uri: &mut uri }, keys, NOW);
    Asked { headers: map, uri, metadata: found.metadata.into(), result: found.result }
}

fn ask(of: &Authenticator, needs: &JwtRequirement, headers: &[(&str, &str)]) -> Asked {
    ask_at(of, needs, "/", headers, &keys())
}

/// What one provider says of a token in its default place.
fn verdict(provider: JwtProvider, token: &str) -> Result<(), JwtStatus> {
    ask(&of(vec![provider]), &needs(0), &[("authorization", &format!("Bearer {token}"))]).result
}

#[test]
fn a_token_is_read_as_envoy_reads_it() {
    use JwtStatus as S;
    let payload = good().to_string();
    let header = |text: &str| token_of(text, &payload, KEY);
    let parts = |parts: [&str; 3]| parts.join(".");
    let plain = token(&good());
    let [head, body, signature]: [&str; 3] = plain.split('.').collect::<Vec<_>>().try_into().unwrap();
    for (token, expected) in [
        (plain.clone(), Ok(())),
        (format!("{plain}."), Ok(())),
        (format!("{plain}.x"), Err(S::BadFormat)),
        (format!("{head}.{body}."), Err(S::BadFormat)),
        ("abc".to_owned(), Err(S::BadFormat)),
        (parts(["a!", body, signature]), Err(S::HeaderBadBase64)),
        (parts([head, "a!", signature]), Err(S::PayloadBadBase64)),
        (parts([head, body, "a!"]), Err(S::SignatureBadBase64)),
        (header("[]"), Err(S::HeaderBadJson)),
        (header(r#"{"alg":"HS256","alg":"none"}"#), Err(S::HeaderBadJson)),
        (header("{}"), Err(S::HeaderBadAlg)),
        (header(r#"{"alg":1}"#), Err(S::HeaderBadAlg)),
        (header(r#"{"alg":"none"}"#), Err(S::HeaderUnknownAlg)),
        (header(r#"{"alg":"hs256"}"#), Err(S::HeaderUnknownAlg)),
        (header(r#"{"alg":"HS256","kid":1}"#), Err(S::HeaderBadKid)),
        (header(r#"{"alg":"HS256","kid":"other"}"#), Err(S::JwksKidAlgMismatch)),
        (header(r#"{"alg":"HS256","kid":"k","jku":"http://evil.test","jwk":{"kty":"oct","k":"AA"}}"#), Ok(())),
        (header(r#"{"alg":"RS256"}"#), Err(S::VerificationFails)),
        (header(r#"{"alg":"HS256","crit":["exp"]}"#), Err(S::VerificationFails)),
        (token_of(r#"{"alg":"HS256"}"#, "7", KEY), Err(S::PayloadBadJson)),
        (token_of(r#"{"alg":"HS256"}"#, r#"{"iss":"i","iss":"j"}"#, KEY), Err(S::PayloadBadJson)),
        (token_of(r#"{"alg":"HS256"}"#, &payload, b"another"), Err(S::VerificationFails)),
        (token(&with("iss", json!(1))), Err(S::IssNotString)),
        (token(&with("iss", json!("other"))), Err(S::UnknownIssuer)),
        (token(&with("sub", json!([]))), Err(S::SubNotString)),
        (token(&with("jti", json!(1))), Err(S::JtiNotString)),
        (token(&with("iat", json!("1"))), Err(S::IatNotInteger)),
        (token(&with("iat", json!(-1))), Err(S::IatOutOfRange)),
        (token(&with("nbf", json!(null))), Err(S::NbfNotInteger)),
        (token(&with("nbf", json!(1e20))), Err(S::NbfOutOfRange)),
        (token(&with("exp", json!("1900000000"))), Err(S::ExpNotInteger)),
        (token(&with("exp", json!(-1))), Err(S::ExpOutOfRange)),
        (token(&with("exp", json!(1e30))), Err(S::ExpOutOfRange)),
        (token(&with("aud", json!(1))), Err(S::AudNotString)),
        (token(&with("aud", json!(["api", 1]))), Err(S::AudNotString)),
    ] {
        assert_eq!(verdict(provider("i"), &token), expected, "{token}");
    }
    // What is padded at all is padded whole.
    let whole = |part: &str| format!("{part:=<0$}", part.len().next_multiple_of(4));
    assert_eq!(verdict(provider("i"), &parts([head, body, &whole(signature)])), Ok(()));
    for more in ["=", "=="].into_iter().filter(|more| (signature.len() + more.len()) % 4 != 0) {
        let token = format!("{plain}{more}");
        assert_eq!(verdict(provider("i"), &token), Err(S::SignatureBadBase64), "{token}");
    }
    let long = format!("{plain}{}", "A".repeat(70_000));
    assert_eq!(Jwt::parse(long.as_bytes()).unwrap_err(), S::BadFormat, "what is too long is not read");
}

#[test]
fn time_is_judged_with_skew() {
    use JwtStatus as S;
    for (name, value, expected) in [
        ("exp", json!(NOW - 60), Ok(())),
        ("exp", json!(NOW - 61), Err(S::Expired)),
        ("exp", json!(NOW as f64 + 0.5), Ok(())),
        ("exp", json!(0), Err(S::Expired)),
        ("nbf", json!(NOW + 60), Ok(())),
        ("nbf", json!(NOW + 61), Err(S::NotYetValid)),
        ("exp", json!(u64::MAX - 2048), Ok(())),
    ] {
        assert_eq!(verdict(provider("i"), &token(&with(name, value.clone()))), expected, "{name} {value}");
    }
    let mut forever = good();
    forever.as_object_mut().unwrap().remove("exp");
    for (most, exp, expected) in [
        (None, None, Ok(())),
        (Some(Duration::MAX), None, Err(S::VerificationFails)),
        (Some(Duration::MAX), Some(NOW + 1_000_000), Ok(())),
        (Some(Duration::from_secs(100)), Some(NOW + 99), Ok(())),
        (Some(Duration::from_secs(100)), Some(NOW + 100), Err(S::VerificationFails)),
    ] {
        let claims = exp.map_or_else(|| forever.clone(), |exp| with("exp", json!(exp)));
        let provider = JwtProvider { max_lifetime: most, ..provider("i") };
        assert_eq!(verdict(provider, &token(&claims)), expected, "{most:?} {exp:?}");
    }
}

#[test]
fn audience_subject_and_issuer_must_fit() {
    use JwtStatus as S;
    let wants = |audience: &str| JwtProvider { audiences: vec![audience.to_owned()], ..provider("i") };
    for (wanted, said, expected) in [
        ("api", json!(["x", "api"]), Ok(())),
        ("https://api/", json!("http://api"), Ok(())),
        ("api", json!("API"), Err(S::AudienceNotAllowed)),
        ("api", json!([]), Err(S::AudienceNotAllowed)),
    ] {
        assert_eq!(verdict(wants(wanted), &token(&with("aud", said.clone()))), expected, "{wanted} {said}");
    }
    let anybodys = JwtProvider { audiences: Vec::new(), ..provider("") };
    assert_eq!(verdict(anybodys, &token(&with("iss", json!("whoever")))), Ok(()));
    let ann = StringMatch { pattern: Pattern::Exact("ann".to_owned()), ignore_case: false };
    let only_ann = JwtProvider { subjects: Some(ann), ..provider("i") };
    assert_eq!(verdict(only_ann.clone(), &token(&good())), Ok(()));
    assert_eq!(verdict(only_ann, &token(&with("sub", json!("bob")))), Err(S::VerificationFails));
    let other = JwtRequirement::Provider { provider: 0, audiences: vec!["other".to_owned()] };
    let denied = ask(&of(vec![provider("i")]), &other, &[("authorization", &format!("Bearer {}", token(&good())))]);
    assert_eq!(
        denied.result,
        Err(S::AudienceNotAllowed),
        "the requirement's audiences take the place of the provider's"
    );
    assert_eq!((S::AudienceNotAllowed.http_status(), S::Missing.http_status()).0.as_u16(), 403);
}

#[test]
fn tokens_are_found_where_they_may_be_and_leave() {
    let default = of(vec![provider("i")]);
    let token = token(&good());
    let bearer = format!("Bearer  {token}");
    let found = ask(&default, &needs(0), &[("authorization", &bearer)]);
    assert_eq!((found.result, found.headers.len()), (Ok(()), 0));
    for value in [token.clone(), format!("bearer {token}"), String::new()] {
        let missing = ask(&default, &needs(0), &[("authorization", &value)]);
        assert_eq!(missing.result, Err(JwtStatus::Missing), "{value}");
    }
    for (query, left) in
        [("?access_token=T", "/a"), ("?x=1&access_token=T&y=%20", "/a?x=1&y=%20"), ("?access%5Ftoken=T", "/a")]
    {
        let uri = format!("/a{}", query.replacen('T', &token, 1));
        let found = ask_at(&default, &needs(0), &uri, &[], &keys());
        assert_eq!((found.result, found.uri.to_string().as_str()), (Ok(()), left), "{query}");
    }
    let named = of(vec![JwtProvider {
        from_headers: vec![TokenHeader { name: HeaderName::from_static("x-token"), value_prefix: "JWT=".to_owned() }],
        from_params: vec!["t".to_owned()],
        from_cookies: vec!["c".to_owned()],
        ..provider("i")
    }]);
    let cookie = format!("a=b; c=\"{token}\"; d=e");
    for (uri, name, value, expected) in [
        ("/".to_owned(), "x-token", format!("JWT={token}"), Ok(())),
        (format!("/?t={token}"), "x", String::new(), Ok(())),
        ("/".to_owned(), "cookie", cookie, Ok(())),
        ("/".to_owned(), "cookie", format!("c ={token}"), Err(JwtStatus::Missing)),
        ("/".to_owned(), "cookie", format!("c= {token}"), Err(JwtStatus::HeaderBadBase64)),
        ("/".to_owned(), "x-token", token.clone(), Err(JwtStatus::Missing)),
        (format!("/?access_token={token}"), "authorization", bearer.clone(), Err(JwtStatus::Missing)),
    ] {
        let found = ask_at(&named, &needs(0), &uri, &[(name, &value)], &keys());
        assert_eq!(found.result, expected, "{uri} {name}: {value}");
    }
}

/// Whoever is behind us may read another of the tokens than the one that is good.
#[test]
fn of_several_tokens_all_must_be_good_and_few_are_read() {
    let of = of(vec![provider("i")]);
    let good_one = format!("Bearer {}", token(&good()));
    let bad_one = format!("Bearer {}", token_of(r#"{"alg":"HS256"}"#, &good().to_string(), b"no"));
    for requirement in [needs(0), JwtRequirement::AllowMissing] {
        for pair in [[&good_one, &bad_one], [&bad_one, &good_one]] {
            let headers = pair.map(|value| ("authorization", value.as_str()));
            assert_eq!(ask(&of, &requirement, &headers).result, Err(JwtStatus::VerificationFails), "{requirement:?}");
        }
        assert_eq!(ask(&of, &requirement, &[("authorization", good_one.as_str()); 2]).result, Ok(()));
        let many = vec![("authorization", good_one.as_str()); 17];
        assert_eq!(ask(&of, &requirement, &many).result, Err(JwtStatus::MultipleTokens));
    }
}

/// The same of parameters and cookies, whose first is only the first that some readers take.
#[test]
fn of_several_tokens_of_one_name_all_must_be_good() {
    let of = of(vec![JwtProvider {
        from_params: vec!["t".to_owned()],
        from_cookies: vec!["c".to_owned()],
        ..provider("i")
    }]);
    let good_one = token(&good());
    let bad_one = token_of(r#"{"alg":"HS256"}"#, &good().to_string(), b"no");
    let pairs = [
        ([&good_one, &good_one], Ok(())),
        ([&good_one, &bad_one], Err(JwtStatus::VerificationFails)),
        ([&bad_one, &good_one], Err(JwtStatus::VerificationFails)),
    ];
    for requirement in [needs(0), JwtRequirement::AllowMissing] {
        for ([first, second], expected) in pairs {
            let query = format!("/?t={first}&x=1&%74={second}");
            let cookies = [format!("c={first}; d=1; c=\"{second}\""), format!("c={first}")];
            let one_line = [("cookie", cookies[0].as_str())];
            let two_lines = [("cookie", cookies[1].as_str()), ("cookie", &format!("c={second}"))];
            for (uri, headers) in [(&*query, &[][..]), ("/", &one_line), ("/", &two_lines)] {
                let found = ask_at(&of, &requirement, uri, headers, &keys());
                assert_eq!(found.result, expected, "{uri} {headers:?}");
            }
        }
    }
    let many = format!("/?{}", format!("t={good_one}&").repeat(17));
    assert_eq!(ask_at(&of, &needs(0), &many, &[], &keys()).result, Err(JwtStatus::MultipleTokens));
}

#[test]
fn requirements_are_met_as_in_envoy() {
    use JwtRequirement as R;
    use JwtStatus as S;
    let of = of(vec![provider("i"), provider("j")]);
    let of_i = token(&good());
    let expired = token(&with("exp", json!(1)));
    let nobodys = token(&with("iss", json!("z")));
    for (requirement, token, expected) in [
        (R::Nothing, None, Ok(())),
        (needs(0), None, Err(S::Missing)),
        (R::Any(vec![needs(1), needs(0)]), Some(&of_i), Ok(())),
        (R::Any(vec![needs(0), needs(1)]), Some(&expired), Err(S::Expired)),
        (R::Any(vec![needs(0), needs(1)]), Some(&nobodys), Err(S::UnknownIssuer)),
        (R::Any(vec![needs(0), needs(1)]), None, Err(S::Missing)),
        // The first provider takes the token out of the request.
        (R::All(vec![needs(0), needs(1)]), Some(&of_i), Err(S::Missing)),
        (R::All(vec![needs(0), R::Nothing]), Some(&of_i), Ok(())),
        (R::Any(vec![needs(0), R::AllowMissing]), None, Ok(())),
        (R::Any(vec![needs(0), R::AllowMissing]), Some(&expired), Err(S::Expired)),
        (R::Any(vec![needs(0), R::AllowMissing]), Some(&nobodys), Err(S::UnknownIssuer)),
        (R::Any(vec![needs(0), R::AllowMissingOrFailed]), Some(&expired), Ok(())),
        (R::Any(vec![R::AllowMissing, R::AllowMissing]), Some(&expired), Err(S::Expired)),
        (R::Any(vec![R::AllowMissing, R::AllowMissingOrFailed]), Some(&expired), Ok(())),
        (R::AllowMissing, None, Ok(())),
        (R::AllowMissing, Some(&of_i), Ok(())),
        (R::AllowMissing, Some(&nobodys), Err(S::UnknownIssuer)),
        (R::AllowMissingOrFailed, None, Ok(())),
        (R::AllowMissingOrFailed, Some(&expired), Ok(())),
    ] {
        let value = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = value.iter().map(|value| ("authorization", value.as_str())).collect();
        let asked = ask(&of, &requirement, &headers);
        assert_eq!(asked.result, expected, "{requirement:?} {token:?}");
        let stays =
            token.is_some() && !(expected == Ok(()) && token == Some(&of_i)) && !matches!(requirement, R::All(_));
        assert_eq!(asked.headers.contains_key("authorization"), stays, "only a good token leaves: {requirement:?}");
    }
}

/// What rules are about: a client gets around none by calling itself gRPC, or by having no path.
#[test]
fn a_rule_sees_all_of_a_request() {
    use crate::model::matcher::MatchName;
    use crate::model::{HeaderMatch, HeaderTest, JwtRule, PathMatch, RouteMatch};
    let header = HeaderMatch {
        name: MatchName::Header(HeaderName::from_static("x-tenant-bin")),
        test: HeaderTest::Present(true),
        invert: false,
        treat_missing_as_empty: false,
    };
    let rule = RouteMatch { path: PathMatch::Prefix(String::new()), headers: vec![header], ..RouteMatch::default() };
    let of = Authenticator::new(JwtAuthn {
        providers: vec![Arc::new(provider("i"))],
        rules: vec![JwtRule { matches: rule, requirement: Some(needs(0)) }],
        ..JwtAuthn::default()
    });
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x-tenant-bin"), HeaderValue::from_static("AA=="))]);
    for (method, path) in [(Method::POST, "/"), (Method::CONNECT, "")] {
        let facts = RequestFacts {
            method: &method,
            scheme: "https",
            authority: "svc.test",
            path,
            headers: &headers,
            is_grpc: true,
            tls: None,
            source_ip: None,
            is_internal: false,
            channel_id: 0,
            metadata: None,
        };
        assert_eq!(of.requirement(&facts), Some(&needs(0)), "{method} {path}");
    }
}

#[test]
fn without_keys_nobody_gets_in() {
    let of = of(vec![provider("i")]);
    let header = format!("Bearer {}", token(&good()));
    for status in [JwtStatus::JwksFetchFails, JwtStatus::JwksNoValidKeys] {
        let asked = ask_at(&of, &needs(0), "/", &[("authorization", &header)], &Keys(vec![Err(status)]));
        assert_eq!(asked.result, Err(status));
    }
}

/// As in Envoy, which fails the request.
#[test]
fn a_claim_that_cannot_be_the_header_it_is_to_be_spoils_its_token() {
    let claim = ClaimHeader { header: HeaderName::from_static("x-sub"), path: vec!["sub".to_owned()] };
    let of = of(vec![JwtProvider { claim_to_headers: vec![claim], ..provider("i") }]);
    for (subject, result) in [("ann", Ok(())), ("a\r\nx-admin: 1", Err(JwtStatus::VerificationFails))] {
        let bearer = format!("Bearer {}", token(&with("sub", json!(subject))));
        let asked = ask(&of, &needs(0), &[("authorization", bearer.as_str())]);
        assert_eq!(asked.result, result, "{subject:?}");
        assert_eq!(asked.headers.contains_key("x-sub"), result.is_ok(), "{subject:?}");
    }
}

/// As in Envoy, which asks a key of Ed25519 before it knows that the token is another's.
#[test]
fn a_signature_that_no_ed25519_key_can_have_made_ends_the_search_at_such_a_key() {
    let secret = json!({"kty": "oct", "k": BASE64_URL_SAFE_NO_PAD.encode(KEY)});
    let ed25519 = json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64_URL_SAFE_NO_PAD.encode([7; 32])});
    for (keys, result) in
        [(json!([secret, ed25519]), Ok(())), (json!([ed25519, secret]), Err(JwtStatus::Ed25519WrongLength))]
    {
        let set = Arc::new(Jwks::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap());
        let jwt = Jwt::parse(token(&good()).as_bytes()).unwrap();
        assert_eq!(set.verify(&jwt, &Keys(Vec::new())), result, "{keys}");
    }
}

#[test]
fn claims_become_headers_that_nobody_else_can_set() {
    let claim = |header: &'static str, path: &str| ClaimHeader {
        header: HeaderName::from_static(header),
        path: path.split('.').map(str::to_owned).collect(),
    };
    let of = of(vec![JwtProvider {
        forward: true,
        forward_payload_header: Some(HeaderName::from_static("x-payload")),
        pad_forward_payload_header: true,
        claim_to_headers: vec![
            claim("x-sub", "sub"),
            claim("x-num", "num"),
            claim("x-float", "float"),
            claim("x-true", "ok"),
            claim("x-deep", "n.d"),
            claim("x-list", "list"),
            claim("x-object", "n"),
            claim("x-empty", "empty"),
            claim("x-none", "none"),
        ],
        ..provider("i")
    }]);
    let mut claims = good();
    for (name, value) in [
        ("num", json!(7)),
        ("float", json!(-1.5)),
        ("ok", json!(true)),
        ("n", json!({"d": "deep"})),
        ("list", json!(["a", "b"])),
        ("empty", json!("")),
    ] {
        claims[name] = value;
    }
    let token = token(&claims);
    let bearer = format!("Bearer {token}");
    let forged = [("authorization", bearer.as_str()), ("x-none", "root"), ("x-sub", "root"), ("x-payload", "e30")];
    let asked = ask(&of, &needs(0), &forged);
    assert_eq!(asked.result, Ok(()));
    let payload = token.split('.').nth(1).unwrap();
    let padded = format!("{payload:=<0$}", payload.len().next_multiple_of(4));
    let expected = [
        ("authorization", bearer.as_str()),
        ("x-payload", &padded),
        ("x-sub", "ann"),
        ("x-num", "7"),
        ("x-float", "-1.500000"),
        ("x-true", "true"),
        ("x-deep", "deep"),
        ("x-list", "WyJhIiwiYiJd"),
        ("x-object", "eyJkIjoiZGVlcCJ9"),
    ];
    let found: Vec<_> = asked.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    expected.iter().for_each(|pair| assert!(found.contains(pair), "{pair:?} in {found:?}"));
    let mut headers = HeaderMap::from_iter([(HeaderName::from_static("x-sub"), HeaderValue::from_static("root"))]);
    of.sanitize(&mut headers);
    assert!(headers.is_empty(), "also where no token is asked for");
}

#[test]
fn metadata_has_the_payload_the_header_and_what_failed() {
    let of = of(vec![JwtProvider {
        payload_in_metadata: "payload".to_owned(),
        header_in_metadata: "header".to_owned(),
        failed_status_in_metadata: "failed".to_owned(),
        space_delimited_claims: vec!["scope".to_owned()],
        ..provider("i")
    }]);
    let asked = ask(&of, &needs(0), &[("authorization", &format!("Bearer {}", token(&with("scope", json!("a  b")))))]);
    let mut payload = good();
    payload["scope"] = json!(["a", "b"]);
    assert_eq!(asked.metadata, json!({"payload": payload, "header": {"alg": "HS256"}}));
    for (requirement, value, code, message) in [
        (needs(0), None, 1, "Jwt is missing"),
        (JwtRequirement::AllowMissingOrFailed, None, 1, "Jwt is missing"),
        (needs(0), Some(with("exp", json!(1))), 3, "Jwt is expired"),
        (JwtRequirement::AllowMissingOrFailed, Some(with("aud", json!("x"))), 25, "Audiences in Jwt are not allowed"),
    ] {
        let value = value.map(|claims| format!("Bearer {}", token(&claims)));
        let headers: Vec<_> = value.iter().map(|value| ("authorization", value.as_str())).collect();
        let told = ask(&of, &requirement, &headers).metadata;
        assert_eq!(told, json!({"failed": {"code": code, "message": message}}), "{requirement:?}");
    }
}

#[test]
fn a_preflight_is_bypassed_only_where_that_is_asked_for() {
    let facts = |method, headers| RequestFacts {
        method,
        scheme: "http",
        authority: "a",
        path: "/",
        headers,
        is_grpc: false,
        tls: None,
        source_ip: None,
        is_internal: false,
        channel_id: 0,
        metadata: None,
    };
    let headers: HeaderMap = [("origin", "http://o"), ("access-control-request-method", "PUT")]
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .into_iter()
        .collect();
    let (plain, none) = (of(Vec::new()), HeaderMap::new());
    let bypassing = Authenticator::new(JwtAuthn { bypass_cors_preflight: true, ..JwtAuthn::default() });
    assert!(bypassing.is_bypassed(&facts(&Method::OPTIONS, &headers)));
    assert!(!bypassing.is_bypassed(&facts(&Method::OPTIONS, &none)), "OPTIONS alone is no preflight");
    assert!(!bypassing.is_bypassed(&facts(&Method::GET, &headers)));
    assert!(!plain.is_bypassed(&facts(&Method::OPTIONS, &headers)));
}

#[test]
fn key_sets_are_read_and_what_cannot_be_used_is_left_out() {
    let b64 = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let rsa = |bits: usize, e: &[u8]| json!({"kty": "RSA", "n": b64(&vec![0x81; bits / 8]), "e": b64(e)});
    let also = |mut key: Value, name: &str, value: &str| {
        key[name] = value.into();
        key
    };
    let ec =
        |crv: &str, size: usize| json!({"kty": "EC", "crv": crv, "x": b64(&vec![1; size]), "y": b64(&vec![2; size])});
    for (key, good) in [
        (rsa(2048, &[1, 0, 1]), true),
        (rsa(2048, &[0, 3]), true),
        (rsa(2048, &[5]), false),
        (rsa(1024, &[1, 0, 1]), false),
        (rsa(16_384, &[1, 0, 1]), false),
        (also(rsa(2048, &[3]), "alg", "PS384"), true),
        (also(rsa(2048, &[3]), "alg", "HS256"), false),
        (also(rsa(2048, &[3]), "alg", "RSA-OAEP"), false),
        (also(rsa(2048, &[3]), "use", "sig"), true),
        (also(rsa(2048, &[3]), "use", "enc"), false),
        (ec("P-256", 32), true),
        (ec("P-256", 31), true),
        (ec("P-256", 33), false),
        (ec("P-384", 48), true),
        (ec("P-521", 66), true),
        (ec("ES256", 32), false),
        (ec("secp256k1", 32), false),
        (also(ec("P-384", 48), "alg", "ES256"), false),
        (also(ec("", 48), "alg", "ES384"), true),
        (json!({"kty": "oct", "k": b64(b"secret")}), true),
        (json!({"kty": "oct", "k": ""}), false),
        (json!({"kty": "oct"}), false),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&[7; 32])}), true),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&[7; 31])}), false),
        (json!({"kty": "OKP", "crv": "X25519", "x": b64(&[7; 32])}), false),
        (json!({"kty": "other"}), false),
        (json!({}), false),
    ] {
        let set = json!({"keys": [key, 7]}).to_string();
        let found = Jwks::parse(set.as_bytes()).map(|set| set.len());
        assert_eq!(found, if good { Ok(1) } else { Err(JwtStatus::JwksNoValidKeys) }, "{set}");
    }
    for (text, status) in [
        ("", JwtStatus::JwksBadJson),
        ("[]", JwtStatus::JwksBadJson),
        (r#"{"keys":[],"keys":[]}"#, JwtStatus::JwksBadJson),
        ("{}", JwtStatus::JwksNoKeys),
        (r#"{"keys":{}}"#, JwtStatus::JwksBadKeys),
        (r#"{"keys":[]}"#, JwtStatus::JwksNoValidKeys),
        (r#"{"k":"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"}"#, JwtStatus::JwksNoValidKeys),
    ] {
        assert_eq!(Jwks::parse(text.as_bytes()).unwrap_err(), status, "{text}");
    }
    let many = json!({"keys": vec![json!({"kty": "oct", "k": "AA"}); 500]}).to_string();
    assert_eq!(Jwks::parse(many.as_bytes()).unwrap().len(), 128);
    let secret = Jwks::parse(br#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#).unwrap();
    assert!(!format!("{secret:?}").contains("115"), "a secret is not printed: {secret:?}");
}

#[test]
fn a_key_verifies_only_what_its_kind_can() {
    let rsa = JwkKey::Rsa { n: Vec::new(), e: Vec::new() };
    let p256 = JwkKey::Ec { curve: Curve::P256, point: Vec::new() };
    let secret = JwkKey::Secret(Vec::new());
    for (key, algorithm, expected) in [
        (&rsa, "RS512", true),
        (&rsa, "PS256", true),
        (&rsa, "HS256", false),
        (&rsa, "ES256", false),
        (&p256, "ES256", true),
        (&p256, "ES384", false),
        (&p256, "RS256", false),
        (&secret, "HS384", true),
        (&secret, "RS256", false),
        (&JwkKey::Ed25519([0; 32]), "EdDSA", true),
        (&JwkKey::Ed25519([0; 32]), "ES256", false),
    ] {
        let algorithm = Algorithm::named(algorithm).unwrap();
        assert_eq!(key.is_for(algorithm), expected, "{key:?} {algorithm:?}");
    }
}
