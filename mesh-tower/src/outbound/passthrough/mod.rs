//! Requests to hosts that are not in the mesh, where the client was built to let them pass: DNS, a connection of our own, TLS
//! for `https`. There is no route and no policy on this way; the call's deadline and its observation are as everywhere.
//!
//! What Istio does with `outboundTrafficPolicy: ALLOW_ANY` and a `PassthroughCluster`. Whether a host is in the mesh is
//! [`resolve`](super::resolve)'s to say, from what the source of configuration said.

mod dns;
mod host;
mod hosts;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::UPGRADE;
use http::uri::Scheme;
use http::{Request, Response};
use mesh_core::dns::Resolve;
use mesh_core::error::{Code, Error};
use mesh_core::model::Name;
use mesh_core::policy::deadline::{deadline, parse_grpc_timeout};
use mesh_core::policy::retry::{Attempts, Next, Now, Outcome};
use mesh_core::target::Target;
use tokio::time::timeout_at;

use self::dns::Dns;
use self::host::Host;
use self::hosts::{Hosts, Place};
use super::deadline::over;
use super::response::ResponseBody;
use super::stage::Call;
use crate::body::MeshBody;
use crate::connect::{EndpointFactory, WireProtocol};
use crate::observe::AttemptEnd;

/// What the cluster of such requests is called in telemetry: Istio's name, so that its dashboards find them.
const CLUSTER: &str = "PassthroughCluster";

/// A request that is let pass, up to its response's head.
pub(crate) type Passing = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Error>> + Send>>;

/// Lets requests pass.
pub(crate) struct Passthrough {
    factory: Arc<dyn EndpointFactory>,
    hosts: Hosts,
    dns: Dns,
}

impl Passthrough {
    /// Connects with `factory` to so many hosts at a time, whose addresses `resolver` knows, and forgets those that no request
    /// went to for `idle`.
    pub(crate) fn new(
        factory: Arc<dyn EndpointFactory>,
        resolver: Arc<dyn Resolve>,
        limit: usize,
        idle: Duration,
    ) -> Self {
        Self { factory, hosts: Hosts::new(limit, idle), dns: Dns(resolver) }
    }

    /// Forgets the hosts that no request went to in a while.
    pub(crate) fn sweep(&self, now: Instant) {
        self.hosts.sweep(now);
    }

    /// Sends a request to the host of its own authority.
    pub(crate) fn send(self: Arc<Self>, request: Request<MeshBody>, call: Call) -> Passing {
        let asked = request.headers().get("grpc-timeout").and_then(|value| parse_grpc_timeout(value.as_bytes()));
        // Without a route nothing but gRPC's own deadline limits a call (Istio's passthrough route has no timeout).
        let until = if call.grpc { deadline(call.started, asked) } else { None };
        let started = call.started;
        Box::pin(async move {
            let exchange = self.exchange(request, call);
            let mut response = match until {
                Some(at) => timeout_at(at.into(), exchange).await.unwrap_or_else(|_| Err(over(started, at)))?,
                None => exchange.await?,
            };
            response.body_mut().limit(until, None, started);
            Ok(response)
        })
    }

    async fn exchange(
        self: Arc<Self>,
        mut request: Request<MeshBody>,
        call: Call,
    ) -> Result<Response<ResponseBody>, Error> {
        call.link.decided(&Name::from(CLUSTER), &Name::from(""), 0);
        let host = self.host_of(&request, &call)?;
        let protocol = protocol_of(&request, &call, host.is_https());
        let mut attempts = Attempts::new(None, &call.facts_of(request.method(), request.uri(), request.headers()));
        loop {
            let way = host.way(protocol, &self.dns, &self.factory).await?;
            let observer = call.link.attempt(1, way.address(), request.headers_mut());
            let failed = match way.call(request).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let (state, address) = (way.state().clone(), way.address());
                    let body = ResponseBody::picked(body, None, state, address, Some(observer), &head);
                    return Ok(Response::from_parts(head, body));
                }
                Err(failed) => failed,
            };
            observer.end(&AttemptEnd { error: Some(&failed.error), ..AttemptEnd::default() });
            // A new connection, to an address that DNS gives now.
            host.forget(protocol, &way);
            match (attempts.next(&Outcome::Failed(failed.failure), now()), failed.request) {
                (Next::Transparent, Some(unsent)) => request = *unsent,
                _ => return Err(failed.error),
            }
        }
    }

    fn host_of(&self, request: &Request<MeshBody>, call: &Call) -> Result<Arc<Host>, Error> {
        let https = request.uri().scheme() == Some(&Scheme::HTTPS);
        let authority = super::authority_of(request.uri(), request.headers());
        let named = Target::from_authority(authority, https)?.authority();
        let (host, port) = named
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
            .ok_or_else(|| Error::new(Code::BAD_TARGET, format!("authority `{named}` is not host:port")))?;
        Ok(self.hosts.find(&Place { host: host.into(), port, https }, call.started))
    }
}

impl std::fmt::Debug for Passthrough {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passthrough").field("factory", &self.factory).finish_non_exhaustive()
    }
}

/// Which HTTP is spoken: ALPN asks, where there is TLS. In plaintext it is HTTP/1.1, unless the request came as HTTP/2 or
/// needs it.
fn protocol_of(request: &Request<MeshBody>, call: &Call, https: bool) -> WireProtocol {
    match (https, call.http2) {
        // gRPC is HTTP/2, and only HTTP/1.1 is upgraded.
        (true, _) if call.grpc && call.http2 => WireProtocol::Http2,
        (true, _) if request.headers().contains_key(UPGRADE) => WireProtocol::Http1,
        (true, _) => WireProtocol::Negotiated,
        (false, true) => WireProtocol::Http2,
        (false, false) => WireProtocol::Http1,
    }
}

fn now() -> Now {
    Now { unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), random: fastrand::u64(..) }
}
