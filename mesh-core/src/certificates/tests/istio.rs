//! Istio's CA, which the tests play.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertificateParams, KeyPair, SanType};

use super::*;
use crate::bootstrap::{CallCredentials, ChannelCredentials, IstioCaConfig};

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, tag = "1")]
    csr: String,
    #[prost(int64, tag = "3")]
    validity_duration: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

/// A token of the service account `alice` in `default`.
const TOKEN: &str = "e30.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6ZGVmYXVsdDphbGljZSJ9.c2ln";
const NAME: &str = "spiffe://cluster.local/ns/default/sa/alice";

struct Token(PathBuf);

impl Token {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("mesh-istio-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::write(&path, TOKEN).unwrap();
        Self(path)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn make() -> MakeRequest {
    Arc::new(|uri| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = uri.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        let csr = params.serialize_request(&key).unwrap().pem().unwrap();
        Ok(SigningRequest { key: key.into(), csr })
    })
}

struct Rig {
    ca: IstioCa,
    authority: Authority,
    said: Arc<Said>,
    /// What is opened with the token.
    by_token: UnboundedReceiver<Opened>,
    /// What is opened with the certificate.
    by_certificate: UnboundedReceiver<Opened>,
    _token: Token,
}

impl Rig {
    fn new() -> Self {
        let (token, said) = (Token::new(), Arc::new(Said::default()));
        let ((transport, by_token), (mutual, by_certificate)) = (played(), played());
        let config = IstioCaConfig::new("istiod:15012").with_token_file(&token.0).with_cluster_id("east");
        let mutual = |_source: Arc<dyn CertificateSource>| mutual.clone();
        let (ca, run) = IstioCa::new(&config, &around(transport, &said), &mutual, make());
        background(run);
        Self { ca, authority: Authority::new(), said, by_token, by_certificate, _token: token }
    }

    fn issue(&self, request: &Request) -> Response {
        let leaf = self.authority.sign(&request.csr, NAME, wall(), DAY);
        Response { cert_chain: vec![leaf, self.authority.root_pem()] }
    }
}

async fn asked(stream: &mut Opened) -> Request {
    Request::decode(stream.request().await).unwrap()
}

fn is_named(csr: &str, uri: &str) -> bool {
    let request = rcgen::CertificateSigningRequestParams::from_pem(csr).unwrap();
    request.params.subject_alt_names == [SanType::URI(uri.try_into().unwrap())]
}

#[tokio::test(start_paused = true)]
async fn istio_a_certificate_comes_by_the_token_and_is_renewed_by_itself_at_half_of_its_life() {
    let mut rig = Rig::new();
    let mut stream = rig.by_token.recv().await.unwrap();
    assert_eq!(stream.path, "/istio.v1.auth.IstioCertificateService/CreateCertificate");
    assert!(matches!(stream.server.credentials, ChannelCredentials::Tls(_)), "a token is never sent in plaintext");
    assert!(matches!(&stream.server.call_credentials[..], [CallCredentials::JwtTokenFile(_)]));
    assert_eq!(stream.server.initial_metadata, [("clusterid".into(), "east".into())]);
    let request = asked(&mut stream).await;
    assert_eq!(request.validity_duration, 24 * 3600);
    assert!(is_named(&request.csr, NAME), "the service account's");
    stream.answer(&rig.issue(&request));
    rig.ca.settled().await;
    let first = rig.ca.identity().unwrap();
    assert_eq!(rig.ca.trust().unwrap().roots, Roots::Any(vec![rig.authority.root()]));
    assert!(rig.ca.vouches_for_workloads(), "istiod signs SPIFFE IDs only");

    let before = tokio::time::Instant::now();
    let mut stream = rig.by_certificate.recv().await.unwrap();
    let waited = before.elapsed();
    assert!(waited > DAY.mul_f64(0.44) && waited < DAY.mul_f64(0.56), "{waited:?}");
    assert!(stream.server.call_credentials.is_empty(), "the certificate says who we are");
    let request = asked(&mut stream).await;
    stream.answer(&rig.issue(&request));
    until("it is renewed", || rig.ca.identity().unwrap().generation > first.generation).await;
    assert_ne!(rig.ca.identity().unwrap().key, first.key, "each certificate has a key of its own");
    assert!(rig.said.troubles().is_empty());
}

#[tokio::test(start_paused = true)]
async fn istio_a_ca_that_will_not_have_the_certificate_gets_the_token_and_the_old_one_is_used_meanwhile() {
    let mut rig = Rig::new();
    let mut stream = rig.by_token.recv().await.unwrap();
    let request = asked(&mut stream).await;
    stream.answer(&rig.issue(&request));
    rig.ca.settled().await;
    let first = rig.ca.identity().unwrap().generation;
    rig.by_certificate.recv().await.unwrap().fail("UNAUTHENTICATED");
    rig.by_token.recv().await.unwrap().fail("UNAVAILABLE");
    until("both are said", || rig.said.troubles().len() == 1).await;
    let trouble = rig.said.troubles().pop().unwrap();
    assert!(trouble.contains("certificate in hand: UNAUTHENTICATED; by the token: UNAVAILABLE"), "{trouble}");
    assert_eq!(rig.ca.identity().unwrap().generation, first);
    rig.by_certificate.recv().await.unwrap().fail("UNAUTHENTICATED");
    let mut stream = rig.by_token.recv().await.unwrap();
    let request = asked(&mut stream).await;
    stream.answer(&rig.issue(&request));
    until("it is renewed", || rig.ca.identity().unwrap().generation > first).await;
}

#[tokio::test(start_paused = true)]
async fn istio_roots_are_the_last_element_and_elements_may_hold_several_certificates() {
    let mut rig = Rig::new();
    let mut stream = rig.by_token.recv().await.unwrap();
    let request = asked(&mut stream).await;
    let (middle, other) = (Authority::new(), Authority::new());
    let leaf = rig.authority.sign(&request.csr, NAME, wall(), DAY);
    let last = format!("{}{}", rig.authority.root_pem(), other.root_pem());
    stream.answer(&Response { cert_chain: vec![format!("{leaf}{}", middle.root_pem()), middle.root_pem(), last] });
    rig.ca.settled().await;
    let held = rig.ca.identity().unwrap();
    assert_eq!(held.chain[1..], [middle.root(), middle.root()]);
    assert_eq!(rig.ca.trust().unwrap().roots, Roots::Any(vec![rig.authority.root(), other.root()]));
}

#[tokio::test(start_paused = true)]
async fn istio_what_is_no_certificate_for_our_key_is_refused() {
    let mut rig = Rig::new();
    let root = rig.authority.root_pem();
    let stranger = make()(None).unwrap().csr;
    type Answer<'a> = &'a dyn Fn(&Rig, &Request) -> Vec<String>;
    let rows: [(Answer<'_>, &str); 7] = [
        (&|_, _| vec![], "cert_chain has 0 elements"),
        (&|rig, request| rig.issue(request).cert_chain[..1].to_vec(), "cert_chain has 1 elements"),
        (&|_, _| vec!["x".to_owned(), root.clone()], "cert_chain has no certificate in PEM"),
        (
            &|rig, request| vec![rig.issue(request).cert_chain[0].clone(), "x".to_owned()],
            "last element has no certificate",
        ),
        (&|rig, _| vec![rig.authority.sign(&stranger, NAME, wall(), DAY), root.clone()], "for another key"),
        (
            &|rig, request| vec![rig.authority.sign(&request.csr, "https://example.org", wall(), DAY), root.clone()],
            "which is no SPIFFE ID",
        ),
        (
            &|rig, request| vec![rig.authority.sign(&request.csr, NAME, wall() - 2 * DAY, DAY), root.clone()],
            "has expired",
        ),
    ];
    for (index, (answer, why)) in rows.iter().enumerate() {
        let mut stream = rig.by_token.recv().await.unwrap();
        let request = asked(&mut stream).await;
        stream.answer(&Response { cert_chain: answer(&rig, &request) });
        until("it is said", || rig.said.troubles().len() > index).await;
        let last = rig.said.troubles().pop().unwrap();
        assert!(last.contains(why), "{last} does not say {why}");
        assert!(rig.ca.identity().is_err() && rig.ca.trust().is_err());
    }
    // And a CA that says nothing is asked again.
    let silent = rig.by_token.recv().await.unwrap();
    let mut stream = rig.by_token.recv().await.unwrap();
    drop(silent);
    let request = asked(&mut stream).await;
    stream.answer(&rig.issue(&request));
    until("the good one is taken", || rig.ca.identity().is_ok()).await;
}
