//! Which name is sent, and when it counts (gRFC A101).

use mesh_core::error::Code;
use mesh_core::model::{SanKind, UpstreamTls};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::NamedGroup;
use rustls::server::{Acceptor, ClientHello};
use tokio::io::AsyncReadExt;

use super::super::testing::{Ca, Leaf, downstream, exactly, source, upstream};
use super::{client_leaf, client_of, server_of, shake_with, sockets};
use crate::secure::{Alpn, ClientTls};

/// The SNI of the ClientHello that a client sends.
async fn sent(client: &ClientTls, hostname: Option<&str>) -> Option<String> {
    hello(client, hostname, |hello| hello.server_name().map(str::to_owned)).await
}

/// What there is to read in the ClientHello that a client sends.
async fn hello<T>(client: &ClientTls, hostname: Option<&str>, read_hello: impl Fn(&ClientHello<'_>) -> T) -> T {
    let (near, address, mut far) = sockets().await;
    let server = async move {
        let mut acceptor = Acceptor::default();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = far.read(&mut buffer).await.unwrap();
            acceptor.read_tls(&mut &buffer[..read]).unwrap();
            if let Ok(Some(accepted)) = acceptor.accept() {
                return read_hello(&accepted.client_hello());
            }
        }
    };
    tokio::join!(client.connect(Box::new(near), hostname, address), server).1
}

/// gRFC A101.
#[tokio::test]
async fn the_name_is_the_hosts_then_the_policys_then_none() {
    let material = source(&Ca::new(), &client_leaf());
    let rows = [
        (false, None::<&str>, None, None),
        (false, None, Some("host.test"), None),
        (false, Some("policy.test"), Some("host.test"), Some("policy.test")),
        (true, Some("policy.test"), Some("host.test"), Some("host.test")),
        (true, None, Some("host.test:8080"), Some("host.test")),
        (true, Some("policy.test"), Some(""), Some("policy.test")),
        (true, Some("policy.test"), None, Some("policy.test")),
        (true, None, Some("127.0.0.1"), None),
        (false, Some("outbound_.80_._.a.svc"), None, Some("outbound_.80_._.a.svc")),
    ];
    for (auto_host_sni, sni, hostname, want) in rows {
        let policy = UpstreamTls { auto_host_sni, sni: sni.map(str::to_owned), ..upstream() };
        let client = client_of(&material, policy);
        assert_eq!(sent(&client, hostname).await.as_deref(), want, "{auto_host_sni} {sni:?} {hostname:?}");
    }
}

#[tokio::test]
async fn a_name_that_is_none_fails_before_a_byte_is_sent() {
    let policy = UpstreamTls { sni: Some("no name!".to_owned()), ..upstream() };
    let client = client_of(&source(&Ca::new(), &client_leaf()), policy);
    let (near, address, mut far) = sockets().await;
    let error = client.connect(Box::new(near), None, address).await.unwrap_err();
    assert!(error.code() == Code::HANDSHAKE && error.to_string().contains("`no name!`"), "{error}");
    assert_eq!(far.read_to_end(&mut Vec::new()).await.unwrap(), 0);
}

/// gRFC A101.
#[tokio::test]
async fn a_name_that_was_sent_takes_the_matchers_place_if_the_policy_says_so() {
    let ca = Ca::new();
    let server = server_of(&source(&ca, &Leaf::web("*.mesh.test")), downstream());
    let matchers = vec![exactly(SanKind::Dns, "matched.mesh.test")];
    // (validation by SNI, the name that is sent, let through)
    let rows = [
        (true, Some("host.mesh.test"), true),
        (true, Some("host.elsewhere"), false),
        // Nothing is sent: the matchers count.
        (true, None, true),
        (false, Some("host.elsewhere"), true),
    ];
    for (auto_sni_san_validation, hostname, through) in rows {
        let policy = UpstreamTls { auto_host_sni: true, auto_sni_san_validation, sans: matchers.clone(), ..upstream() };
        let client = client_of(&source(&ca, &client_leaf()), policy);
        let outcome = shake_with(&client, &server, hostname).await;
        if through {
            outcome.both();
        } else {
            let error = outcome.client_error();
            assert_eq!(error.code(), Code::WRONG_IDENTITY);
            assert!(error.to_string().contains("`host.elsewhere`"), "{error}");
        }
    }
}

/// Envoy validates the address as a name, and so lets in almost nobody.
#[tokio::test]
async fn an_address_that_is_to_be_validated_as_sni_is_never_taken_for_nothing() {
    let ca = Ca::new();
    let server = server_of(&source(&ca, &Leaf::web("a.test")), downstream());
    let near = source(&ca, &client_leaf());
    for (sans, through) in [(Vec::new(), false), (vec![exactly(SanKind::Dns, "a.test")], true)] {
        let sni = Some("10.0.0.1".to_owned());
        let client = client_of(&near, UpstreamTls { sni, auto_sni_san_validation: true, sans, ..upstream() });
        assert_eq!(shake_with(&client, &server, None).await.client.is_ok(), through);
    }
}

#[tokio::test]
async fn without_matchers_the_host_name_does_not_count() {
    let ca = Ca::new();
    let server = server_of(&source(&ca, &Leaf::web("a.test")), downstream());
    let policy = UpstreamTls { auto_host_sni: true, ..upstream() };
    let client = Leaf { usages: vec![ExtendedKeyUsagePurpose::ClientAuth], ..Leaf::web("c.test") };
    shake_with(&client_of(&source(&ca, &client), policy), &server, Some("b.test")).await.both();
}

#[tokio::test]
async fn by_name_the_host_name_counts() {
    let ca = Ca::new();
    let server = server_of(&source(&ca, &Leaf::web("a.test")), downstream());
    let policy = std::sync::Arc::new(upstream());
    let secure = super::secure(&source(&ca, &client_leaf()));
    let client = secure.client_by_name(&policy, crate::secure::Alpn::Http2);
    for (host, through) in [("a.test", true), ("b.test", false), ("127.0.0.1", false)] {
        let (near, _, far) = sockets().await;
        let (done, _) = tokio::join!(client.connect_by_name(Box::new(near), host), server.accept(Box::new(far)));
        match done {
            Ok(_) => assert!(through, "{host}"),
            Err(error) => {
                assert!(!through, "{host}: {error}");
                assert_eq!(error.code(), Code::WRONG_IDENTITY);
                assert!(error.to_string().contains("a.test"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_client_offers_is_what_its_policy_and_its_http_say() {
    let material = source(&Ca::new(), &client_leaf());
    let read = |hello: &ClientHello<'_>| {
        let alpn: Vec<_> = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
        (alpn, hello.named_groups().and_then(<[_]>::first).copied())
    };
    let secure = super::secure(&material);
    let named = UpstreamTls { alpn: vec!["istio".to_owned(), "h2".to_owned()], ..upstream() };
    for (policy, alpn, offered) in [
        (upstream(), Alpn::Either, &[&b"h2"[..], b"http/1.1"][..]),
        (upstream(), Alpn::Http2, &[b"h2"]),
        (upstream(), Alpn::Http1, &[b"http/1.1"]),
        (named, Alpn::Http1, &[b"istio", b"h2"]),
    ] {
        let client = secure.client(&std::sync::Arc::new(policy), alpn);
        let (sent, group) = hello(&client, None, read).await;
        assert_eq!(sent, offered);
        if cfg!(feature = "tls-aws-lc") {
            assert_eq!(group, Some(NamedGroup::X25519MLKEM768), "what withstands quantum computers comes first");
        }
    }
}
