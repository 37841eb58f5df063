//! Who we are and whom we believe: SPIFFE identities, certificates, trust, and where they come from.

mod bundle;
mod crl;
mod demands;
mod expiry;
mod file_watcher;
mod jwt;
mod peer;
mod providers;
mod san;
mod secret;
mod slot;
mod spiffe;
mod static_source;
mod subject;
#[cfg(test)]
pub(crate) mod testing;

pub use bundle::{BadBundle, bundle_map};
pub use crl::revocation_lists;
#[cfg(test)]
pub(crate) use crl::tests as crl_tests;
pub use demands::Demands;
pub use expiry::{ExpiryWatch, Validity};
pub use file_watcher::{FileWatcher, PairCheck};
pub use jwt::{BadJwt, jwt_expiry, jwt_subject};
pub use peer::PeerIdentity;
pub use providers::{CertificateProviders, Held};
pub use san::{BadCertificate, Sans};
pub use secret::Secret;
pub use slot::Slot;
pub use spiffe::{BadSpiffeId, SpiffeId};
pub use static_source::StaticSource;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::Error;
use crate::model::Name;

/// Resolves when a source has said something, be it that it has nothing.
pub type Settled = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where certificates come from. One trait for every origin: files, SDS, the SPIFFE Workload API, a CA.
///
/// An implementation rotates on its own and keeps its last good material. Readers ask for the current material at every
/// handshake, so that rotation needs no restart.
pub trait CertificateSource: Send + Sync + fmt::Debug {
    /// The certificate to show and its key. The error says why there is none.
    fn identity(&self) -> Result<Arc<IdentityMaterial>, Error>;

    /// Whom to trust. The error says why there is no answer.
    fn trust(&self) -> Result<Arc<TrustMaterial>, Error>;

    /// Whether the roots are of a foreign PKI, whose certificates are no SPIFFE identities: names are then matched one by one
    /// and byte by byte as Envoy does, however many URIs a certificate has, and whatever is in them. False by default: a peer
    /// of the mesh has one URI at most, and in a mesh of SPIFFE workloads exactly one.
    fn is_foreign(&self) -> bool {
        false
    }

    /// Whether everybody whom its roots vouch for is a SPIFFE workload, so that a peer without a SPIFFE ID is refused whatever
    /// we show ourselves. False by default. With roots by trust domain it is so anyway.
    fn vouches_for_workloads(&self) -> bool {
        false
    }

    /// The certificate of this name (`certificate_name` of a resource, or the name of a secret) as a source of its own, for a
    /// source that has several. It is kept up to date as long as somebody holds it. None, the default: this source has one
    /// certificate, and every name means it, as with gRPC's `file_watcher`.
    fn certificate(&self, _name: &str) -> Option<Arc<dyn CertificateSource>> {
        None
    }

    /// Those of its certificates that somebody holds, by name, for the alarm before they expire. By default there are none
    /// beside itself.
    fn parts(&self) -> Vec<(Name, Arc<dyn CertificateSource>)> {
        Vec::new()
    }

    /// Whether a revocation list may come with its roots one day ([`Demands`]): connections are watched for that. False by
    /// default.
    fn may_revoke(&self) -> bool {
        false
    }

    /// Resolves when it has said something: a handshake waits for that, within its own time, before it fails for want of a
    /// certificate. At once by default.
    fn settled(&self) -> Settled {
        Box::pin(std::future::ready(()))
    }
}

/// A certificate chain and its key.
pub struct IdentityMaterial {
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// Grows with every rotation of its source; what was made of older material is made again.
    pub generation: u64,
}

impl fmt::Debug for IdentityMaterial {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityMaterial")
            .field("chain", &self.chain.len())
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// Whom to trust.
#[derive(Debug, Clone)]
pub struct TrustMaterial {
    /// The root certificates.
    pub roots: Roots,
    /// What else is asked of a certificate.
    pub demands: Demands,
    /// Grows with every rotation of its source.
    pub generation: u64,
}

/// Root certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// These, for everyone.
    Any(Vec<CertificateDer<'static>>),
    /// Those of the trust domain in the peer's SPIFFE ID. Who has none, or is of another trust domain, is not trusted (gRFC
    /// A87).
    ByTrustDomain(BTreeMap<String, Vec<CertificateDer<'static>>>),
}
