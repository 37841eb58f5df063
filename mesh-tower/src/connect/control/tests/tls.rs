//! TLS to a control plane: whom we trust, and what we show.

use mesh_core::model::DownstreamTls;

use super::*;
use crate::inbound::InboundTls;
#[cfg(feature = "istio-ca")]
use crate::secure::testing::show;
use crate::secure::testing::{Ca, Leaf, downstream, secure, source};

/// A server under TLS with this certificate.
async fn server(ca: &Ca, leaf: &Leaf, policy: DownstreamTls) -> (u16, mpsc::Receiver<Call>) {
    let acceptor = secure(&source(ca, leaf)).acceptor(&Arc::new(policy)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, calls) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            if let Ok(accepted) = acceptor.accept(Box::new(io)).await {
                tokio::spawn(serve(accepted.io, sender.clone()));
            }
        }
    });
    (port, calls)
}

fn anyone() -> DownstreamTls {
    DownstreamTls { client_roots: None, require_client_certificate: false, ..downstream() }
}

/// gRFC A97.
#[tokio::test]
async fn a97_a_token_goes_with_each_call_and_is_read_anew() {
    let (ca, files) = (Ca::new(), Files::new());
    let (port, mut calls) = server(&ca, &Leaf::web("localhost"), anyone()).await;
    fs::write(files.path("ca.pem"), ca.root_pem()).unwrap();
    let credentials = format!(
        r#""channel_creds": [{{"type": "tls", "config": {{"ca_certificate_file": "{}"}}}}],
           "call_creds": [{{"type": "jwt_token_file", "config": {{"jwt_token_file": "{}"}}}}]"#,
        files.path("ca.pem"),
        files.path("token"),
    );
    let config = configured(&format!("localhost:{port}"), &credentials);
    let transport = control_transport();
    let error = transport.open(&config, AGGREGATED_RESOURCES).await.err().unwrap();
    assert!(error.reason.contains("jwt_token_file") && error.reason.contains("token"), "{error}");
    // `{"exp": 1000}` and `{"exp": 2000}`.
    for token in ["e30.eyJleHAiOiAxMDAwfQ.c2ln", "e30.eyJleHAiOiAyMDAwfQ.c2ln"] {
        fs::write(files.path("token"), format!("{token}\n")).unwrap();
        let mut stream = transport.open(&config, AGGREGATED_RESOURCES).await.unwrap();
        send(&mut stream, "hello").await;
        let mut call = calls.recv().await.unwrap();
        assert_eq!(call.head.headers["authorization"], format!("Bearer {token}"));
        assert_eq!(call.message().await.unwrap(), "hello");
    }
    let insecure = credentials.replace(r#""type": "tls""#, r#""type": "insecure""#);
    let error = open(&configured(&format!("localhost:{port}"), &insecure)).await.err().unwrap();
    assert!(error.reason.contains("never sent over insecure"), "{error}");
}

/// gRFC A65.
#[tokio::test]
async fn the_server_must_have_the_roots_and_the_name() {
    let (ca, files) = (Ca::new(), Files::new());
    let (port, _calls) = server(&ca, &Leaf::web("elsewhere.test"), anyone()).await;
    let credentials = format!(
        r#""channel_creds": [{{"type": "tls", "config": {{"ca_certificate_file": "{}"}}}}]"#,
        files.path("ca.pem")
    );
    let config = configured(&format!("localhost:{port}"), &credentials);
    for (pem, want) in [(Ca::new().root_pem(), "UnknownIssuer"), (ca.root_pem(), "must have the name `localhost`")] {
        fs::write(files.path("ca.pem"), pem).unwrap();
        let error = open(&config).await.err().unwrap();
        assert!(error.reason.contains(want), "{error}");
    }
    fs::remove_file(files.path("ca.pem")).unwrap();
    let error = open(&config).await.err().unwrap();
    assert!(error.reason.contains("ca.pem"), "{error}");
}

/// gRFC A87: the map beats the roots, and the name must be right all the same.
#[tokio::test]
async fn a87_the_servers_trust_domain_decides_which_roots_vouch_for_it() {
    let (ca, other, files) = (Ca::new(), Ca::new(), Files::new());
    let named = |name| Leaf { dns: vec![name], ..Leaf::workload("spiffe://plane.test/control") };
    let (port, mut calls) = server(&ca, &named("localhost"), anyone()).await;
    let (elsewhere, _calls) = server(&ca, &named("elsewhere.test"), anyone()).await;
    let (plain, _calls) = server(&ca, &Leaf::web("localhost"), anyone()).await;
    let (map, roots) = (files.path("map.json"), files.path("ca.pem"));
    // Roots that would do, if they were asked.
    fs::write(&roots, ca.root_pem()).unwrap();
    let credentials = format!(
        r#""channel_creds": [{{"type": "tls", "config": {{"ca_certificate_file": "{roots}",
           "spiffe_trust_bundle_map_file": "{map}"}}}}]"#
    );
    let transport = control_transport();
    let at = |port| configured(&format!("localhost:{port}"), &credentials);
    let refusal = async |port: u16| transport.open(&at(port), AGGREGATED_RESOURCES).await.err().unwrap().reason;
    let write = |domain: &str, ca: &Ca| {
        let bundles = format!(r#"{{"trust_domains": {{"{domain}": {{"keys": [{}]}}}}}}"#, ca.root_jwk());
        fs::write(&map, bundles).unwrap();
    };
    assert!(refusal(port).await.contains("map.json cannot be read"));
    write("plane.test", &other);
    assert!(refusal(port).await.contains("UnknownIssuer"));
    write("elsewhere.test", &ca);
    assert!(refusal(port).await.contains("`plane.test` is not in the SPIFFE bundle map"));
    write("plane.test", &ca);
    let mut stream = transport.open(&at(port), AGGREGATED_RESOURCES).await.unwrap();
    send(&mut stream, "hello").await;
    assert_eq!(calls.recv().await.unwrap().message().await.unwrap(), "hello");
    assert!(refusal(elsewhere).await.contains("must have the name `localhost`"));
    assert!(refusal(plain).await.contains("it has 0 URIs"));
}

/// gRFC A65.
#[tokio::test]
async fn a65_a_certificate_that_is_asked_for_and_not_there_is_an_error_that_names_its_file() {
    let (ca, files) = (Ca::new(), Files::new());
    let (port, _calls) = server(&ca, &Leaf::web("localhost"), anyone()).await;
    let (cert, key, roots) = (files.path("cert.pem"), files.path("key.pem"), files.path("ca.pem"));
    fs::write(&roots, ca.root_pem()).unwrap();
    let credentials = format!(
        r#""channel_creds": [{{"type": "tls", "config": {{"ca_certificate_file": "{roots}",
           "certificate_file": "{cert}", "private_key_file": "{key}"}}}}]"#
    );
    let config = configured(&format!("localhost:{port}"), &credentials);
    let transport = control_transport();
    let refusal = async || transport.open(&config, AGGREGATED_RESOURCES).await.err().unwrap().reason;
    assert!(refusal().await.contains("cert.pem cannot be read"));
    let (certificate, pair) = ca.issue(&Leaf::workload("spiffe://mesh.test/client"));
    fs::write(&cert, certificate.pem()).unwrap();
    assert!(refusal().await.contains("key.pem cannot be read"));
    fs::write(&key, ca.issue(&Leaf::web("other")).1.serialize_pem()).unwrap();
    assert!(refusal().await.contains("the private key does not belong to the certificate"));
    fs::write(&key, pair.serialize_pem()).unwrap();
    transport.open(&config, AGGREGATED_RESOURCES).await.unwrap();
}

/// How Istio's CA is asked for the next certificate: by the one in hand, whichever that is by then.
#[cfg(feature = "istio-ca")]
#[tokio::test]
async fn the_identity_of_the_mesh_is_shown_as_it_is_at_each_connection() {
    let (ca, files) = (Ca::new(), Files::new());
    let (port, mut calls) = server(&ca, &Leaf::web("localhost"), downstream()).await;
    fs::write(files.path("ca.pem"), ca.root_pem()).unwrap();
    let credentials = format!(
        r#""channel_creds": [{{"type": "tls", "config": {{"ca_certificate_file": "{}"}}}}]"#,
        files.path("ca.pem")
    );
    let config = configured(&format!("dns:///localhost:{port}"), &credentials);
    let foreign = Ca::new();
    let client = Leaf::workload("spiffe://mesh.test/client");
    let identity = source(&foreign, &client);
    let transport = super::super::control_transport_as(identity.clone());
    if let Ok(mut stream) = transport.open(&config, AGGREGATED_RESOURCES).await {
        // In TLS 1.3 the client is done before it is judged.
        receive(&mut stream).await.unwrap().unwrap_err();
    }
    show(&identity, &ca, &client);
    let mut stream = transport.open(&config, AGGREGATED_RESOURCES).await.unwrap();
    send(&mut stream, "hello").await;
    let call = tokio::time::timeout(Duration::from_secs(10), calls.recv()).await.expect("the certificate is shown");
    assert_eq!(call.unwrap().message().await.unwrap(), "hello");
    // Without the identity, the server that asks for one takes nothing.
    if let Ok(mut stream) = control_transport().open(&config, AGGREGATED_RESOURCES).await {
        receive(&mut stream).await.unwrap().unwrap_err();
    }
}

/// gRFC A65.
#[tokio::test]
async fn our_certificate_is_shown_and_a_rotated_one_with_the_next_connection() {
    let (ca, files) = (Ca::new(), Files::new());
    let (port, mut calls) = server(&ca, &Leaf::web("localhost"), downstream()).await;
    let (cert, key, roots) = (files.path("cert.pem"), files.path("key.pem"), files.path("ca.pem"));
    fs::write(&roots, ca.root_pem()).unwrap();
    let credentials = format!(
        r#""channel_creds": [{{"type": "tls", "config": {{"ca_certificate_file": "{roots}",
           "certificate_file": "{cert}", "private_key_file": "{key}"}}}}]"#
    );
    let config = configured(&format!("dns:///localhost:{port}"), &credentials);
    let transport = control_transport();
    for (issuer, welcome) in [(&Ca::new(), false), (&ca, true)] {
        let (certificate, pair) = issuer.issue(&Leaf::workload("spiffe://mesh.test/client"));
        fs::write(&cert, certificate.pem()).unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
        let opened = transport.open(&config, AGGREGATED_RESOURCES).await;
        if welcome {
            let mut stream = opened.unwrap();
            send(&mut stream, "hello").await;
            assert_eq!(calls.recv().await.unwrap().message().await.unwrap(), "hello");
        } else if let Ok(mut stream) = opened {
            // In TLS 1.3 the client is done before it is judged.
            receive(&mut stream).await.unwrap().unwrap_err();
        }
    }
}
