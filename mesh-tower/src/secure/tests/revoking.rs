//! Certificates that are revoked: who shows one is not let in, and who was let in is out.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use mesh_core::error::Code;
use mesh_core::model::{CertificateChecks, CrlSource, DownstreamTls, UpstreamTls};
use tokio::io::AsyncReadExt;

use super::super::testing::{Ca, downstream, secure, serial, source, trusting, upstream};
use super::{CLIENT, client_leaf, client_of, id, ping, server_leaf, server_of, shake};
use crate::inbound::{InboundTls, TlsAcceptor};
use crate::secure::{Alpn, Secure};

fn inline(lists: Vec<Vec<u8>>) -> CertificateChecks {
    CertificateChecks { crl: Some(CrlSource::Inline(lists.into())), ..Default::default() }
}

/// A file that is gone with the test.
struct CrlFile(PathBuf);

impl CrlFile {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mesh-crl-{}-{name}.pem", std::process::id()));
        Self(path)
    }

    fn write(&self, bytes: &[u8]) {
        fs::write(&self.0, bytes).unwrap();
    }

    fn checks(&self) -> CertificateChecks {
        CertificateChecks { crl: Some(CrlSource::File(self.0.clone())), ..Default::default() }
    }
}

impl Drop for CrlFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// gRFC A69.
#[tokio::test]
async fn whoever_is_revoked_or_unknown_to_every_list_is_refused_on_both_sides() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (near, far) = (source(&ca, &client_leaf()), source(&ca, &server_leaf()));
    let (client_number, server_number) = (serial(&near), serial(&far));
    for (lists, client_good, server_good, why) in [
        (vec![ca.crl(&[], false)], true, true, ""),
        (vec![ca.crl(std::slice::from_ref(&client_number), false)], false, true, "Revoked"),
        (vec![ca.crl(std::slice::from_ref(&server_number), false)], true, false, "Revoked"),
        // A list that is out of date says who is revoked, and of nobody that they are not.
        (vec![ca.crl(&[], true)], false, false, "xpired"),
        (vec![ca.crl(&[], true), ca.crl(&[], false)], true, true, ""),
        (vec![ca.crl(std::slice::from_ref(&client_number), true), ca.crl(&[], false)], false, true, "Revoked"),
        (vec![other.crl(&[], false)], false, false, "UnknownRevocationStatus"),
        (vec![ca.forged_crl(&other)], false, false, "UnknownRevocationStatus"),
        // As in BoringSSL.
        (vec![ca.crl_of_another_key()], false, false, "UnknownRevocationStatus"),
    ] {
        let server = server_of(&far, DownstreamTls { checks: inline(lists.clone()), ..downstream() });
        let outcome = shake(&client_of(&near, upstream()), &server).await;
        if client_good {
            assert_eq!(id(outcome.both().1.client.identity.as_ref()), Some(CLIENT));
        } else {
            let error = outcome.server_error().await;
            assert!(error.code() == Code::HANDSHAKE && error.to_string().contains(why), "{error}");
        }
        let client = client_of(&near, UpstreamTls { checks: inline(lists), ..upstream() });
        let outcome = shake(&client, &server_of(&far, downstream())).await;
        assert_eq!(outcome.client.is_ok(), server_good, "{:?}", outcome.client.err());
    }
}

/// gRFC A69.
#[tokio::test]
async fn a_file_is_followed_and_what_is_no_list_leaves_the_last_good_one() {
    let ca = Ca::new();
    let (near, far) = (source(&ca, &client_leaf()), source(&ca, &server_leaf()));
    let file = CrlFile::new("followed");
    let secure: Secure = secure(&far);
    let policy = Arc::new(DownstreamTls { checks: file.checks(), ..downstream() });
    let server: Arc<dyn TlsAcceptor> = secure.acceptor(&policy).unwrap();
    let client = client_of(&near, upstream());
    // There has never been a list: nobody knows who is revoked.
    let error = shake(&client, &server).await.server_error().await;
    assert!(error.code() == Code::NO_CERTIFICATE && error.to_string().contains("nobody is trusted"), "{error}");

    let mut changes = secure.revocations();
    file.write(&ca.crl(&[], false));
    secure.refresh_revocations();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let (_, accepted) = shake(&client, &server).await.both();
    let identity = accepted.client.identity.unwrap();
    assert!(server.revoked(&identity).is_none());

    for garbage in [&b""[..], b"garbage", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----"] {
        file.write(garbage);
        secure.refresh_revocations();
        assert!(!changes.has_changed().unwrap());
        shake(&client, &server).await.both();
    }
    file.write(&ca.crl(&[serial(&near)], false));
    secure.refresh_revocations();
    assert!(changes.has_changed().unwrap());
    let error = server.revoked(&identity).expect("it was let in, and is revoked");
    assert!(error.to_string().contains(CLIENT), "{error}");
    // A session that could be resumed was made under the old list.
    shake(&client, &server).await.server_error().await;
}

/// The file is read within a second, on virtual time: a revoked peer is out in 5 s.
#[tokio::test(start_paused = true)]
async fn a_clients_connection_breaks_when_its_server_is_revoked_and_others_stay() {
    let ca = Ca::new();
    let file = CrlFile::new("breaks");
    file.write(&ca.crl(&[], false));
    let near = secure(&source(&ca, &client_leaf()));
    let policy = Arc::new(UpstreamTls { checks: file.checks(), ..upstream() });
    let client = near.client(&policy, Alpn::Either);
    let (revoked, stays) = (source(&ca, &server_leaf()), source(&ca, &server_leaf()));
    let mut out = shake(&client, &server_of(&revoked, downstream())).await.both();
    let mut kept = shake(&client, &server_of(&stays, downstream())).await.both();
    ping(&mut out.0, &mut out.1).await;

    file.write(&ca.crl(&[serial(&revoked)], false));
    let began = tokio::time::Instant::now();
    let following = tokio::spawn(near.follow_revocations());
    let error = out.0.io.read_u8().await.unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");
    assert!(began.elapsed().as_secs() < 5);
    ping(&mut kept.0, &mut kept.1).await;
    following.abort();
}

#[tokio::test]
async fn only_the_leafs_issuer_needs_a_list_if_that_is_asked_for() {
    let ca = Ca::new();
    let (inter, near) = (ca.intermediate(), trusting(&ca));
    inter.show(&near, &client_leaf());
    let far = source(&ca, &server_leaf());
    for (lists, leaf_only, good) in [
        (vec![inter.crl(&[], false)], true, true),
        (vec![inter.crl(&[], false)], false, false),
        (vec![ca.crl(&[], false)], true, false),
        (vec![ca.crl(&[], false), inter.crl(&[], false)], false, true),
        (vec![ca.crl(&[inter.serial()], false), inter.crl(&[], false)], false, false),
    ] {
        let checks = CertificateChecks { crl_of_leaf_only: leaf_only, ..inline(lists) };
        let server = server_of(&far, DownstreamTls { checks, ..downstream() });
        let outcome = shake(&client_of(&near, upstream()), &server).await;
        assert_eq!(outcome.server.is_ok(), good);
    }
}

/// As Envoy counts: the root is one of them.
#[tokio::test]
async fn a_chain_is_no_longer_than_is_asked_for() {
    let ca = Ca::new();
    let near = trusting(&ca);
    ca.intermediate().show(&near, &client_leaf());
    let far = source(&ca, &server_leaf());
    for (depth, good) in [(0, false), (1, false), (2, true)] {
        let checks = CertificateChecks { max_depth: Some(depth), ..Default::default() };
        let server = server_of(&far, DownstreamTls { checks, ..downstream() });
        assert_eq!(shake(&client_of(&near, upstream()), &server).await.server.is_ok(), good, "{depth}");
    }
}

/// As in Envoy: with lists, everyone up to the end of the chain must be in one, and a root that is not its own issuer has no end.
#[tokio::test]
async fn a_root_that_another_has_issued_must_be_in_a_list_itself() {
    let ca = Ca::new();
    let (inter, near) = (ca.intermediate(), trusting(&ca));
    inter.show(&near, &client_leaf());
    let far = source(&ca, &server_leaf());
    far.set_trust(vec![inter.root()]);
    for (leaf_only, good) in [(true, true), (false, false)] {
        let checks = CertificateChecks { crl_of_leaf_only: leaf_only, ..inline(vec![inter.crl(&[], false)]) };
        let server = server_of(&far, DownstreamTls { checks, ..downstream() });
        let client = client_of(&near, upstream());
        assert_eq!(shake(&client, &server).await.server.is_ok(), good);
    }
}
