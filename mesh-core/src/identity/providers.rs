//! Certificate sources by instance name.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::{CertificateSource, IdentityMaterial, TrustMaterial};
use crate::error::{Code, Error};
use crate::model::{CertificateRef, Name};

/// The certificate providers of a bootstrap, or of an application, by the instance name that resources refer to.
#[derive(Debug, Clone, Default)]
pub struct CertificateProviders(BTreeMap<Name, Arc<dyn CertificateSource>>);

impl CertificateProviders {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// With `source` under the name `instance`; it replaces one of that name.
    #[must_use]
    pub fn with(mut self, instance: impl Into<Name>, source: Arc<dyn CertificateSource>) -> Self {
        self.0.insert(instance.into(), source);
        self
    }

    /// The names there are: a resource that refers to another one is refused.
    pub fn instances(&self) -> BTreeSet<Name> {
        self.0.keys().cloned().collect()
    }

    /// The identity that `reference` names.
    ///
    /// # Errors
    ///
    /// [`Code::NO_CERTIFICATE`], with the instance's name.
    pub fn identity(&self, reference: &CertificateRef) -> Result<Arc<IdentityMaterial>, Error> {
        self.source(reference)?.identity()
    }

    /// The roots that `reference` names.
    ///
    /// # Errors
    ///
    /// [`Code::NO_CERTIFICATE`], with the instance's name.
    pub fn trust(&self, reference: &CertificateRef) -> Result<Arc<TrustMaterial>, Error> {
        self.source(reference)?.trust()
    }

    /// Whether the roots that `reference` names are of a foreign PKI.
    pub fn is_foreign(&self, reference: &CertificateRef) -> bool {
        self.0.get(&reference.instance).is_some_and(|source| source.is_foreign())
    }

    /// Whether the roots that `reference` names vouch for SPIFFE workloads only.
    pub fn vouches_for_workloads(&self, reference: &CertificateRef) -> bool {
        self.0.get(&reference.instance).is_some_and(|source| source.vouches_for_workloads())
    }

    /// Whether a revocation list may come with the roots that `reference` names.
    pub fn may_revoke(&self, reference: &CertificateRef) -> bool {
        self.source(reference).is_ok_and(|source| source.may_revoke())
    }

    /// What `references` name, to be held by whoever will ask for it: a source that has many certificates keeps those up to
    /// date that are held.
    pub fn hold<'a>(&self, references: impl IntoIterator<Item = &'a CertificateRef>) -> Held {
        Held(references.into_iter().filter_map(|reference| self.source(reference).ok()).collect())
    }

    /// All of them, by instance name.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Arc<dyn CertificateSource>)> {
        self.0.iter()
    }

    fn source(&self, reference: &CertificateRef) -> Result<Arc<dyn CertificateSource>, Error> {
        let source = self.0.get(&reference.instance).ok_or_else(|| {
            Error::new(
                Code::NO_CERTIFICATE,
                format!("certificate provider instance `{}` is not configured", reference.instance),
            )
        })?;
        Ok(source.certificate(&reference.certificate).unwrap_or_else(|| source.clone()))
    }
}

/// Certificates that are in use.
#[derive(Debug, Clone, Default)]
pub struct Held(Vec<Arc<dyn CertificateSource>>);

impl Held {
    /// Resolves when the sources of all of them have said something, be it that they have nothing.
    pub async fn settled(&self) {
        for source in &self.0 {
            source.settled().await;
        }
    }
}
