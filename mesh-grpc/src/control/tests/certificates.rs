//! Development certificates, read by a parser that is not their maker's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::bootstrap::{Bootstrap, CertificateProvider};
use mesh_core::identity::{CertificateSource, FileWatcher, Roots, Sans};
use x509_parser::pem::Pem;
use x509_parser::prelude::*;

use crate::control::{DevBootstrap, DevCa, DevCertificates, Workload};

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mesh-control-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn der(pem: &str) -> Vec<u8> {
    let mut all = Pem::iter_from_buffer(pem.as_bytes());
    let only = all.next().unwrap().unwrap();
    assert!(all.next().is_none());
    only.contents
}

fn greeter() -> Workload {
    Workload::service_account("cluster.local", "default", "greeter").unwrap()
}

#[test]
fn a_leaf_has_its_identity_and_the_usages_of_both_sides() {
    let ca = DevCa::new().unwrap();
    let workload = greeter().dns_name("localhost").address([127, 0, 0, 1].into()).lifetime(Duration::from_secs(3600));
    let (leaf, key) = ca.issue(&workload).unwrap();
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));
    let leaf = der(&leaf);
    let expected = Sans {
        uris: vec!["spiffe://cluster.local/ns/default/sa/greeter".to_owned()],
        dns: vec!["localhost".to_owned()],
        ips: vec![[127, 0, 0, 1].into()],
        ..Sans::default()
    };
    assert_eq!(Sans::read(&leaf), Ok(expected));
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any);
    assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
    assert!(!leaf.is_ca());
    assert!(leaf.validity().is_valid());
    let lasts = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    assert_eq!(lasts, 3600 + 300, "an hour, and it is backdated");
    let root = der(ca.root());
    let (_, root) = X509Certificate::from_der(&root).unwrap();
    assert!(root.is_ca() && root.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert_eq!(leaf.issuer(), root.subject());
    root.verify_signature(None).unwrap();
    leaf.verify_signature(Some(root.public_key())).unwrap();
}

#[test]
fn a_revocation_list_names_who_is_revoked_and_is_the_roots() {
    let ca = DevCa::new().unwrap();
    let (leaf, _) = ca.issue(&greeter().serial(0x1234)).unwrap();
    let leaf = der(&leaf);
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    let list = der(&ca.revocation_list(&[0x1234, 5]).unwrap());
    let (_, list) = CertificateRevocationList::from_der(&list).unwrap();
    let revoked: Vec<_> = list.iter_revoked_certificates().map(RevokedCertificate::raw_serial).collect();
    assert_eq!((revoked.len(), revoked[0]), (2, leaf.raw_serial()));
    assert_eq!(revoked[1].last(), Some(&5));
    let root = der(ca.root());
    let (_, root) = X509Certificate::from_der(&root).unwrap();
    assert_eq!(list.issuer(), root.subject());
    list.verify_signature(root.public_key()).unwrap();
    assert!(list.next_update().unwrap().timestamp() > list.last_update().timestamp());
}

#[test]
fn processes_that_share_a_folder_share_the_ca() {
    let folder = Folder::new("shared");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let path = folder.0.join("ca");
            std::thread::spawn(move || DevCa::load_or_create(path).unwrap())
        })
        .collect();
    let cas: Vec<DevCa> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let root = der(cas[0].root());
    let (_, root) = X509Certificate::from_der(&root).unwrap();
    for ca in &cas {
        assert_eq!(ca.root(), cas[0].root());
        let leaf = der(&ca.issue(&greeter()).unwrap().0);
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        leaf.verify_signature(Some(root.public_key())).unwrap();
        assert_eq!(leaf.issuer(), root.subject());
    }
    let files: Vec<_> = std::fs::read_dir(folder.0.join("ca")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["dev-ca.pem"], "nothing temporary is left");
    std::fs::write(folder.0.join("ca/dev-ca.pem"), "nonsense").unwrap();
    let error = DevCa::load_or_create(folder.0.join("ca")).unwrap_err();
    assert!(error.to_string().contains("dev-ca.pem"), "{error}");
}

#[test]
fn what_is_no_identity_gets_no_certificate() {
    let error = Workload::service_account("cluster.local", "default", "../admin").unwrap_err();
    assert!(error.to_string().contains("../admin"), "{error}");
    DevCa::new().unwrap().issue(&greeter().dns_name("grüße")).unwrap_err();
}

/// The key's public half is the certificate's.
fn belongs(
    chain: &[rustls_pki_types::CertificateDer<'static>],
    key: &rustls_pki_types::PrivateKeyDer<'static>,
) -> bool {
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let key = rcgen::KeyPair::try_from(key).unwrap();
    rcgen::PublicKeyData::subject_public_key_info(&key) == leaf.public_key().raw
}

#[test]
fn a_rotation_reaches_a_file_watcher_through_the_bootstrap() {
    let folder = Folder::new("rotation");
    let ca = Arc::new(DevCa::new().unwrap());
    let certificates = DevCertificates::write(ca, greeter(), folder.0.join("greeter")).unwrap();
    let json = DevBootstrap::new("127.0.0.1:18000", "node-1")
        .certificates(certificates.folder())
        .refresh_interval(Duration::from_millis(250))
        .to_json();
    let bootstrap = Bootstrap::from_json(&json).unwrap();
    assert_eq!((&*bootstrap.servers[0].uri, &*bootstrap.node.id), ("127.0.0.1:18000", "node-1"));
    let name = bootstrap.listener_names.for_server(([127, 0, 0, 1], 8080).into()).unwrap();
    assert_eq!(&*name, "grpc/server?xds.resource.listening_address=127.0.0.1:8080");

    let CertificateProvider::FileWatcher(config) = &bootstrap.certificate_providers["default"] else { panic!() };
    assert_eq!(config.refresh_interval, Duration::from_millis(250));
    let watcher = FileWatcher::new("default", config.clone(), Arc::new(belongs));
    let first = watcher.identity().unwrap().chain.clone();
    assert!(matches!(&watcher.trust().unwrap().roots, Roots::Any(roots) if roots.len() == 1));
    assert!(!watcher.refresh());
    certificates.rotate().unwrap();
    assert!(watcher.refresh());
    assert_ne!(watcher.identity().unwrap().chain, first);
}

#[cfg(unix)]
#[test]
fn only_the_owner_reads_keys() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new("modes");
    let ca = Arc::new(DevCa::load_or_create(&folder.0).unwrap());
    DevCertificates::write(ca, greeter(), &folder.0).unwrap();
    let mode = |name| std::fs::metadata(folder.0.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("dev-ca.pem"), mode("key.pem")], [0o600; 2]);
    assert_eq!([mode("cert-chain.pem"), mode("root-cert.pem")].map(|mode| mode & 0o077), [0o044; 2]);
}
