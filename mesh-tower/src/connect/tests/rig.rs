//! An endpoint with its state watched.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use mesh_core::balance::CandidateState;
use mesh_core::identity::CertificateProviders;
use mesh_core::model::{Endpoint, Health};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::body::MeshBody;
use crate::connect::{
    ConnectSettings, Connections, Dial, EndpointFactory, EndpointHandle, EndpointPlan, Failed, StateListener, TcpDial,
    WireProtocol,
};
use crate::secure::Secure;

#[derive(Default)]
struct Changes(Notify);

impl StateListener for Changes {
    fn state_changed(&self) {
        self.0.notify_one();
    }
}

/// An endpoint and what it says of itself.
pub(super) struct Rig {
    pub(super) handle: Arc<dyn EndpointHandle>,
    pub(super) state: Arc<CandidateState>,
    changes: Arc<Changes>,
}

impl fmt::Debug for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}

pub(super) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        address,
        additional: Vec::new(),
        weight: 1,
        health: Health::Unknown,
        hostname: "".into(),
        metadata: Default::default(),
    }
}

pub(in crate::connect) fn plan(address: SocketAddr, protocol: WireProtocol) -> EndpointPlan {
    EndpointPlan {
        cluster: "c".into(),
        endpoint: Arc::new(endpoint(address)),
        protocol,
        tls: None,
        connect_timeout: Duration::from_secs(5),
        max_connections: 1024,
        connecting: Arc::new(tokio::sync::Semaphore::new(32)),
        eager: true,
        state: Arc::default(),
        changed: Arc::new(Changes::default()),
    }
}

pub(super) fn tcp() -> Connections {
    connections(TcpDial::new(Some(crate::connect::TcpKeepalive::default())))
}

pub(super) fn connections(dial: impl Dial + 'static) -> Connections {
    let secure = Secure::new(CertificateProviders::default());
    Connections::new(Handle::current(), Arc::new(dial), secure, ConnectSettings::default(), 7)
}

impl Rig {
    pub(super) fn new(factory: &dyn EndpointFactory, mut plan: EndpointPlan) -> Self {
        let changes = Arc::new(Changes::default());
        plan.changed = changes.clone();
        let state = plan.state.clone();
        Self { handle: factory.endpoint(plan), state, changes }
    }

    /// An endpoint called over TCP, ready.
    pub(super) async fn ready(address: SocketAddr, protocol: WireProtocol) -> Self {
        let rig = Self::new(&tcp(), plan(address, protocol));
        rig.until(CandidateState::is_ready).await;
        rig
    }

    /// Until the endpoint says so.
    pub(super) async fn until(&self, is: impl Fn(&CandidateState) -> bool) {
        while !is(&self.state) {
            self.changes.0.notified().await;
        }
    }

    pub(super) async fn until_ready(&self) {
        self.until(CandidateState::is_ready).await;
    }

    pub(super) async fn until_failed(&self) {
        self.until(CandidateState::is_failed).await;
    }

    pub(super) async fn get(&self, path: &str) -> Result<Response<MeshBody>, Failed> {
        self.handle.call(get(path)).await
    }

    /// The whole text of the answer to a GET.
    pub(super) async fn text(&self, path: &str) -> String {
        text(self.get(path).await.unwrap()).await
    }
}

pub(super) fn get(path: &str) -> Request<MeshBody> {
    Request::get(format!("http://a.example{path}")).body(MeshBody::empty()).unwrap()
}

pub(super) async fn text(response: Response<MeshBody>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}
