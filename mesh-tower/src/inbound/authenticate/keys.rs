//! Where the keys of providers come from.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mesh_core::error::{Code, Error};
use mesh_core::model::{JwksSource, JwtAuthn, RemoteJwks};
use mesh_core::policy::jwt::{Algorithm, JwkKey, Jwks, JwtKeys, JwtStatus, SignatureCheck};

use super::remote::RemoteKeys;
use crate::filter::Callouts;
use crate::secure::TokenSignatures;

/// The keys of the providers of one Listener, in their order.
#[derive(Debug)]
pub(super) struct ProviderKeys(Vec<Keys>);

#[derive(Debug)]
enum Keys {
    Read(Result<Arc<Jwks>, JwtStatus>),
    Remote(Arc<RemoteKeys>),
}

/// The key sets that are being fetched: one that a new configuration names as well is kept, with its keys.
#[derive(Debug, Default)]
pub(super) struct Fetched(Mutex<Vec<Weak<RemoteKeys>>>);

impl Fetched {
    fn keys(&self, source: &RemoteJwks, callouts: &Callouts) -> Result<Arc<RemoteKeys>, Error> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|keys| keys.strong_count() > 0);
        if let Some(keys) = all.iter().filter_map(Weak::upgrade).find(|keys| keys.source == *source) {
            return Ok(keys);
        }
        let keys = Arc::new(RemoteKeys::start(source, callouts)?);
        all.push(Arc::downgrade(&keys));
        Ok(keys)
    }
}

impl ProviderKeys {
    /// Reads what can be read now, and has the rest fetched.
    ///
    /// # Errors
    ///
    /// A source of keys is not there.
    pub(super) fn new(policy: &JwtAuthn, fetched: &Fetched, callouts: Option<&Callouts>) -> Result<Self, Error> {
        let each = policy.providers.iter().map(|provider| {
            let read = match &provider.keys {
                JwksSource::Inline(text) => Jwks::parse(text.as_bytes()),
                JwksSource::File(path) => Jwks::parse(&file(&provider.name, path)?),
                JwksSource::Remote(source) => {
                    let callouts = callouts.ok_or_else(|| nobody_to_ask(&provider.name))?;
                    return fetched.keys(source, callouts).map(Keys::Remote);
                }
            };
            if let Err(status) = &read {
                // As in Envoy; its tokens are refused.
                tracing::warn!(target: "mesh", "JWT provider `{}` has no keys: {status}", provider.name);
            }
            Ok(Keys::Read(read.map(Arc::new).map_err(|_| JwtStatus::JwksNoValidKeys)))
        });
        each.collect::<Result<_, _>>().map(Self)
    }
}

fn file(provider: &str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| {
        let text = format!("JWT provider `{provider}`: cannot read {}: {error}", path.display());
        Error::new(Code::RESOURCE_REFUSED, text).with_source(error)
    })
}

fn nobody_to_ask(provider: &str) -> Error {
    let text =
        format!("JWT provider `{provider}` has remote_jwks, and the server is not a mesh's, which would fetch them");
    Error::new(Code::RESOURCE_REFUSED, text).with_next_step("serve through Mesh, or give local_jwks")
}

impl SignatureCheck for ProviderKeys {
    fn is_signature(&self, key: &JwkKey, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        TokenSignatures.is_signature(key, algorithm, message, signature)
    }
}

impl JwtKeys for ProviderKeys {
    fn keys(&self, provider: usize) -> Result<Arc<Jwks>, JwtStatus> {
        match self.0.get(provider) {
            Some(Keys::Read(read)) => read.clone(),
            Some(Keys::Remote(remote)) => remote.current(),
            None => Err(JwtStatus::JwksNoValidKeys),
        }
    }
}
