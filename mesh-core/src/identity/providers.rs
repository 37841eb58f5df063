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

    fn source(&self, reference: &CertificateRef) -> Result<&Arc<dyn CertificateSource>, Error> {
        self.0.get(&reference.instance).ok_or_else(|| {
            Error::new(
                Code::NO_CERTIFICATE,
                format!("certificate provider instance `{}` is not configured", reference.instance),
            )
        })
    }
}
