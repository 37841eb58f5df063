//! SPIFFE identities.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A SPIFFE ID: `spiffe://trust-domain/path`.
///
/// Parsing is strict, as the SPIFFE-ID standard asks: what is not exactly an ID is not one.
///
/// ```
/// use mesh_core::identity::SpiffeId;
///
/// let id: SpiffeId = "spiffe://cluster.local/ns/default/sa/reviews".parse()?;
/// assert_eq!(id.trust_domain(), "cluster.local");
/// assert_eq!(id.path(), "/ns/default/sa/reviews");
/// assert!("spiffe://Cluster.local/x".parse::<SpiffeId>().is_err());
/// # Ok::<(), mesh_core::identity::BadSpiffeId>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    path: usize,
}

/// Why a text is not a SPIFFE ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadSpiffeId {
    /// It does not begin with `spiffe://`.
    Scheme,
    /// It is longer than 2,048 bytes.
    TooLong,
    /// The trust domain is empty, longer than 255 bytes, or has characters beyond lower-case letters, digits, `.`, `-`, `_`.
    TrustDomain,
    /// The path has an empty segment, `.` or `..`, a trailing slash, or characters beyond letters, digits, `.`, `-`, `_`.
    Path,
}

impl fmt::Display for BadSpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "a SPIFFE ID begins with spiffe://",
            Self::TooLong => "a SPIFFE ID has at most 2048 bytes",
            Self::TrustDomain => "the trust domain has 1 to 255 of a-z, 0-9, '.', '-' and '_'",
            Self::Path => {
                "each path segment has one or more of a-z, A-Z, 0-9, '.', '-' and '_', and is not '.' or '..'"
            }
        })
    }
}

impl std::error::Error for BadSpiffeId {}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.path]
    }

    /// The path, with its leading slash; empty for the trust domain itself.
    pub fn path(&self) -> &str {
        &self.text[self.path..]
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for SpiffeId {
    type Err = BadSpiffeId;

    fn from_str(text: &str) -> Result<Self, BadSpiffeId> {
        if text.len() > 2048 {
            return Err(BadSpiffeId::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(BadSpiffeId::Scheme)?;
        let end = rest.find('/').unwrap_or(rest.len());
        let (domain, path) = rest.split_at(end);
        let in_domain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(in_domain) {
            return Err(BadSpiffeId::TrustDomain);
        }
        let in_path = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let good = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(in_path);
        if !path.is_empty() && !path[1..].split('/').all(good) {
            return Err(BadSpiffeId::Path);
        }
        Ok(Self { text: text.into(), path: SCHEME.len() + end })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_ids_are_taken() {
        for good in ["spiffe://td", "spiffe://td/a", "spiffe://a.b-c_d/ns/x/sa/Y.z", "spiffe://td/..."] {
            assert_eq!(good.parse::<SpiffeId>().map(|id| id.to_string()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("https://td/a", BadSpiffeId::Scheme),
            ("SPIFFE://td/a", BadSpiffeId::Scheme),
            ("spiffe://", BadSpiffeId::TrustDomain),
            ("spiffe:///a", BadSpiffeId::TrustDomain),
            ("spiffe://td:80/a", BadSpiffeId::TrustDomain),
            ("spiffe://user@td/a", BadSpiffeId::TrustDomain),
            ("spiffe://td/", BadSpiffeId::Path),
            ("spiffe://td/a/", BadSpiffeId::Path),
            ("spiffe://td//a", BadSpiffeId::Path),
            ("spiffe://td/./a", BadSpiffeId::Path),
            ("spiffe://td/../a", BadSpiffeId::Path),
            ("spiffe://td/a%2f", BadSpiffeId::Path),
            ("spiffe://td/a?x", BadSpiffeId::Path),
            ("spiffe://td/a\0", BadSpiffeId::Path),
            ("spiffe://td/ä", BadSpiffeId::Path),
        ] {
            assert_eq!(bad.parse::<SpiffeId>(), Err(why), "{bad:?}");
        }
        let long = format!("spiffe://td/{}", "a".repeat(2048));
        assert_eq!(long.parse::<SpiffeId>(), Err(BadSpiffeId::TooLong));
    }
}
