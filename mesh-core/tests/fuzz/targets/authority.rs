//! Answers of whoever gives certificates over a call: the SPIFFE Workload API, and Istio's CA. Good ones spoiled, by their parts
//! and as a whole.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::future::ready;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use mesh_core::ads::{ControlStream, ControlTransport, Opening, Settings, TransportError};
use mesh_core::bootstrap::{IstioCaConfig, Node, ServerConfig, SpiffeConfig};
use mesh_core::certificates::{IstioCa, SigningRequest, Spiffe, Surroundings};
use mesh_core::event::{Event, EventSink};
use mesh_core::identity::CertificateSource;
use prost::Message;
use rcgen::{CertificateParams, KeyPair, SanType};

use crate::input;

const NAME: &str = "spiffe://example.org/a";

/// What the Workload API's messages are (SPIFFE Workload API, appendix A).
#[derive(Clone, PartialEq, Message)]
struct Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Svids {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    crl: Vec<Vec<u8>>,
    #[prost(map = "string, bytes", tag = "3")]
    federated_bundles: HashMap<String, Vec<u8>>,
}

/// `istio.v1.auth.IstioCertificateResponse`.
#[derive(Clone, PartialEq, Message)]
struct Chain {
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

/// A certificate as DER and PEM, and its key.
static GOOD: LazyLock<(Vec<u8>, String, Vec<u8>)> = LazyLock::new(|| {
    let key = KeyPair::generate().expect("there is randomness");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(NAME.try_into().expect("it is ASCII"))];
    let certificate = params.self_signed(&key).expect("the key signs");
    (certificate.der().to_vec(), certificate.pem(), key.serialize_der())
});

pub(crate) fn workload_api(data: &[u8]) {
    // Where the bytes end, so does the case.
    let _ = tell_spiffe(&mut Unstructured::new(data));
}

pub(crate) fn istio_ca(data: &[u8]) {
    let _ = tell_istio(&mut Unstructured::new(data));
}

/// Whether what these bytes make of good answers is taken.
pub(crate) fn are_taken(data: &[u8]) -> [bool; 2] {
    let spiffe = tell_spiffe(&mut Unstructured::new(data));
    [spiffe.is_ok_and(|taken| taken), tell_istio(&mut Unstructured::new(data)).is_ok_and(|taken| taken)]
}

fn part(good: &[u8], u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut bytes = good.to_vec();
    match u.int_in_range(0..=5)? {
        0 => input::spoil_bytes(&mut bytes, u)?,
        1 => bytes.extend_from_slice(good),
        _ => {}
    }
    Ok(bytes)
}

fn text(good: &str, u: &mut Unstructured<'_>) -> Result<String> {
    Ok(String::from_utf8_lossy(&part(good.as_bytes(), u)?).into_owned())
}

/// As a whole it is spoiled seldom: little else would be seen.
fn whole(message: &impl Message, u: &mut Unstructured<'_>) -> Result<Bytes> {
    let mut bytes = message.encode_to_vec();
    if u.ratio(1, 8)? {
        input::spoil_bytes(&mut bytes, u)?;
    }
    Ok(bytes.into())
}

fn tell_spiffe(u: &mut Unstructured<'_>) -> Result<bool> {
    let mut answers = VecDeque::new();
    for _ in 0..u.int_in_range(1..=2)? {
        let mut svids = Vec::new();
        for _ in 0..u.int_in_range(0..=2)? {
            svids.push(Svid {
                spiffe_id: text(NAME, u)?,
                x509_svid: part(&GOOD.0, u)?,
                x509_svid_key: part(&GOOD.2, u)?,
                bundle: part(&GOOD.0, u)?,
            });
        }
        let federated =
            if u.arbitrary()? { vec![(text("spiffe://other.org", u)?, part(&GOOD.0, u)?)] } else { Vec::new() };
        let crl = if u.ratio(1, 8)? { vec![Vec::new()] } else { Vec::new() };
        answers.push_back(whole(&Svids { svids, crl, federated_bundles: federated.into_iter().collect() }, u)?);
    }
    let config = SpiffeConfig::new("unix:///agent").expect("it is a socket");
    let (source, run) = Spiffe::new(&config, &around(answers));
    Ok(outcome(&source, run))
}

fn tell_istio(u: &mut Unstructured<'_>) -> Result<bool> {
    let mut cert_chain = Vec::new();
    for _ in 0..u.int_in_range(0..=3)? {
        cert_chain.push(text(&GOOD.1, u)?);
    }
    let around = around(VecDeque::from([whole(&Chain { cert_chain }, u)?]));
    let transport = around.transport.clone();
    let make = Arc::new(|_: Option<&str>| {
        let key = rustls_pki_types::PrivateKeyDer::Pkcs8(GOOD.2.clone().into());
        Ok(SigningRequest { key, csr: "csr".to_owned() })
    });
    let (source, run) = IstioCa::new(&IstioCaConfig::new("istiod:15012"), &around, &move |_| transport.clone(), make);
    Ok(outcome(&source, run))
}

/// Runs it until nothing more is told. What is held then can be used, and is never half of something.
fn outcome(source: &dyn CertificateSource, run: impl Future<Output = ()>) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime can be had");
    // Less than the first backoff.
    let _ = runtime.block_on(async { tokio::time::timeout(Duration::from_millis(1), run).await });
    let identity = source.identity();
    if let Ok(identity) = &identity {
        assert!(!identity.chain.is_empty() && source.trust().is_ok());
        assert!(identity.chain.iter().all(|one| one.as_ref() == GOOD.0 || !one.is_empty()));
        assert!(!format!("{identity:?} {source:?}").contains("PRIVATE"));
    }
    identity.is_ok()
}

struct Deaf;

impl EventSink for Deaf {
    fn event(&self, _event: &Event) {}
}

fn around(answers: VecDeque<Bytes>) -> Surroundings {
    Surroundings {
        transport: Arc::new(Answers(Mutex::new(Some(answers)))),
        node: Node::default(),
        settings: Settings::default(),
        // Which keys belong to which certificates is for TLS to know.
        pair: Arc::new(|chain, _| !chain.is_empty()),
        events: Arc::new(Deaf),
        seed: 7,
        clock: SystemTime::now,
    }
}

/// Gives these answers to the first call, and none to others.
struct Answers(Mutex<Option<VecDeque<Bytes>>>);

impl ControlTransport for Answers {
    fn open(&self, _server: &ServerConfig, _path: &str) -> Opening {
        let answers = self.0.lock().expect("nobody panicked").take();
        let stream = answers.map(|answers| Box::new(Answering(answers)) as Box<dyn ControlStream>);
        Box::pin(ready(stream.ok_or_else(|| TransportError::new("there was one call"))))
    }
}

struct Answering(VecDeque<Bytes>);

impl ControlStream for Answering {
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<std::result::Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, _message: Bytes) {}

    fn finish(&mut self) {}

    fn poll_receive(&mut self, _cx: &mut Context<'_>) -> Poll<Option<std::result::Result<Bytes, TransportError>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}
