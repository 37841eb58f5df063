//! SPIFFE bundle maps: root certificates by trust domain (gRFC A87; SPIFFE Trust Domain and Bundle, section 4).
//!
//! Of a bundle only `spiffe_sequence` and `keys` are read, of a key only `kty`, `use` and `x5c`. What is not right anywhere is a
//! fault of the whole map: a root that is left out in silence fails handshakes for reasons that nobody sees. Keys of JWTs, which
//! are no roots, are passed over.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::SpiffeId;

/// Why a text is no SPIFFE bundle map: where, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBundle(String);

impl fmt::Display for BadBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is no SPIFFE bundle map: {}", self.0)
    }
}

impl std::error::Error for BadBundle {}

/// What a root is for.
const ROOT: &str = "x509-svid";
/// What a key is for that signs JWTs.
const JWT: &str = "jwt-svid";
/// The kinds of key there are.
const KINDS: [&str; 2] = ["RSA", "EC"];

/// The roots of each trust domain that the JSON of a bundle map has. A map without any is valid and trusts nobody.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn bundle_map(json: &[u8]) -> Result<BTreeMap<String, Vec<CertificateDer<'static>>>, BadBundle> {
    let bad = |text: String| BadBundle(text);
    let map: Value = serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
    let domains = map.get("trust_domains").and_then(Value::as_object);
    let domains = domains.ok_or_else(|| bad("trust_domains is not an object".to_owned()))?;
    let mut roots = BTreeMap::new();
    for (name, bundle) in domains {
        let is_name = format!("spiffe://{name}").parse::<SpiffeId>().is_ok_and(|id| id.path().is_empty());
        if !is_name {
            return Err(bad(format!("trust_domains: `{name}` is no name of a trust domain")));
        }
        let certificates = bundle_roots(bundle).map_err(|why| bad(format!("trust_domains[\"{name}\"].{why}")))?;
        roots.insert(name.clone(), certificates);
    }
    Ok(roots)
}

fn bundle_roots(bundle: &Value) -> Result<Vec<CertificateDer<'static>>, String> {
    if let Some(sequence) = bundle.get("spiffe_sequence").filter(|sequence| !sequence.is_null()) {
        sequence.as_u64().ok_or("spiffe_sequence is not a number of 64 bits")?;
    }
    let keys = bundle.get("keys").and_then(Value::as_array).ok_or("keys is not an array")?;
    let mut roots = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        roots.extend(key_root(key).map_err(|why| format!("keys[{index}].{why}"))?);
    }
    if roots.is_empty() {
        return Err(format!("keys has none of use `{ROOT}`"));
    }
    Ok(roots)
}

/// The root in a key; None if it is for JWTs.
fn key_root(key: &Value) -> Result<Option<CertificateDer<'static>>, String> {
    let text = |field: &str| key.get(field).and_then(Value::as_str).unwrap_or_default();
    match text("use") {
        ROOT => {}
        JWT => return Ok(None),
        other => return Err(format!("use is `{other}`, and must be `{ROOT}` or `{JWT}`")),
    }
    if !KINDS.contains(&text("kty")) {
        return Err(format!("kty is `{}`, and must be one of {}", text("kty"), KINDS.join(", ")));
    }
    let chain = key.get("x5c").and_then(Value::as_array).ok_or("x5c is not an array")?;
    // SPIFFE X.509-SVID, section 6.1: exactly the one certificate.
    let [one] = chain.as_slice() else {
        return Err(format!("x5c has {} certificates, and must have one", chain.len()));
    };
    let der = one.as_str().and_then(|text| STANDARD.decode(text).ok()).ok_or("x5c[0] is not base64")?;
    if !X509Certificate::from_der(&der).is_ok_and(|(rest, _)| rest.is_empty()) {
        return Err("x5c[0] is no certificate".to_owned());
    }
    Ok(Some(der.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(map: &Value) -> Result<BTreeMap<String, Vec<CertificateDer<'static>>>, String> {
        bundle_map(&serde_json::to_vec(map).unwrap()).map_err(|error| error.to_string())
    }

    /// A self-signed certificate.
    const ROOT_DER: &str = "MIIBdTCCARugAwIBAgIUctjc86OfqEoya6ZAf06rf4xI+C4wCgYIKoZIzj0EAwIwDzENMAsGA1UEAwwEcm9vdDAgFw0yNjExMjcyMjM0MDZaGA8yMTI2MTEwMzIyMzQwNlowDzENMAsGA1UEAwwEcm9vdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJYHRjXnk/EYY/nlaEd7Ntmw7u8Q9Cd9OQoIlLyphk2StSOhTf9W3B0bfARaW8b/iDOhTTSZoflpGpjHvEqOueKjUzBRMB0GA1UdDgQWBBTv/jo1IO3zcqj+JnPeIZSUjJJ3ejAfBgNVHSMEGDAWgBTv/jo1IO3zcqj+JnPeIZSUjJJ3ejAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIAenNcLl1xhJobPPBgGZz3pTVAAlaovcLghDYUIPxnd9AiEAklEP+2sr/7IZegfMaoNcFdXeHXmfQM4T6Cxj4uyd+0s=";

    fn root() -> Value {
        json!({ "kty": "EC", "use": "x509-svid", "x5c": [ROOT_DER], "crv": "P-256", "x": "unread" })
    }

    fn map_of(keys: &Value) -> Value {
        json!({ "trust_domains": { "example.org": { "spiffe_sequence": 12, "keys": keys } } })
    }

    #[test]
    fn a87_each_trust_domain_has_its_roots_and_keys_of_jwts_are_passed_over() {
        let jwt = json!({ "kty": "EC", "use": "jwt-svid", "kid": "1" });
        let mut map = map_of(&json!([jwt, root(), root()]));
        map["trust_domains"]["other.test"] = json!({ "keys": [root()] });
        let read = read(&map).unwrap();
        let counts: Vec<_> = read.iter().map(|(name, roots)| (name.as_str(), roots.len())).collect();
        assert_eq!(counts, [("example.org", 2), ("other.test", 1)]);
        assert_eq!(STANDARD.encode(&read["example.org"][0]), ROOT_DER);
        assert_eq!(self::read(&json!({ "trust_domains": {} })), Ok(BTreeMap::new()), "a map of none is valid");
    }

    #[test]
    fn a87_whatever_is_wrong_is_named_and_refuses_the_whole_map() {
        let with = |field: &str, value: Value| {
            let mut key = root();
            key[field] = value;
            map_of(&json!([root(), key]))
        };
        for (map, why) in [
            (json!([]), "trust_domains is not an object"),
            (json!({ "trust_domains": [] }), "trust_domains is not an object"),
            (json!({ "trust_domains": { "a/b": {} } }), "`a/b` is no name of a trust domain"),
            (json!({ "trust_domains": { "A": {} } }), "`A` is no name of a trust domain"),
            (json!({ "trust_domains": { "a": {} } }), "trust_domains[\"a\"].keys is not an array"),
            (map_of(&json!([])), "keys has none of use `x509-svid`"),
            (json!({ "trust_domains": { "a": { "spiffe_sequence": "1", "keys": [root()] } } }), "spiffe_sequence"),
            (with("use", json!("tls")), "keys[1].use is `tls`"),
            (with("use", json!(null)), "keys[1].use is ``"),
            (with("kty", json!("oct")), "keys[1].kty is `oct`"),
            (with("x5c", json!([])), "keys[1].x5c has 0 certificates"),
            (with("x5c", json!([ROOT_DER, ROOT_DER])), "keys[1].x5c has 2 certificates"),
            (with("x5c", json!(["*"])), "keys[1].x5c[0] is not base64"),
            (with("x5c", json!(["AAAA"])), "keys[1].x5c[0] is no certificate"),
        ] {
            let error = read(&map).unwrap_err();
            assert!(error.contains(why), "{error} does not say {why}");
        }
        assert!(bundle_map(b"{").unwrap_err().to_string().contains("EOF"));
    }
}
