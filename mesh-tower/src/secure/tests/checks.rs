//! What else of a certificate, and of TLS, a policy may ask for.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::error::Code;
use mesh_core::model::{
    CertificateChecks, CertificatePin, CipherSuite, Curve, DownstreamTls, SanKind, TlsParams, TrustRoots, UpstreamTls,
};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::NamedGroup;

use super::super::crypto::{limited, provider, sha256};
use super::super::testing::{Ca, Leaf, downstream, exactly, foreign, show, source, trusting, upstream};
use super::{CLIENT, SERVER, client_leaf, client_of, id, server_leaf, server_of, shake};

fn pinned(pin: CertificatePin) -> CertificateChecks {
    CertificateChecks { pins: vec![pin], ..Default::default() }
}

#[tokio::test]
async fn only_the_certificate_or_the_key_that_is_asked_for_is_let_in() {
    let ca = Ca::new();
    let shown = source(&ca, &server_leaf());
    let server = server_of(&shown, downstream());
    let leaf = mesh_core::identity::CertificateSource::identity(&*shown).unwrap().chain[0].clone();
    let crypto = provider().unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    let hash = sha256(&crypto, &leaf).unwrap();
    let key = sha256(&crypto, parsed.public_key().raw).unwrap();
    for (checks, good) in [
        (pinned(CertificatePin::Certificate(hash)), true),
        (pinned(CertificatePin::PublicKey(key)), true),
        (pinned(CertificatePin::Certificate(key)), false),
        (pinned(CertificatePin::PublicKey(hash)), false),
        (
            CertificateChecks {
                pins: vec![CertificatePin::Certificate(key), CertificatePin::PublicKey(key)],
                ..Default::default()
            },
            true,
        ),
    ] {
        for roots in [upstream().roots, TrustRoots::Nobody] {
            let policy = UpstreamTls { checks: checks.clone(), roots, ..upstream() };
            let outcome = shake(&client_of(&source(&ca, &client_leaf()), policy), &server).await;
            if good {
                assert_eq!(id(outcome.both().0.peer.as_ref()), Some(SERVER), "a hash proves who it is");
            } else {
                let error = outcome.client_error();
                assert!(error.to_string().contains("its hash is none of those"), "{error}");
            }
        }
    }
    // A hash does not make a certificate of another authority trusted where roots are given, nor an expired one good.
    let other = Ca::new();
    let policy = UpstreamTls { checks: pinned(CertificatePin::Certificate(hash)), ..upstream() };
    let error = shake(&client_of(&source(&other, &client_leaf()), policy), &server).await.client_error();
    assert_eq!(error.code(), Code::HANDSHAKE, "{error}");
    let expired = source(&ca, &Leaf { expired: true, ..server_leaf() });
    let hash = sha256(&crypto, &mesh_core::identity::CertificateSource::identity(&*expired).unwrap().chain[0]).unwrap();
    let checks = pinned(CertificatePin::Certificate(hash));
    let policy = UpstreamTls { checks, roots: TrustRoots::Nobody, ..upstream() };
    let server = server_of(&expired, downstream());
    let error = shake(&client_of(&source(&ca, &client_leaf()), policy), &server).await.client_error();
    assert!(error.to_string().contains("xpired"), "{error}");
}

/// Who is let in though nobody trusts them is nobody: an authorization policy by names must not be met by what anybody writes.
#[tokio::test]
async fn whoever_is_let_in_untrusted_is_nobody() {
    let (ca, other) = (Ca::new(), Ca::new());
    let checks = CertificateChecks { accept_untrusted: true, ..Default::default() };
    for (roots, issuer, proven) in [
        (downstream().client_roots, &ca, Some(CLIENT)),
        (downstream().client_roots, &other, None),
        (Some(TrustRoots::Nobody), &ca, None),
    ] {
        let shown = trusting(&ca);
        show(&shown, issuer, &client_leaf());
        let policy = DownstreamTls { client_roots: roots, checks: checks.clone(), ..downstream() };
        let server = server_of(&source(&ca, &server_leaf()), policy);
        let (_, accepted) = shake(&client_of(&shown, upstream()), &server).await.both();
        assert_eq!(id(accepted.client.identity.as_ref()), proven);
        // Without any certificate it is still not let in.
        let bare = client_of(&trusting(&ca), UpstreamTls { identity: None, ..upstream() });
        shake(&bare, &server).await.server_error().await;
    }
    for (roots, issuer, proven) in
        [(upstream().roots, &ca, Some(SERVER)), (upstream().roots, &other, None), (TrustRoots::Nobody, &ca, None)]
    {
        let shown = trusting(&ca);
        show(&shown, issuer, &server_leaf());
        let server = server_of(&shown, downstream());
        let policy = UpstreamTls { roots, checks: checks.clone(), ..upstream() };
        let (secured, _) = shake(&client_of(&source(&ca, &client_leaf()), policy), &server).await.both();
        assert_eq!(id(secured.peer.as_ref()), proven);
    }
}

#[tokio::test]
async fn an_expired_certificate_is_let_in_only_where_it_is_allowed_and_only_of_a_trusted_authority() {
    let (ca, other) = (Ca::new(), Ca::new());
    let checks = CertificateChecks { allow_expired: true, ..Default::default() };
    let expired = Leaf { expired: true, ..server_leaf() };
    for (issuer, good) in [(&ca, true), (&other, false)] {
        let shown = trusting(&ca);
        show(&shown, issuer, &expired);
        let policy = UpstreamTls { checks: checks.clone(), ..upstream() };
        let outcome = shake(&client_of(&source(&ca, &client_leaf()), policy), &server_of(&shown, downstream())).await;
        assert_eq!(outcome.client.is_ok(), good);
    }
}

/// gRFC A87's trust by domain, with the roots in the resource and Envoy's conditions on the leaf.
#[tokio::test]
async fn the_spiffe_validator_takes_svids_of_its_domains_only() {
    let (ca, other) = (Ca::new(), Ca::new());
    let domains =
        BTreeMap::from([("mesh.test".to_owned(), vec![ca.root()]), ("other.test".to_owned(), vec![other.root()])]);
    let policy = UpstreamTls { roots: TrustRoots::Spiffe(Arc::new(domains)), ..upstream() };
    let signing = Leaf { signs: true, ..server_leaf() };
    let unsaid = Leaf { key_usage: false, ..server_leaf() };
    let client_only = Leaf { usages: vec![ExtendedKeyUsagePurpose::ClientAuth], ..server_leaf() };
    for (issuer, leaf, good) in [
        (&ca, server_leaf(), true),
        (&other, Leaf::workload("spiffe://other.test/a"), true),
        (&other, server_leaf(), false),
        (&ca, Leaf::workload("spiffe://other.test/a"), false),
        (&ca, Leaf::workload("spiffe://third.test/a"), false),
        (&ca, Leaf::workload("spiffe://mesh.test"), false),
        (&ca, Leaf::workload("https://mesh.test/a"), false),
        (&ca, Leaf { uris: vec![SERVER, "spiffe://mesh.test/b"], ..server_leaf() }, false),
        (&ca, Leaf { uris: Vec::new(), dns: vec!["mesh.test"], ..server_leaf() }, false),
        (&ca, signing, false),
        (&ca, unsaid, false),
        (&ca, client_only, false),
    ] {
        let shown = trusting(&ca);
        show(&shown, issuer, &leaf);
        let server =
            server_of(&shown, DownstreamTls { client_roots: None, require_client_certificate: false, ..downstream() });
        let outcome = shake(&client_of(&source(&ca, &client_leaf()), policy.clone()), &server).await;
        assert_eq!(outcome.client.is_ok(), good, "{:?} {:?}", leaf.uris, outcome.client.err());
    }
}

/// A foreign PKI's certificates are no identities of the mesh: their names are matched as they stand.
#[tokio::test]
async fn several_uris_are_refused_of_the_mesh_and_matched_one_by_one_of_a_foreign_pki() {
    let ca = Ca::new();
    let two = Leaf { uris: vec!["spiffe://mesh.test/other", CLIENT], ..client_leaf() };
    let policy = || DownstreamTls { sans: vec![exactly(SanKind::Uri, CLIENT)], ..downstream() };
    let client = client_of(&source(&ca, &two), upstream());
    let mesh = server_of(&source(&ca, &server_leaf()), policy());
    assert_eq!(shake(&client, &mesh).await.server_error().await.code(), Code::WRONG_IDENTITY);
    let (_, accepted) = shake(&client, &server_of(&foreign(&ca, &server_leaf()), policy())).await.both();
    let identity = accepted.client.identity.unwrap();
    assert_eq!((identity.spiffe_id(), identity.sans().uris.len()), (None, 2), "it has no one identity");
}

#[tokio::test]
async fn versions_suites_and_groups_are_those_that_are_asked_for() {
    let ca = Ca::new();
    let none = TlsParams::default();
    let old = TlsParams { no_tls13: true, ..none.clone() };
    let new = TlsParams { no_tls12: true, ..none.clone() };
    let suite = |suite| TlsParams { ciphers: vec![suite], ..old.clone() };
    let (aes, chacha) = (suite(CipherSuite::EcdheEcdsaAes128GcmSha256), suite(CipherSuite::EcdheEcdsaChacha20Poly1305));
    let group = |curve| TlsParams { curves: vec![curve], ..none.clone() };
    for (near, far, good) in [
        (&none, &none, true),
        (&old, &none, true),
        (&none, &old, true),
        (&new, &none, true),
        (&old, &new, false),
        (&new, &old, false),
        (&aes, &aes, true),
        (&aes, &chacha, false),
        (&aes, &new, false),
        (&group(Curve::P256), &none, true),
        (&group(Curve::P256), &group(Curve::P384), false),
    ] {
        let client = client_of(&source(&ca, &client_leaf()), UpstreamTls { params: near.clone(), ..upstream() });
        let server = server_of(&source(&ca, &server_leaf()), DownstreamTls { params: far.clone(), ..downstream() });
        let outcome = shake(&client, &server).await;
        assert_eq!((outcome.client.is_ok(), outcome.server.is_ok()), (good, good), "{near:?} {far:?}");
    }
}

/// As `openssl s_client` and `s_server` found of Envoy 1.40, but for P-521 in TLS 1.2, which its servers take.
#[tokio::test]
#[cfg(feature = "tls-aws-lc")]
async fn a_peer_has_a_key_of_a_kind_that_envoy_takes() {
    use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519};
    let ca = Ca::new();
    let named = vec![Curve::X25519, Curve::P256, Curve::P384];
    for no_tls13 in [false, true] {
        for (key, curves, of_client, of_server) in [
            (&PKCS_ECDSA_P256_SHA256, &[][..], true, true),
            (&PKCS_ECDSA_P384_SHA384, &[], true, false),
            (&PKCS_ECDSA_P384_SHA384, &named, true, true),
            (&PKCS_ECDSA_P521_SHA512, &named, false, false),
            (&PKCS_ED25519, &named, false, false),
        ] {
            let params = TlsParams { no_tls13, curves: curves.to_vec(), ..Default::default() };
            let other = |leaf: Leaf| Leaf { key, ..leaf };
            for (near, far, good) in
                [(other(client_leaf()), server_leaf(), of_client), (client_leaf(), other(server_leaf()), of_server)]
            {
                let client = client_of(&source(&ca, &near), UpstreamTls { params: params.clone(), ..upstream() });
                let server = server_of(&source(&ca, &far), downstream());
                let outcome = shake(&client, &server).await;
                assert_eq!(outcome.server.is_ok(), good, "{key:?}, {params:?}");
            }
        }
    }
}

#[test]
#[cfg(feature = "tls-aws-lc")]
fn the_group_that_withstands_quantum_computers_is_asked_for_first() {
    let crypto = provider().unwrap();
    assert_eq!(crypto.kx_groups[0].name(), NamedGroup::X25519MLKEM768);
    let params = TlsParams { curves: vec![Curve::P256, Curve::X25519MlKem768], ..Default::default() };
    let limited = limited(&crypto, &params).unwrap();
    let groups: Vec<_> = limited.kx_groups.iter().map(|group| group.name()).collect();
    assert_eq!(groups, [NamedGroup::secp256r1, NamedGroup::X25519MLKEM768]);
}
