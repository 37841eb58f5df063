//! Keys that change while they are in use, in a file or at a server: what requests see is the last good set.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use mesh_core::error::{Code, Error};
use mesh_core::model::{JwksSource, RemoteJwks};
use mesh_core::policy::jwt::{Jwks, JwtStatus};

use super::{file, remote};
use crate::filter::{Callouts, Work};

/// More is no key set.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// A key set that somebody replaces.
pub(super) type Keys = Arc<ArcSwap<Result<Arc<Jwks>, JwtStatus>>>;

/// One key set at one place.
#[derive(Debug)]
pub(super) struct LiveKeys {
    source: JwksSource,
    keys: Keys,
    _work: Option<Work>,
}

impl LiveKeys {
    /// The keys that were read last.
    pub(super) fn current(&self) -> Result<Arc<Jwks>, JwtStatus> {
        Result::clone(&self.keys.load())
    }

    /// A file's, read now and then again.
    fn of_file(path: &Path, bytes: Vec<u8>, callouts: Option<&Callouts>) -> Self {
        let first = file::parsed(&bytes).map_err(|status| {
            // As in Envoy; its tokens are refused.
            tracing::warn!(target: "mesh", "{} has no keys: {status}", path.display());
            JwtStatus::JwksNoValidKeys
        });
        let keys: Keys = Arc::new(ArcSwap::from_pointee(first));
        let keep = || file::keep(path.to_owned(), bytes, keys.clone());
        let work = callouts.map(|callouts| callouts.spawn(keep()));
        Self { source: JwksSource::File(path.to_owned()), keys, _work: work }
    }

    /// A server's. Until it has answered there are no keys, and nobody gets in.
    fn of_server(source: &RemoteJwks, callouts: &Callouts) -> Result<Self, Error> {
        let client = remote::client(source, callouts)?;
        let keys: Keys = Arc::new(ArcSwap::from_pointee(Err(JwtStatus::JwksFetchFails)));
        let work = callouts.spawn(remote::keep(client, source.clone(), keys.clone()));
        Ok(Self { source: JwksSource::Remote(source.clone()), keys, _work: Some(work) })
    }
}

/// The key sets that are being kept: one that a new configuration names as well is kept, with its last good keys.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Vec<Weak<LiveKeys>>>);

impl Shared {
    /// Those of a file. Without a mesh nobody reads it again.
    ///
    /// # Errors
    ///
    /// The file cannot be read, and nobody has read it before.
    pub(super) fn file(
        &self,
        provider: &str,
        path: &Path,
        callouts: Option<&Callouts>,
    ) -> Result<Arc<LiveKeys>, Error> {
        self.get(&JwksSource::File(path.to_owned()), || {
            let bytes = file::read(path).map_err(|error| {
                let text = format!("JWT provider `{provider}`: cannot read {}: {error}", path.display());
                Error::new(Code::RESOURCE_REFUSED, text).with_source(error)
            })?;
            Ok(LiveKeys::of_file(path, bytes, callouts))
        })
    }

    /// Those of a server.
    ///
    /// # Errors
    ///
    /// There is no client to be had.
    pub(super) fn server(&self, source: &RemoteJwks, callouts: &Callouts) -> Result<Arc<LiveKeys>, Error> {
        self.get(&JwksSource::Remote(source.clone()), || LiveKeys::of_server(source, callouts))
    }

    fn get(&self, source: &JwksSource, make: impl FnOnce() -> Result<LiveKeys, Error>) -> Result<Arc<LiveKeys>, Error> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|keys| keys.strong_count() > 0);
        if let Some(keys) = all.iter().filter_map(Weak::upgrade).find(|keys| keys.source == *source) {
            return Ok(keys);
        }
        let keys = Arc::new(make()?);
        all.push(Arc::downgrade(&keys));
        Ok(keys)
    }
}
