//! What a secret asks of certificates beside its roots, on both sides.

use std::sync::Arc;

use mesh_core::error::Code;
use mesh_core::identity::{Demands, Roots, StaticSource};
use mesh_core::model::{CertificateChecks, CertificatePin, CrlSource, DownstreamTls, SanKind, UpstreamTls};
use tokio::io::AsyncReadExt;

use super::super::testing::{Ca, downstream, exactly, secure, serial, source, trusting, upstream};
use super::{CLIENT, SERVER, client_leaf, client_of, ping, server_leaf, server_of, shake};
use crate::inbound::InboundTls;
use crate::secure::Alpn;

fn asks(source: &StaticSource, ca: &Ca, demands: Demands) {
    source.set_validation(Roots::Any(vec![ca.root()]), demands);
}

fn name(uri: &str) -> Demands {
    Demands { sans: vec![exactly(SanKind::Uri, uri)], ..Default::default() }
}

fn list(ca: &Ca, revoked: &[Vec<u8>]) -> Demands {
    let crl = Some(CrlSource::Inline(vec![ca.crl(revoked, false)].into()));
    Demands { checks: CertificateChecks { crl, ..Default::default() }, ..Default::default() }
}

fn pin() -> Demands {
    let pins = vec![CertificatePin::Certificate([0; 32])];
    Demands { checks: CertificateChecks { pins, ..Default::default() }, ..Default::default() }
}

#[tokio::test]
async fn names_hashes_and_lists_of_a_secret_count_on_both_sides() {
    let ca = Ca::new();
    let (near, far) = (source(&ca, &client_leaf()), source(&ca, &server_leaf()));
    let (client_number, server_number) = (serial(&near), serial(&far));
    let (client, server) = (client_of(&near, upstream()), server_of(&far, downstream()));
    for (of_client, of_server, good) in [
        (name(SERVER), name(CLIENT), true),
        (list(&ca, &[]), list(&ca, &[]), true),
        (name(CLIENT), name(SERVER), false),
        (pin(), pin(), false),
        (list(&ca, &[server_number]), list(&ca, &[client_number]), false),
        (list(&Ca::new(), &[]), list(&Ca::new(), &[]), false),
    ] {
        asks(&near, &ca, of_client.clone());
        asks(&far, &ca, Demands::default());
        let outcome = shake(&client, &server).await;
        assert_eq!(outcome.client.is_ok(), good, "{of_client:?} {:?}", outcome.client.err());
        asks(&near, &ca, Demands::default());
        asks(&far, &ca, of_server.clone());
        let outcome = shake(&client, &server).await;
        assert_eq!(outcome.server.is_ok(), good, "{of_server:?} {:?}", outcome.server.err());
    }
}

/// Envoy's merging: the resource's names and the secret's, any of which may match; and a name asks for a certificate.
#[tokio::test]
async fn what_the_resource_asks_stays_asked() {
    let ca = Ca::new();
    let (near, far) = (source(&ca, &client_leaf()), source(&ca, &server_leaf()));
    let policy = UpstreamTls { sans: vec![exactly(SanKind::Uri, "spiffe://mesh.test/other")], ..upstream() };
    let (client, server) = (client_of(&near, policy), server_of(&far, downstream()));
    assert_eq!(shake(&client, &server).await.client_error().code(), Code::WRONG_IDENTITY);
    asks(&near, &ca, name(SERVER));
    shake(&client, &server).await.both();

    let server = server_of(&far, DownstreamTls { require_client_certificate: false, ..downstream() });
    let bare = client_of(&trusting(&ca), UpstreamTls { identity: None, ..upstream() });
    shake(&bare, &server).await.both();
    asks(&far, &ca, name(CLIENT));
    shake(&bare, &server).await.server_error().await;
}

/// On virtual time: a list that comes with a secret is looked at within a second.
#[tokio::test(start_paused = true)]
async fn connections_end_when_a_secrets_list_revokes_their_peer() {
    let ca = Ca::new();
    let (near, far) = (source(&ca, &client_leaf()), source(&ca, &server_leaf()));
    asks(&near, &ca, list(&ca, &[]));
    asks(&far, &ca, list(&ca, &[]));
    let (of_client, of_server) = (secure(&near), secure(&far));
    let client = of_client.client(&Arc::new(upstream()), Alpn::Either);
    let server = of_server.acceptor(&Arc::new(downstream())).unwrap();
    let mut changes = of_server.revocations();
    let (mut one, mut two) = shake(&client, &server).await.both();
    ping(&mut one, &mut two).await;
    let peer = two.client.identity.clone().unwrap();

    of_server.refresh_revocations();
    assert!(!changes.has_changed().unwrap() && server.revoked(&peer).is_none());
    asks(&far, &ca, list(&ca, &[serial(&near)]));
    of_server.refresh_revocations();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert!(server.revoked(&peer).is_some_and(|error| error.to_string().contains(CLIENT)));

    asks(&near, &ca, list(&ca, &[serial(&far)]));
    let following = tokio::spawn(of_client.follow_revocations());
    let error = one.io.read_u8().await.unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");
    following.abort();
}
