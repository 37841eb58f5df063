//! Who is let through, who is not, and what is said about it.

use std::sync::Arc;

use mesh_core::error::Code;
use mesh_core::identity::StaticSource;
use mesh_core::model::{
    CertificateRef, DownstreamTls, Pattern, SanKind, SanMatch, StringMatch, TrustRoots, UpstreamTls,
};
use rcgen::ExtendedKeyUsagePurpose;

use super::super::testing::{Ca, Leaf, downstream, exactly, show, source, trusting, upstream};
use super::{CLIENT, InboundTls, SERVER, client_leaf, client_of, id, ping, secure, server_leaf, server_of, shake};
use crate::secure::Protocol;

#[tokio::test]
async fn both_ends_learn_who_the_other_is() {
    let ca = Ca::new();
    let policy = UpstreamTls { sans: vec![exactly(SanKind::Uri, SERVER)], ..upstream() };
    let client = client_of(&source(&ca, &client_leaf()), policy);
    let policy = DownstreamTls { sans: vec![exactly(SanKind::Uri, CLIENT)], ..downstream() };
    let server = server_of(&source(&ca, &server_leaf()), policy);
    // The second may resume the first one's session: it must come to the same.
    for _ in 0..2 {
        let (mut near, mut far) = shake(&client, &server).await.both();
        assert_eq!((id(near.peer.as_ref()), id(far.client.identity.as_ref())), (Some(SERVER), Some(CLIENT)));
        assert_eq!(near.alpn, Some(Protocol::Http2));
        ping(&mut near, &mut far).await;
    }
}

/// gRFC A29.
#[tokio::test]
async fn a_server_that_is_not_who_it_must_be_is_refused_with_both_names() {
    let (ca, other) = (Ca::new(), Ca::new());
    let prefix = SanMatch {
        kind: None,
        matcher: StringMatch { pattern: Pattern::Prefix("spiffe://mesh.test/ns/b/".to_owned()), ignore_case: false },
    };
    let wrong = vec![exactly(SanKind::Uri, "spiffe://mesh.test/ns/b/sa/server"), prefix];
    let two = Leaf { uris: vec![SERVER, "spiffe://mesh.test/other"], ..server_leaf() };
    let client_only = Leaf { usages: vec![ExtendedKeyUsagePurpose::ClientAuth], ..server_leaf() };
    let expired = Leaf { expired: true, ..server_leaf() };
    let web = vec![exactly(SanKind::Dns, "web.test")];
    let rows = [
        (&ca, server_leaf(), wrong, Code::WRONG_IDENTITY, "`spiffe://mesh.test/ns/b/sa/server` or beginning with"),
        (&ca, server_leaf(), web, Code::WRONG_IDENTITY, "DNS `web.test`"),
        (&ca, two, Vec::new(), Code::WRONG_IDENTITY, "one URI only"),
        (&other, server_leaf(), Vec::new(), Code::HANDSHAKE, "UnknownIssuer"),
        (&ca, expired, Vec::new(), Code::HANDSHAKE, "expired"),
        (&ca, client_only, Vec::new(), Code::HANDSHAKE, "extended key usage"),
    ];
    for (issuer, leaf, sans, code, text) in rows {
        let client = client_of(&source(&ca, &client_leaf()), UpstreamTls { sans, ..upstream() });
        let shown = source(&ca, &leaf);
        show(&shown, issuer, &leaf);
        let server = server_of(&shown, downstream());
        let outcome = shake(&client, &server).await;
        assert!(outcome.server.is_err(), "the server learns of it");
        let error = outcome.client_error();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(text), "{error} says {text}");
        assert!(error.to_string().contains(SERVER), "{error} names who it was");
    }
}

/// gRFC A29.
#[tokio::test]
async fn a_client_that_is_not_who_it_must_be_is_refused_with_both_names() {
    let (ca, other) = (Ca::new(), Ca::new());
    let two = Leaf { uris: vec![CLIENT, "spiffe://mesh.test/other"], ..client_leaf() };
    let server_only = Leaf { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..client_leaf() };
    let expired = Leaf { expired: true, ..client_leaf() };
    let wrong = vec![exactly(SanKind::Uri, "spiffe://mesh.test/somebody-else")];
    let rows = [
        (&ca, client_leaf(), wrong, Code::WRONG_IDENTITY, "URI `spiffe://mesh.test/somebody-else`"),
        (&ca, two, Vec::new(), Code::WRONG_IDENTITY, "one URI only"),
        (&other, client_leaf(), Vec::new(), Code::HANDSHAKE, "UnknownIssuer"),
        (&ca, expired, Vec::new(), Code::HANDSHAKE, "expired"),
        (&ca, server_only, Vec::new(), Code::HANDSHAKE, "extended key usage"),
    ];
    for (issuer, leaf, sans, code, text) in rows {
        for require_client_certificate in [true, false] {
            let shown = trusting(&ca);
            show(&shown, issuer, &leaf);
            let client = client_of(&shown, upstream());
            let policy = DownstreamTls { sans: sans.clone(), require_client_certificate, ..downstream() };
            let server = server_of(&source(&ca, &server_leaf()), policy);
            let error = shake(&client, &server).await.server_error().await;
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(text), "{error} says {text}");
            assert!(error.to_string().contains(CLIENT), "{error} names who it was");
        }
    }
}

/// gRFC A29.
#[tokio::test]
async fn a_client_without_a_certificate_is_let_in_only_where_none_is_required() {
    let ca = Ca::new();
    let client = client_of(&trusting(&ca), UpstreamTls { identity: None, ..upstream() });
    let server = server_of(&source(&ca, &server_leaf()), downstream());
    let error = shake(&client, &server).await.server_error().await;
    assert_eq!(error.code(), Code::HANDSHAKE);

    let optional = DownstreamTls { require_client_certificate: false, ..downstream() };
    let unasked = DownstreamTls { client_roots: None, ..optional.clone() };
    for policy in [optional, unasked] {
        let server = server_of(&source(&ca, &server_leaf()), policy);
        let (mut near, mut far) = shake(&client, &server).await.both();
        assert!(far.client.identity.is_none());
        ping(&mut near, &mut far).await;
    }
}

#[tokio::test]
async fn missing_material_fails_the_handshake_and_is_named() {
    let ca = Ca::new();
    let nobody = Arc::new(StaticSource::new());
    let server = server_of(&source(&ca, &server_leaf()), downstream());
    // No roots, then roots and no identity.
    for source in [nobody.clone(), trusting(&ca)] {
        let error = shake(&client_of(&source, upstream()), &server).await.client_error();
        assert_eq!(error.code(), Code::NO_CERTIFICATE, "{error}");
    }
    let elsewhere = CertificateRef { instance: "elsewhere".into(), certificate: "".into() };
    let policy = UpstreamTls { roots: TrustRoots::Provider(elsewhere), identity: None, ..upstream() };
    let error = shake(&client_of(&source(&ca, &client_leaf()), policy), &server).await.client_error();
    assert!(error.code() == Code::NO_CERTIFICATE && error.to_string().contains("`elsewhere`"), "{error}");

    let client = client_of(&source(&ca, &client_leaf()), upstream());
    let error = shake(&client, &server_of(&nobody, downstream())).await.server_error().await;
    assert_eq!(error.code(), Code::NO_CERTIFICATE, "{error}");
    let lax = DownstreamTls { client_roots: None, ..downstream() };
    let refused = secure(&nobody).acceptor(&Arc::new(lax)).err().unwrap();
    assert_eq!(refused.code(), Code::NO_CERTIFICATE, "{refused}");
}

#[tokio::test]
async fn a_root_that_cannot_be_read_trusts_nobody() {
    let ca = Ca::new();
    let broken = source(&ca, &client_leaf());
    broken.set_trust(vec![vec![1, 2, 3].into()]);
    let server = server_of(&source(&ca, &server_leaf()), downstream());
    let error = shake(&client_of(&broken, upstream()), &server).await.client_error();
    assert_eq!(error.code(), Code::NO_CERTIFICATE, "{error}");
}
