//! All that a mesh has around its clients: the file, the control plane, certificates, and servers as processes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::bootstrap::Bootstrap;
use mesh_core::resource::ROUTE_CONFIGURATION;
use mesh_examples::Failure;
use mesh_grpc::control::{ControlPlane, DevCa, DevCertificates, Events, Workload};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The file that all begins with.
const MESH: &str = include_str!("../../../mesh.yaml");
/// What a server takes, and what it denies; with its port in the place of [`PORT`].
const AUTHORIZATION: &str = include_str!("../../../authorization.yaml");
const PORT: &str = "PORT";
/// Who the client is, and the `node.id` of its bootstrap.
const CLIENT: &str = "quickstart";
/// How often certificates are read again: a rotation is to be seen now.
const REFRESH: Duration = Duration::from_secs(1);
/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The control plane with its file and certificates.
pub(crate) struct Town {
    folder: Folder,
    pub(crate) control: ControlPlane,
    events: Events,
    routes: String,
    ports: Vec<(&'static str, u16)>,
    servers: DevCertificates,
    client: DevCertificates,
}

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Town {
    /// Certificates, and a control plane that serves the file.
    pub(crate) async fn found() -> Result<Self, Failure> {
        let folder = Folder(std::env::temp_dir().join(format!("mesh-quickstart-{}", std::process::id())));
        std::fs::create_dir_all(&folder.0)?;
        let ca = Arc::new(DevCa::new()?);
        let certificates = |account: &str| {
            let workload = Workload::service_account("cluster.local", "default", account)?;
            DevCertificates::write(ca.clone(), workload, folder.0.join(account))
        };
        let (servers, client) = (certificates("greeter")?, certificates(CLIENT)?);
        let file = folder.0.join("mesh.yaml");
        std::fs::write(&file, MESH)?;
        let control = ControlPlane::builder().file(&file)?.listen("127.0.0.1:0").await?;
        let (events, routes, ports) = (control.events(), String::new(), Vec::new());
        Ok(Self { folder, control, events, routes, ports, servers, client })
    }

    fn bootstrap(&self, node: &str, certificates: &Path) -> String {
        self.control.bootstrap(node).certificates(certificates).refresh_interval(REFRESH).to_json()
    }

    /// The bootstrap of the client.
    pub(crate) fn client(&self) -> Result<Bootstrap, Failure> {
        Ok(Bootstrap::from_json(&self.bootstrap(CLIENT, self.client.folder()))?)
    }

    /// Starts a server in a process, on any port.
    pub(crate) async fn build(&mut self, name: &'static str, placeholder: &'static str) -> Result<Server, Failure> {
        let bootstrap = self.folder.0.join(format!("{name}.json"));
        std::fs::write(&bootstrap, self.bootstrap(name, self.servers.folder()))?;
        let server = Server::start(name, bootstrap, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        self.ports.push((placeholder, server.address.port()));
        Ok(server)
    }

    /// Writes the file: where the servers are, and which share of the traffic each version gets.
    pub(crate) fn write(&self, weights: [u32; 2]) -> Result<(), Failure> {
        let [one, two] = weights;
        let mut text = MESH.to_owned();
        let backends = [("greeter-v1, port: 8080, weight: 100", one), ("greeter-v2, port: 8080, weight: 0", two)];
        for (backend, weight) in backends {
            let (head, _) = backend.rsplit_once(' ').unwrap_or_default();
            text = text.replace(backend, &format!("{head} {weight}"));
        }
        for (placeholder, port) in &self.ports {
            text = text.replace(placeholder, &format!("port: {port}"));
            text += &format!("---\n{}", AUTHORIZATION.replace(PORT, &port.to_string()));
        }
        std::fs::write(self.folder.0.join("mesh.yaml"), text)?;
        Ok(())
    }

    /// Waits until the client has taken other routes than before.
    pub(crate) async fn routes_taken(&mut self) -> Result<(), Failure> {
        let Self { events, routes, .. } = self;
        let type_url = ROUTE_CONFIGURATION.trim_start_matches("type.googleapis.com/");
        let taken = events.find(|event| {
            let request = event.ack(type_url).filter(|_| &*event.node == CLIENT)?;
            (request.version != *routes).then(|| request.version.clone())
        });
        *routes = patient("the client takes new routes", async { Ok(taken.await) }).await?.unwrap_or_default();
        Ok(())
    }

    /// New certificates for everyone.
    pub(crate) fn rotate(&self) -> Result<(), Failure> {
        self.servers.rotate()?;
        Ok(self.client.rotate()?)
    }

    /// Stops the control plane and closes all its connections.
    pub(crate) async fn close(&self) {
        self.control.faults().vanish().await;
    }

    /// Starts it again.
    pub(crate) async fn reopen(&self) -> Result<(), Failure> {
        Ok(self.control.faults().come_back().await?)
    }
}

/// Whom a server denied something, and by which rule.
pub(crate) struct Audited {
    pub(crate) principal: String,
    pub(crate) rule: String,
}

/// A server in a process of its own.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    bootstrap: PathBuf,
    pub(crate) address: SocketAddr,
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    /// It ends when this is closed.
    _alive: Option<ChildStdin>,
}

impl Server {
    async fn start(name: &'static str, bootstrap: PathBuf, listen: SocketAddr) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--listen", &listen.to_string(), "--name", name]);
        command.env("GRPC_XDS_BOOTSTRAP", &bootstrap).env_remove("GRPC_XDS_BOOTSTRAP_CONFIG").env_remove("MESH_CONFIG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("a server has no stdout")?;
        let (said, alive) = (BufReader::new(stdout).lines(), child.stdin.take());
        let mut started = Self { name, bootstrap, address: listen, child, said, _alive: alive };
        started.address = started.says("listening on ").await?.parse()?;
        Ok(started)
    }

    /// Waits until it serves: it has its configuration.
    pub(crate) async fn serving(&mut self) -> Result<(), Failure> {
        self.says("serving on ").await.map(drop)
    }

    /// The next line of its audit log (gRFC A59).
    pub(crate) async fn audited(&mut self) -> Result<Audited, Failure> {
        let line = self.says("").await?;
        let said = serde_json::from_str::<serde_json::Value>(&line)?;
        let field = |name: &str| said["grpc_audit_log"][name].as_str().unwrap_or_default().to_owned();
        Ok(Audited { principal: field("principal"), rule: field("matched_rule") })
    }

    async fn says(&mut self, what: &str) -> Result<String, Failure> {
        let line = patient(&format!("{} says `{what}`", self.name), async { Ok(self.said.next_line().await?) }).await?;
        let line = line.ok_or_else(|| format!("{} ended", self.name))?;
        Ok(line.strip_prefix(what).ok_or_else(|| format!("{} said `{line}`", self.name))?.to_owned())
    }

    /// SIGKILL, where there are signals.
    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    /// Starts it again, at the same address.
    pub(crate) async fn restart(&mut self) -> Result<(), Failure> {
        *self = Self::start(self.name, self.bootstrap.clone(), self.address).await?;
        self.serving().await
    }
}

/// Waits for what must happen soon.
pub(crate) async fn patient<T>(what: &str, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.unwrap_or_else(|_| Err(format!("waited {PATIENCE:?} in vain until {what}").into()))
}
