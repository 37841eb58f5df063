//! JWT authentication as configuration (`extensions.filters.http.jwt_authn.v3`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};

use super::{Name, RouteMatch, StringMatch};

/// `JwtAuthentication`: what requests must prove.
#[derive(Debug, Clone, Default)]
pub struct JwtAuthn {
    /// `providers`, by name; requirements refer to them by their place here.
    pub providers: Vec<Arc<JwtProvider>>,
    /// `rules`: the first that matches says what is required. A request that none matches needs no token.
    pub rules: Vec<JwtRule>,
    /// `requirement_map`: what overrides name.
    pub requirements: BTreeMap<String, JwtRequirement>,
    /// `bypass_cors_preflight`: a CORS preflight needs no token.
    pub bypass_cors_preflight: bool,
    /// `strip_failure_response`: the client is not told what is wrong with its token.
    pub strip_failure_response: bool,
}

/// `RequirementRule`.
#[derive(Debug, Clone)]
pub struct JwtRule {
    /// The requests it is for.
    pub matches: RouteMatch,
    /// What they must prove; None: nothing.
    pub requirement: Option<JwtRequirement>,
}

/// `JwtRequirement`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtRequirement {
    /// Nothing (an empty message).
    Nothing,
    /// `provider_name`, or `provider_and_audiences`: a good token of this provider.
    Provider {
        /// Its place in [`JwtAuthn::providers`].
        provider: usize,
        /// What takes the place of the provider's own audiences, unless it is empty.
        audiences: Vec<String>,
    },
    /// `requires_any`: one of these.
    Any(Vec<JwtRequirement>),
    /// `requires_all`: all of these, in order.
    All(Vec<JwtRequirement>),
    /// `allow_missing_or_failed`: tokens of all providers are looked at, and none is needed.
    AllowMissingOrFailed,
    /// `allow_missing`: no token, or good ones.
    AllowMissing,
}

/// `JwtProvider`: who issues tokens, where they are, how they are verified, and what is passed on of them.
#[derive(Debug, Clone)]
pub struct JwtProvider {
    /// Its name in the map of providers.
    pub name: Name,
    /// The `iss` that its tokens must have; any if it is empty.
    pub issuer: String,
    /// The `aud` that its tokens must have one of; any if there is none. `http://`, `https://` and a slash at the end do
    /// not count, as in Envoy.
    pub audiences: Vec<String>,
    /// What `sub` must be.
    pub subjects: Option<StringMatch>,
    /// How long a token may still be valid; `require_expiration` alone is [`Duration::MAX`]. None: `exp` need not be there.
    pub max_lifetime: Option<Duration>,
    /// By how much clocks may differ: 60 s by default, Envoy's.
    pub clock_skew: Duration,
    /// Where its keys are.
    pub keys: JwksSource,
    /// Whether the token stays in the request.
    pub forward: bool,
    /// The headers that hold tokens. Without any place: `authorization` with `Bearer `, and the parameter `access_token`.
    pub from_headers: Vec<TokenHeader>,
    /// The query parameters that hold tokens.
    pub from_params: Vec<String>,
    /// The cookies that hold tokens.
    pub from_cookies: Vec<String>,
    /// The header for the payload, in base64url.
    pub forward_payload_header: Option<HeaderName>,
    /// Whether that is padded.
    pub pad_forward_payload_header: bool,
    /// Headers for claims.
    pub claim_to_headers: Vec<ClaimHeader>,
    /// The key of the payload in the dynamic metadata; none if it is empty.
    pub payload_in_metadata: String,
    /// The key of the token's header there; none if it is empty.
    pub header_in_metadata: String,
    /// The key of what was wrong with a token there; none if it is empty.
    pub failed_status_in_metadata: String,
    /// Claims of the payload in the metadata that become lists, cut at spaces.
    pub space_delimited_claims: Vec<String>,
}

/// `JwtHeader`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHeader {
    /// The header.
    pub name: HeaderName,
    /// What stands before the token; may be empty.
    pub value_prefix: String,
}

/// `JwtClaimToHeader`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimHeader {
    /// The header.
    pub header: HeaderName,
    /// The claim: the keys from the payload to it.
    pub path: Vec<String>,
}

/// Where a JSON Web Key Set is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JwksSource {
    /// In the configuration.
    Inline(String),
    /// `local_jwks.filename`.
    File(PathBuf),
    /// `remote_jwks`.
    Remote(RemoteJwks),
}

/// `RemoteJwks`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteJwks {
    /// Where to ask.
    pub uri: Uri,
    /// The cluster that the question goes to.
    pub cluster: Name,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long keys are good: they are fetched again before that. 10 minutes by default, Envoy's.
    pub cache_duration: Duration,
    /// When to ask again after a failure: `failed_refetch_duration`, or the `base_interval` of the retry policy; 1 s by
    /// default. It doubles with every failure, up to ten times.
    pub failed_refetch: Duration,
}
