//! The Workload API, whose agent the tests play. Its messages are written here field by field, after the standard.

use std::collections::HashMap;

use super::*;
use crate::bootstrap::SpiffeConfig;
use crate::identity::testing::Issued;
use crate::model::CrlSource;

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
    #[prost(string, tag = "5")]
    hint: String,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    crl: Vec<Vec<u8>>,
    #[prost(map = "string, bytes", tag = "3")]
    federated_bundles: HashMap<String, Vec<u8>>,
}

fn svid(id: &str, issued: &Issued, authority: &Authority) -> Svid {
    // The chain has an intermediate in it, one DER behind the other.
    let chain = [issued.certificate.as_ref(), authority.root().as_ref()].concat();
    Svid {
        spiffe_id: id.to_owned(),
        x509_svid: chain,
        x509_svid_key: issued.key.secret_der().to_vec(),
        bundle: authority.root().to_vec(),
        hint: "internal".to_owned(),
    }
}

fn config() -> SpiffeConfig {
    SpiffeConfig::new("unix:///agent").unwrap()
}

/// A list, as DER.
fn lists() -> Vec<Vec<u8>> {
    crate::identity::revocation_lists(crate::identity::crl_tests::pem().as_bytes()).unwrap()
}

fn domains(roots: &[(&str, &Authority)]) -> Roots {
    Roots::ByTrustDomain(roots.iter().map(|(name, one)| ((*name).to_owned(), vec![one.root()])).collect())
}

#[tokio::test(start_paused = true)]
async fn spiffe_identities_and_bundles_of_other_trust_domains_come_and_rotate() {
    let (authority, foreign, said) = (Authority::new(), Authority::new(), Arc::new(Said::default()));
    let (transport, mut opened) = played();
    let (source, run) = Spiffe::new(&config(), &around(transport, &said));
    background(run);
    let mut stream = opened.recv().await.unwrap();
    assert_eq!((&*stream.server.uri, &*stream.path), ("unix:///agent", "/SpiffeWorkloadAPI/FetchX509SVID"));
    assert_eq!(stream.server.initial_metadata, [("workload.spiffe.io".into(), "true".into())]);
    assert!(stream.request().await.is_empty(), "the request has no field");

    let bob = "spiffe://example.org/bob";
    let (first, second) = (authority.issue(ALICE, DAY), authority.issue(bob, DAY));
    let both = Response {
        svids: vec![svid(ALICE, &first, &authority), svid(bob, &second, &authority)],
        crl: vec![],
        federated_bundles: [("spiffe://other.test".to_owned(), foreign.root().to_vec())].into(),
    };
    stream.answer(&both);
    source.settled().await;
    let held = source.identity().unwrap();
    assert_eq!(held.chain, [first.certificate.clone(), authority.root()]);
    assert_eq!(held.key, first.key);
    assert_eq!(source.trust().unwrap().roots, domains(&[("example.org", &authority), ("other.test", &foreign)]));
    assert_eq!(source.certificate(bob).unwrap().identity().unwrap().chain[0], second.certificate);
    assert!(source.certificate("default").is_none(), "it is the first");
    assert!(source.vouches_for_workloads() && source.certificate(bob).unwrap().vouches_for_workloads());
    let nobody = source.certificate("spiffe://example.org/eve").unwrap();
    assert!(nobody.identity().unwrap_err().to_string().contains("no identity `spiffe://example.org/eve`"));

    let renewed = authority.issue(ALICE, DAY);
    let trust = source.trust().unwrap().generation;
    stream.answer(&Response { svids: vec![svid(ALICE, &renewed, &authority), both.svids[1].clone()], ..both.clone() });
    until("it rotates", || source.identity().unwrap().chain[0] == renewed.certificate).await;
    assert_eq!(source.trust().unwrap().generation, trust, "the roots did not");
    assert!(said.troubles().is_empty());
}

/// SPIFFE Workload API, section 5.2.2: each message is the whole truth, of who is revoked, too.
#[tokio::test(start_paused = true)]
async fn spiffe_revocation_lists_are_asked_of_peers_as_those_of_sds_are() {
    let (authority, said) = (Authority::new(), Arc::new(Said::default()));
    let (transport, mut opened) = played();
    let (source, run) = Spiffe::new(&config(), &around(transport, &said));
    background(run);
    let stream = opened.recv().await.unwrap();
    let issued = authority.issue(ALICE, DAY);
    let plain = Response { svids: vec![svid(ALICE, &issued, &authority)], ..Response::default() };
    let crl = || source.trust().unwrap().demands.checks.crl.clone();
    stream.answer(&Response { crl: lists(), ..plain.clone() });
    until("it comes", || source.identity().is_ok()).await;
    assert_eq!(crl(), Some(CrlSource::Inline(lists().into())));
    assert_eq!(source.trust().unwrap().roots, domains(&[("example.org", &authority)]));
    assert!(source.may_revoke() && source.certificate(ALICE).unwrap().may_revoke(), "connections are watched for it");
    stream.answer(&plain);
    until("nobody is revoked", || crl().is_none()).await;
    assert!(said.troubles().is_empty());
}

#[tokio::test(start_paused = true)]
async fn spiffe_an_agent_that_goes_is_asked_again_and_what_it_gave_stays() {
    let (authority, said) = (Authority::new(), Arc::new(Said::default()));
    let (transport, mut opened) = played();
    let (source, run) = Spiffe::new(&config(), &around(transport, &said));
    background(run);
    opened.recv().await.unwrap().fail("PERMISSION_DENIED: no identity issued");
    source.settled().await;
    assert!(source.identity().unwrap_err().to_string().contains("no identity issued"));
    let issued = authority.issue(ALICE, DAY);
    let stream = opened.recv().await.unwrap();
    stream.answer(&Response { svids: vec![svid(ALICE, &issued, &authority)], ..Response::default() });
    until("it comes", || source.identity().is_ok()).await;
    let held = source.identity().unwrap().generation;
    let before = tokio::time::Instant::now();
    drop(stream);
    for _ in 0..20 {
        opened.recv().await.unwrap().fail("connection refused");
    }
    let waited = before.elapsed();
    assert!(waited > Duration::from_secs(5) && waited < Duration::from_secs(600), "{waited:?} for 20 attempts");
    assert_eq!(source.identity().unwrap().generation, held);
}

#[tokio::test(start_paused = true)]
async fn spiffe_an_answer_with_anything_wrong_is_refused_as_a_whole_and_the_stream_goes_on() {
    let (authority, said) = (Authority::new(), Arc::new(Said::default()));
    let (transport, mut opened) = played();
    let (source, run) = Spiffe::new(&config(), &around(transport, &said));
    background(run);
    let stream = opened.recv().await.unwrap();
    let issued = authority.issue(ALICE, DAY);
    let good = Response { svids: vec![svid(ALICE, &issued, &authority)], ..Response::default() };
    let with = |change: &dyn Fn(&mut Response)| {
        let mut response = good.clone();
        change(&mut response);
        response
    };
    let federated = |name: &str, bundle: &[u8]| {
        let (name, bundle) = (name.to_owned(), bundle.to_vec());
        with(&move |response| drop(response.federated_bundles.insert(name.clone(), bundle.clone())))
    };
    let root = authority.root();
    let rows = [
        (Response::default(), "svids is empty"),
        (with(&|one| one.svids[0].spiffe_id = "spiffe://example.org/eve".to_owned()), "must have the one URI"),
        (with(&|one| one.svids[0].spiffe_id = "alice".to_owned()), "svids[0].spiffe_id"),
        (with(&|one| one.svids[0].x509_svid = vec![]), "svids[0].x509_svid has no certificate"),
        (with(&|one| one.svids[0].x509_svid.push(0)), "svids[0].x509_svid has something at place 2"),
        (
            with(&|one| one.svids[0].x509_svid_key = authority.issue(ALICE, DAY).key.secret_der().to_vec()),
            "x509_svid_key",
        ),
        (with(&|one| one.svids[0].bundle.clear()), "svids[0].bundle has no certificate"),
        (with(&|one| one.crl = vec![lists()[0].clone(), vec![1]]), "crl[1] has no certificate revocation list"),
        (federated("spiffe://other.test/path", &root), "is of no trust domain"),
        (federated("spiffe://other.test", b"x"), "federated_bundles[`spiffe://other.test`] has something"),
    ];
    for (response, why) in &rows {
        let count = said.troubles().len();
        stream.answer(response);
        until("it is said", || said.troubles().len() > count).await;
        let last = said.troubles().pop().unwrap();
        assert!(last.contains(why), "{last} does not say {why}");
    }
    stream.responses.send(Ok(Bytes::from_static(b"\xff"))).unwrap();
    until("it is said", || said.troubles().len() > rows.len()).await;
    assert!(source.identity().is_err() && source.trust().is_err(), "nothing of them is used");
    stream.answer(&good);
    until("the good one is", || source.identity().is_ok()).await;
}
