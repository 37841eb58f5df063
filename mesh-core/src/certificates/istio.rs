//! Istio's CA: a key made here, a certificate for it from istiod, by the service account's token.
//!
//! `istio.v1.auth.IstioCertificateService/CreateCertificate`, one call for each certificate. The first is authenticated by the
//! token; each next one, at half of the life of the one before, by that one over mutual TLS, and by the token again if the CA
//! will not have it. The key is made anew each time and never leaves the process.

use std::fmt;
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;

use super::Surroundings;
use super::call::Call;
use super::spiffe::check_leaf;
use crate::ads::{Backoff, ControlTransport};
use crate::bootstrap::{CallCredentials, IstioCaConfig, ServerConfig};
use crate::error::Error;
use crate::event::Event;
use crate::identity::{
    CertificateSource, IdentityMaterial, PairCheck, Roots, Sans, Settled, Slot, SpiffeId, TrustMaterial, Validity,
    jwt_subject,
};
use crate::model::Name;

/// The method.
const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// How long the CA may take to sign.
const PATIENCE: Duration = Duration::from_secs(20);
/// However short a certificate's life is, the CA is not asked more often.
const SHORTEST: Duration = Duration::from_secs(1);
/// A certificate is renewed at half of its life, and so much of its life earlier or later: processes that started together
/// must not come together.
const JITTER: f64 = 0.05;
/// The largest token.
const LONGEST_TOKEN: u64 = 16 * 1024;
/// How the subject of a service account's token begins.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// `IstioCertificateRequest`.
#[derive(Clone, PartialEq, Message)]
struct CertificateRequest {
    /// PKCS#10, as PEM.
    #[prost(string, tag = "1")]
    csr: String,
    /// Seconds.
    #[prost(int64, tag = "3")]
    validity_duration: i64,
}

/// `IstioCertificateResponse`.
#[derive(Clone, PartialEq, Message)]
struct CertificateResponse {
    /// PEM: the leaf, intermediates, and last the roots.
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

/// A new key, and the request for a certificate for it.
pub struct SigningRequest {
    /// The key.
    pub key: PrivateKeyDer<'static>,
    /// PKCS#10, as PEM.
    pub csr: String,
}

impl fmt::Debug for SigningRequest {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningRequest").field("csr", &self.csr).finish_non_exhaustive()
    }
}

/// Makes a P-256 key and the request for a certificate with this URI, without a subject; None: without a name. Cryptography
/// is not this crate's.
pub type MakeRequest = Arc<dyn Fn(Option<&str>) -> Result<SigningRequest, String> + Send + Sync>;

/// The certificate that Istio's CA gives this process.
#[derive(Clone)]
pub struct IstioCa {
    uri: Name,
    slot: Arc<Slot>,
}

/// What asks for it.
struct Asker {
    config: IstioCaConfig,
    around: Surroundings,
    /// Shows the certificate in hand.
    mutual: Arc<dyn ControlTransport>,
    make: MakeRequest,
}

impl IstioCa {
    /// The CA of `config`, and the work that keeps the certificate fresh, which never ends. `mutual` makes a transport that
    /// shows a source's certificate to the CA.
    pub fn new(
        config: &IstioCaConfig,
        around: &Surroundings,
        mutual: &dyn Fn(Arc<dyn CertificateSource>) -> Arc<dyn ControlTransport>,
        make: MakeRequest,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let uri = config.server.uri.clone();
        let this = Self { slot: Arc::new(Slot::new(format!("Istio's CA {uri}"))), uri };
        let mutual = mutual(this.slot.clone());
        let asker = Asker { config: config.clone(), around: around.clone(), mutual, make };
        (this.clone(), this.run(asker))
    }

    async fn run(self, asker: Asker) {
        let around = &asker.around;
        let mut backoff = Backoff::new(around.settings.backoff.clone(), around.seed);
        let mut random = fastrand::Rng::with_seed(around.seed);
        loop {
            let asked = tokio::time::timeout(PATIENCE, self.renew(&asker)).await;
            match asked.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}"))) {
                Ok(validity) => {
                    backoff.reset();
                    let half = 0.5 + JITTER * (random.f64() * 2.0 - 1.0);
                    tokio::time::sleep(validity.left((around.clock)()).mul_f64(half).max(SHORTEST)).await;
                }
                Err(why) => {
                    if self.slot.trouble(&*why) {
                        let certificate = format!("certificate of Istio's CA {}", self.uri).into();
                        around.events.event(&Event::CertificateTrouble { certificate, reason: why });
                    }
                    tokio::time::sleep_until(Instant::from_std(backoff.next(Instant::now().into_std()))).await;
                }
            }
        }
    }

    /// One new certificate.
    async fn renew(&self, asker: &Asker) -> Result<Validity, String> {
        let now = (asker.around.clock)();
        let is_good = |held: Arc<IdentityMaterial>| {
            held.chain.first().and_then(Validity::of).is_some_and(|validity| !validity.left(now).is_zero())
        };
        let mut refused = None;
        if self.slot.identity().is_ok_and(is_good) {
            // The certificate says who we are: a token beside it would only be one more thing to lose.
            let server = ServerConfig { call_credentials: Vec::new(), ..asker.config.server.clone() };
            match self.ask(asker, &*asker.mutual, &server).await {
                Ok(validity) => return Ok(validity),
                Err(why) => refused = Some(why),
            }
        }
        self.ask(asker, &*asker.around.transport, &asker.config.server).await.map_err(|why| match refused {
            Some(refused) => format!("by the certificate in hand: {refused}; by the token: {why}"),
            None => why,
        })
    }

    async fn ask(
        &self,
        asker: &Asker,
        transport: &dyn ControlTransport,
        server: &ServerConfig,
    ) -> Result<Validity, String> {
        let name = self.name(&asker.config);
        let SigningRequest { key, csr } = (asker.make)(name.as_deref())?;
        let validity_duration = i64::try_from(asker.config.certificate_ttl.as_secs()).unwrap_or(i64::MAX);
        let request = CertificateRequest { csr, validity_duration }.encode_to_vec().into();
        let patience = asker.around.settings.connect_timeout;
        let mut call = Call::start(transport, server, CREATE_CERTIFICATE, request, patience)
            .await
            .map_err(|error| error.reason)?;
        let answer = call.next().await.map_err(|error| error.reason)?.ok_or("the CA gave no answer")?;
        let issued = Issued::read(&answer, &key, &asker.around.pair)?;
        let validity = Validity::of(&issued.chain[0]).filter(|one| !one.left((asker.around.clock)()).is_zero());
        let validity = validity.ok_or("the CA gave a certificate that has expired")?;
        // Roots first: who is shown the new certificate may show one of the same new roots at once.
        self.slot.set_roots(Roots::Any(issued.roots));
        self.slot.set_identity(issued.chain, key);
        Ok(validity)
    }

    /// The name to ask for: the one in hand, or the service account's. The CA decides, by the token or the certificate.
    fn name(&self, config: &IstioCaConfig) -> Option<String> {
        if let Some(held) = self.slot.identity().ok().and_then(|held| Sans::read(held.chain.first()?).ok()) {
            return held.uris.into_iter().next();
        }
        let CallCredentials::JwtTokenFile(path) = config.server.call_credentials.first()?;
        let subject = jwt_subject(read_token(path)?.trim())?;
        let (namespace, account) = subject.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
        Some(format!("spiffe://{}/ns/{namespace}/sa/{account}", config.trust_domain))
    }
}

fn read_token(path: &Path) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(LONGEST_TOKEN).read_to_string(&mut text).ok()?;
    Some(text)
}

/// What the CA gave.
struct Issued {
    /// Not empty.
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
}

impl Issued {
    /// Each element may hold several certificates; the last is the roots.
    fn read(answer: &[u8], key: &PrivateKeyDer<'static>, pair: &PairCheck) -> Result<Self, String> {
        let answer = CertificateResponse::decode(answer).map_err(|error| format!("cannot be decoded: {error}"));
        let answer = answer.map_err(|why| format!("the CA's answer {why}"))?;
        let Some((roots, chain)) = answer.cert_chain.split_last().filter(|(_, chain)| !chain.is_empty()) else {
            let count = answer.cert_chain.len();
            return Err(format!("cert_chain has {count} elements, and needs a certificate and roots"));
        };
        let roots = certificates(roots, "cert_chain's last element")?;
        let chain = chain.iter().map(|pem| certificates(pem, "cert_chain")).collect::<Result<Vec<_>, _>>()?.concat();
        let leaf = chain.first().ok_or("cert_chain is empty")?;
        let sans = Sans::read(leaf).map_err(|error| error.to_string())?;
        let id = sans.uris.first().and_then(|uri| uri.parse::<SpiffeId>().ok());
        let id = id.ok_or_else(|| format!("the CA gave a certificate for {sans}, which is no SPIFFE ID"))?;
        check_leaf(&chain, &id).map_err(|why| format!("the CA gave a certificate that {why}"))?;
        if !pair(&chain, key) {
            return Err("the CA gave a certificate for another key".to_owned());
        }
        Ok(Self { chain, roots })
    }
}

fn certificates(pem: &str, place: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if all.is_empty() => Err(format!("{place} has no certificate in PEM")),
        Ok(all) if all.iter().any(|one| Validity::of(one).is_none()) => {
            Err(format!("{place} has something that is no certificate"))
        }
        Ok(all) => Ok(all),
        Err(error) => Err(format!("{place} is not valid PEM: {error}")),
    }
}

impl CertificateSource for IstioCa {
    fn identity(&self) -> Result<Arc<IdentityMaterial>, Error> {
        self.slot.identity()
    }

    fn trust(&self) -> Result<Arc<TrustMaterial>, Error> {
        self.slot.trust()
    }

    fn vouches_for_workloads(&self) -> bool {
        true
    }

    fn settled(&self) -> Settled {
        self.slot.settled()
    }
}

impl fmt::Debug for IstioCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IstioCa").field("ca", &self.uri).finish_non_exhaustive()
    }
}
