//! Call credentials: a bearer token from a file (gRFC A97).
//!
//! A call is made seldom, so the file is read for each. A token that was good is used on while its file is not, until it expires.
//! What lies between two reads is the wait between two attempts at a stream, so the file has no backoff of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use mesh_core::ads::TransportError;
use mesh_core::bootstrap::CallCredentials;
use mesh_core::identity::jwt_expiry;

/// The largest token that is read: what fits into a header list of usual limits.
const LONGEST: u64 = 16 * 1024;
/// So much before its expiry a token is used no more: clocks differ, and the server has to get it (gRFC A97).
const SKEW: Duration = Duration::from_secs(30);

/// The tokens of the bootstrap's servers.
#[derive(Default)]
pub(super) struct Tokens(Mutex<BTreeMap<PathBuf, Token>>);

/// The last good one of a file.
struct Token {
    header: HeaderValue,
    expiry: SystemTime,
}

impl Tokens {
    /// The `authorization` header of a call at `now`. Credentials on a channel in plaintext are refused, as gRPC does:
    /// everyone on the way could use them.
    pub(super) fn bearer(
        &self,
        credentials: &[CallCredentials],
        private: bool,
        now: SystemTime,
    ) -> Result<Option<HeaderValue>, TransportError> {
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
            let header = self.token(path, now)?;
            found.get_or_insert(header);
        }
        Ok(found)
    }

    fn token(&self, path: &Path, now: SystemTime) -> Result<HeaderValue, TransportError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match read(path) {
            Ok(token) => {
                let header = token.header.clone();
                // Whether an expired one is good is for the server to say; its clock may be the right one.
                known.insert(path.to_owned(), token);
                Ok(header)
            }
            Err(why) => match known.get(path).filter(|token| now + SKEW < token.expiry) {
                Some(token) => {
                    tracing::warn!(target: "mesh", "the token in use is kept: {why}");
                    Ok(token.header.clone())
                }
                None => Err(TransportError::new(why)),
            },
        }
    }
}

/// The token in a file. The error begins with the status that gRPC's calls fail with.
fn read(path: &Path) -> Result<Token, String> {
    let failed = |status: &str, why: String| format!("{status}: jwt_token_file {}: {why}", path.display());
    let unreadable = |error: std::io::Error| failed("UNAVAILABLE", format!("it cannot be read: {error}"));
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    let invalid = |why: String| failed("UNAUTHENTICATED", why);
    if size > LONGEST {
        return Err(invalid(format!("a token has {LONGEST} bytes at most, and the file has {size}")));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let token = text.trim();
    let expiry = jwt_expiry(token).map_err(|error| invalid(error.to_string()))?;
    let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| invalid("the token has a character that no header has".to_owned()))?;
    header.set_sensitive(true);
    Ok(Token { header, expiry })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// `{"exp": 1000}`.
    const GOOD: &str = "e30.eyJleHAiOiAxMDAwfQ.c2ln";

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A file of its own for one test.
    struct File(PathBuf);

    impl File {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mesh-token-{}-{name}", std::process::id()));
            Self(path)
        }

        fn credentials(&self) -> Vec<CallCredentials> {
            vec![CallCredentials::JwtTokenFile(self.0.clone())]
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a97_a_good_token_is_used_on_while_its_file_is_not_until_it_expires() {
        let (tokens, file) = (Tokens::default(), File::new("kept"));
        let bearer = |now| tokens.bearer(&file.credentials(), true, at(now)).map_err(|error| error.reason);
        let error = bearer(0).unwrap_err();
        assert!(error.starts_with("UNAVAILABLE: jwt_token_file") && error.contains("cannot be read"), "{error}");
        fs::write(&file.0, format!("{GOOD}\n")).unwrap();
        let header = bearer(0).unwrap().unwrap();
        assert_eq!(header, format!("Bearer {GOOD}").as_str());
        assert!(header.is_sensitive(), "it is in no log");
        fs::remove_file(&file.0).unwrap();
        assert_eq!(bearer(969).unwrap().unwrap(), header);
        assert!(bearer(970).unwrap_err().starts_with("UNAVAILABLE"), "30 s before its expiry it is over");
        fs::write(&file.0, "opaque").unwrap();
        assert_eq!(bearer(969).unwrap().unwrap(), header, "what is no token does not take its place");
        assert!(bearer(970).unwrap_err().starts_with("UNAUTHENTICATED"));
    }

    #[test]
    fn a97_an_expired_token_that_the_file_has_is_the_servers_to_judge() {
        let (tokens, file) = (Tokens::default(), File::new("expired"));
        fs::write(&file.0, GOOD).unwrap();
        assert!(tokens.bearer(&file.credentials(), true, at(5000)).unwrap().is_some());
    }

    #[test]
    fn what_is_no_token_is_refused_with_file_and_reason() {
        let file = File::new("bad");
        for (text, why) in [
            (String::new(), "three parts"),
            ("opaque".to_owned(), "three parts"),
            ("a.b!.c".to_owned(), "base64url"),
            ("e30.e30.c2ln".to_owned(), "`exp`"),
            (format!("{GOOD}\nx: y"), "character that no header has"),
            ("a".repeat(20_000), "16384 bytes at most"),
        ] {
            fs::write(&file.0, text).unwrap();
            let error = Tokens::default().bearer(&file.credentials(), true, at(0)).unwrap_err().reason;
            assert!(error.starts_with("UNAUTHENTICATED: jwt_token_file") && error.contains(why), "{error}");
            assert!(error.contains(&file.0.display().to_string()), "{error}");
        }
    }

    #[test]
    fn a_token_is_never_sent_in_plaintext() {
        let file = File::new("plain");
        fs::write(&file.0, GOOD).unwrap();
        let error = Tokens::default().bearer(&file.credentials(), false, at(0)).unwrap_err();
        assert!(error.reason.contains("never sent over insecure"), "{error}");
    }
}
