//! The SPIFFE Workload API: X.509-SVIDs, and the bundles of their trust domain and of those that it is federated with.
//!
//! Of the API one method is used, `FetchX509SVID`: a stream whose every message is the whole truth. Its two messages are
//! written here; see `docs/decisions/`. What is not right anywhere refuses the whole message, and what was good before stays.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prost::Message;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Surroundings;
use super::call::Call;
use crate::ads::Backoff;
use crate::bootstrap::SpiffeConfig;
use crate::error::{Code, Error};
use crate::event::Event;
use crate::identity::{
    CertificateSource, Demands, IdentityMaterial, PairCheck, Roots, Sans, Settled, Slot, SpiffeId, TrustMaterial,
    revocation_lists,
};
use crate::model::{CertificateChecks, CrlSource, Name};

/// The method (SPIFFE Workload API, section 5.2.1).
const FETCH_X509_SVID: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
/// How identities begin, and what `certificate_name` is if it chooses one.
const SPIFFE: &str = "spiffe://";

/// `X509SVIDRequest`, which is empty, needs no type. `X509SVIDResponse`.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<X509Svid>,
    /// Revocation lists, as DER.
    #[prost(bytes = "vec", repeated, tag = "2")]
    crl: Vec<Vec<u8>>,
    /// Bundles of other trust domains, as DER one behind the other, by the trust domain's SPIFFE ID.
    #[prost(map = "string, bytes", tag = "3")]
    federated_bundles: HashMap<String, Vec<u8>>,
}

/// `X509SVID`.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct X509Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    /// The chain, as DER one behind the other, the leaf first.
    #[prost(bytes = "vec", tag = "2")]
    x509_svid: Vec<u8>,
    /// PKCS#8, as DER.
    #[prost(bytes = "vec", tag = "3")]
    x509_svid_key: Vec<u8>,
    /// The roots of its trust domain, as DER one behind the other.
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

/// The identities that the SPIFFE Workload API gives this process.
///
/// As a source it is the first of them, which is the default one (SPIFFE Workload API, section 5.2.2). Another is chosen by a
/// `certificate_name` that is its SPIFFE ID; other names mean the first. Peers are trusted by the roots of their trust domain
/// (gRFC A87's mechanism).
#[derive(Clone)]
pub struct Spiffe(Arc<Shared>);

struct Shared {
    uri: Name,
    first: Slot,
    /// Every identity, by SPIFFE ID.
    all: ArcSwap<BTreeMap<String, Arc<Slot>>>,
}

impl Spiffe {
    /// The agent of `config`, and the work that keeps up with it, which never ends.
    pub fn new(config: &SpiffeConfig, around: &Surroundings) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let uri = config.server.uri.clone();
        let first = Slot::new(format!("SPIFFE Workload API {uri}"));
        let this = Self(Arc::new(Shared { uri, first, all: ArcSwap::default() }));
        (this.clone(), this.run(config.clone(), around.clone()))
    }

    async fn run(self, config: SpiffeConfig, around: Surroundings) {
        let mut backoff = Backoff::new(around.settings.backoff.clone(), around.seed);
        loop {
            let why = match self.follow(&config, &around, &mut backoff).await {
                Ok(()) => "the agent ended the stream".to_owned(),
                Err(why) => why,
            };
            self.trouble(&around, why);
            tokio::time::sleep_until(Instant::from_std(backoff.next(Instant::now().into_std()))).await;
        }
    }

    /// One stream, to its end.
    async fn follow(&self, config: &SpiffeConfig, around: &Surroundings, backoff: &mut Backoff) -> Result<(), String> {
        let (transport, patience) = (&*around.transport, around.settings.connect_timeout);
        let call = Call::start(transport, &config.server, FETCH_X509_SVID, bytes::Bytes::new(), patience).await;
        let mut call = call.map_err(|error| error.reason)?;
        while let Some(message) = call.next().await.map_err(|error| error.reason)? {
            match Answer::read(&message, &around.pair) {
                Ok(answer) => {
                    backoff.reset();
                    self.take(answer);
                }
                // The next message may be better: the stream goes on.
                Err(why) => self.trouble(around, format!("the agent's answer is not used: {why}")),
            }
        }
        Ok(())
    }

    fn trouble(&self, around: &Surroundings, why: String) {
        if self.0.first.trouble(&*why) {
            let certificate = format!("X.509-SVID of SPIFFE Workload API {}", self.0.uri).into();
            around.events.event(&Event::CertificateTrouble { certificate, reason: why });
        }
    }

    /// Roots first: who is shown the new certificate may show one of the same new roots at once.
    fn take(&self, answer: Answer) {
        self.0.first.set_validation(Roots::ByTrustDomain(answer.roots), answer.demands);
        let mut all = BTreeMap::clone(&self.0.all.load());
        for (index, (id, chain, key)) in answer.svids.into_iter().enumerate() {
            let slot = all.entry(id.as_str().to_owned()).or_insert_with(|| Arc::new(Slot::new(id.as_str())));
            slot.set_identity(chain.clone(), key.clone_key());
            if index == 0 {
                self.0.first.set_identity(chain, key);
            }
        }
        self.0.all.store(Arc::new(all));
    }
}

impl CertificateSource for Spiffe {
    fn identity(&self) -> Result<Arc<IdentityMaterial>, Error> {
        self.0.first.identity()
    }

    fn trust(&self) -> Result<Arc<TrustMaterial>, Error> {
        self.0.first.trust()
    }

    fn vouches_for_workloads(&self) -> bool {
        true
    }

    fn may_revoke(&self) -> bool {
        true
    }

    fn certificate(&self, name: &str) -> Option<Arc<dyn CertificateSource>> {
        name.starts_with(SPIFFE).then(|| Arc::new(One { api: self.0.clone(), id: name.into() }) as _)
    }

    fn settled(&self) -> Settled {
        self.0.first.settled()
    }
}

impl fmt::Debug for Spiffe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spiffe").field("endpoint", &self.0.uri).finish_non_exhaustive()
    }
}

/// One of several identities.
struct One {
    api: Arc<Shared>,
    id: Name,
}

impl CertificateSource for One {
    fn identity(&self) -> Result<Arc<IdentityMaterial>, Error> {
        // Without the first, nothing has come, for the reason that it says.
        self.api.first.identity()?;
        match self.api.all.load().get(&*self.id) {
            Some(slot) => slot.identity(),
            None => {
                let text = format!("SPIFFE Workload API {} gives this process no identity `{}`", self.api.uri, self.id);
                Err(Error::new(Code::NO_CERTIFICATE, text))
            }
        }
    }

    fn trust(&self) -> Result<Arc<TrustMaterial>, Error> {
        self.api.first.trust()
    }

    fn vouches_for_workloads(&self) -> bool {
        true
    }

    fn may_revoke(&self) -> bool {
        true
    }

    fn settled(&self) -> Settled {
        self.api.first.settled()
    }
}

impl fmt::Debug for One {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("One").field("id", &self.id).finish_non_exhaustive()
    }
}

/// An identity: its name, its chain and its key.
type Svid = (SpiffeId, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What a message says.
struct Answer {
    svids: Vec<Svid>,
    roots: BTreeMap<String, Vec<CertificateDer<'static>>>,
    demands: Demands,
}

impl Answer {
    fn read(message: &[u8], pair: &PairCheck) -> Result<Self, String> {
        let response = X509SvidResponse::decode(message).map_err(|error| format!("it cannot be decoded: {error}"))?;
        if response.svids.is_empty() {
            return Err("svids is empty".to_owned());
        }
        let demands = demands(&response.crl)?;
        let mut answer = Self { svids: Vec::new(), roots: BTreeMap::new(), demands };
        for (domain, bundle) in &response.federated_bundles {
            let bundle = certificates(bundle).map_err(|why| format!("federated_bundles[`{domain}`] {why}"))?;
            let name = domain.strip_prefix(SPIFFE).unwrap_or(domain);
            let id = format!("{SPIFFE}{name}").parse::<SpiffeId>().ok().filter(|id| id.path().is_empty());
            let id = id.ok_or_else(|| format!("federated_bundles[`{domain}`] is of no trust domain"))?;
            answer.roots.insert(id.trust_domain().to_owned(), bundle);
        }
        // What the agent says of our own trust domain counts, whatever stands among the others.
        for (index, svid) in response.svids.into_iter().enumerate() {
            answer.add(svid, pair).map_err(|why| format!("svids[{index}].{why}"))?;
        }
        Ok(answer)
    }

    fn add(&mut self, svid: X509Svid, pair: &PairCheck) -> Result<(), String> {
        let id: SpiffeId = svid.spiffe_id.parse().map_err(|error| format!("spiffe_id: {error}"))?;
        let chain = certificates(&svid.x509_svid).map_err(|why| format!("x509_svid {why}"))?;
        check_leaf(&chain, &id).map_err(|why| format!("x509_svid {why}"))?;
        let key = PrivateKeyDer::Pkcs8(svid.x509_svid_key.into());
        if !pair(&chain, &key) {
            return Err("x509_svid_key does not belong to the certificate, or cannot be used".to_owned());
        }
        let bundle = certificates(&svid.bundle).map_err(|why| format!("bundle {why}"))?;
        self.roots.insert(id.trust_domain().to_owned(), bundle);
        self.svids.push((id, chain, key));
        Ok(())
    }
}

/// With lists, each authority must be in one, as with those of SDS: of whom none speaks is not known to be unrevoked.
fn demands(crl: &[Vec<u8>]) -> Result<Demands, String> {
    let read = |(index, list): (usize, &Vec<u8>)| revocation_lists(list).map_err(|why| format!("crl[{index}] {why}"));
    let lists = crl.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?.concat();
    let crl = (!lists.is_empty()).then(|| CrlSource::Inline(lists.into()));
    Ok(Demands { checks: CertificateChecks { crl, ..CertificateChecks::default() }, ..Demands::default() })
}

/// SPIFFE X.509-SVID, sections 2 and 4: one URI, which is the identity, in a certificate that signs no others.
pub(super) fn check_leaf(chain: &[CertificateDer<'static>], id: &SpiffeId) -> Result<(), String> {
    let leaf = chain.first().ok_or("has no certificate")?;
    let sans = Sans::read(leaf).map_err(|error| error.to_string())?;
    if sans.uris.as_slice() != [id.as_str()] {
        return Err(format!("is for {sans}, and must have the one URI `{id}`"));
    }
    let is_ca = X509Certificate::from_der(leaf).is_ok_and(|(_, leaf)| leaf.is_ca());
    if is_ca { Err("is a CA's, which is no workload's".to_owned()) } else { Ok(()) }
}

/// Certificates as DER, one behind the other.
fn certificates(mut der: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut all = Vec::new();
    while !der.is_empty() {
        let (rest, _) =
            X509Certificate::from_der(der).map_err(|_| format!("has something at place {} that is none", all.len()))?;
        all.push(der[..der.len() - rest.len()].to_vec().into());
        der = rest;
    }
    if all.is_empty() { Err("has no certificate".to_owned()) } else { Ok(all) }
}
