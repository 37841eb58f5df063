//! JWT authentication (Envoy's `jwt_authn`): lets a request through, or answers what its token lacks. The decision is
//! mesh-core's; signatures are computed in `secure`.

mod file;
mod keys;
mod live;
mod remote;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode, request};
use mesh_core::decode::{JwtAuthnFilter as Decoding, JwtOverride};
use mesh_core::error::{Code, Error};
use mesh_core::model::{FilterConfig, HttpFilter, JwtAuthn, JwtRequirement};
use mesh_core::policy::jwt::{Authenticator, JwtRequest, JwtStatus, METADATA_NAMESPACE};

use super::{DynamicMetadata, RequestFacts};
use crate::filter::{Callouts, Filter, FilterFacts, FilterType, Kept, Verdict, config_of};
use crate::reply::{ERROR_HEADER, Reply};
use keys::ProviderKeys;
use live::Shared;

/// Envoy's bound for the URI that is the realm of a challenge.
const LONGEST_REALM: usize = 256;

/// The JWT authentication filter. A Listener's keys are read once, and shared by all its routes.
#[derive(Debug, Default)]
pub struct JwtAuthnFilterType {
    kept: Kept<Listed>,
    shared: Shared,
    callouts: Option<Callouts>,
}

/// What a Listener lists, made ready.
#[derive(Debug)]
struct Listed {
    authenticator: Authenticator,
    keys: ProviderKeys,
}

impl JwtAuthnFilterType {
    fn listed(&self, config: &Arc<dyn FilterConfig>) -> Result<Arc<Listed>, Error> {
        self.kept.get(config, || {
            let policy = config_of::<JwtAuthn>(config, Decoding::TYPE_URL)?;
            let keys = ProviderKeys::new(&policy, &self.shared, self.callouts.as_ref())?;
            Ok(Listed { authenticator: Authenticator::new(policy), keys })
        })
    }
}

impl FilterType<RequestFacts> for JwtAuthnFilterType {
    fn type_url(&self) -> &str {
        Decoding::TYPE_URL
    }

    fn with_callouts(&self, callouts: &Callouts) -> Option<Arc<dyn FilterType<RequestFacts>>> {
        Some(Arc::new(Self { callouts: Some(callouts.clone()), ..Self::default() }))
    }

    fn build(
        &self,
        filter: &HttpFilter,
        overrides: &[Arc<dyn FilterConfig>],
    ) -> Result<Arc<dyn Filter<RequestFacts>>, Error> {
        let over = overrides.last().map(|over| config_of::<JwtOverride>(over, Decoding::TYPE_URL)).transpose()?;
        Ok(Arc::new(Authentication { listed: self.listed(&filter.config)?, over }))
    }
}

/// The filter of one route.
#[derive(Debug)]
struct Authentication {
    listed: Arc<Listed>,
    over: Option<JwtOverride>,
}

impl Filter<RequestFacts> for Authentication {
    fn on_request(&self, request: &mut request::Parts, facts: &RequestFacts) -> Verdict {
        let Listed { authenticator, keys } = &*self.listed;
        authenticator.sanitize(&mut request.headers);
        let asked = facts.request(request);
        if authenticator.is_bypassed(&asked) {
            return Verdict::Continue;
        }
        let requirement = match self.requirement(authenticator, &asked) {
            Ok(Some(requirement)) => requirement,
            Ok(None) => return Verdict::Continue,
            Err(why) => return self.deny(StatusCode::FORBIDDEN, &why, None),
        };
        let realm = format!("{}://{}{}", asked.scheme, asked.authority, asked.path);
        let parts = JwtRequest { headers: &mut request.headers, uri: &mut request.uri };
        let found = authenticator.authenticate(requirement, parts, keys, now());
        if !found.metadata.is_empty() {
            let known = request.extensions.get_or_insert_default::<DynamicMetadata>();
            known.0.insert(METADATA_NAMESPACE.to_owned(), found.metadata.into());
        }
        match found.result {
            Ok(()) => Verdict::Continue,
            Err(status) => {
                let (method, path) = (&request.method, request.uri.path());
                tracing::debug!(target: "mesh", "{}: {method} {path} of {:?}: {status}", Code::ACCESS_DENIED, facts.peer);
                self.deny(status.http_status(), status.text(), challenge(&realm, status))
            }
        }
    }
}

impl Authentication {
    /// What is required of a request.
    ///
    /// # Errors
    ///
    /// Nobody can tell: its route names a requirement that is not there.
    fn requirement<'a>(
        &self,
        authenticator: &'a Authenticator,
        asked: &mesh_core::route::RequestFacts<'_>,
    ) -> Result<Option<&'a JwtRequirement>, String> {
        match &self.over {
            None => Ok(authenticator.requirement(asked)),
            Some(JwtOverride::Disabled) => Ok(None),
            Some(JwtOverride::Requirement(name)) => match authenticator.config().requirements.get(name) {
                Some(requirement) => Ok(Some(requirement)),
                None => Err(format!("Failed JWT authentication: Wrong requirement_name: {name}")),
            },
        }
    }

    fn deny(&self, status: StatusCode, text: &str, challenge: Option<HeaderValue>) -> Verdict {
        let strip = self.listed.authenticator.config().strip_failure_response;
        let mut reply = Reply::new(status, if strip { "" } else { text });
        if let Some(challenge) = challenge.filter(|_| !strip) {
            reply.headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Ok(code) = HeaderValue::try_from(Code::ACCESS_DENIED.to_string()) {
            reply.headers.insert(ERROR_HEADER, code);
        }
        Verdict::Reply(Box::new(reply))
    }
}

/// RFC 6750, 3.
fn challenge(realm: &str, status: JwtStatus) -> Option<HeaderValue> {
    // The target was normalised, so that it is ASCII.
    let realm = realm.get(..LONGEST_REALM).unwrap_or(realm).replace('"', "%22");
    let error = if status == JwtStatus::Missing { "" } else { ", error=\"invalid_token\"" };
    HeaderValue::try_from(format!("Bearer realm=\"{realm}\"{error}")).ok()
}

/// Seconds since 1970. A clock before that is none, and then every token is too young.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
