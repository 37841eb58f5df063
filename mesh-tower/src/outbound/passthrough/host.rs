//! One host that requests are let pass to, and the connections to it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Request;
use mesh_core::balance::CandidateState;
use mesh_core::error::{Code, Error};
use mesh_core::model::{Endpoint, Health, Pattern, SanKind, SanMatch, StringMatch, TrustRoots, UpstreamTls};
use mesh_core::publish::Publisher;
use tokio::sync::Semaphore;

use super::dns::Dns;
use super::hosts::Place;
use crate::body::MeshBody;
use crate::connect::{EndpointFactory, EndpointFuture, EndpointHandle, EndpointPlan, StateListener, WireProtocol};

/// How long a connection may take to stand: Envoy's default for clusters.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections to one host at a time: Envoy's default for clusters.
const MAX_CONNECTIONS: u32 = 1024;

/// A host.
pub(super) struct Host {
    place: Place,
    tls: Option<Arc<UpstreamTls>>,
    /// By protocol, in the order of [`WireProtocol`].
    lanes: [Lane; 3],
}

/// One protocol's way to the host.
#[derive(Default)]
struct Lane {
    way: ArcSwapOption<Way>,
    /// Whoever has it looks the host up and connects; the others wait for what comes of it.
    turn: tokio::sync::Mutex<()>,
    /// How often it came to nothing.
    failures: AtomicU64,
    last_error: std::sync::Mutex<Option<Error>>,
}

/// Connections to the addresses that DNS gave. Once they are lost it is not used any more.
pub(super) struct Way {
    address: SocketAddr,
    state: Arc<CandidateState>,
    handle: Arc<dyn EndpointHandle>,
}

impl Host {
    pub(super) fn new(place: &Place) -> Self {
        let tls = place.https.then(|| Arc::new(tls_to(&place.host)));
        Self { place: place.clone(), tls, lanes: Default::default() }
    }

    pub(super) fn is_https(&self) -> bool {
        self.place.https
    }

    /// A way that stands. Requests that ask for one while it is being made share what comes of it, so that a host which
    /// does not answer costs each of them one attempt's time.
    pub(super) async fn way(
        &self,
        protocol: WireProtocol,
        dns: &Dns,
        factory: &Arc<dyn EndpointFactory>,
    ) -> Result<Arc<Way>, Error> {
        let lane = &self.lanes[protocol as usize];
        if let Some(way) = lane.standing() {
            return Ok(way);
        }
        let failures = lane.failures.load(Ordering::Acquire);
        let _turn = lane.turn.lock().await;
        if let Some(way) = lane.standing() {
            return Ok(way);
        }
        if lane.failures.load(Ordering::Acquire) != failures
            && let Some(error) = lane.last_error()
        {
            return Err(error);
        }
        let made = self.make(protocol, dns, factory).await;
        match &made {
            Ok(way) => lane.way.store(Some(way.clone())),
            Err(error) => lane.failed(error),
        }
        made
    }

    /// Uses `way` no more: requests on it end in peace.
    pub(super) fn forget(&self, protocol: WireProtocol, way: &Arc<Way>) {
        self.lanes[protocol as usize].way.compare_and_swap(way, None);
    }

    async fn make(
        &self,
        protocol: WireProtocol,
        dns: &Dns,
        factory: &Arc<dyn EndpointFactory>,
    ) -> Result<Arc<Way>, Error> {
        let addresses = dns.lookup(&self.place.host, self.place.port).await?;
        let changed = Arc::new(Changed(Publisher::new(Arc::new(()))));
        let mut changes = changed.0.reader();
        let plan = self.plan(protocol, &addresses, changed);
        let (address, state) = (plan.endpoint.address, plan.state.clone());
        let factory = factory.clone();
        // The first TLS of a process reads the system's roots, which blocks.
        let handle = tokio::task::spawn_blocking(move || factory.endpoint(plan)).await;
        let handle = handle.map_err(|error| Error::new(Code::INTERNAL, error.to_string()))?;
        handle.connect();
        while !state.is_ready() {
            if state.is_failed() {
                let silent = || Error::new(Code::NO_CONNECTION, format!("cannot connect to {address}"));
                return Err(handle.last_error().unwrap_or_else(silent));
            }
            if changes.changed().await.is_err() {
                return Err(Error::new(Code::SHUT_DOWN, "the runtime that makes connections is gone"));
            }
        }
        Ok(Arc::new(Way { address, state, handle }))
    }

    fn plan(&self, protocol: WireProtocol, addresses: &[SocketAddr], changed: Arc<Changed>) -> EndpointPlan {
        let Place { host, port, .. } = &self.place;
        let (first, others) = addresses.split_first().expect("a lookup gives at least one address");
        EndpointPlan {
            cluster: format!("{host}:{port} (passed through)").into(),
            endpoint: Arc::new(Endpoint {
                address: *first,
                additional: others.to_vec(),
                weight: 1,
                health: Health::Unknown,
                hostname: (&**host).into(),
                metadata: Default::default(),
            }),
            protocol,
            tls: self.tls.clone(),
            connect_timeout: CONNECT_TIMEOUT,
            max_connections: MAX_CONNECTIONS,
            connecting: Arc::new(Semaphore::new(1)),
            eager: false,
            state: Arc::default(),
            changed,
        }
    }
}

impl Lane {
    fn standing(&self) -> Option<Arc<Way>> {
        self.way.load_full().filter(|way| way.state.is_ready())
    }

    fn failed(&self, error: &Error) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        self.failures.fetch_add(1, Ordering::Release);
    }

    fn last_error(&self) -> Option<Error> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Way {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn state(&self) -> &Arc<CandidateState> {
        &self.state
    }

    pub(super) fn call(&self, request: Request<MeshBody>) -> EndpointFuture {
        self.handle.call(request)
    }
}

struct Changed(Publisher<()>);

impl StateListener for Changed {
    fn state_changed(&self) {
        self.0.publish(Arc::new(()));
    }
}

/// As a browser would: the system's roots, and a certificate for this very name. Our own identity is for the mesh.
fn tls_to(host: &str) -> UpstreamTls {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    let address = literal.parse::<IpAddr>().ok();
    // An address is no SNI (RFC 6066, section 3): it is looked for in the certificate (RFC 9110, section 4.3.5).
    let exactly = |ip: IpAddr| SanMatch {
        kind: Some(SanKind::IpAddress),
        matcher: StringMatch { pattern: Pattern::Exact(ip.to_string()), ignore_case: false },
    };
    UpstreamTls {
        identity: None,
        roots: TrustRoots::System,
        sans: address.map(exactly).into_iter().collect(),
        sni: address.is_none().then(|| host.to_owned()),
        auto_host_sni: false,
        auto_sni_san_validation: address.is_none(),
        alpn: Vec::new(),
        checks: Default::default(),
        params: Default::default(),
    }
}
