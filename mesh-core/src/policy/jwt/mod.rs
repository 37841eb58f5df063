//! JWT authentication as Envoy's `jwt_authn` does it: which tokens a request must have, and whether they say what they
//! must. Who can compute signatures, and where keys come from, are arguments; so is the time.
//!
//! Stricter than Envoy: `crit` is refused (RFC 7515, 4.1.11), an `exp` of 0 has expired, a key verifies only algorithms of
//! its kind, and `allow_missing` wants every token that is there to be good.

mod claims;
mod jwks;
mod json;
mod places;
mod status;
#[cfg(test)]
mod tests;
mod token;

pub use jwks::{Curve, JwkKey, Jwks, SignatureCheck};
pub use places::JwtRequest;
pub use status::JwtStatus;
pub use token::{Algorithm, Jwt};

use std::collections::HashSet;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};
use serde_json::{Map, Value};

use crate::model::{JwtAuthn, JwtProvider, JwtRequirement};
use crate::route::RequestFacts;
use places::{Found, Places};

/// Where [`Authentication::metadata`] belongs in a request's dynamic metadata.
pub const METADATA_NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// No request needs more tokens, and each costs a signature.
const MOST_TOKENS: usize = 16;

/// Where keys come from, and who computes.
pub trait JwtKeys: SignatureCheck {
    /// The keys of a provider, by its place in [`JwtAuthn::providers`].
    ///
    /// # Errors
    ///
    /// There are none: [`JwtStatus::JwksFetchFails`] where they have not been fetched.
    fn keys(&self, provider: usize) -> Result<Arc<Jwks>, JwtStatus>;
}

/// A filter's configuration, made ready.
#[derive(Debug)]
pub struct Authenticator {
    config: JwtAuthn,
    /// The places of each provider.
    places: Vec<Places>,
    /// Those of all providers.
    all: Places,
    /// The headers that only the filter sets.
    own_headers: HashSet<HeaderName>,
}

/// What a requirement came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Authentication {
    /// An error refuses the request.
    pub result: Result<(), JwtStatus>,
    /// What later filters see under [`METADATA_NAMESPACE`].
    pub metadata: Map<String, Value>,
}

impl Authenticator {
    /// Makes `config` ready.
    pub fn new(config: JwtAuthn) -> Self {
        let places = config.providers.iter().map(|provider| Places::of([&**provider])).collect();
        let all = Places::of(config.providers.iter().map(|provider| &**provider));
        let own_headers = config.providers.iter().flat_map(|provider| own_headers(provider)).cloned().collect();
        Self { config, places, all, own_headers }
    }

    /// The configuration.
    pub fn config(&self) -> &JwtAuthn {
        &self.config
    }

    /// Takes from a request the headers that only this filter sets, so that nobody else says what a token says; also where
    /// no token is needed.
    pub fn sanitize(&self, headers: &mut HeaderMap) {
        for name in &self.own_headers {
            headers.remove(name);
        }
    }

    /// Whether a request needs no token as it is a CORS preflight.
    pub fn is_bypassed(&self, facts: &RequestFacts<'_>) -> bool {
        let has = |name: &str| facts.headers.get(name).is_some_and(|value| !value.is_empty());
        self.config.bypass_cors_preflight
            && *facts.method == Method::OPTIONS
            && has("origin")
            && has("access-control-request-method")
    }

    /// What the rules require of a request; None: nothing.
    pub fn requirement(&self, facts: &RequestFacts<'_>) -> Option<&JwtRequirement> {
        let rule = self.config.rules.iter().find(|rule| rule.matches.is_policy_match(facts));
        rule.and_then(|rule| rule.requirement.as_ref())
    }

    /// Whether a request meets `requirement` at `now`, in seconds since 1970. Good tokens leave the request unless they are
    /// to be forwarded; what they say goes where the configuration wants it.
    pub fn authenticate(
        &self,
        requirement: &JwtRequirement,
        request: JwtRequest<'_>,
        keys: &dyn JwtKeys,
        now: u64,
    ) -> Authentication {
        let mut run = Run { of: self, request, keys, now, metadata: Map::new(), tokens: 0 };
        let result = run.meets(requirement);
        Authentication { result, metadata: run.metadata }
    }
}

fn own_headers(provider: &JwtProvider) -> impl Iterator<Item = &HeaderName> {
    let of_claims = provider.claim_to_headers.iter().map(|claim| &claim.header);
    provider.forward_payload_header.iter().chain(of_claims)
}

/// One request's way through a requirement.
struct Run<'a> {
    of: &'a Authenticator,
    request: JwtRequest<'a>,
    keys: &'a dyn JwtKeys,
    now: u64,
    metadata: Map<String, Value>,
    /// How many tokens have been looked at.
    tokens: usize,
}

impl Run<'_> {
    fn meets(&mut self, requirement: &JwtRequirement) -> Result<(), JwtStatus> {
        match requirement {
            JwtRequirement::Nothing => Ok(()),
            JwtRequirement::Provider { provider, audiences } => self.provider(*provider, audiences),
            JwtRequirement::All(all) => all.iter().try_for_each(|one| self.meets(one)),
            JwtRequirement::Any(any) => self.any(any),
            JwtRequirement::AllowMissing => self.of_anybody().or_else(unless_missing),
            JwtRequirement::AllowMissingOrFailed => {
                // What fails is told of in the metadata, as far as that is asked for.
                let _ = self.of_anybody();
                Ok(())
            }
        }
    }

    /// The first that is met ends it. What allows less than a good token counts when none is met.
    fn any(&mut self, any: &[JwtRequirement]) -> Result<(), JwtStatus> {
        let allows = |what: &JwtRequirement| any.contains(what);
        let (allows_failed, allows_missing) =
            (allows(&JwtRequirement::AllowMissingOrFailed), allows(&JwtRequirement::AllowMissing));
        let is_plain =
            |one: &&JwtRequirement| !matches!(one, JwtRequirement::AllowMissing | JwtRequirement::AllowMissingOrFailed);
        let mut status = JwtStatus::Missing;
        let mut met_none = false;
        for one in any.iter().filter(is_plain) {
            met_none = true;
            let Err(found) = self.meets(one) else { return Ok(()) };
            // What is wrong with a token says more than that it is not there, or somebody else's.
            let says_little = matches!(found, JwtStatus::Missing | JwtStatus::UnknownIssuer);
            if !says_little || status == JwtStatus::Missing {
                status = found;
            }
        }
        if allows_failed {
            return if met_none { Ok(()) } else { self.meets(&JwtRequirement::AllowMissingOrFailed) };
        }
        if allows_missing {
            return if met_none { unless_missing(status) } else { self.meets(&JwtRequirement::AllowMissing) };
        }
        Err(status)
    }

    /// Every token in the provider's places must be good: of two, whoever is behind us may read the other.
    fn provider(&mut self, index: usize, audiences: &[String]) -> Result<(), JwtStatus> {
        let of = self.of;
        let provider = &*of.config.providers[index];
        for name in own_headers(provider) {
            self.request.headers.remove(name);
        }
        let found = of.places[index].find(&self.request);
        if found.is_empty() {
            self.tell(provider, JwtStatus::Missing);
            return Err(JwtStatus::Missing);
        }
        for found in &found {
            let asked = if audiences.is_empty() { &provider.audiences } else { audiences };
            let result = self.read(found).and_then(|jwt| self.judge(index, asked, &jwt).map(|()| jwt));
            match result {
                Ok(jwt) => self.accept(provider, found, &jwt),
                Err(status) => {
                    self.tell(provider, status);
                    return Err(status);
                }
            }
        }
        Ok(())
    }

    /// Looks at the tokens of all providers, each by its issuer; the first that is not good is the answer.
    fn of_anybody(&mut self) -> Result<(), JwtStatus> {
        let of = self.of;
        of.sanitize(self.request.headers);
        let found = of.all.find(&self.request);
        let mut result = if found.is_empty() { Err(JwtStatus::Missing) } else { Ok(()) };
        for found in &found {
            let (provider, judged) = match self.read(found) {
                Ok(jwt) => match self.issued_by(&jwt.issuer) {
                    Some(index) => {
                        let provider = &of.config.providers[index];
                        (Some(provider), self.judge(index, &provider.audiences, &jwt).map(|()| jwt))
                    }
                    None => (None, Err(JwtStatus::UnknownIssuer)),
                },
                Err(status) => (None, Err(status)),
            };
            match (provider, judged) {
                (Some(provider), Ok(jwt)) => self.accept(provider, found, &jwt),
                (provider, Err(status)) => {
                    self.tell_whom(provider.map(|provider| &**provider), status);
                    result = result.and(Err(status));
                }
                (None, Ok(_)) => {}
            }
        }
        if result == Err(JwtStatus::Missing) {
            self.tell_whom(None, JwtStatus::Missing);
        }
        result
    }

    fn read(&mut self, found: &Found<'_>) -> Result<Jwt, JwtStatus> {
        self.tokens += 1;
        if self.tokens > MOST_TOKENS {
            return Err(JwtStatus::MultipleTokens);
        }
        let jwt = Jwt::parse(&found.token)?;
        if found.issuers.contains(&jwt.issuer) { Ok(jwt) } else { Err(JwtStatus::UnknownIssuer) }
    }

    /// The first provider of that issuer; else the first that names none.
    fn issued_by(&self, issuer: &str) -> Option<usize> {
        let of = |wanted: &str| self.of.config.providers.iter().position(|provider| provider.issuer == wanted);
        of(issuer).or_else(|| of(""))
    }

    /// What is cheap goes first; the signature is last.
    fn judge(&self, index: usize, audiences: &[String], jwt: &Jwt) -> Result<(), JwtStatus> {
        let provider = &self.of.config.providers[index];
        jwt.check_time(self.now, provider.clock_skew.as_secs())?;
        if !claims::is_audience(audiences, &jwt.audiences) {
            return Err(JwtStatus::AudienceNotAllowed);
        }
        let subject_fits = provider.subjects.as_ref().is_none_or(|wanted| wanted.is_match(jwt.subject.as_bytes()));
        let lifetime_fits = provider.max_lifetime.is_none_or(|most| jwt.ends_within(most, self.now));
        if !subject_fits || !lifetime_fits {
            return Err(JwtStatus::VerificationFails);
        }
        self.keys.keys(index)?.verify(jwt, self.keys)?;
        if claims::can_be_headers(provider, jwt) { Ok(()) } else { Err(JwtStatus::VerificationFails) }
    }

    /// Passes on what a good token says, and takes it out of the request.
    fn accept(&mut self, provider: &JwtProvider, found: &Found<'_>, jwt: &Jwt) {
        claims::to_headers(provider, jwt, self.request.headers);
        if !provider.forward {
            found.remove(&mut self.request);
        }
        if !provider.header_in_metadata.is_empty() {
            self.metadata.insert(provider.header_in_metadata.clone(), jwt.header.clone().into());
        }
        if !provider.payload_in_metadata.is_empty() {
            let payload = claims::normalized(&jwt.payload, &provider.space_delimited_claims);
            self.metadata.insert(provider.payload_in_metadata.clone(), payload.into());
        }
    }

    fn tell(&mut self, provider: &JwtProvider, status: JwtStatus) {
        if !provider.failed_status_in_metadata.is_empty() {
            let told = serde_json::json!({"code": status.code(), "message": status.text()});
            self.metadata.insert(provider.failed_status_in_metadata.clone(), told);
        }
    }

    /// Where nobody knows whose token it is, the only provider is told.
    fn tell_whom(&mut self, provider: Option<&JwtProvider>, status: JwtStatus) {
        let of = self.of;
        let only = || match &of.config.providers[..] {
            [only] => Some(&**only),
            _ => None,
        };
        if let Some(provider) = provider.or_else(only) {
            self.tell(provider, status);
        }
    }
}

fn unless_missing(status: JwtStatus) -> Result<(), JwtStatus> {
    if status == JwtStatus::Missing { Ok(()) } else { Err(status) }
}
