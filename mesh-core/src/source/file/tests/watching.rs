//! A file that changes, and the whole way from a file to a snapshot.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc;

use super::*;
use crate::config::{ConfigThread, Options};
use crate::event::{Event, EventSink};
use crate::resource::LISTENER;
use crate::snapshot::{Apply, Children, Snapshot, Update};

/// A folder of its own, gone in the end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mesh-file-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Keeps the reasons of refused files.
#[derive(Default)]
struct Refusals(Mutex<Vec<String>>);

impl EventSink for Refusals {
    fn event(&self, event: &Event) {
        if let Event::FileRefused { reason } = event {
            self.0.lock().unwrap().push(reason.clone());
        }
    }
}

impl Refusals {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn service(name: &str) -> String {
    format!("{{kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: 80}}]}}}}\n")
}

fn has(watch: &FileWatch, name: &str) -> bool {
    watch.reader().current().get(LISTENER, name).is_some()
}

/// Two looks: a change counts when it is seen twice.
fn look(watch: &mut FileWatch, events: &Refusals) {
    watch.look(events);
    watch.look(events);
}

#[test]
fn a_change_is_taken_when_it_was_seen_twice() {
    let folder = Folder::new();
    let path = folder.write("mesh.yaml", &service("one"));
    let mut watch = FileWatch::open(&path).unwrap();
    let events = Refusals::default();
    folder.write("mesh.yaml", &service("two"));
    watch.look(&events);
    assert!(has(&watch, "one") && !has(&watch, "two"), "it may be half written");
    watch.look(&events);
    assert!(!has(&watch, "one") && has(&watch, "two"));
    assert!(events.take().is_empty());
}

#[test]
fn a_bad_edit_keeps_the_last_good_one_and_is_told_once() {
    let folder = Folder::new();
    let path = folder.write("mesh.yaml", &service("one"));
    let mut watch = FileWatch::open(&path).unwrap();
    let events = Refusals::default();
    for bad in ["", "kind: Pod\n", "a: [\n"] {
        folder.write("mesh.yaml", bad);
        for _ in 0..4 {
            look(&mut watch, &events);
        }
        let told = events.take();
        assert_eq!(told.len(), 1, "{bad:?}: {told:?}");
        assert!(told[0].starts_with(&path.display().to_string()), "{told:?}");
        assert!(has(&watch, "one"));
    }
    // Another file with the same fault has the same reason.
    folder.write("mesh.yaml", "kind: Pod\n");
    look(&mut watch, &events);
    folder.write("mesh.yaml", "kind: Pod # still\n");
    look(&mut watch, &events);
    assert_eq!(events.take().len(), 1);

    std::fs::remove_file(&path).unwrap();
    look(&mut watch, &events);
    assert!(events.take()[0].contains("cannot be read") && has(&watch, "one"));

    folder.write("mesh.yaml", &service("two"));
    look(&mut watch, &events);
    assert!(has(&watch, "two") && events.take().is_empty());
}

#[test]
fn what_the_decoder_refuses_keeps_the_last_good_one_too() {
    let folder = Folder::new();
    let path = folder.write("mesh.yaml", &service("one"));
    let source = FileSource::open(&path).unwrap();
    let mut watch = source.watch;
    let events = Refusals::default();
    let cluster = "'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster\nname: a\ntype: ORIGINAL_DST\n";
    folder.write("mesh.yaml", &format!("{}---\n{cluster}", service("two")));
    look(&mut watch, &events);
    let told = events.take();
    assert!(told.len() == 1 && told[0].contains("mesh.yaml:5: Cluster `a`: type: is ORIGINAL_DST"), "{told:?}");
    assert!(has(&watch, "one") && !has(&watch, "two"));
}

#[test]
fn certificate_providers_change_only_with_a_restart() {
    let providers = |file: &str| {
        format!(
            "---\ncertificate_providers: {{a: {{plugin_name: file_watcher, config: {{ca_certificate_file: {file}}}}}}}\n"
        )
    };
    let folder = Folder::new();
    let path = folder.write("mesh.yaml", &format!("{}{}", service("one"), providers("x")));
    let source = FileSource::open(&path).unwrap();
    assert_eq!(source.certificate_providers().len(), 1);
    let mut watch = source.watch;
    let events = Refusals::default();
    folder.write("mesh.yaml", &format!("{}{}", service("two"), providers("y")));
    look(&mut watch, &events);
    assert!(events.take()[0].contains("certificate_providers changed, which needs a restart"));
    folder.write("mesh.yaml", &format!("{}{}", service("two"), providers("x")));
    look(&mut watch, &events);
    assert!(has(&watch, "two"));
}

/// As Kubernetes updates a volume: `mesh.yaml -> ..data/mesh.yaml`, and `..data` is exchanged.
#[cfg(unix)]
#[test]
fn links_that_are_exchanged_are_seen() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    for name in ["one", "two"] {
        std::fs::create_dir(folder.0.join(name)).unwrap();
        folder.write(&format!("{name}/mesh.yaml"), &service(name));
    }
    symlink("one", folder.0.join("..data")).unwrap();
    symlink("..data/mesh.yaml", folder.0.join("mesh.yaml")).unwrap();
    let mut watch = FileWatch::open(folder.0.join("mesh.yaml")).unwrap();
    assert!(has(&watch, "one"));
    symlink("two", folder.0.join("..next")).unwrap();
    std::fs::rename(folder.0.join("..next"), folder.0.join("..data")).unwrap();
    look(&mut watch, &Refusals::default());
    assert!(has(&watch, "two"));
}

#[test]
fn a_large_file_is_seen_to_change_too() {
    let folder = Folder::new();
    let padding = format!("# {}\n", "x".repeat(400_000));
    let path = folder.write("mesh.yaml", &format!("{padding}{}", service("one")));
    let mut watch = FileWatch::open(&path).unwrap();
    folder.write("mesh.yaml", &format!("{padding}{}", service("other")));
    look(&mut watch, &Refusals::default());
    assert!(has(&watch, "other"));
}

#[tokio::test(start_paused = true)]
async fn running_it_looks_again_and_again() {
    let folder = Folder::new();
    let path = folder.write("mesh.yaml", &service("one"));
    let watch = FileWatch::open(&path).unwrap();
    let mut reader = watch.reader();
    let running = tokio::spawn(watch.run(Arc::new(Refusals::default())));
    folder.write("mesh.yaml", &service("two"));
    reader.changed().await.unwrap();
    assert!(reader.current().get(LISTENER, "two").is_some());
    running.abort();
}

struct Forward(mpsc::UnboundedSender<Update>);

impl Apply for Forward {
    fn apply(&mut self, update: Update) {
        let _ = self.0.send(update);
    }
}

const GREETER: &str = "\
{kind: Service, metadata: {name: greeter}, spec: {ports: [{port: 50051, appProtocol: grpc}]}}
---
{kind: Service, metadata: {name: greeter-v1}, spec: {ports: [{port: 50051, appProtocol: grpc}]}}
---
{kind: Service, metadata: {name: greeter-v2}, spec: {ports: [{port: 50051, appProtocol: grpc}]}}
---
{kind: EndpointSlice, metadata: {name: v1, labels: {kubernetes.io/service-name: greeter-v1}}, endpoints: [{addresses: [127.0.0.1]}]}
---
{kind: EndpointSlice, metadata: {name: v2, labels: {kubernetes.io/service-name: greeter-v2}}, endpoints: [{addresses: [127.0.0.2]}]}
---
kind: GRPCRoute
metadata: {name: greeter}
spec:
  parentRefs: [{kind: Service, name: greeter}]
  rules: [{backendRefs: [{name: greeter-v1, port: 50051, weight: 90}, {name: greeter-v2, port: 50051, weight: 10}]}]
";

/// Each cluster's name with the addresses of its endpoints.
fn clusters(snapshot: &Snapshot) -> Vec<(String, Vec<String>)> {
    let addresses = |children: &Children| match children {
        Children::Endpoints { endpoints, .. } => {
            let all = endpoints.localities.iter().flat_map(|locality| &locality.endpoints);
            all.map(|endpoint| endpoint.address.to_string()).collect()
        }
        other => panic!("{other:?}"),
    };
    let short = |name: &str| name.split(['|', '.']).nth(3).unwrap().to_owned();
    snapshot.clusters.iter().map(|(name, it)| (short(name), addresses(&it.as_ref().unwrap().children))).collect()
}

#[tokio::test]
async fn fifteen_lines_become_a_snapshot_and_an_edit_the_next() {
    assert_eq!(GREETER.lines().count(), 15);
    let folder = Folder::new();
    let source = FileSource::open(folder.write("mesh.yaml", GREETER)).unwrap();
    let decoder = Arc::new(Decoder::new(Arc::new(Registry::standard()), []));
    let (sender, mut updates) = mpsc::unbounded_channel();
    let apply = Box::new(move || Box::new(Forward(sender)) as Box<dyn Apply>);
    let options = Options::new(Box::new(source), decoder, apply, Arc::new(Refusals::default()), 1);
    let config = ConfigThread::spawn(options).unwrap();
    config.watch_client("greeter:50051");
    let mut next = async || match updates.recv().await.unwrap() {
        Update::Client(snapshot) => clusters(&snapshot),
        other => panic!("{other:?}"),
    };
    let endpoint = |name: &str, address: &str| (name.to_owned(), vec![address.to_owned()]);
    let (v1, v2) = (endpoint("greeter-v1", "127.0.0.1:50051"), endpoint("greeter-v2", "127.0.0.2:50051"));
    assert_eq!(next().await, [v1.clone(), v2.clone()]);

    folder.write("mesh.yaml", &GREETER.replace("weight: 90", "weight: 0"));
    while next().await != [v2.clone()] {}
    config.shutdown();
    config.stopped().await;
}
