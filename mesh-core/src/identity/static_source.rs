//! Certificates in memory.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{CertificateSource, Demands, IdentityMaterial, Roots, TrustMaterial};
use crate::error::{Code, Error};

/// Certificates that the application sets, for tests and for origins of its own.
#[derive(Debug, Default)]
pub struct StaticSource {
    identity: ArcSwapOption<IdentityMaterial>,
    trust: ArcSwapOption<TrustMaterial>,
    generation: std::sync::atomic::AtomicU64,
    foreign: bool,
}

impl StaticSource {
    /// A source with nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A source with nothing yet, whose roots are of a foreign PKI; see [`CertificateSource::is_foreign`].
    pub fn foreign() -> Self {
        Self { foreign: true, ..Self::default() }
    }

    /// Sets the identity: the chain, the leaf first, and its key.
    pub fn set_identity(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) {
        let generation = self.next();
        self.identity.store(Some(Arc::new(IdentityMaterial { chain, key, generation })));
    }

    /// Sets the roots.
    pub fn set_trust(&self, roots: Vec<CertificateDer<'static>>) {
        self.set_roots(Roots::Any(roots));
    }

    /// Sets the roots, which may be of several trust domains (gRFC A87).
    pub fn set_roots(&self, roots: Roots) {
        self.set_validation(roots, Demands::default());
    }

    /// Sets the roots, and what else is asked of a peer's certificate.
    pub fn set_validation(&self, roots: Roots, demands: Demands) {
        let generation = self.next();
        self.trust.store(Some(Arc::new(TrustMaterial { roots, demands, generation })));
    }

    fn next(&self) -> u64 {
        self.generation.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1
    }
}

impl CertificateSource for StaticSource {
    fn identity(&self) -> Result<Arc<IdentityMaterial>, Error> {
        self.identity.load_full().ok_or_else(|| Error::new(Code::NO_CERTIFICATE, "no identity was set"))
    }

    fn trust(&self) -> Result<Arc<TrustMaterial>, Error> {
        self.trust.load_full().ok_or_else(|| Error::new(Code::NO_CERTIFICATE, "no roots were set"))
    }

    fn is_foreign(&self) -> bool {
        self.foreign
    }

    fn may_revoke(&self) -> bool {
        self.trust.load().as_ref().is_some_and(|trust| trust.demands.checks.crl.is_some())
    }
}
