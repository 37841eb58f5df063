//! Revocation lists that come with the roots of a secret, and so change with them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mesh_core::identity::CertificateProviders;
use mesh_core::model::CertificateRef;

/// The secrets that roots in use come from, each with the generation that was seen last.
#[derive(Default)]
pub(super) struct GivenLists(Mutex<Vec<(Weak<CertificateRef>, Option<u64>)>>);

impl GivenLists {
    /// Follows `reference` for as long as somebody holds what is returned; None: no list can come with it.
    pub(super) fn follow(
        &self,
        providers: &CertificateProviders,
        reference: &CertificateRef,
    ) -> Option<Arc<CertificateRef>> {
        if !providers.may_revoke(reference) {
            return None;
        }
        let followed = Arc::new(reference.clone());
        let seen = generation(providers, reference);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Arc::downgrade(&followed), seen));
        Some(followed)
    }

    /// Whether one has other lists since this was asked last.
    pub(super) fn refresh(&self, providers: &CertificateProviders) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = false;
        all.retain_mut(|(followed, seen)| {
            let Some(followed) = followed.upgrade() else { return false };
            let now = generation(providers, &followed);
            changed |= now.is_some() && now != *seen;
            *seen = now;
            true
        });
        changed
    }
}

/// Of roots that come with a list.
fn generation(providers: &CertificateProviders, reference: &CertificateRef) -> Option<u64> {
    let trust = providers.trust(reference).ok()?;
    trust.demands.checks.crl.is_some().then_some(trust.generation)
}

impl fmt::Debug for GivenLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GivenLists").finish_non_exhaustive()
    }
}
