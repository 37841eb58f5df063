//! JSON Web Tokens, as far as who carries one needs to know them: until when they are good (gRFC A97).

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

/// Without padding, as RFC 7515 has it; who pads is understood too.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a text is not a token with an expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadJwt {
    /// It is not three parts with dots between them.
    Parts,
    /// Its second part is not JSON in base64url.
    Claims,
    /// It has no `exp`, or one that is no time.
    Expiry,
}

impl fmt::Display for BadJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parts => "a JWT has three parts with dots between them",
            Self::Claims => "a JWT's second part is JSON in base64url",
            Self::Expiry => "the JWT has no `exp` that is a time in seconds",
        })
    }
}

impl std::error::Error for BadJwt {}

/// When `token` expires. Nothing else of it is looked at: whether it is good is for who gets it to say.
///
/// # Errors
///
/// It is no token, or says no time.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use mesh_core::identity::{BadJwt, jwt_expiry};
///
/// // {"alg":"none"} . {"exp":1700000000} . no signature
/// let expiry = jwt_expiry("eyJhbGciOiJub25lIn0.eyJleHAiOjE3MDAwMDAwMDB9.");
/// assert_eq!(expiry, Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
/// assert_eq!(jwt_expiry("an opaque token"), Err(BadJwt::Parts));
/// ```
pub fn jwt_expiry(token: &str) -> Result<SystemTime, BadJwt> {
    let claims = claims(token)?;
    // RFC 7519: a number, which may have a fraction.
    let seconds = claims.get("exp").and_then(Value::as_f64).ok_or(BadJwt::Expiry)?;
    let since = Duration::try_from_secs_f64(seconds).map_err(|_| BadJwt::Expiry)?;
    SystemTime::UNIX_EPOCH.checked_add(since).ok_or(BadJwt::Expiry)
}

/// Whom `token` is about, its `sub`; None if it does not say, or is no token. Whether that is true is for who gets it to say.
pub fn jwt_subject(token: &str) -> Option<String> {
    claims(token).ok()?.get("sub")?.as_str().map(str::to_owned)
}

fn claims(token: &str) -> Result<Value, BadJwt> {
    let parts: Vec<&str> = token.split('.').collect();
    let [_, claims, _] = parts.as_slice() else { return Err(BadJwt::Parts) };
    let json = BASE64.decode(claims).map_err(|_| BadJwt::Claims)?;
    serde_json::from_slice(&json).map_err(|_| BadJwt::Claims)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a97_the_expiry_is_read_and_nothing_else_is() {
        let at = |seconds: f64| Ok(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds));
        for (claims, want) in [
            (r#"{"exp": 12}"#, at(12.0)),
            (r#"{"exp": 12.5, "aud": ["istio-ca"]}"#, at(12.5)),
            (r#"{"exp": 1.2e1}"#, at(12.0)),
            (r#"{"iat": 1}"#, Err(BadJwt::Expiry)),
            (r#"{"exp": "12"}"#, Err(BadJwt::Expiry)),
            (r#"{"exp": -1}"#, Err(BadJwt::Expiry)),
            (r#"{"exp": 1e300}"#, Err(BadJwt::Expiry)),
            ("[12]", Err(BadJwt::Expiry)),
            ("{", Err(BadJwt::Claims)),
        ] {
            assert_eq!(jwt_expiry(&token(claims)), want, "{claims}");
        }
        let padded = token(r#"{"exp": 1}"#).replace(".c2ln", "==.c2ln");
        assert_eq!(jwt_expiry(&padded), at(1.0));
        for text in ["", "a", "a.b", "a.b.c.d"] {
            assert_eq!(jwt_expiry(text), Err(BadJwt::Parts), "{text}");
        }
        assert_eq!(jwt_expiry("a.*.c"), Err(BadJwt::Claims));
    }
}
