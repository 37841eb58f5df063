//! Trust by SPIFFE trust domain (gRFC A87): a domain's authority vouches for its own workloads and for no one else's.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::error::Code;
use mesh_core::identity::{Roots, StaticSource};

use super::super::testing::{Ca, Leaf, downstream, show, source, upstream};
use super::rotating::{Files, client_with};
use super::{client_of, id, server_of, shake};
use crate::secure::watch_files;

const OURS: &str = "spiffe://ours.test/sa/client";
const THEIRS: &str = "spiffe://theirs.test/sa/server";

/// Two domains, each with its authority.
struct World {
    ours: Ca,
    theirs: Ca,
}

impl World {
    fn new() -> Self {
        Self { ours: Ca::new(), theirs: Ca::new() }
    }

    /// Whoever trusts both, each for its own, and shows a certificate of `ca`.
    fn member(&self, ca: &Ca, leaf: &Leaf) -> Arc<StaticSource> {
        let source = Arc::new(StaticSource::new());
        source.set_roots(self.map());
        show(&source, ca, leaf);
        source
    }

    fn map(&self) -> Roots {
        let of = |name: &str, ca: &Ca| (name.to_owned(), vec![ca.root()]);
        Roots::ByTrustDomain(BTreeMap::from([of("ours.test", &self.ours), of("theirs.test", &self.theirs)]))
    }
}

#[tokio::test]
async fn a87_workloads_of_two_trust_domains_prove_themselves_to_each_other() {
    let world = World::new();
    let client = client_of(&world.member(&world.ours, &Leaf::workload(OURS)), upstream());
    let server = server_of(&world.member(&world.theirs, &Leaf::workload(THEIRS)), downstream());
    let (near, far) = shake(&client, &server).await.both();
    assert_eq!((id(near.peer.as_ref()), id(far.client.identity.as_ref())), (Some(THEIRS), Some(OURS)));
}

/// Certificates that no member may take, by what is wrong with them, and what is said of it.
fn impostors(world: &World) -> Vec<(&Ca, Leaf, &'static str)> {
    let two = Leaf { uris: vec![THEIRS, "spiffe://theirs.test/b"], ..Leaf::workload(THEIRS) };
    vec![
        // The authority of one domain says that a workload is of the other.
        (&world.ours, Leaf::workload(THEIRS), "UnknownIssuer"),
        (&world.theirs, Leaf::workload(OURS), "UnknownIssuer"),
        (
            &world.theirs,
            Leaf::workload("spiffe://third.test/sa/server"),
            "`third.test` is not in the SPIFFE bundle map",
        ),
        (&world.theirs, Leaf { uris: vec![], ..Leaf::workload(THEIRS) }, "it has 0 URIs"),
        (&world.theirs, two, "it has 2 URIs"),
        (&world.theirs, Leaf::workload("https://theirs.test/"), "its URI is no SPIFFE ID"),
        (&world.theirs, Leaf::workload("spiffe://THEIRS.test/a"), "its URI is no SPIFFE ID"),
    ]
}

#[tokio::test]
async fn a87_a_server_that_its_trust_domain_does_not_vouch_for_is_refused() {
    let world = World::new();
    let client = client_of(&world.member(&world.ours, &Leaf::workload(OURS)), upstream());
    for (ca, leaf, why) in impostors(&world) {
        let server = server_of(&world.member(ca, &leaf), downstream());
        let error = shake(&client, &server).await.client_error();
        assert_eq!(error.code(), Code::HANDSHAKE, "{error}");
        assert!(error.to_string().contains(why), "{error} does not say {why}");
    }
}

#[tokio::test]
async fn a87_a_client_that_its_trust_domain_does_not_vouch_for_is_refused() {
    let world = World::new();
    let server = server_of(&world.member(&world.theirs, &Leaf::workload(THEIRS)), downstream());
    for (ca, leaf, why) in impostors(&world) {
        let client = client_of(&world.member(ca, &leaf), upstream());
        let error = shake(&client, &server).await.server_error().await;
        assert_eq!(error.code(), Code::HANDSHAKE, "{error}");
        assert!(error.to_string().contains(why), "{error} does not say {why}");
    }
}

#[tokio::test]
async fn a87_a_map_without_trust_domains_trusts_nobody() {
    let world = World::new();
    let near = world.member(&world.ours, &Leaf::workload(OURS));
    near.set_roots(Roots::ByTrustDomain(BTreeMap::new()));
    let server = server_of(&world.member(&world.theirs, &Leaf::workload(THEIRS)), downstream());
    let error = shake(&client_of(&near, upstream()), &server).await.client_error();
    assert!(error.to_string().contains("`theirs.test` is not in the SPIFFE bundle map"), "{error}");
    let server = server_of(&near, downstream());
    let client = client_of(&world.member(&world.theirs, &Leaf::workload(THEIRS)), upstream());
    let error = shake(&client, &server).await.server_error().await;
    assert!(error.to_string().contains("`theirs.test` is not in the SPIFFE bundle map"), "{error}");
}

fn file(domains: &[(&str, &Ca)]) -> String {
    let bundle = |(name, ca): &(&str, &Ca)| format!(r#""{name}": {{"keys": [{}]}}"#, ca.root_jwk());
    format!(r#"{{"trust_domains": {{{}}}}}"#, domains.iter().map(bundle).collect::<Vec<_>>().join(","))
}

#[tokio::test]
async fn a87_the_map_is_read_from_its_file_again_and_again_and_beats_the_other_roots() {
    let (world, files) = (World::new(), Files::new());
    files.write(&world.theirs, &Leaf::workload(OURS));
    let map = files.0.join("map.json");
    let bootstrap = files.bootstrap(&format!(r#", "spiffe_trust_bundle_map_file": "{}""#, map.display()));
    let (providers, background) = watch_files(&bootstrap.certificate_providers);
    let work = tokio::spawn(background);
    let client = client_with(providers);
    let server = server_of(&source(&world.theirs, &Leaf::workload(THEIRS)), downstream());
    // What the handshake comes to, once it is that.
    let until = async |wanted: &str| {
        let mut last = String::new();
        // So many rounds only if it never comes.
        for _ in 0..2000 {
            last = match shake(&client, &server).await.client {
                Ok(_) => "trusted".to_owned(),
                Err(error) => error.to_string(),
            };
            if last.contains(wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it never is `{wanted}`: {last}");
    };
    // The roots of ca_certificate_file would do, and are not asked.
    until("map.json cannot be read").await;
    fs::write(&map, r#"{"trust_domains": {"a": {}}}"#).unwrap();
    until("keys is not an array").await;
    fs::write(&map, file(&[("theirs.test", &world.theirs)])).unwrap();
    until("trusted").await;
    fs::write(&map, "garbage").unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    until("trusted").await;
    fs::write(&map, file(&[("theirs.test", &world.ours)])).unwrap();
    until("UnknownIssuer").await;
    fs::write(&map, file(&[])).unwrap();
    until("not in the SPIFFE bundle map").await;
    work.abort();
}
