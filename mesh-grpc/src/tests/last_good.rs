//! Processes that start while the control plane is away, on what an earlier one kept on disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_core::bootstrap::Bootstrap;
use mesh_core::event::{Event, EventSink};
use serde_json::json;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;

use super::backend::{Backend, PATIENCE};
use super::config::{cluster, encode, forward, listener};
use super::{TARGET, ask};
use crate::control::ControlPlane;
use crate::{Mesh, MeshChannel};

/// A directory of the test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mesh-started-on-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    /// The one file in it.
    fn file(&self) -> PathBuf {
        let mut files = fs::read_dir(&self.0).unwrap();
        files.next().expect("something was kept").unwrap().path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl EventSink for Said {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.to_string());
    }
}

impl Said {
    fn has(&self, text: &str) -> bool {
        self.0.lock().unwrap().iter().any(|event| event.contains(text))
    }
}

/// A process: a mesh of its own.
struct Process {
    mesh: Mesh,
    said: Said,
}

impl Process {
    fn start(control: &ControlPlane, node: &str, folder: &Folder) -> Self {
        let server = json!({"server_uri": control.address().to_string(), "channel_creds": [{"type": "insecure"}]});
        let bootstrap = json!({"xds_servers": [server], "node": {"id": node}}).to_string();
        let mut settings = mesh_core::ads::Settings::default();
        settings.backoff.initial = Duration::from_millis(50);
        settings.backoff.early_cap = Duration::from_millis(50);
        let said = Said::default();
        let mesh = Mesh::builder()
            .bootstrap(Bootstrap::from_json(&bootstrap).unwrap())
            .xds(settings)
            .last_good(&folder.0)
            .events(Arc::new(said.clone()))
            .build()
            .unwrap();
        Self { mesh, said }
    }

    /// A call that does not wait for anything but the first word about its configuration.
    async fn call(&self) -> Result<(), Status> {
        let mut client = HealthClient::new(MeshChannel::new(&self.mesh, TARGET).unwrap());
        timeout(PATIENCE, client.check(ask(""))).await.expect("a call takes too long").map(drop)
    }

    async fn end(self) {
        self.mesh.shutdown(Duration::from_secs(1)).await;
    }
}

async fn served(server: &Backend) -> ControlPlane {
    let resources = encode(&[listener("greeter", &json!([forward("blue")])), cluster("blue", &[server.address])]);
    ControlPlane::builder().resources(resources).listen("127.0.0.1:0").await.unwrap()
}

/// What a process kept that worked and ended, with its control plane gone.
async fn after_a_process(control: &ControlPlane, folder: &Folder) {
    let first = Process::start(control, "node-1", folder);
    first.call().await.unwrap();
    first.end().await;
    control.faults().vanish().await;
}

#[tokio::test]
async fn a_process_starts_without_its_control_plane_and_loses_nothing() {
    let (server, other) = (Backend::start().await, Backend::start().await);
    let control = served(&server).await;
    let folder = Folder::new("whole");
    after_a_process(&control, &folder).await;
    let second = Process::start(&control, "node-1", &folder);
    for _ in 0..20 {
        second.call().await.unwrap();
    }
    assert_eq!(server.calls(), 21);
    assert!(second.said.has("the last good configuration of an earlier process is in use, 0 min old"));
    // The control plane has the last word as soon as it is back.
    control.set(encode(&[listener("greeter", &json!([forward("green")])), cluster("green", &[other.address])]));
    control.faults().come_back().await.unwrap();
    let until = async {
        while other.calls() == 0 {
            second.call().await.unwrap();
        }
    };
    timeout(PATIENCE, until).await.expect("what is on disk stays in use");
    // And that is what the next process starts on.
    second.end().await;
    control.faults().vanish().await;
    let third = Process::start(&control, "node-1", &folder);
    let before = other.calls();
    third.call().await.unwrap();
    assert_eq!(other.calls(), before + 1);
    third.end().await;
}

#[tokio::test]
async fn what_is_not_trusted_is_not_started_on_and_the_reason_is_said() {
    let server = Backend::start().await;
    let control = served(&server).await;
    let folder = Folder::new("spoiled");
    after_a_process(&control, &folder).await;
    let good = fs::read(folder.file()).unwrap();
    let fails = async |node: &str, why: &str| {
        let process = Process::start(&control, node, &folder);
        assert_eq!(process.call().await.unwrap_err().code(), Code::Unavailable, "{why}");
        assert!(process.said.has(why), "{why}: {:?}", process.said.0);
        process.end().await;
    };
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(folder.file(), damaged).unwrap();
    fails("node-1", "its checksum is wrong").await;
    fs::write(folder.file(), &good).unwrap();
    fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o644)).unwrap();
    fails("node-1", "it must have mode 600").await;
    fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o600)).unwrap();
    fails("node-2", "cannot be reached").await;
    // It was the file, each time.
    let process = Process::start(&control, "node-1", &folder);
    process.call().await.unwrap();
    process.end().await;
}

/// A control plane at another address is another one, whatever its node is called.
#[tokio::test]
async fn what_another_control_plane_gave_is_not_started_on() {
    let server = Backend::start().await;
    let (control, other) = (served(&server).await, served(&server).await);
    let folder = Folder::new("moved");
    after_a_process(&control, &folder).await;
    other.faults().vanish().await;
    let process = Process::start(&other, "node-1", &folder);
    assert_eq!(process.call().await.unwrap_err().code(), Code::Unavailable);
    process.end().await;
}
