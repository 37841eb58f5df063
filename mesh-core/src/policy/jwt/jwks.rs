//! JSON Web Key Sets (RFC 7517): which keys there are. Whether a key fits a signature is for others to compute.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::json;
use super::status::JwtStatus;
use super::token::{Algorithm, Jwt, base64url};

/// A token without `kid` is tried against every key.
const MOST_KEYS: usize = 128;
/// Bytes of an RSA modulus: shorter ones can be factored, longer ones cost time that strangers spend.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// The keys of one provider.
#[derive(Debug, Clone, Default)]
pub struct Jwks {
    keys: Vec<Jwk>,
}

/// One key.
#[derive(Debug, Clone)]
struct Jwk {
    kid: String,
    /// The only algorithm it is for; None: those that its kind allows.
    algorithm: Option<Algorithm>,
    key: JwkKey,
}

/// A key, by its kind.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JwkKey {
    /// RSA: modulus and exponent, big-endian, without zeros in front.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent: 3 or 65537.
        e: Vec<u8>,
    },
    /// A point on a curve, uncompressed (SEC 1).
    Ec {
        /// The curve.
        curve: Curve,
        /// `04`, x and y.
        point: Vec<u8>,
    },
    /// A secret for HMAC.
    Secret(Vec<u8>),
    /// An Ed25519 public key.
    Ed25519([u8; 32]),
}

/// An elliptic curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Their names are the standard's.
pub enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// The curve that a key names; else that of its algorithm; without either P-256, as in Envoy.
    fn of(crv: &str, alg: &str) -> Option<Self> {
        Some(match (crv, alg) {
            ("P-256", _) | ("", "ES256" | "") => Self::P256,
            ("P-384", _) | ("", "ES384") => Self::P384,
            ("P-521", _) | ("", "ES512") => Self::P521,
            _ => return None,
        })
    }

    /// The bytes of a coordinate.
    fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

impl JwkKey {
    /// Whether signatures of `algorithm` can be this key's. Envoy tries a key of another kind too; who can make it sign has
    /// the key.
    pub fn is_for(&self, algorithm: Algorithm) -> bool {
        use Algorithm as A;
        match self {
            Self::Rsa { .. } => {
                matches!(algorithm, A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512)
            }
            Self::Ec { curve: Curve::P256, .. } => algorithm == A::Es256,
            Self::Ec { curve: Curve::P384, .. } => algorithm == A::Es384,
            Self::Ec { curve: Curve::P521, .. } => algorithm == A::Es512,
            Self::Secret(_) => matches!(algorithm, A::Hs256 | A::Hs384 | A::Hs512),
            Self::Ed25519(_) => algorithm == A::EdDsa,
        }
    }
}

impl std::fmt::Debug for JwkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // One of them is a secret.
        f.write_str(match self {
            Self::Rsa { .. } => "Rsa",
            Self::Ec { .. } => "Ec",
            Self::Secret(_) => "Secret",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}

/// Says whether a signature is a key's: cryptography is somebody else's.
pub trait SignatureCheck {
    /// Whether `signature` is that of `message` by `key`, which is one [for](JwkKey::is_for) `algorithm`.
    fn is_signature(&self, key: &JwkKey, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool;
}

impl Jwks {
    /// Reads a key set; or a map from key ids to certificates in PEM, as Google and Firebase have it. Keys that cannot be
    /// used are left out, as in Envoy; so are those for encryption, RSA keys under 2,048 bits, and all after the first 128.
    ///
    /// # Errors
    ///
    /// It is no key set, or nothing in it can be used.
    pub fn parse(text: &[u8]) -> Result<Self, JwtStatus> {
        let fields = json::object(text).ok_or(JwtStatus::JwksBadJson)?;
        let keys: Vec<Jwk> = match fields.get("keys") {
            Some(Value::Array(keys)) => {
                keys.iter().filter_map(Value::as_object).filter_map(jwk).take(MOST_KEYS).collect()
            }
            Some(_) => return Err(JwtStatus::JwksBadKeys),
            None if are_certificates(&fields) => fields.iter().filter_map(certificate).take(MOST_KEYS).collect(),
            None => return Err(JwtStatus::JwksNoKeys),
        };
        if keys.is_empty() { Err(JwtStatus::JwksNoValidKeys) } else { Ok(Self { keys }) }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the signature of `jwt` is that of one of these keys: of those with its `kid` if it has one, and with its
    /// `alg` where a key has one. What the token says of other keys (`jwk`, `jku`, `x5c`, `x5u`) is not looked at.
    pub(super) fn verify(&self, jwt: &Jwt, check: &dyn SignatureCheck) -> Result<(), JwtStatus> {
        let mut status = JwtStatus::JwksKidAlgMismatch;
        for Jwk { kid, algorithm, key } in &self.keys {
            let other_kid = !jwt.kid.is_empty() && !kid.is_empty() && *kid != jwt.kid;
            if other_kid || algorithm.is_some_and(|algorithm| algorithm != jwt.algorithm) {
                continue;
            }
            status = JwtStatus::VerificationFails;
            // As Envoy, which looks at the length before it knows whether the key is for the algorithm at all.
            if matches!(key, JwkKey::Ed25519(_)) && jwt.signature.len() != 64 {
                return Err(JwtStatus::Ed25519WrongLength);
            }
            if !key.is_for(jwt.algorithm) {
                continue;
            }
            if check.is_signature(key, jwt.algorithm, jwt.signed.as_bytes(), &jwt.signature) {
                return Ok(());
            }
        }
        Err(status)
    }
}

fn jwk(fields: &Map<String, Value>) -> Option<Jwk> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let bytes = |name: &str| text(name).and_then(base64url);
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let alg = text("alg").unwrap_or_default();
    let algorithm = Algorithm::named(alg);
    let key = match text("kty")? {
        "RSA" => rsa(bytes("n")?, bytes("e")?),
        "EC" => ec(Curve::of(text("crv").unwrap_or_default(), alg)?, &bytes("x")?, &bytes("y")?),
        "oct" => bytes("k").filter(|secret| !secret.is_empty()).map(JwkKey::Secret),
        "OKP" if text("crv") == Some("Ed25519") => bytes("x")?.try_into().ok().map(JwkKey::Ed25519),
        _ => None,
    }?;
    // A key that says which algorithm it is for, and cannot be for that, is none.
    let fits = alg.is_empty() || algorithm.is_some_and(|algorithm| key.is_for(algorithm));
    fits.then(|| Jwk { kid: text("kid").unwrap_or_default().to_owned(), algorithm, key })
}

fn rsa(n: Vec<u8>, e: Vec<u8>) -> Option<JwkKey> {
    let [n, e] = [n, e].map(|number| number.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>());
    let good = MODULUS.contains(&n.len()) && (e == [3] || e == [1, 0, 1]);
    good.then_some(JwkKey::Rsa { n, e })
}

fn ec(curve: Curve, x: &[u8], y: &[u8]) -> Option<JwkKey> {
    let size = curve.size();
    let mut point = vec![0; 1 + 2 * size];
    point[0] = 4;
    for (at, number) in [(1, x), (1 + size, y)] {
        let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
        let number = &number[first..];
        let zeros = size.checked_sub(number.len())?;
        point[at + zeros..at + size].copy_from_slice(number);
    }
    Some(JwkKey::Ec { curve, point })
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
const END: &str = "\n-----END CERTIFICATE-----\n";

fn are_certificates(fields: &Map<String, Value>) -> bool {
    let is_certificate = |text: &str| text.starts_with(BEGIN) && text.ends_with(END);
    let mut all = fields.iter();
    !fields.is_empty() && all.all(|(kid, value)| !kid.is_empty() && value.as_str().is_some_and(is_certificate))
}

/// An RSA key out of a certificate, of which nothing else is looked at: it is as trusted as the set that has it.
fn certificate((kid, value): (&String, &Value)) -> Option<Jwk> {
    let body = value.as_str()?.strip_prefix(BEGIN)?.strip_suffix(END)?;
    let der = BASE64_STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let PublicKey::RSA(key) = certificate.public_key().parsed().ok()? else { return None };
    Some(Jwk { kid: kid.clone(), algorithm: None, key: rsa(key.modulus.to_vec(), key.exponent.to_vec())? })
}
