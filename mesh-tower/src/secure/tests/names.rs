//! Which names peers of the mesh must have: where it is one of SPIFFE workloads, a SPIFFE ID and nothing beside it.

use std::sync::Arc;

use mesh_core::error::{Code, Error};
use mesh_core::identity::{CertificateProviders, CertificateSource, IdentityMaterial, StaticSource, TrustMaterial};
use mesh_core::model::{DownstreamTls, SanKind, SanMatch, UpstreamTls};
use rcgen::{DistinguishedName, DnType, ExtendedKeyUsagePurpose};

use super::super::testing::{Ca, INSTANCE, Leaf, downstream, exactly, foreign, source, trusting, upstream};
use super::{CLIENT, SERVER, client_leaf, client_of, id, secure, server_leaf, server_of, shake, shake_with};
use crate::inbound::InboundTls;
use crate::secure::{Alpn, Secure};

/// A peer's, by other names than a workload's.
fn named(uris: &[&'static str], dns: &[&'static str]) -> Leaf {
    Leaf { uris: uris.to_vec(), dns: dns.to_vec(), ..Leaf::workload("") }
}

fn by_dns(dns: &'static str) -> Leaf {
    let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Leaf { usages, ..Leaf::web(dns) }
}

/// What is wrong with the names of each, as a mesh of workloads sees it.
fn wrong() -> Vec<(Leaf, &'static str)> {
    let one = "exactly one URI, which is its SPIFFE ID";
    vec![
        (named(&[], &["peer.mesh.test"]), one),
        (named(&[], &[]), one),
        (named(&["https://mesh.test/ns/a/sa/client"], &[]), one),
        (named(&["spiffe://mesh.test/ns/a/../admin"], &[]), "its SPIFFE ID is none"),
        (named(&["spiffe://mesh.test/ns/a?x=/ns/admin/"], &[]), "its SPIFFE ID is none"),
        (named(&["spiffe://mesh.test"], &[]), "has a path"),
        (named(&["SPIFFE://mesh.test/ns/a"], &[]), "in lower case"),
        (named(&[CLIENT, "https://mesh.test/"], &[]), "one URI only"),
    ]
}

#[tokio::test]
async fn a_client_without_exactly_one_spiffe_id_is_refused_by_a_workload() {
    let ca = Ca::new();
    for (leaf, why) in wrong() {
        for require_client_certificate in [true, false] {
            let policy = DownstreamTls { require_client_certificate, ..downstream() };
            let server = server_of(&source(&ca, &server_leaf()), policy);
            let error = shake(&client_of(&source(&ca, &leaf), upstream()), &server).await.server_error().await;
            assert_eq!(error.code(), Code::WRONG_IDENTITY, "{error}");
            assert!(error.to_string().contains(why), "{error} does not say {why}");
        }
    }
}

/// Whether our client shows who it is, or only asks for a name of a workload.
#[tokio::test]
async fn a_server_without_exactly_one_spiffe_id_is_refused_by_a_workload_and_where_one_is_asked_for() {
    let ca = Ca::new();
    let anyone = || DownstreamTls { client_roots: None, require_client_certificate: false, ..downstream() };
    let shows = upstream();
    let asks = UpstreamTls { identity: None, sans: vec![exactly(SanKind::Uri, SERVER)], ..upstream() };
    for (leaf, why) in wrong() {
        for policy in [&shows, &asks] {
            let client = client_of(&source(&ca, &client_leaf()), policy.clone());
            let error = shake(&client, &server_of(&source(&ca, &leaf), anyone())).await.client_error();
            assert_eq!(error.code(), Code::WRONG_IDENTITY, "{error}");
            assert!(error.to_string().contains(why), "{error} does not say {why}");
        }
    }
}

/// Istio's namespaces are policies by `.*/ns/<ns>/.*`, and a principal without a URI is its DNS name or its subject (gRFC A41).
#[tokio::test]
async fn a41_no_subject_and_no_dns_name_takes_the_place_of_a_workloads_spiffe_id() {
    let ca = Ca::new();
    let server = server_of(&source(&ca, &server_leaf()), downstream());
    let shown = trusting(&ca);
    ca.show_with(&shown, &named(&[], &[]), |params| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "a/ns/admin/b");
    });
    let error = shake(&client_of(&shown, upstream()), &server).await.server_error().await;
    assert_eq!(error.code(), Code::WRONG_IDENTITY, "{error}");
}

/// gRFC A29: without SPIFFE IDs a mesh may go by any names. What begins as a SPIFFE ID must be one all the same.
#[tokio::test]
async fn a29_a_mesh_by_dns_names_needs_no_spiffe_id() {
    let ca = Ca::new();
    let peers = |leaf: &Leaf| (source(&ca, leaf), source(&ca, &by_dns("us.mesh.test")));
    for leaf in [by_dns("peer.mesh.test"), named(&["https://mesh.test/a"], &[]), client_leaf()] {
        let (theirs, ours) = peers(&leaf);
        let to_us = UpstreamTls { sans: vec![exactly(SanKind::Dns, "us.mesh.test")], ..upstream() };
        shake(&client_of(&theirs, to_us), &server_of(&ours, downstream())).await.both();
        let anyone = DownstreamTls { client_roots: None, require_client_certificate: false, ..downstream() };
        shake(&client_of(&ours, upstream()), &server_of(&theirs, anyone)).await.both();
    }
    for uris in [&["spiffe://mesh.test/a/../b"][..], &[CLIENT, SERVER], &["https://mesh.test/a;URI=spiffe://x/y"]] {
        let (theirs, ours) = peers(&named(uris, &["peer.mesh.test"]));
        let error = shake(&client_of(&theirs, upstream()), &server_of(&ours, downstream())).await.server_error().await;
        assert_eq!(error.code(), Code::WRONG_IDENTITY, "{error}");
        let anyone = DownstreamTls { client_roots: None, require_client_certificate: false, ..downstream() };
        let error = shake(&client_of(&ours, upstream()), &server_of(&theirs, anyone)).await.client_error();
        assert_eq!(error.code(), Code::WRONG_IDENTITY, "{error}");
    }
}

/// The operator's own word on who it is: a matcher that no workload could meet.
#[tokio::test]
async fn a_peer_that_a_matcher_by_dns_name_is_for_needs_no_spiffe_id() {
    let ca = Ca::new();
    let peer = source(&ca, &by_dns("peer.mesh.test"));
    for (dns, good) in [("peer.mesh.test", true), ("other.mesh.test", false)] {
        let sans = vec![exactly(SanKind::Uri, SERVER), exactly(SanKind::Dns, dns)];
        let client = client_of(&source(&ca, &client_leaf()), UpstreamTls { sans: sans.clone(), ..upstream() });
        let anyone = DownstreamTls { client_roots: None, require_client_certificate: false, ..downstream() };
        assert_eq!(shake(&client, &server_of(&peer, anyone)).await.client.is_ok(), good, "{dns}");
        let server = server_of(&source(&ca, &server_leaf()), DownstreamTls { sans, ..downstream() });
        assert_eq!(shake(&client_of(&peer, upstream()), &server).await.server.is_ok(), good, "{dns}");
    }
}

/// The name that was sent is the operator's word on who it is, too. What begins as a SPIFFE ID must be one all the same.
#[tokio::test]
async fn a101_a_server_that_is_known_by_the_name_that_was_sent_needs_no_spiffe_id_and_has_no_false_one() {
    let ca = Ca::new();
    let policy = UpstreamTls { auto_host_sni: true, auto_sni_san_validation: true, ..upstream() };
    let client = client_of(&source(&ca, &client_leaf()), policy);
    for (uris, good) in
        [(&[][..], true), (&[SERVER], true), (&["spiffe://mesh.test/../x"], false), (&[CLIENT, SERVER], false)]
    {
        let anyone = DownstreamTls { client_roots: None, require_client_certificate: false, ..downstream() };
        let server = server_of(&source(&ca, &named(uris, &["host.mesh.test"])), anyone);
        let outcome = shake_with(&client, &server, Some("host.mesh.test")).await;
        assert_eq!(outcome.client.is_ok(), good, "{uris:?}");
    }
}

/// A source whose roots vouch for workloads, and that may give us no identity.
#[derive(Debug)]
struct OfWorkloads(Arc<StaticSource>);

impl CertificateSource for OfWorkloads {
    fn identity(&self) -> Result<Arc<IdentityMaterial>, Error> {
        self.0.identity()
    }

    fn trust(&self) -> Result<Arc<TrustMaterial>, Error> {
        self.0.trust()
    }

    fn vouches_for_workloads(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn whom_an_authority_of_workloads_vouches_for_has_a_spiffe_id() {
    let ca = Ca::new();
    let anyone = || DownstreamTls { client_roots: None, require_client_certificate: false, ..downstream() };
    let policy = Arc::new(UpstreamTls { identity: None, ..upstream() });
    let of = |source: Arc<dyn CertificateSource>| {
        Secure::new(CertificateProviders::new().with(INSTANCE, source)).client(&policy, Alpn::Either)
    };
    let (plain, workloads) = (of(trusting(&ca)), of(Arc::new(OfWorkloads(trusting(&ca)))));
    for (leaf, good) in [(server_leaf(), true), (by_dns("a.test"), false)] {
        let server = server_of(&source(&ca, &leaf), anyone());
        shake(&plain, &server).await.both();
        assert_eq!(shake(&workloads, &server).await.client.is_ok(), good);
    }
}

// ---- trust domains ----

const STRANGER: &str = "spiffe://theirs.test/ns/a/sa/client";

/// What becomes of a client of another trust domain whose authority is the same.
async fn comes(ca: &Ca, ours: &Arc<StaticSource>, aliases: &[&str], sans: Vec<SanMatch>) -> Result<(), Error> {
    let providers = CertificateProviders::new().with(INSTANCE, ours.clone());
    let aliases: Arc<[String]> = aliases.iter().map(|&alias| alias.to_owned()).collect();
    let policy = DownstreamTls { sans, ..downstream() };
    let server = Secure::with_aliases(providers, aliases).acceptor(&Arc::new(policy)).unwrap();
    let named = vec![exactly(SanKind::Uri, SERVER), exactly(SanKind::Dns, "us.mesh.test")];
    let client = client_of(&source(ca, &Leaf::workload(STRANGER)), UpstreamTls { sans: named, ..upstream() });
    let accepted = shake(&client, &server).await.server?;
    assert_eq!(id(accepted.client.identity.as_ref()), Some(STRANGER));
    Ok(())
}

/// istiod's Listeners for gRPC have no matchers, and leave the trust domain to the server.
#[tokio::test]
async fn istio_a_client_of_another_trust_domain_is_refused_unless_it_is_an_alias() {
    let ca = Ca::new();
    let ours = source(&ca, &server_leaf());
    let error = comes(&ca, &ours, &[], vec![]).await.unwrap_err();
    assert_eq!(error.code(), Code::WRONG_IDENTITY, "{error}");
    for part in [STRANGER, "`mesh.test`", "trust_domain_aliases"] {
        assert!(error.to_string().contains(part), "{error} does not say {part}");
    }
    comes(&ca, &ours, &["other.test"], vec![]).await.unwrap_err();
    comes(&ca, &ours, &["other.test", "theirs.test"], vec![]).await.unwrap();
    // Our own is let in.
    shake(&client_of(&source(&ca, &client_leaf()), upstream()), &server_of(&ours, downstream())).await.both();
}

#[tokio::test]
async fn who_is_named_or_of_a_foreign_pki_may_be_of_any_trust_domain() {
    let ca = Ca::new();
    comes(&ca, &source(&ca, &server_leaf()), &[], vec![exactly(SanKind::Uri, STRANGER)]).await.unwrap();
    comes(&ca, &foreign(&ca, &server_leaf()), &[], vec![]).await.unwrap();
    // Without a trust domain of our own there is none to be of.
    comes(&ca, &source(&ca, &by_dns("us.mesh.test")), &[], vec![]).await.unwrap();
    // A client goes by the cluster's matchers alone.
    let anyone = DownstreamTls { client_roots: None, require_client_certificate: false, ..downstream() };
    let server = secure(&source(&ca, &Leaf::workload(STRANGER))).acceptor(&Arc::new(anyone)).unwrap();
    shake(&client_of(&source(&ca, &client_leaf()), upstream()), &server).await.client.unwrap();
}
