//! Where the keys of providers come from.

use std::path::Path;
use std::sync::Arc;

use mesh_core::error::{Code, Error};
use mesh_core::model::{JwksSource, JwtAuthn};
use mesh_core::policy::jwt::{Algorithm, JwkKey, Jwks, JwtKeys, JwtStatus, SignatureCheck};

use crate::secure::TokenSignatures;

/// The keys of the providers of one Listener, in their order.
#[derive(Debug)]
pub(super) struct ProviderKeys(Vec<Result<Arc<Jwks>, JwtStatus>>);

impl ProviderKeys {
    /// Reads what can be read now.
    ///
    /// # Errors
    ///
    /// A source of keys is not there.
    pub(super) fn new(policy: &JwtAuthn) -> Result<Self, Error> {
        let each = policy.providers.iter().map(|provider| {
            let read = match &provider.keys {
                JwksSource::Inline(text) => Jwks::parse(text.as_bytes()),
                JwksSource::File(path) => Jwks::parse(&file(&provider.name, path)?),
                JwksSource::Remote(remote) => return Err(no_remote(&provider.name, &remote.cluster)),
            };
            if let Err(status) = &read {
                // As in Envoy; its tokens are refused.
                tracing::warn!(target: "mesh", "JWT provider `{}` has no keys: {status}", provider.name);
            }
            Ok(read.map(Arc::new).map_err(|_| JwtStatus::JwksNoValidKeys))
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

fn no_remote(provider: &str, cluster: &str) -> Error {
    let text =
        format!("JWT provider `{provider}` has remote_jwks in cluster `{cluster}`, which this server cannot fetch");
    Error::new(Code::RESOURCE_REFUSED, text).with_next_step("give local_jwks")
}

impl SignatureCheck for ProviderKeys {
    fn is_signature(&self, key: &JwkKey, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        TokenSignatures.is_signature(key, algorithm, message, signature)
    }
}

impl JwtKeys for ProviderKeys {
    fn keys(&self, provider: usize) -> Result<Arc<Jwks>, JwtStatus> {
        self.0.get(provider).cloned().unwrap_or(Err(JwtStatus::JwksNoValidKeys))
    }
}
