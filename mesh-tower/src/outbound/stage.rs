//! What a request is at each stage of its way. Every layer takes one stage and gives the next, so that a wrong order does
//! not compile.
//!
//! ```text
//! Arrived -> Resolved -> Routed -> Attempt -> Picked
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::Request;
use mesh_core::balance::{CandidateState, PickGuard};
use mesh_core::error::Error;
use mesh_core::model::{Action, Forward, Metadata, RetryPolicy};
use mesh_core::policy::internal_redirect::Trail;
use mesh_core::policy::retry::Failure;
use mesh_core::policy::steering::Steering;
use mesh_core::route::{Decision, RequestFacts};

use super::cluster::ClusterHandle;
use super::downstream::Downstream;
use super::view::TargetView;
use crate::body::MeshBody;
use crate::connect::{EndpointHandle, Failed};
use crate::filter::DynamicMetadata;
use crate::observe::{AttemptObserver, CallLink};

/// A request as it comes from the client.
pub(crate) struct Arrived {
    pub(crate) request: Request<MeshBody>,
    pub(crate) link: CallLink,
}

/// A request whose target is known and has a configuration.
pub(crate) struct Resolved {
    pub(crate) request: Request<MeshBody>,
    pub(crate) call: Call,
    /// The configuration it is under to its end.
    pub(crate) view: Arc<TargetView>,
    /// What chooses the virtual host if it is not the request's authority: a fixed target.
    pub(crate) authority: Option<Arc<str>>,
    /// All the chance that the decision has.
    pub(crate) dice: u64,
    /// The redirects that have led here.
    pub(crate) trail: Option<Box<Trail>>,
}

/// What is known of a call from its beginning.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Whom to tell what becomes of it.
    pub(crate) link: CallLink,
    /// When it began.
    pub(crate) started: Instant,
    /// Whether it follows gRPC's rules.
    pub(crate) grpc: bool,
    /// Whether the caller asks for TLS (`https`) of a connection that is ours to make.
    pub(crate) https: bool,
    /// Whether it came as HTTP/2, or needs it.
    pub(crate) http2: bool,
    /// Whether it waits for an endpoint where others fail.
    pub(crate) wait_for_ready: bool,
    /// Whether its caller may steer policies by headers ([`InternalCaller`](super::InternalCaller)).
    pub(crate) internal: bool,
    /// The connection it was taken from, if it was.
    pub(crate) downstream: Downstream,
    /// A random number of the client it was made with.
    pub(crate) channel_id: u64,
    /// What is known of the request beside its head.
    pub(crate) metadata: Option<DynamicMetadata>,
}

/// A request whose route and cluster are decided, once for all its attempts.
pub(crate) struct Routed {
    pub(crate) request: Request<MeshBody>,
    pub(crate) call: Call,
    pub(crate) view: Arc<TargetView>,
    pub(crate) decision: Decision,
    /// The cluster it goes to. None: the route answers itself.
    pub(crate) cluster: Option<Result<Arc<ClusterHandle>, Error>>,
    /// The request's hash, for policies that keep alike requests together.
    pub(crate) hash: Option<u64>,
    /// When the call must be over.
    pub(crate) deadline: Option<Instant>,
    /// What the request itself asks of the policies.
    pub(crate) steering: Option<Box<Steering>>,
    /// The redirects that have led here.
    pub(crate) trail: Option<Box<Trail>>,
}

/// One attempt of a request.
pub(crate) struct Attempt {
    pub(crate) request: Request<MeshBody>,
    pub(crate) call: Call,
    pub(crate) cluster: Arc<ClusterHandle>,
    pub(crate) view: Arc<TargetView>,
    pub(crate) hash: Option<u64>,
    /// From 1; transparent repetitions do not count.
    pub(crate) number: u32,
    /// The endpoints that this call was sent to, to be avoided.
    pub(crate) tried: Tried,
    /// What a retry is to leave alone beside them; None: nothing.
    pub(crate) choice: Option<Arc<RetryPolicy>>,
    /// Which subset of the endpoints takes it; None: it asks for none.
    pub(crate) metadata: Option<Arc<Metadata>>,
    /// Whether the picked endpoint's hostname becomes the authority.
    pub(crate) auto_host: bool,
}

/// An attempt with its endpoint.
pub(crate) struct Picked {
    pub(crate) request: Request<MeshBody>,
    pub(crate) way: Arc<dyn EndpointHandle>,
    pub(crate) observer: AttemptObserver,
    pub(crate) guard: PickGuard,
    pub(crate) state: Arc<CandidateState>,
    pub(crate) address: SocketAddr,
}

/// The endpoints that a call was sent to, in order; few, and mostly none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tried(Vec<(Arc<CandidateState>, Avoid)>);

/// Whether an endpoint that a call was sent to is to be avoided by the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Avoid {
    /// While another one will do.
    Yes,
    /// It may be asked again; its priority may count.
    No,
}

impl Tried {
    pub(crate) fn add(&mut self, state: Arc<CandidateState>, avoid: Avoid) {
        self.0.push((state, avoid));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the endpoint is to be avoided.
    pub(crate) fn avoids(&self, state: &Arc<CandidateState>) -> bool {
        self.0.iter().any(|(tried, avoid)| *avoid == Avoid::Yes && Arc::ptr_eq(tried, state))
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<CandidateState>> {
        self.0.iter().map(|(tried, _)| tried)
    }
}

/// An attempt under way that can say where it is, for when it is given up.
pub(crate) trait At {
    /// The endpoint it was sent to; None while it looks for one.
    fn endpoint(&self) -> Option<&Arc<CandidateState>>;
}

/// Why an attempt has no response.
#[derive(Debug)]
pub(crate) struct AttemptFailed {
    pub(crate) failure: Failure,
    pub(crate) error: Error,
    /// The request, if none of it has left.
    pub(crate) request: Option<Box<Request<MeshBody>>>,
    /// The endpoint it was sent to.
    pub(crate) picked: Option<Arc<CandidateState>>,
}

impl AttemptFailed {
    /// The mesh itself refuses the attempt.
    pub(crate) fn refused(error: Error) -> Self {
        Self { failure: Failure::Refusal, error, request: None, picked: None }
    }

    pub(crate) fn at(failed: Failed, picked: Arc<CandidateState>) -> Self {
        Self { failure: failed.failure, error: failed.error, request: failed.request, picked: Some(picked) }
    }
}

impl Routed {
    /// The route's action, if it is to forward.
    pub(crate) fn forward(&self) -> Option<&Forward> {
        forward_of(&self.decision)
    }
}

/// The action of a decision's route, if it is to forward.
pub(crate) fn forward_of(decision: &Decision) -> Option<&Forward> {
    match &decision.route.action {
        Action::Forward(forward) => Some(forward),
        _ => None,
    }
}

impl Call {
    /// What routes and policies may ask of a request.
    pub(crate) fn facts_of<'a>(
        &'a self,
        method: &'a http::Method,
        uri: &'a http::Uri,
        headers: &'a http::HeaderMap,
    ) -> RequestFacts<'a> {
        RequestFacts {
            method,
            scheme: uri.scheme_str().unwrap_or("http"),
            authority: super::authority_of(uri, headers),
            path: uri.path_and_query().map_or("", |path| path.as_str()),
            headers,
            is_grpc: self.grpc,
            tls: self.downstream.tls(),
            source_ip: self.downstream.remote().map(|remote| remote.ip()),
            is_internal: self.internal,
            channel_id: self.channel_id,
            metadata: self.metadata.as_ref().map(|found| &found.0),
        }
    }
}
