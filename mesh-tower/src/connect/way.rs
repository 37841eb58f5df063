//! From a plan to a stream that HTTP can be spoken on: dial, pass the hops, make it TLS, agree on a protocol.

use std::sync::Arc;

use mesh_core::error::{Code, Error};
use mesh_core::model::UpstreamTls;

use super::dial::Dial;
use super::hops::Hops;
use super::{ConnectSettings, EndpointPlan, WireProtocol};
use crate::io::BoxStream;
use crate::secure::{Alpn, ClientTls, Protocol, Secure, Secured};

/// The TLS of one policy, shared by all endpoints that are called under it.
#[derive(Debug)]
pub(super) struct Tls {
    policy: Arc<UpstreamTls>,
    protocol: WireProtocol,
    /// Whether the endpoints are Istio's.
    istio: bool,
    /// Offers what the protocol leaves open.
    first: ClientTls,
    /// Offers HTTP/1.1 only: for connections beside one that speaks it.
    http1: ClientTls,
}

impl Tls {
    pub(super) fn new(secure: &Secure, policy: &Arc<UpstreamTls>, protocol: WireProtocol, istio: bool) -> Self {
        let alpn = match protocol {
            WireProtocol::Http1 => Alpn::Http1,
            WireProtocol::Http2 => Alpn::Http2,
            WireProtocol::Negotiated => Alpn::Either,
        };
        let client = |alpn| if istio { secure.client_of_istio(policy, alpn) } else { secure.client(policy, alpn) };
        let first = client(alpn);
        let http1 = if alpn == Alpn::Http1 { first.clone() } else { client(Alpn::Http1) };
        Self { policy: policy.clone(), protocol, istio, first, http1 }
    }

    pub(super) fn is_of(&self, policy: &Arc<UpstreamTls>, protocol: WireProtocol, istio: bool) -> bool {
        Arc::ptr_eq(&self.policy, policy) && self.protocol == protocol && self.istio == istio
    }

    fn client(&self, protocol: WireProtocol) -> &ClientTls {
        if protocol == WireProtocol::Http1 { &self.http1 } else { &self.first }
    }
}

/// Everything that is needed to connect to one endpoint.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) plan: EndpointPlan,
    pub(super) settings: ConnectSettings,
    /// The endpoint in texts: `endpoint 10.0.0.1:80 of cluster `a``.
    pub(super) peer: String,
    hops: Hops,
    dial: Arc<dyn Dial>,
    tls: Option<Arc<Tls>>,
}

/// A stream and what to speak on it.
pub(super) enum Wire {
    Http1(BoxStream),
    Http2(BoxStream),
}

impl Way {
    pub(super) fn new(
        plan: EndpointPlan,
        settings: ConnectSettings,
        dial: Arc<dyn Dial>,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        let peer = peer_name(&plan);
        Self { plan, settings, peer, hops: Hops::direct(), dial, tls }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// A new stream on which `protocol` is spoken.
    pub(super) async fn open(&self, protocol: WireProtocol) -> Result<Wire, Error> {
        let io = self.dial.dial(&self.plan.endpoint, &self.hops).await.map_err(|error| {
            Error::new(Code::NO_CONNECTION, format!("cannot connect to {}: {error}", self.peer)).with_source(error)
        })?;
        let Some(tls) = &self.tls else {
            return Ok(wire(io, protocol == WireProtocol::Http2));
        };
        let endpoint = &self.plan.endpoint;
        let secured = tls.client(protocol).connect(io, Some(&endpoint.hostname), endpoint.address).await?;
        self.agreed(secured, protocol)
    }

    /// What the two sides agreed to speak. A server that chose nothing, or a name of the policy's own, is taken to speak what
    /// the cluster says it does.
    fn agreed(&self, secured: Secured, protocol: WireProtocol) -> Result<Wire, Error> {
        let is_http2 = match secured.alpn {
            Some(Protocol::Http2) => true,
            Some(Protocol::Http1) => false,
            Some(Protocol::Other) | None => protocol == WireProtocol::Http2,
        };
        match (protocol, is_http2) {
            (WireProtocol::Http1, true) => Err(self.disagreed("HTTP/2", "HTTP/1.1")),
            (WireProtocol::Http2, false) => Err(self.disagreed("HTTP/1.1", "HTTP/2")),
            (_, is_http2) => Ok(wire(secured.io, is_http2)),
        }
    }

    fn disagreed(&self, chosen: &str, wanted: &str) -> Error {
        Error::new(Code::PROTOCOL, format!("{} chose {chosen} by ALPN, but is to be spoken to in {wanted}", self.peer))
            .with_next_step("correct alpn_protocols of the cluster's TLS, or its protocol options")
    }

    /// That no connection may be made.
    pub(super) fn withdrawn(&self) -> Error {
        Error::new(
            Code::NO_CONNECTION,
            format!("{} was withdrawn by the control plane, and no connection to it is left", self.peer),
        )
    }

    /// That connecting took longer than the cluster lets it.
    pub(super) fn timed_out(&self) -> Error {
        let limit = self.plan.connect_timeout;
        Error::new(Code::CONNECTION_TIMEOUT, format!("no connection to {} stood within {limit:?}", self.peer))
    }
}

/// How an endpoint is called in texts.
pub(super) fn peer_name(plan: &EndpointPlan) -> String {
    format!("endpoint {} of cluster `{}`", plan.endpoint.address, plan.cluster)
}

fn wire(io: BoxStream, is_http2: bool) -> Wire {
    if is_http2 { Wire::Http2(io) } else { Wire::Http1(io) }
}
