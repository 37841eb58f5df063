//! From identity and policy to TLS, and from keys to the signatures of tokens: the only module that names cryptography.
//!
//! [`Secure`] knows where certificates come from. Of it are made a [`ClientTls`] for each policy of a cluster, and an acceptor
//! for each policy of a filter chain. Both ask for identity and roots at every handshake, so that a rotation needs no restart,
//! and keep what they built of one generation until the next one comes.
//!
//! What cannot be proven is refused: nothing here ever falls back to plaintext, or to a peer that is not who it must be.

mod crypto;
mod files;
mod material;
mod authority;
mod revocation;
mod crl;
mod flagged;
mod given;
mod chain;
mod peers;
mod verify;
mod refusal;
mod live;
#[cfg(feature = "istio-ca")]
mod request;
mod client;
mod channel;
#[cfg(feature = "server")]
mod hello;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod signature;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
#[cfg(feature = "server")]
pub(crate) mod tests;

pub(crate) use channel::ChannelTls;
pub(crate) use client::{Alpn, ClientTls, Protocol, Secured};
pub(crate) use crypto::pair_check;
pub(crate) use files::watch_files;
pub(crate) use refusal::refusal_of;
#[cfg(feature = "istio-ca")]
pub(crate) use request::make_request;
#[cfg(feature = "server")]
pub(crate) use signature::TokenSignatures;

use std::fmt;
use std::sync::Arc;

use mesh_core::error::Error;
use mesh_core::identity::CertificateProviders;
use mesh_core::model::{TrustRoots, UpstreamTls};
use rustls::crypto::CryptoProvider;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use tokio::sync::watch;

use chain::REVOCATION_INTERVAL;
use crl::CrlFiles;
use given::GivenLists;
use live::LiveConnections;
use material::SystemRoots;

/// Makes TLS of identities and policies. Clones are the same thing.
#[derive(Clone)]
pub(crate) struct Secure(Arc<Shared>);

struct Shared {
    providers: CertificateProviders,
    /// An error fails handshakes, and only them: a mesh in plaintext needs no cryptography.
    crypto: Result<Arc<CryptoProvider>, Error>,
    system: SystemRoots,
    crls: CrlFiles,
    given: GivenLists,
    live: LiveConnections,
    /// Counts changes of revocation lists.
    revocations: watch::Sender<u64>,
    /// Other names of our trust domain.
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "only servers ask for a client's trust domain"))]
    aliases: Arc<[String]>,
    /// What certificates are in or out of date by.
    clock: Arc<dyn TimeProvider>,
}

impl Secure {
    /// TLS with the certificates of `providers`.
    pub(crate) fn new(providers: CertificateProviders) -> Self {
        Self::with_aliases(providers, Arc::default())
    }

    /// The same; clients of the trust domains `aliases` are let in as those of our own are.
    pub(crate) fn with_aliases(providers: CertificateProviders, aliases: Arc<[String]>) -> Self {
        Self::of(providers, aliases, Arc::new(DefaultTimeProvider))
    }

    /// TLS on another clock than the wall's.
    #[cfg(test)]
    fn with_clock(providers: CertificateProviders, clock: Arc<dyn TimeProvider>) -> Self {
        Self::of(providers, Arc::default(), clock)
    }

    fn of(providers: CertificateProviders, aliases: Arc<[String]>, clock: Arc<dyn TimeProvider>) -> Self {
        Self(Arc::new(Shared {
            providers,
            crypto: crypto::provider(),
            system: SystemRoots::default(),
            crls: CrlFiles::default(),
            given: GivenLists::default(),
            live: LiveConnections::default(),
            revocations: watch::Sender::new(0),
            aliases,
            clock,
        }))
    }

    /// Looks for new revocation lists as long as it is polled, in files and with the roots of secrets, and closes connections to
    /// servers that they revoke.
    pub(crate) async fn follow_revocations(self) {
        loop {
            tokio::time::sleep(REVOCATION_INTERVAL).await;
            self.refresh_revocations();
        }
    }

    /// Does it once.
    pub(crate) fn refresh_revocations(&self) {
        let (in_files, given) = (self.0.crls.refresh(), self.0.given.refresh(&self.0.providers));
        if in_files || given {
            tracing::info!(target: "mesh", "took a new certificate revocation list");
            self.0.revocations.send_modify(|count| *count += 1);
            self.0.live.sweep();
        }
    }

    /// Whether `roots` are of a foreign PKI, whose certificates are no identities of the mesh.
    fn is_foreign(&self, roots: &TrustRoots) -> bool {
        match roots {
            TrustRoots::Provider(reference) => self.0.providers.is_foreign(reference),
            TrustRoots::System | TrustRoots::Nobody => true,
            TrustRoots::Spiffe(_) => false,
        }
    }

    /// The client's side of `policy`, offering `alpn` unless the policy says what to offer.
    ///
    /// It reads the system's roots if the policy trusts them, which takes a few milliseconds the first time; nothing else
    /// of it blocks. What the policy asks for is looked for at each handshake, and fails it if it is not there.
    pub(crate) fn client(&self, policy: &Arc<UpstreamTls>, alpn: Alpn) -> ClientTls {
        ClientTls::new(self.clone(), policy.clone(), alpn)
    }

    /// The same, to a server whose mTLS is Istio's: a PERMISSIVE proxy takes a client that does not offer Istio's names for one
    /// of the application's own TLS. Servers choose among the others, which are offered beside them.
    pub(crate) fn client_of_istio(&self, policy: &Arc<UpstreamTls>, alpn: Alpn) -> ClientTls {
        ClientTls::of_istio(self.clone(), policy.clone(), alpn)
    }

    /// TLS to a server that is known by its host name, which its certificate must have: for control planes.
    fn client_by_name(&self, policy: &Arc<UpstreamTls>, alpn: Alpn) -> ClientTls {
        ClientTls::by_name(self.clone(), policy.clone(), alpn)
    }

    fn crypto(&self) -> Result<&Arc<CryptoProvider>, Error> {
        self.0.crypto.as_ref().map_err(Clone::clone)
    }
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure").field("providers", &self.0.providers).finish_non_exhaustive()
    }
}
