//! Where the keys of providers come from.

use std::sync::Arc;

use mesh_core::error::{Code, Error};
use mesh_core::model::{JwksSource, JwtAuthn};
use mesh_core::policy::jwt::{Algorithm, JwkKey, Jwks, JwtKeys, JwtStatus, SignatureCheck};

use super::live::{LiveKeys, Shared};
use crate::filter::Callouts;
use crate::secure::TokenSignatures;

/// The keys of the providers of one Listener, in their order.
#[derive(Debug)]
pub(super) struct ProviderKeys(Vec<Keys>);

#[derive(Debug)]
enum Keys {
    Read(Result<Arc<Jwks>, JwtStatus>),
    Live(Arc<LiveKeys>),
}

impl ProviderKeys {
    /// Reads what can be read now, and has the rest fetched.
    ///
    /// # Errors
    ///
    /// A source of keys is not there.
    pub(super) fn new(policy: &JwtAuthn, shared: &Shared, callouts: Option<&Callouts>) -> Result<Self, Error> {
        let each = policy.providers.iter().map(|provider| {
            let read = match &provider.keys {
                JwksSource::Inline(text) => Jwks::parse(text.as_bytes()),
                JwksSource::File(path) => return shared.file(&provider.name, path, callouts).map(Keys::Live),
                JwksSource::Remote(source) => {
                    let callouts = callouts.ok_or_else(|| nobody_to_ask(&provider.name))?;
                    return shared.server(source, callouts).map(Keys::Live);
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
            Some(Keys::Live(live)) => live.current(),
            None => Err(JwtStatus::JwksNoValidKeys),
        }
    }
}
