//! A configuration's whole way in one process: memory source, engine, graph, and what is put in force. Only the meaning of
//! the bytes is a stand-in: `name:content`.

use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::ads::Settings;
use crate::decode::Decoded;
use crate::event::LogSink;
use crate::graph::tests::{eds, endpoints, listener, routes};
use crate::model::RouteSource;
use crate::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, ResourceKey};
use crate::snapshot::{Children, Snapshot};
use crate::source::MemorySource;
use crate::source::responder::EncodedResource;

/// A Listener's content is its route table's name, a table's is its cluster, an endpoint set's is its port.
struct StandIn;

impl DecodeResource for StandIn {
    fn decode(&self, type_url: &str, bytes: &[u8]) -> Decoded {
        let text = std::str::from_utf8(bytes).unwrap();
        let (name, content) = text.split_once(':').unwrap();
        let value = match type_url {
            LISTENER => listener(name, RouteSource::Rds(content.into())),
            ROUTE_CONFIGURATION => routes(&[content]),
            CLUSTER => eds(name),
            _ => endpoints(content.parse().unwrap()),
        };
        Decoded::Ok { name: name.into(), value }
    }
}

struct Forward(mpsc::UnboundedSender<Update>);

impl Apply for Forward {
    fn apply(&mut self, update: Update) {
        let _ = self.0.send(update);
    }
}

struct Mesh {
    config: ConfigHandle,
    memory: MemorySource,
    updates: mpsc::UnboundedReceiver<Update>,
}

fn resources(list: &[(&str, &str, &str)]) -> Vec<EncodedResource> {
    let encode = |(type_url, name, content): &(&str, &str, &str)| {
        EncodedResource::new(ResourceKey::new(*type_url, *name), format!("{name}:{content}"))
    };
    list.iter().map(encode).collect()
}

fn mesh(list: &[(&str, &str, &str)]) -> Mesh {
    // Long enough for what follows a change, and short enough to see its end.
    let settings = Settings { deletion_grace: Some(Duration::from_millis(500)), ..Settings::default() };
    let memory = MemorySource::new(resources(list)).with_settings(settings);
    let (sender, updates) = mpsc::unbounded_channel();
    let apply = Box::new(move || Box::new(Forward(sender)) as Box<dyn Apply>);
    let options = Options::new(Box::new(memory.clone()), Arc::new(StandIn), apply, Arc::new(LogSink), 1);
    Mesh { config: ConfigThread::spawn(options).unwrap(), memory, updates }
}

impl Mesh {
    async fn snapshot(&mut self) -> Arc<Snapshot> {
        match self.updates.recv().await.unwrap() {
            Update::Client(snapshot) => snapshot,
            other => panic!("{other:?}"),
        }
    }
}

/// The clusters of a snapshot, with the port of their endpoint.
fn ports(snapshot: &Arc<Snapshot>) -> Vec<(String, u16)> {
    let port = |config: &crate::snapshot::ClusterConfig| match &config.children {
        Children::Endpoints { endpoints, .. } => endpoints.localities[0].endpoints[0].address.port(),
        other => panic!("{other:?}"),
    };
    snapshot.clusters.iter().map(|(name, config)| (name.to_string(), port(config.as_ref().unwrap()))).collect()
}

const L: (&str, &str, &str) = (LISTENER, "greeter", "table");

fn to(cluster: &'static str, port: &'static str) -> [(&'static str, &'static str, &'static str); 4] {
    [L, (ROUTE_CONFIGURATION, "table", cluster), (CLUSTER, cluster, ""), (CLUSTER_LOAD_ASSIGNMENT, cluster, port)]
}

#[tokio::test]
async fn a_target_gets_one_snapshot_then_updates_then_its_end() {
    let mut it = mesh(&to("blue", "1"));
    it.config.watch_client("greeter");
    let first = it.snapshot().await;
    assert_eq!((first.target.as_ref(), ports(&first)), ("greeter", vec![("blue".to_owned(), 1)]));

    it.memory.set(resources(&to("blue", "2")));
    let second = it.snapshot().await;
    assert_eq!(ports(&second), [("blue".to_owned(), 2)]);
    assert!(second.version > first.version);
    assert!(Arc::ptr_eq(&first.routes, &second.routes), "what did not change is shared");
    drop((first, second));

    it.memory.set(resources(&to("green", "3")));
    // Blue is deleted at the same time; until green is there, it is used on.
    while ports(&it.snapshot().await) != [("green".to_owned(), 3)] {}

    it.memory.set([]);
    let error = loop {
        match it.updates.recv().await.unwrap() {
            Update::Failed { target, error, absent: true } if &*target == "greeter" => break error,
            _ => {}
        }
    };
    assert_eq!(error.code(), Code::RESOURCE_NOT_FOUND);
    it.config.shutdown();
    it.config.stopped().await;
}

#[tokio::test]
async fn a_target_that_does_not_exist_fails_at_once() {
    let mut it = mesh(&[]);
    it.config.watch_client("nowhere");
    let Update::Failed { target, error, absent } = it.updates.recv().await.unwrap() else { panic!() };
    assert!(absent, "a file or a memory source knows all there is");
    assert_eq!(&*target, "nowhere");
    assert!(error.to_string().contains("`nowhere`"), "{error}");
}

#[tokio::test]
async fn a_cluster_that_a_request_names_joins_the_targets_snapshot() {
    let mut all = to("blue", "1").to_vec();
    all.extend([(CLUSTER, "green", ""), (CLUSTER_LOAD_ASSIGNMENT, "green", "2")]);
    let mut it = mesh(&all);
    it.config.watch_client("greeter");
    assert_eq!(ports(&it.snapshot().await), [("blue".to_owned(), 1)]);
    it.config.want_cluster("greeter", "green");
    assert_eq!(ports(&it.snapshot().await), [("blue".to_owned(), 1), ("green".to_owned(), 2)]);
}
