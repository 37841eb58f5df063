//! SDS over the responder that the local control plane speaks with.

use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use pb::secret::Type;

use super::*;
use crate::ads::STREAM_SECRETS;
use crate::bootstrap::SdsConfig;
use crate::identity::testing::Issued;
use crate::publish::Publisher;
use crate::resource::{ResourceKey, SECRET};
use crate::source::LocalTransport;
use crate::source::responder::{EncodedResource, ResourceSet};

fn inline(pem: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineString(pem.to_owned())), ..DataSource::default() })
}

fn certificate(name: &str, issued: &Issued) -> pb::Secret {
    let certificate = pb::TlsCertificate {
        certificate_chain: inline(&issued.certificate_pem),
        private_key: inline(&issued.key_pem),
        ..pb::TlsCertificate::default()
    };
    pb::Secret { name: name.to_owned(), r#type: Some(Type::TlsCertificate(certificate)) }
}

fn roots(name: &str, authority: &Authority) -> pb::Secret {
    let context = pb::CertificateValidationContext {
        trusted_ca: inline(&authority.root_pem()),
        ..pb::CertificateValidationContext::default()
    };
    pb::Secret { name: name.to_owned(), r#type: Some(Type::ValidationContext(context)) }
}

fn set(secrets: &[pb::Secret]) -> Arc<ResourceSet> {
    let encode = |secret: &pb::Secret| {
        EncodedResource::new(ResourceKey::new(SECRET, secret.name.as_str()), secret.encode_to_vec())
    };
    Arc::new(ResourceSet::new(secrets.iter().map(encode)))
}

/// A server that answers over the way for secrets only.
struct Server(LocalTransport);

impl ControlTransport for Server {
    fn open(&self, server: &ServerConfig, path: &str) -> Opening {
        assert_eq!(path, STREAM_SECRETS);
        self.0.open(server, path)
    }
}

fn served(secrets: &[pb::Secret]) -> (Arc<Publisher<ResourceSet>>, Arc<dyn ControlTransport>) {
    let publisher = Arc::new(Publisher::new(set(secrets)));
    let transport = Arc::new(Server(LocalTransport::new(publisher.reader())));
    (publisher, transport)
}

fn config() -> SdsConfig {
    SdsConfig::new("unix:///sds").unwrap()
}

#[tokio::test(start_paused = true)]
async fn sds_the_pair_comes_rotates_and_outlives_its_server() {
    let (authority, said) = (Authority::new(), Arc::new(Said::default()));
    let first = authority.issue(ALICE, DAY);
    let (server, transport) = served(&[certificate("default", &first), roots("ROOTCA", &authority)]);
    let (sds, run) = Sds::new(&config(), &around(transport, &said));
    assert!(sds.identity().unwrap_err().to_string().contains("secret `default` of SDS server unix:///sds"));
    let running = background(run);
    tokio::time::timeout(Duration::from_secs(1), sds.settled()).await.unwrap();
    let held = sds.identity().unwrap();
    assert_eq!((&held.chain[..], &held.key), (&[first.certificate.clone()][..], &first.key));
    assert_eq!(sds.trust().unwrap().roots, Roots::Any(vec![authority.root()]));

    let second = authority.issue(ALICE, DAY);
    server.publish(set(&[certificate("default", &second), roots("ROOTCA", &authority)]));
    until("the second is taken", || sds.identity().unwrap().chain == [second.certificate.clone()]).await;
    assert!(sds.identity().unwrap().generation > held.generation);

    // One whose key is another's is refused, and the last good one stays.
    let mut broken = authority.issue(ALICE, DAY);
    broken.key_pem = first.key_pem.clone();
    server.publish(set(&[certificate("default", &broken), roots("ROOTCA", &authority)]));
    until("it is said", || !said.troubles().is_empty()).await;
    assert!(said.troubles()[0].contains("tls_certificate.private_key: does not belong"), "{:?}", said.troubles());
    // Then the server forgets it, for much longer than any grace.
    server.publish(set(&[roots("ROOTCA", &authority)]));
    tokio::time::sleep(DAY / 2).await;
    assert_eq!(sds.identity().unwrap().chain[0], second.certificate);
    assert!(!running.is_finished());
}

#[tokio::test(start_paused = true)]
async fn sds_another_secret_is_asked_for_as_long_as_somebody_holds_it() {
    let (authority, said) = (Authority::new(), Arc::new(Said::default()));
    let (one, other) = (authority.issue(ALICE, DAY), authority.issue("spiffe://example.org/other", DAY));
    let (_server, transport) = served(&[certificate("one", &one), certificate("two", &other)]);
    let server = ServerConfig::insecure("unix:///sds");
    let (sds, run) = Sds::on_demand(&server, &around(transport, &said));
    background(run);
    assert!(sds.identity().unwrap_err().to_string().contains("name a secret"));
    assert!(sds.parts().is_empty());
    let held = sds.certificate("one").unwrap();
    held.settled().await;
    assert_eq!(held.identity().unwrap().chain[0], one.certificate);
    assert!(held.trust().unwrap_err().to_string().contains("secret `one`"));
    let again = sds.certificate("one").unwrap();
    assert!(again.identity().is_ok(), "it is the same, not another that waits");
    assert_eq!(sds.parts().len(), 1);
    drop((held, again));
    assert!(sds.parts().is_empty(), "nobody holds it");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let back = sds.certificate("one").unwrap();
    back.settled().await;
    assert_eq!(back.identity().unwrap().chain[0], one.certificate);
}

#[tokio::test(start_paused = true)]
async fn sds_a_control_plane_cannot_have_any_number_of_secrets_asked_for() {
    let (transport, mut opened) = played();
    let said = Arc::new(Said::default());
    let (sds, run) = Sds::on_demand(&ServerConfig::insecure("unix:///sds"), &around(transport, &said));
    background(run);
    let held: Vec<_> = (0..1500).map(|index| sds.certificate(&format!("secret-{index}")).unwrap()).collect();
    let mut stream = opened.recv().await.unwrap();
    let request = stream.requests.recv().await.unwrap();
    let request = envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest::decode(request).unwrap();
    assert_eq!(request.resource_names.len(), 1000);
    assert!(held[1200].identity().unwrap_err().to_string().contains("no more are asked for"));
}

#[tokio::test(start_paused = true)]
async fn sds_a_server_that_is_away_is_trouble_and_no_wait_for_ever() {
    let (transport, mut opened) = played();
    let said = Arc::new(Said::default());
    let (sds, run) = Sds::new(&config(), &around(transport, &said));
    background(run);
    background(async move {
        while let Some(stream) = opened.recv().await {
            stream.fail("no such file");
        }
    });
    tokio::time::timeout(Duration::from_secs(60), sds.settled()).await.expect("it is known that nothing comes");
    assert!(sds.identity().unwrap_err().to_string().contains("no such file"));
}
