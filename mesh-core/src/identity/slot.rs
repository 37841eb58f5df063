//! The newest good material of one certificate that comes from elsewhere.

use std::sync::{Mutex, PoisonError};

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

use std::sync::Arc;

use super::{CertificateSource, Demands, IdentityMaterial, Roots, Secret, Settled, StaticSource, TrustMaterial};
use crate::error::{Code, Error};

/// The newest good material of one certificate, for sources that are told theirs: it stays until there is newer.
#[derive(Debug)]
pub struct Slot {
    /// What it is, for whoever misses it.
    what: String,
    material: StaticSource,
    trouble: Mutex<Option<String>>,
    settled: watch::Sender<bool>,
}

impl Slot {
    /// With nothing in it yet. Errors speak of it as `what`.
    pub fn new(what: impl Into<String>) -> Self {
        let (material, trouble) = (StaticSource::new(), Mutex::default());
        Self { what: what.into(), material, trouble, settled: watch::Sender::new(false) }
    }

    /// Takes a chain, the leaf first, and its key, which must belong to it. What is there already is no rotation.
    pub fn set_identity(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) {
        let same = |held: Arc<IdentityMaterial>| held.chain == chain && held.key == key;
        if !self.material.identity().is_ok_and(same) {
            self.material.set_identity(chain, key);
        }
        self.settle(None);
    }

    /// Takes roots.
    pub fn set_roots(&self, roots: Roots) {
        self.set_validation(roots, Demands::default());
    }

    /// Takes roots, and what else is asked of a certificate.
    pub fn set_validation(&self, roots: Roots, demands: Demands) {
        if !self.material.trust().is_ok_and(|held| held.roots == roots && held.demands == demands) {
            self.material.set_validation(roots, demands);
        }
        self.settle(None);
    }

    /// Takes what SDS gives.
    pub fn set(&self, secret: &Secret) {
        match secret {
            Secret::Certificate { chain, key } => self.set_identity(chain.clone(), key.clone_key()),
            Secret::Validation { roots, demands } => self.set_validation(roots.clone(), demands.clone()),
        }
    }

    /// Why there is nothing newer. What is held is held on. Whether that was not known yet.
    pub fn trouble(&self, why: impl Into<String>) -> bool {
        let why = why.into();
        let is_new = self.known_trouble().as_ref() != Some(&why);
        self.settle(Some(why));
        is_new
    }

    fn settle(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        self.settled.send_replace(true);
    }

    fn known_trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn missing(&self, part: &str) -> Error {
        let why = self.known_trouble().unwrap_or_else(|| "it has not come yet".to_owned());
        Error::new(Code::NO_CERTIFICATE, format!("{} has no {part}: {why}", self.what))
    }
}

impl CertificateSource for Slot {
    fn identity(&self) -> Result<Arc<IdentityMaterial>, Error> {
        self.material.identity().map_err(|_| self.missing("certificate"))
    }

    fn trust(&self) -> Result<Arc<TrustMaterial>, Error> {
        self.material.trust().map_err(|_| self.missing("roots"))
    }

    fn settled(&self) -> Settled {
        let mut settled = self.settled.subscribe();
        Box::pin(async move {
            // The sender is gone when nobody can tell any more.
            let _ = settled.wait_for(|settled| *settled).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(vec![byte].into())
    }

    fn chain(byte: u8) -> Vec<CertificateDer<'static>> {
        vec![vec![byte].into()]
    }

    #[test]
    fn trouble_leaves_what_is_held_and_says_why_there_is_nothing() {
        let slot = Slot::new("secret `a`");
        assert!(
            slot.identity().unwrap_err().to_string().contains("secret `a` has no certificate: it has not come yet")
        );
        assert!(slot.trouble("the server is away"));
        assert!(!slot.trouble("the server is away"), "once is enough to say");
        assert!(slot.trust().unwrap_err().to_string().contains("the server is away"));
        slot.set_identity(chain(1), key(1));
        assert!(slot.trouble("the server is away"), "it was not, in between");
        assert_eq!(slot.identity().unwrap().chain, chain(1));
    }

    #[test]
    fn only_what_is_new_is_a_rotation() {
        let slot = Slot::new("secret");
        slot.set_identity(chain(1), key(1));
        let first = slot.identity().unwrap().generation;
        slot.set_identity(chain(1), key(1));
        assert_eq!(slot.identity().unwrap().generation, first);
        slot.set_identity(chain(1), key(2));
        assert!(slot.identity().unwrap().generation > first);
        slot.set_roots(Roots::Any(chain(1)));
        let first = slot.trust().unwrap().generation;
        slot.set_roots(Roots::Any(chain(1)));
        assert_eq!(slot.trust().unwrap().generation, first);
        slot.set_roots(Roots::Any(chain(2)));
        assert!(slot.trust().unwrap().generation > first);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_settled_by_material_and_by_trouble() {
        let slot = Slot::new("secret");
        let wait = async || tokio::time::timeout(std::time::Duration::from_secs(60), slot.settled()).await.is_ok();
        assert!(!wait().await);
        slot.trouble("the server is away");
        assert!(wait().await);
    }
}
