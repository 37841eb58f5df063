//! 10,000 ClientHellos, and as many certificates and revocation lists, that were broken by chance: none makes us panic, and none
//! is let in that should not be.

use std::sync::Arc;

use mesh_core::identity::{CertificateSource as _, PeerIdentity, Sans, revocation_lists};
use mesh_core::model::{CertificateChecks, CertificatePin, CrlSource};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::io::AsyncWriteExt;

use super::super::chain::{Chain, Side};
use super::super::crl::CrlFiles;
use super::super::hello;
use super::super::material::Roots;
use super::super::testing::{Ca, authority, crypto, downstream, secure, serial, source, upstream};
use super::{client_leaf, server_leaf, server_of};

const CASES: usize = 10_000;

/// `good` with a few bytes changed, taken out, put in, or cut off.
fn broken(good: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        match random.u8(..6) {
            _ if bytes.is_empty() => bytes.push(random.u8(..)),
            0 => bytes[at] = random.u8(..),
            1 => bytes[at] ^= 1 << random.u8(..8),
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, random.u8(..)),
            4 => bytes.truncate(at),
            _ => bytes[at] = *random.choice(&[0, 1, 0x7f, 0x80, 0xff]).expect("it is not empty"),
        }
    }
    bytes
}

fn client_hello() -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut config = config;
    config.alpn_protocols = vec![b"h2".to_vec(), b"istio".to_vec()];
    let mut client = rustls::ClientConnection::new(Arc::new(config), "app.test".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn no_broken_client_hello_makes_an_inspection_panic() {
    let good = client_hello();
    let mut random = fastrand::Rng::with_seed(1);
    let mut outcomes = [0; 3];
    for _ in 0..CASES {
        let bytes = broken(&good, &mut random);
        let mut reader = hello::reader();
        let mut outcome = 0;
        for piece in bytes.chunks(random.usize(1..600)) {
            match reader(piece) {
                Ok(None) => continue,
                Ok(Some(first)) => {
                    assert!(first.tls);
                    outcome = 1;
                }
                Err(_) => outcome = 2,
            }
            break;
        }
        outcomes[outcome] += 1;
    }
    // Each end is reached: the cases are neither all whole nor all rubbish.
    assert!(outcomes.iter().all(|count| *count > 100), "{outcomes:?}");
}

#[tokio::test]
async fn no_broken_client_hello_makes_a_handshake_panic() {
    let ca = Ca::new();
    let server = server_of(&source(&ca, &server_leaf()), downstream());
    let good = client_hello();
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..CASES {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        near.write_all(&broken(&good, &mut random)).await.unwrap();
        near.shutdown().await.unwrap();
        assert!(server.accept(Box::new(far)).await.is_err(), "nobody has proven anything");
    }
}

#[test]
fn no_broken_certificate_makes_us_panic_or_is_trusted() {
    let ca = Ca::new();
    let shown = source(&ca, &client_leaf());
    let good = shown.identity().unwrap().chain[0].clone();
    let lists = CrlFiles::default().open(&CrlSource::Inline(vec![ca.crl(&[], false)].into())).current().unwrap();
    let tls = secure(&shown);
    let roots = Roots::current(&tls, &upstream().roots).unwrap();
    let checks = CertificateChecks { max_depth: Some(3), ..CertificateChecks::default() };
    let of = |checks: CertificateChecks, is_foreign| {
        Chain::new(roots.anchors().unwrap(), Some(lists.clone()), checks, &crypto(), Side::Client, is_foreign)
    };
    let pins = vec![CertificatePin::PublicKey([0; 32])];
    let pinned = of(CertificateChecks { pins, ..checks.clone() }, false);
    let (chain, foreign) = (of(checks.clone(), false), of(checks, true));
    let flagged = ca.issue_with(&client_leaf(), authority).0.der().clone();
    assert!(foreign.verify(&flagged, &[], UnixTime::now()).is_ok());
    assert!(chain.verify(&good, &[], UnixTime::now()).is_ok());
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..CASES {
        let bytes = broken(&good, &mut random);
        let leaf = CertificateDer::from(bytes);
        let _ = Sans::read(&leaf).map(|sans| sans.to_string());
        let _ = PeerIdentity::from_verified_chain(vec![leaf.clone()]);
        let _ = pinned.verify(&leaf, &[], UnixTime::now());
        // As the leaf, and as somebody between the leaf and the root.
        assert!(leaf == good || chain.verify(&leaf, &[], UnixTime::now()).is_err(), "its signature is broken");
        let _ = chain.verify(&good, &[leaf], UnixTime::now());
        let leaf = CertificateDer::from(broken(&flagged, &mut random));
        assert!(leaf == flagged || foreign.verify(&leaf, &[], UnixTime::now()).is_err(), "its signature is broken");
    }
}

#[test]
fn no_broken_revocation_list_makes_us_panic_or_trust_whoever_is_revoked() {
    let ca = Ca::new();
    let shown = source(&ca, &client_leaf());
    let leaf = shown.identity().unwrap().chain[0].clone();
    let good = ca.crl(&[serial(&shown)], false);
    let tls = secure(&shown);
    let roots = Roots::current(&tls, &upstream().roots).unwrap();
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..CASES {
        let Ok(lists) = revocation_lists(&broken(&good, &mut random)) else { continue };
        let Ok(lists) = CrlFiles::default().open(&CrlSource::Inline(lists.into())).current() else { continue };
        let checks = CertificateChecks::default();
        let chain = Chain::new(roots.anchors().unwrap(), Some(lists), checks, &crypto(), Side::Client, false);
        chain.verify(&leaf, &[], UnixTime::now()).unwrap_err();
    }
}
