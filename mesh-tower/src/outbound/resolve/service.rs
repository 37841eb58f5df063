//! Finds the target of each request.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::HOST;
use http::uri::Scheme;
use http::{Request, Response, Version};
use mesh_core::error::{Code, Error};
use mesh_core::policy::deadline::{deadline, parse_grpc_timeout};
use mesh_core::route::facts::is_grpc;
use tower_service::Service;

use super::ResolveFuture;
use crate::body::MeshBody;
use crate::filter::DynamicMetadata;
use crate::observe::CallLink;
use crate::outbound::client::{InternalCaller, WaitForReady};
use crate::outbound::downstream::Downstream;
use crate::outbound::stage::{Arrived, Call, Resolved};
use crate::outbound::target::{NoConfig, Pinned, TargetSlot, TargetState, Targets};
use crate::outbound::{Passthrough, ResponseBody, authority_of};

/// How a client finds its targets.
#[derive(Clone)]
pub(crate) enum Way {
    /// From each request's authority. Hosts that are not in the mesh are let pass, if there is where to.
    ByAuthority { targets: Arc<Targets>, passthrough: Option<Arc<Passthrough>> },
    /// Always this one; virtual hosts are chosen by `authority`, whatever the request says (gRFC A47).
    Fixed { target: Arc<Pinned>, authority: Arc<str> },
    /// There is none: every request fails so.
    Refused(Error),
}

impl Way {
    /// Where requests to hosts that are not in the mesh go.
    pub(super) fn passthrough(&self) -> Option<&Arc<Passthrough>> {
        match self {
            Self::ByAuthority { passthrough, .. } => passthrough.as_ref(),
            Self::Fixed { .. } | Self::Refused(_) => None,
        }
    }

    /// The error of a request whose target has no configuration. A fixed target was named by the application; any other is
    /// a host that a request happened to name.
    pub(super) fn missing(&self, why: &NoConfig) -> Error {
        if !why.absent || !matches!(self, Self::ByAuthority { .. }) {
            return why.error.clone();
        }
        let text = format!("the host is not in the mesh: {}", why.error.message());
        Error::new(Code::UNKNOWN_HOST, text).with_source(why.error.clone())
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByAuthority { passthrough, .. } => {
                f.debug_struct("ByAuthority").field("passthrough", passthrough).finish_non_exhaustive()
            }
            Self::Refused(error) => f.debug_tuple("Refused").field(error).finish(),
            Self::Fixed { target, .. } => f.debug_tuple("Fixed").field(target.slot()).finish(),
        }
    }
}

/// Gives each request its target.
#[derive(Debug, Clone)]
pub(crate) struct Resolve<S> {
    inner: S,
    way: Way,
    channel_id: u64,
    own_connections: bool,
}

impl<S> Resolve<S> {
    pub(super) fn new(inner: S, way: Way, channel_id: u64, own_connections: bool) -> Self {
        Self { inner, way, channel_id, own_connections }
    }

    fn call_of(&self, request: &Request<MeshBody>, link: CallLink) -> Call {
        let downstream = Downstream::of(request.extensions());
        Call {
            link,
            started: tokio::time::Instant::now().into_std(),
            grpc: is_grpc(request.headers()),
            https: self.own_connections && asks_for_tls(request, &downstream),
            // Nobody need have thought of the version of a request that was made here: gRPC then means HTTP/2. One that was
            // taken over HTTP/1.1 and is passed on goes on as it came.
            http2: request.version() == Version::HTTP_2 || (is_grpc(request.headers()) && !downstream.is_there()),
            wait_for_ready: request.extensions().get::<WaitForReady>().is_some(),
            internal: request.extensions().get::<InternalCaller>().is_some(),
            downstream,
            channel_id: self.channel_id,
            metadata: request.extensions().get::<DynamicMetadata>().cloned(),
        }
    }

    fn find(&self, request: &Request<MeshBody>, call: &Call) -> Result<(Arc<TargetSlot>, Option<Arc<str>>), Error> {
        match &self.way {
            Way::Refused(error) => Err(error.clone()),
            Way::Fixed { target, authority } => Ok((target.slot().clone(), Some(authority.clone()))),
            Way::ByAuthority { targets, .. } => {
                let authority = authority_of(request.uri(), request.headers());
                if authority.is_empty() && !request.headers().contains_key(HOST) {
                    return Err(Error::new(Code::BAD_TARGET, "the request has neither an authority nor a host header"));
                }
                let https = request.uri().scheme() == Some(&Scheme::HTTPS);
                Ok((targets.find(authority, https, call.started)?, None))
            }
        }
    }
}

impl<S> Service<Arrived> for Resolve<S>
where
    S: Service<Resolved, Response = Response<ResponseBody>, Error = Error> + Clone,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ResolveFuture<S>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, arrived: Arrived) -> ResolveFuture<S> {
        let Arrived { request, link } = arrived;
        let call = self.call_of(&request, link);
        let (slot, authority) = match self.find(&request, &call) {
            Ok(found) => found,
            Err(error) => return ResolveFuture::failed(error),
        };
        match (&*slot.current(), self.way.passthrough()) {
            (TargetState::Ready(view), _) => {
                let resolved =
                    Resolved { request, call, view: view.clone(), authority, dice: fastrand::u64(..), trail: None };
                return ResolveFuture::found(self.inner.call(resolved));
            }
            (TargetState::Missing(why), Some(passthrough)) if why.absent => {
                return ResolveFuture::passing(passthrough.clone().send(request, call));
            }
            _ => {}
        }
        // The route's limits are not known yet; the caller's own is.
        let asked = request.headers().get("grpc-timeout").and_then(|value| parse_grpc_timeout(value.as_bytes()));
        let until = if call.grpc { deadline(call.started, asked) } else { None };
        ResolveFuture::waiting(self.inner.clone(), self.way.clone(), slot, request, call, authority, until)
    }
}

/// Whether the application asks for TLS. The scheme of a request that it passes on says how that one came.
fn asks_for_tls(request: &Request<MeshBody>, downstream: &Downstream) -> bool {
    !downstream.is_there() && request.uri().scheme() == Some(&Scheme::HTTPS)
}
