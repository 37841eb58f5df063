//! Tokens and key sets: whatever they say, nobody gets in whose signature is not a key's.

use std::sync::{Arc, LazyLock};

use arbitrary::{Result, Unstructured};
use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD, Engine as _};
use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as pb;
use http::{HeaderMap, HeaderValue, Uri};
use mesh_core::decode::{ExtensionValue, HttpFilterType, JwtAuthnFilter};
use mesh_core::model::{JwtAuthn, JwtRequirement};
use mesh_core::policy::jwt::{
    Algorithm, Authenticator, JwkKey, Jwks, Jwt, JwtKeys, JwtRequest, JwtStatus, SignatureCheck,
};
use prost::Message as _;
use serde_json::Value;

use super::text::change;
use crate::input;

const HEADER: &str = r#"{"alg":"RS256","kid":"k","typ":"JWT","jku":"http://a/"}"#;
const PAYLOAD: &str = r#"{"iss":"i","sub":"ann","aud":["api","b"],"exp":4900000000,"nbf":1,"iat":1.5,"jti":"1","scope":"a b",
    "n":{"d":[1,-2,null,true,"x"]}}"#;
const NOW: u64 = 1_800_000_000;

/// Keys of every kind, and certificates by their ids.
const JWKS: &str = r#"{"keys":[
    {"kty":"RSA","kid":"k","alg":"RS256","use":"sig","n":"2XMMNpV14lsBDH_rt2dKmKH_PjHrAR7OP3zkykqxC0TMM0EzfTVzSQYmsRZh1_pOFLBcP8sCnQcsFnUYxa6F6bL85IR-r0x0rDK13BTR-Fw5fjF6ktkU13RDktpbhDnt_3GLFuAEbUR3-aPW-ADHmRnZoCiYoNdR77N9YPBINvYJSlOixBHzXp0sUyQ0qv1JM1Pv93vn4OcZwGdYeSwkSrZ1jotRmRfUZX2CRv93OksRm2ZjFvVb4pn2WJkkAvm3ARlzG-P1Mj0xymODPnJs5LXP-hrhhSpVLRtxIcRIBnmDK0tz4eD4S87_6ja2E4DN6c6v93pjfSN8QDlbDhaiSw","e":"AQAB"},
    {"kty":"EC","crv":"P-256","x":"r2foYWP_SlIujMv4bv9NlfA2cI2R_fwzcUH2uWH0BGs","y":"cG07ESR2LZOOqP3-3-MNtwr1J_QKDOdxKr2inCQe-iQ"},
    {"kty":"oct","k":"c2VjcmV0"},
    {"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let source = DataSource { specifier: Some(Specifier::InlineString(JWKS.to_owned())), ..Default::default() };
    let source = pb::jwt_provider::JwksSourceSpecifier::LocalJwks(source);
    let mut provider = pb::JwtProvider {
        jwks_source_specifier: Some(source),
        issuer: "i".to_owned(),
        audiences: vec!["api".to_owned()],
        forward_payload_header: "x-payload".to_owned(),
        payload_in_metadata: "payload".to_owned(),
        header_in_metadata: "header".to_owned(),
        failed_status_in_metadata: "failed".to_owned(),
        ..Default::default()
    };
    for claim in ["sub", "n.d", "exp", "aud", "n"] {
        let claim = pb::JwtClaimToHeader {
            header_name: format!("x-{}", claim.replace('.', "-")),
            claim_name: claim.to_owned(),
            ..Default::default()
        };
        provider.claim_to_headers.push(claim);
    }
    let config = pb::JwtAuthentication { providers: [("p".to_owned(), provider)].into(), ..Default::default() };
    let bytes = config.encode_to_vec();
    let config = JwtAuthnFilter.decode(ExtensionValue::Proto(&bytes)).expect("it is good");
    let config: &dyn std::any::Any = &*config;
    Authenticator::new(config.downcast_ref::<JwtAuthn>().expect("its own type").clone())
});

/// Whoever asks whether a signature is a key's asks only of algorithms that the key is for.
struct Keys {
    set: std::result::Result<Arc<Jwks>, JwtStatus>,
    verifies: bool,
}

impl SignatureCheck for Keys {
    fn is_signature(&self, key: &JwkKey, algorithm: Algorithm, _: &[u8], _: &[u8]) -> bool {
        assert!(key.is_for(algorithm), "{key:?} is asked about {algorithm:?}");
        self.verifies
    }
}

impl JwtKeys for Keys {
    fn keys(&self, _: usize) -> std::result::Result<Arc<Jwks>, JwtStatus> {
        self.set.clone()
    }
}

/// Any bytes as a token and as a key set, and good ones spoiled.
pub(crate) fn jwt(data: &[u8]) {
    let _ = Jwt::parse(data);
    if let Ok(set) = Jwks::parse(data) {
        assert!(!set.is_empty());
    }
    if data.is_empty() {
        let unspoiled = [HEADER, PAYLOAD, "signature"].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
        let keys = Keys { set: Jwks::parse(JWKS.as_bytes()).map(Arc::new), verifies: true };
        assert_eq!(judge(&unspoiled, &keys, false), Ok(()), "spoiling it would show nothing");
    }
    let _ = made(&mut Unstructured::new(data));
}

fn made(u: &mut Unstructured<'_>) -> Result<()> {
    let set = part(JWKS, u)?;
    let parts = [part(HEADER, u)?, part(PAYLOAD, u)?];
    let signature: [u8; 16] = u.arbitrary()?;
    let [header, payload] = parts.map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let mut token = format!("{header}.{payload}.{}", BASE64_URL_SAFE.encode(signature));
    if u.ratio(1, 4)? {
        token = input::spoil(&token, u)?;
    }
    let verifies = u.ratio(1, 2)?;
    let keys = Keys { set: Jwks::parse(set.as_bytes()).map(Arc::new), verifies };
    let _ = judge(&token, &keys, u.arbitrary()?);
    Ok(())
}

/// A good part, changed as JSON, spoiled as text, or as it is.
fn part(good: &str, u: &mut Unstructured<'_>) -> Result<String> {
    match u.int_in_range(0..=3)? {
        0 => Ok(good.to_owned()),
        1 => input::spoil(good, u),
        _ => {
            let mut json: Value = serde_json::from_str(good).expect("the sample is JSON");
            change(&mut json, u)?;
            Ok(json.to_string())
        }
    }
}

fn judge(token: &str, keys: &Keys, in_query: bool) -> std::result::Result<(), JwtStatus> {
    let mut headers = HeaderMap::new();
    let mut uri = Uri::from_static("/a?b=c");
    if in_query && let Ok(with) = format!("/a?access_token={token}&b=c").parse() {
        uri = with;
    } else if let Ok(value) = HeaderValue::try_from(format!("Bearer {token}")) {
        headers.insert("authorization", value);
    }
    headers.insert("x-sub", HeaderValue::from_static("forged"));
    let request = JwtRequest { headers: &mut headers, uri: &mut uri };
    let required = JwtRequirement::Provider { provider: 0, audiences: Vec::new() };
    let found = AUTHENTICATOR.authenticate(&required, request, keys, NOW);
    assert!(headers.get_all("x-sub").iter().all(|value| value != "forged"));
    match &found.result {
        Ok(()) => {
            assert!(keys.verifies && keys.set.is_ok(), "let in without a key's signature: {token}");
            assert!(found.metadata.contains_key("payload") && headers.contains_key("x-payload"));
            assert!(!headers.contains_key("authorization") && uri == "/a?b=c");
        }
        Err(status) => assert!(!status.text().is_empty() && !found.metadata.contains_key("payload")),
    }
    found.result
}
