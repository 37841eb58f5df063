//! The inbound layer's service: admits a request up to its filters, and hands it to [`InboundFuture`].

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Extensions, Request, Response, request};
use http_body::Body;
use mesh_core::error::{Code, Error};
use mesh_core::identity::PeerIdentity;
use mesh_core::policy::origin::client_address;
use mesh_core::route::facts::is_grpc;
use tower_service::Service;

use super::InboundFuture;
use crate::filter::FilterRun;
use crate::inbound::BoxError;
use crate::inbound::identify::PeerInfo;
use crate::inbound::normalize::{Asked, Refusal, normalize};
use crate::inbound::slot::InboundSlot;
use crate::inbound::split::Half;
use crate::inbound::{Reporting, RequestFacts};
use crate::observe::{ServedFacts, ServedObserver};
use crate::reply::ReplyBody;

/// A service behind the inbound layer. It is always ready and never fails: errors of the application become responses.
#[derive(Debug, Clone)]
pub struct InboundService<S> {
    inner: S,
    slot: Arc<InboundSlot>,
    half: Option<Arc<Half>>,
}

impl<S> InboundService<S> {
    pub(crate) fn new(inner: S, slot: Arc<InboundSlot>, half: Option<Arc<Half>>) -> Self {
        Self { inner, slot, half }
    }
}

impl<S, B, R> Service<Request<B>> for InboundService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Response = Response<ReplyBody<R>>;
    type Error = Infallible;
    type Future = InboundFuture<S, B>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The application is asked once the request is admitted: a refusal needs no readiness.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let mut served = self.observe(&parts);
        let asked = Asked::of(&parts);
        match self.admit(&mut parts) {
            Ok(run) => {
                if let Some(served) = &mut served {
                    served.decided(&run.facts().route.name, run.facts().config_version);
                }
                let report = self.slot.options().load_reports.as_ref().map(Reporting::new);
                if let Some(report) = &report {
                    parts.extensions.insert(report.recorder());
                }
                let request = Request::from_parts(parts, body);
                InboundFuture::admitted(self.inner.clone(), request, run, served, report).asking(asked)
            }
            Err(refusal) => {
                let Refusal { why, reply } = *refusal;
                tracing::debug!(target: "mesh", "refused {} {}: {why}", parts.method, parts.uri.path());
                InboundFuture::refused(reply, is_grpc(&parts.headers), served).asking(asked)
            }
        }
    }
}

impl<S> InboundService<S> {
    fn observe(&self, parts: &request::Parts) -> Option<ServedObserver> {
        let telemetry = self.slot.options().telemetry.as_ref()?;
        let peer = parts.extensions.get::<PeerInfo>();
        Some(telemetry.served(&ServedFacts {
            calls: self.slot.calls(),
            method: &parts.method,
            path: parts.uri.path(),
            grpc: is_grpc(&parts.headers),
            secure: peer.is_some_and(PeerInfo::is_tls),
            peer: peer.map(PeerInfo::remote_addr),
            headers: &parts.headers,
        }))
    }

    fn admit(&self, parts: &mut request::Parts) -> Result<FilterRun<RequestFacts>, Box<Refusal>> {
        let peer = self.identify(&mut parts.extensions)?;
        show_identity(&peer, &mut parts.extensions);
        let connection = peer.connection();
        let routes = connection.chain.routes();
        // Before the peer's own address is written into the header.
        let client = client_address(&routes.http().origin, &parts.headers, peer.remote_addr().ip());
        normalize(parts, routes.http(), &peer, client)?;
        let found = routes.find(parts, &peer, fastrand::u64(..))?;
        let facts = RequestFacts {
            grpc: is_grpc(&parts.headers),
            config_version: routes.version(),
            client,
            route: found.route,
            host: found.host,
            peer: peer.clone(),
        };
        Ok(FilterRun::new(found.filters, facts))
    }

    /// The request's connection, if it is one of the listener that this layer belongs to.
    fn identify(&self, extensions: &mut Extensions) -> Result<PeerInfo, Error> {
        let Some(peer) = find_peer(extensions) else {
            if let Some(half) = &self.half {
                half.allow_refusal();
            }
            let error = Error::new(Code::HALF_SERVER, "the request carries no connection of a mesh listener");
            return Err(self.misuse(error.with_next_step(NO_CONNECTION)));
        };
        peer.connection().mark_seen();
        if !Arc::ptr_eq(&peer.connection().slot, &self.slot) {
            return Err(
                self.misuse(Error::new(Code::HALF_SERVER, "the request came over the listener of another split()"))
            );
        }
        Ok(peer)
    }

    fn misuse(&self, error: Error) -> Error {
        if let Some(half) = &self.half {
            half.complain(&error);
        }
        error
    }
}

/// What usually helps whose requests carry no connection.
const NO_CONNECTION: &str = "serve on the listener that split() gave together with the layer; with axum::serve, pass it \
     `router.into_make_service_with_connect_info::<PeerInfo>()`";

/// Puts the client's identity where applications look for it. One that anybody else has put there proves nothing.
fn show_identity(peer: &PeerInfo, extensions: &mut Extensions) {
    match peer.identity() {
        Some(identity) => drop(extensions.insert(identity.clone())),
        None => drop(extensions.remove::<PeerIdentity>()),
    }
}

/// tonic and plain hyper put the [`PeerInfo`] itself into the extensions; axum wraps it.
fn find_peer(extensions: &mut Extensions) -> Option<PeerInfo> {
    if let Some(peer) = extensions.get::<PeerInfo>() {
        return Some(peer.clone());
    }
    #[cfg(feature = "axum")]
    if let Some(axum::extract::ConnectInfo(peer)) = extensions.get::<axum::extract::ConnectInfo<PeerInfo>>().cloned() {
        extensions.insert(peer.clone());
        return Some(peer);
    }
    None
}
