//! Call credentials: a bearer token from a file (gRFC A97).

use http::HeaderValue;
use mesh_core::ads::TransportError;
use mesh_core::bootstrap::CallCredentials;

/// The largest token that is read: what fits into a header list of usual limits.
const LONGEST: usize = 16 * 1024;

/// The `authorization` header of a call, read anew for each. Credentials on a channel in plaintext are refused, as gRPC
/// does: everyone on the way could use them.
pub(super) fn bearer(credentials: &[CallCredentials], private: bool) -> Result<Option<HeaderValue>, TransportError> {
    let mut found = None;
    for one in credentials {
        let CallCredentials::JwtTokenFile(path) = one else {
            return Err(TransportError::new(format!("call_creds {one:?} are not supported")));
        };
        if !private {
            return Err(TransportError::new(
                "call_creds are given, and a token is never sent over insecure channel_creds: use tls",
            ));
        }
        let failed = |why: String| TransportError::new(format!("jwt_token_file {}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let token = text.trim();
        if token.is_empty() || token.len() > LONGEST {
            return Err(failed(format!("a token has 1 to {LONGEST} bytes, and this one has {}", token.len())));
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| failed("the token has a character that no header has".to_owned()))?;
        value.set_sensitive(true);
        found.get_or_insert(value);
    }
    Ok(found)
}
