//! Certificates that change while everything goes on.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_core::bootstrap::Bootstrap;
use mesh_core::error::Code;
use mesh_core::identity::CertificateProviders;
use rustls::HandshakeKind;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::testing::{Ca, Leaf, downstream, show, source, upstream};
use super::{CLIENT, SERVER, client_leaf, client_of, id, ping, server_leaf, server_of, shake, sockets};
use crate::secure::{Alpn, Secure, watch_files};

const NEW_CLIENT: &str = "spiffe://mesh.test/ns/a/sa/client-2";
const NEW_SERVER: &str = "spiffe://mesh.test/ns/a/sa/server-2";

#[tokio::test]
async fn the_next_handshake_has_the_new_certificates_and_old_connections_live() {
    let ca = Ca::new();
    let (near, far) = (source(&ca, &client_leaf()), source(&ca, &server_leaf()));
    let (client, server) = (client_of(&near, upstream()), server_of(&far, downstream()));
    let mut old = shake(&client, &server).await.both();
    ping(&mut old.0, &mut old.1).await;

    show(&near, &ca, &Leaf::workload(NEW_CLIENT));
    show(&far, &ca, &Leaf::workload(NEW_SERVER));
    let new = shake(&client, &server).await.both();
    assert_eq!((id(new.0.peer.as_ref()), id(new.1.client.identity.as_ref())), (Some(NEW_SERVER), Some(NEW_CLIENT)));
    ping(&mut old.0, &mut old.1).await;
    assert_eq!((id(old.0.peer.as_ref()), id(old.1.client.identity.as_ref())), (Some(SERVER), Some(CLIENT)));
}

/// A server that resumes sessions and does not mind who comes; it says whether the handshake was a full one.
fn foreign_server(ca: &Ca) -> tokio_rustls::TlsAcceptor {
    let (certificate, key) = ca.issue(&server_leaf());
    let config = rustls::ServerConfig::builder_with_provider(crate::secure::crypto::provider().unwrap())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn sessions_are_resumed_within_a_generation_and_not_beyond() {
    let ca = Ca::new();
    let near = source(&ca, &client_leaf());
    let client = client_of(&near, upstream());
    let server = foreign_server(&ca);
    let mut kinds = Vec::new();
    for round in 0..3 {
        if round == 2 {
            show(&near, &ca, &client_leaf());
        }
        let (client_io, address, server_io) = sockets().await;
        let (secured, accepted) =
            tokio::join!(client.connect(Box::new(client_io), None, address), server.accept(server_io));
        let (mut secured, mut accepted) = (secured.unwrap(), accepted.unwrap());
        assert_eq!(id(secured.peer.as_ref()), Some(SERVER));
        // Tickets come with the first bytes that are read.
        accepted.write_u8(1).await.unwrap();
        secured.io.read_u8().await.unwrap();
        kinds.push(accepted.get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(kinds[1], HandshakeKind::Resumed);
    assert!(kinds[0] != HandshakeKind::Resumed && kinds[2] != HandshakeKind::Resumed, "{kinds:?}");
}

/// A client that resumes whatever session the server gave it.
fn foreign_client(ca: &Ca) -> tokio_rustls::TlsConnector {
    let (certificate, key) = ca.issue(&client_leaf());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.root()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(crate::secure::crypto::provider().unwrap())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn a_server_resumes_no_session_of_another_identity_or_of_other_roots() {
    let ca = Ca::new();
    let leaf = Leaf { dns: vec!["server.test"], ..server_leaf() };
    let far = source(&ca, &leaf);
    let (client, server) = (foreign_client(&ca), server_of(&far, downstream()));
    let resumed = async || {
        let (near_io, _, far_io) = sockets().await;
        let name = rustls::pki_types::ServerName::try_from("server.test").unwrap();
        let (near, far) = tokio::join!(client.connect(name, near_io), server.accept(Box::new(far_io)));
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        assert_eq!(id(far.client.identity.as_ref()), Some(CLIENT), "resumed or not, it is known who it is");
        // Tickets come with the first bytes that are read.
        far.io.write_u8(1).await.unwrap();
        far.io.flush().await.unwrap();
        near.read_u8().await.unwrap();
        near.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    };
    assert_eq!([resumed().await, resumed().await], [false, true]);
    show(&far, &ca, &leaf);
    assert_eq!([resumed().await, resumed().await], [false, true], "of the certificate before");
    far.set_trust(vec![ca.root()]);
    assert!(!resumed().await, "under the roots before");
}

#[tokio::test]
async fn sessions_do_not_outlive_the_roots_they_were_made_under() {
    let (ca, next) = (Ca::new(), Ca::new());
    let (near, far) = (source(&ca, &client_leaf()), source(&ca, &server_leaf()));
    let (client, server) = (client_of(&near, upstream()), server_of(&far, downstream()));
    // Both have a session to resume now.
    let (mut first, mut second) = shake(&client, &server).await.both();
    ping(&mut first, &mut second).await;

    far.set_trust(vec![next.root()]);
    let error = shake(&client, &server).await.server_error().await;
    assert_eq!(error.code(), Code::HANDSHAKE, "the client's certificate is not one of the new root's: {error}");
    far.set_trust(vec![ca.root()]);
    near.set_trust(vec![next.root()]);
    let error = shake(&client, &server).await.client_error();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn nothing_is_built_while_nothing_changes() {
    let ca = Ca::new();
    let near = source(&ca, &client_leaf());
    let client = client_of(&near, upstream());
    let server = server_of(&source(&ca, &server_leaf()), downstream());
    let first = client.current().unwrap();
    shake(&client, &server).await.both();
    assert!(Arc::ptr_eq(&first, &client.clone().current().unwrap()));
    show(&near, &ca, &client_leaf());
    let second = client.current().unwrap();
    assert!(!Arc::ptr_eq(&first, &second), "a new identity");
    near.set_trust(vec![ca.root()]);
    assert!(!Arc::ptr_eq(&second, &client.current().unwrap()), "new roots");
}

/// A directory of its own for one test.
pub(super) struct Files(pub(super) PathBuf);

impl Files {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("mesh-secure-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn write(&self, ca: &Ca, leaf: &Leaf) {
        let (certificate, key) = ca.issue(leaf);
        // The certificate first: between the two writes they do not belong together.
        fs::write(self.0.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(self.0.join("key.pem"), key.serialize_pem()).unwrap();
        fs::write(self.0.join("ca.pem"), ca.root_pem()).unwrap();
    }

    pub(super) fn bootstrap(&self, more: &str) -> Bootstrap {
        let directory = self.0.display();
        Bootstrap::from_json(&format!(
            r#"{{"xds_servers": [{{"server_uri": "a:1", "channel_creds": [{{"type": "insecure"}}]}}],
                "certificate_providers": {{"mesh": {{"plugin_name": "file_watcher", "config": {{
                    "certificate_file": "{directory}/cert.pem", "private_key_file": "{directory}/key.pem",
                    "ca_certificate_file": "{directory}/ca.pem", "refresh_interval": "0.02s"{more}}}}}}}}}"#
        ))
        .unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn client_with(providers: CertificateProviders) -> crate::secure::ClientTls {
    Secure::new(providers).client(&Arc::new(upstream()), Alpn::Http2)
}

/// gRFC A29.
#[tokio::test]
async fn files_are_read_again_and_a_mismatched_pair_is_never_shown() {
    let (ca, files) = (Ca::new(), Files::new());
    files.write(&ca, &client_leaf());
    let server = server_of(&source(&ca, &server_leaf()), downstream());
    let (providers, background) = watch_files(&files.bootstrap("").certificate_providers);
    let work = tokio::spawn(background);
    let client = client_with(providers);
    let (_, far) = shake(&client, &server).await.both();
    assert_eq!(id(far.client.identity.as_ref()), Some(CLIENT));

    // Somebody else's key beside the certificate: what was there stays.
    fs::write(files.0.join("key.pem"), ca.issue(&client_leaf()).1.serialize_pem()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(id(shake(&client, &server).await.both().1.client.identity.as_ref()), Some(CLIENT));

    files.write(&ca, &Leaf::workload(NEW_CLIENT));
    let mut shown = CLIENT.to_owned();
    // So many rounds only if it never comes.
    for _ in 0..2000 {
        let (_, far) = shake(&client, &server).await.both();
        shown = id(far.client.identity.as_ref()).unwrap().to_owned();
        if shown != CLIENT {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(shown, NEW_CLIENT);
    work.abort();
}
