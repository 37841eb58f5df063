//! One token: its three parts, and the claims that everyone reads.

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::json;
use super::status::JwtStatus;

/// Longer than any header that a server takes.
const LONGEST: usize = 65_536;

/// With padding or without, and with bits to spare.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Base64url as Envoy reads it: whole padding or none.
pub(super) fn base64url(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    let text = text.as_ref();
    let half_padded = text.contains(&b'=') && text.len() % 4 != 0;
    if half_padded { None } else { BASE64URL.decode(text).ok() }
}

/// An algorithm of signatures (RFC 7518, RFC 8037). There is no `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // Their names are the standard's.
pub enum Algorithm {
    Es256,
    Es384,
    Es512,
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    EdDsa,
}

impl Algorithm {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// A token that could be read. Nothing of it is proven yet.
#[derive(Debug, Clone)]
pub struct Jwt {
    pub(super) header: Map<String, Value>,
    pub(super) payload: Map<String, Value>,
    pub(super) algorithm: Algorithm,
    pub(super) kid: String,
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) audiences: Vec<String>,
    not_before: u64,
    expires: Option<u64>,
    /// Header, dot, payload: what the signature is of.
    pub(super) signed: String,
    /// Where the payload begins in it.
    payload_at: usize,
    pub(super) signature: Vec<u8>,
}

impl Jwt {
    /// Reads a token.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(token: &[u8]) -> Result<Self, JwtStatus> {
        let token = std::str::from_utf8(token).ok().filter(|token| token.len() <= LONGEST);
        // As in Envoy, dots with nothing between them do not count.
        let mut parts = token.ok_or(JwtStatus::BadFormat)?.split('.').filter(|part| !part.is_empty());
        let (Some(header64), Some(payload64), Some(signature64), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwtStatus::BadFormat);
        };
        let header = base64url(header64).ok_or(JwtStatus::HeaderBadBase64)?;
        let header = json::object(&header).ok_or(JwtStatus::HeaderBadJson)?;
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(JwtStatus::HeaderBadAlg)?;
        let algorithm = Algorithm::named(algorithm).ok_or(JwtStatus::HeaderUnknownAlg)?;
        let kid = text(&header, "kid", JwtStatus::HeaderBadKid)?;
        let payload = base64url(payload64).ok_or(JwtStatus::PayloadBadBase64)?;
        let payload = json::object(&payload).ok_or(JwtStatus::PayloadBadJson)?;
        let issuer = text(&payload, "iss", JwtStatus::IssNotString)?;
        let subject = text(&payload, "sub", JwtStatus::SubNotString)?;
        time(&payload, "iat", JwtStatus::IatNotInteger, JwtStatus::IatOutOfRange)?;
        let not_before = time(&payload, "nbf", JwtStatus::NbfNotInteger, JwtStatus::NbfOutOfRange)?;
        let expires = time(&payload, "exp", JwtStatus::ExpNotInteger, JwtStatus::ExpOutOfRange)?;
        text(&payload, "jti", JwtStatus::JtiNotString)?;
        let audiences = audiences(payload.get("aud"))?;
        let signature = base64url(signature64).ok_or(JwtStatus::SignatureBadBase64)?;
        // RFC 7515, 4.1.11: what is critical must be understood, and nothing that may be listed there is understood here.
        if header.contains_key("crit") {
            return Err(JwtStatus::VerificationFails);
        }
        Ok(Self {
            algorithm,
            kid,
            issuer,
            subject,
            audiences,
            not_before: not_before.unwrap_or(0),
            expires,
            signed: format!("{header64}.{payload64}"),
            payload_at: header64.len() + 1,
            signature,
            header,
            payload,
        })
    }

    /// The payload as it came.
    pub(super) fn payload64(&self) -> &str {
        &self.signed[self.payload_at..]
    }

    /// Whether the token is valid at `now`, in seconds since 1970, by a clock that may be off by `skew`.
    pub(super) fn check_time(&self, now: u64, skew: u64) -> Result<(), JwtStatus> {
        if now.saturating_add(skew) < self.not_before {
            return Err(JwtStatus::NotYetValid);
        }
        // Unlike Envoy, for which an `exp` of 0 is none.
        if self.expires.is_some_and(|expires| now > expires.saturating_add(skew)) {
            return Err(JwtStatus::Expired);
        }
        Ok(())
    }

    /// Whether its lifetime from `now` on is less than `most`; a token without an end has none.
    pub(super) fn ends_within(&self, most: Duration, now: u64) -> bool {
        self.expires.is_some_and(|expires| Duration::from_secs(expires.saturating_sub(now)) < most)
    }
}

/// A string; empty if there is none.
fn text(fields: &Map<String, Value>, name: &str, otherwise: JwtStatus) -> Result<String, JwtStatus> {
    match fields.get(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(otherwise),
    }
}

/// Seconds since 1970, without their fraction.
fn time(
    fields: &Map<String, Value>,
    name: &str,
    not_a_number: JwtStatus,
    out_of_range: JwtStatus,
) -> Result<Option<u64>, JwtStatus> {
    /// 2^64: the first number that is none of 64 bits.
    const END: f64 = 18_446_744_073_709_551_616.0;
    let Some(value) = fields.get(name) else { return Ok(None) };
    let number = value.as_f64().ok_or(not_a_number)?;
    if !(0.0..END).contains(&number) {
        return Err(out_of_range);
    }
    // It is in range, and what is cut off is the fraction.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(Some(number as u64))
}

fn audiences(value: Option<&Value>) -> Result<Vec<String>, JwtStatus> {
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or(JwtStatus::AudNotString);
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(text).collect(),
        Some(one) => Ok(vec![text(one)?]),
    }
}
