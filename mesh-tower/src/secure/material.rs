//! What handshakes are made from: identity and roots, and what was built of one generation of them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use mesh_core::error::{Code, Error};
use mesh_core::identity::{Demands, Held, IdentityMaterial, Sans, SpiffeId, TrustMaterial};
use mesh_core::model::{CertificateChecks, CertificateRef, SanMatch, TrustRoots};
use rustls::pki_types::CertificateDer;

use super::Secure;
use super::authority::Authorities;
use super::chain::Side;
use super::crl::Lists;
use super::peers::Peers;

/// What a configuration was built of: while it is the same, so is the configuration. The system's roots never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) identity: Option<u64>,
    pub(super) trust: Option<u64>,
    pub(super) revocation: Option<u64>,
}

/// The configuration of the newest generation. Two first handshakes at once may both build it; either is good.
///
/// Sessions to resume live inside it, so that none outlives the identity and the roots it was made under.
pub(super) struct Cache<C>(ArcSwapOption<(Generation, Arc<C>)>);

impl<C> Default for Cache<C> {
    fn default() -> Self {
        Self(ArcSwapOption::empty())
    }
}

impl<C> Cache<C> {
    pub(super) fn get(
        &self,
        generation: Generation,
        build: impl FnOnce() -> Result<C, Error>,
    ) -> Result<Arc<C>, Error> {
        if let Some(cached) = &*self.0.load()
            && cached.0 == generation
        {
            return Ok(cached.1.clone());
        }
        let built = Arc::new(build()?);
        self.0.store(Some(Arc::new((generation, built.clone()))));
        Ok(built)
    }
}

/// The certificate provider that `roots` come from; None: another origin.
pub(super) fn provider(roots: &TrustRoots) -> Option<&CertificateRef> {
    if let TrustRoots::Provider(reference) = roots { Some(reference) } else { None }
}

/// What `current` makes of the newest certificates. Of those that have not come yet the first word is waited for, within the
/// time that the handshake has: a process that starts has its connections made a moment later, not refused.
pub(super) async fn settled<T>(held: &Held, current: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    match current() {
        Err(error) if error.code() == Code::NO_CERTIFICATE => {
            held.settled().await;
            current()
        }
        other => other,
    }
}

/// Roots of any origin.
pub(super) enum Roots {
    Given(Arc<TrustMaterial>),
    System(Arc<Authorities>),
    Spiffe(Arc<BTreeMap<String, Vec<CertificateDer<'static>>>>),
    Nobody,
}

impl Roots {
    /// Whom `roots` trusts now.
    pub(super) fn current(secure: &Secure, roots: &TrustRoots) -> Result<Self, Error> {
        match roots {
            TrustRoots::Provider(reference) => secure.0.providers.trust(reference).map(Self::Given),
            TrustRoots::System => secure.0.system.get().map(Self::System),
            TrustRoots::Spiffe(domains) => Ok(Self::Spiffe(domains.clone())),
            TrustRoots::Nobody => Ok(Self::Nobody),
        }
    }

    pub(super) fn generation(&self) -> Option<u64> {
        match self {
            Self::Given(material) => Some(material.generation),
            Self::System(_) | Self::Spiffe(_) | Self::Nobody => None,
        }
    }

    /// What is asked of the peer's certificate, by a policy and by the secret that these come from.
    pub(super) fn demands(&self, sans: &[SanMatch], checks: &CertificateChecks) -> Demands {
        let own = Demands { sans: sans.to_vec(), checks: checks.clone() };
        match self {
            Self::Given(material) => own.merged(&material.demands),
            Self::System(_) | Self::Spiffe(_) | Self::Nobody => own,
        }
    }

    /// What peers are to whoever shows `own` and asks for `sans`; these come from `origin`.
    pub(super) fn peers(
        &self,
        secure: &Secure,
        origin: &TrustRoots,
        own: Option<&IdentityMaterial>,
        sans: &[SanMatch],
        side: Side,
    ) -> Peers {
        if secure.is_foreign(origin) {
            return Peers::Foreign;
        }
        let by_id = match self {
            Self::Given(_) if self.is_for_everyone() => {
                provider(origin).is_some_and(|reference| secure.0.providers.vouches_for_workloads(reference))
            }
            _ => true,
        };
        let aliases = match side {
            Side::Server => None,
            #[cfg(feature = "server")]
            Side::Client => (self.is_for_everyone() && sans.is_empty()).then_some(&secure.0.aliases),
        };
        Peers::of_mesh(own, by_id, sans, aliases)
    }

    /// Whether they vouch for peers of any trust domain.
    fn is_for_everyone(&self) -> bool {
        matches!(self, Self::Given(material) if matches!(material.roots, mesh_core::identity::Roots::Any(_)))
    }

    /// The revocation lists that came with these, which count in the place of a policy's.
    pub(super) fn lists(&self) -> Result<Option<Arc<Lists>>, Error> {
        let crl = if let Self::Given(material) = self { material.demands.checks.crl.as_ref() } else { None };
        crl.map(Lists::of).transpose()
    }

    pub(super) fn anchors(&self) -> Result<Anchors, Error> {
        match self {
            Self::Given(material) => Anchors::new(material),
            Self::System(store) => Ok(Anchors::Any(store.clone())),
            Self::Spiffe(domains) => Ok(Anchors::Spiffe(stores(domains))),
            Self::Nobody => Ok(Anchors::Nobody),
        }
    }
}

/// Roots, ready to verify with.
pub(super) enum Anchors {
    /// These, for everyone.
    Any(Arc<Authorities>),
    /// Those of the peer's trust domain (gRFC A87).
    ByTrustDomain(BTreeMap<String, Arc<Authorities>>),
    /// The same, and a leaf must be an X.509-SVID as Envoy's validator sees it.
    Spiffe(BTreeMap<String, Arc<Authorities>>),
    /// None: a certificate is known by itself, or not at all.
    Nobody,
}

impl Anchors {
    /// Those of `material`. Without any for anyone there is nothing to verify against; a map without trust domains is valid,
    /// and trusts nobody.
    pub(super) fn new(material: &TrustMaterial) -> Result<Self, Error> {
        match &material.roots {
            mesh_core::identity::Roots::Any(roots) => Ok(Self::Any(Arc::new(store(roots)?))),
            mesh_core::identity::Roots::ByTrustDomain(map) => Ok(Self::ByTrustDomain(stores(map))),
        }
    }

    /// The roots for whoever shows `leaf`; the error says why there are none.
    pub(super) fn of(&self, leaf: &CertificateDer<'_>) -> Result<&Arc<Authorities>, String> {
        match self {
            Self::Any(store) => Ok(store),
            Self::ByTrustDomain(map) | Self::Spiffe(map) => of_domain(map, leaf),
            Self::Nobody => Err("nobody is".to_owned()),
        }
    }
}

/// Those of a trust domain that cannot be read are none.
fn stores(map: &BTreeMap<String, Vec<CertificateDer<'static>>>) -> BTreeMap<String, Arc<Authorities>> {
    let usable = |(name, roots): (&String, &Vec<_>)| Some((name.clone(), Arc::new(store(roots).ok()?)));
    map.iter().filter_map(usable).collect()
}

/// What is there for the trust domain in the one SPIFFE ID of `leaf` (gRFC A87).
fn of_domain<'a, T>(map: &'a BTreeMap<String, T>, leaf: &CertificateDer<'_>) -> Result<&'a T, String> {
    let sans = Sans::read(leaf).map_err(|error| error.to_string())?;
    let [uri] = sans.uris.as_slice() else {
        return Err(format!("it has {} URIs, and trust by SPIFFE trust domain needs one", sans.uris.len()));
    };
    let id: SpiffeId = uri.parse().map_err(|error| format!("its URI is no SPIFFE ID: {error}"))?;
    let known = map.get(id.trust_domain());
    known.ok_or_else(|| format!("the trust domain `{}` is not in the SPIFFE bundle map", id.trust_domain()))
}

/// Roots that cannot be read trust nobody; without any other there is nothing to verify against.
fn store(roots: &[CertificateDer<'static>]) -> Result<Authorities, Error> {
    let (store, unreadable) = Authorities::new(roots.iter().cloned());
    if unreadable > 0 {
        tracing::warn!(target: "mesh", "{unreadable} root certificates cannot be read and are left out");
    }
    if store.is_empty() {
        return Err(Error::new(Code::NO_CERTIFICATE, "TLS is asked for, and there is no root certificate to trust"));
    }
    Ok(store)
}

/// The operating system's roots, read once: they are many, and change with the system's packages only.
#[derive(Default)]
pub(super) struct SystemRoots(OnceLock<Arc<Authorities>>);

impl SystemRoots {
    /// Reads them, if they have not been read. It blocks. None at all is tried again at the next handshake.
    pub(super) fn get(&self) -> Result<Arc<Authorities>, Error> {
        if let Some(store) = self.0.get() {
            return Ok(store.clone());
        }
        let found = rustls_native_certs::load_native_certs();
        let (store, _) = Authorities::new(found.certs);
        if store.is_empty() {
            let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
            let text = format!("the system has no root certificates to trust ({})", errors.join("; "));
            return Err(Error::new(Code::NO_CERTIFICATE, text)
                .with_next_step("install the system's CA certificates, or name a certificate provider"));
        }
        Ok(self.0.get_or_init(|| Arc::new(store)).clone())
    }
}

/// A chain and a key that rustls does not take.
pub(super) fn unusable(material: &IdentityMaterial, error: rustls::Error) -> Error {
    let text = format!("the certificate of {} and its key cannot be used: {error}", names_of(material));
    Error::new(Code::NO_CERTIFICATE, text).with_source(error)
}

fn names_of(material: &IdentityMaterial) -> String {
    let names = material.chain.first().and_then(|leaf| mesh_core::identity::Sans::read(leaf).ok());
    names.map_or_else(|| "this process".to_owned(), |names| names.to_string())
}
