//! Copies each request that its route wants to have copied.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::Authority;
use http::{Request, Response};
use http_body_util::BodyExt;
use mesh_core::error::Error;
use mesh_core::model::{ClusterChoice, Mirror as Policy, Name};
use mesh_core::policy::limit::BreakerGuard;
use mesh_core::resource::canonical_name;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tower_service::Service;

use super::MirrorLayer;
use super::tee::tee;
use crate::body::MeshBody;
use crate::observe::CallLink;
use crate::outbound::cluster::ClusterHandle;
use crate::outbound::shape::set_authority;
use crate::outbound::stage::{Attempt, AttemptFailed, Call, Routed, Tried};
use crate::outbound::{ResponseBody, authority_of};

/// How long a copy may take where its call has no limit: Envoy's route timeout.
const PATIENCE: Duration = Duration::from_secs(15);

/// Copies requests.
#[derive(Debug, Clone)]
pub(crate) struct Mirror<S, A> {
    inner: S,
    settings: MirrorLayer<A>,
}

impl<S, A> Mirror<S, A> {
    pub(super) fn new(inner: S, settings: MirrorLayer<A>) -> Self {
        Self { inner, settings }
    }
}

impl<S, A> Service<Routed> for Mirror<S, A>
where
    S: Service<Routed, Response = Response<ResponseBody>, Error = Error>,
    A: Service<Attempt, Response = Response<ResponseBody>, Error = AttemptFailed> + Clone + Send + 'static,
    A::Future: Send,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut routed: Routed) -> S::Future {
        if !policies(&routed).is_empty() {
            self.copy(&mut routed);
        }
        self.inner.call(routed)
    }
}

/// The mirrors of a request: its route's, or the virtual host's, or the table's.
fn policies(routed: &Routed) -> &[Policy] {
    let of_route = routed.forward().map(|forward| forward.mirrors.as_slice()).unwrap_or_default();
    let levels = [of_route, &routed.decision.host.mirrors, &routed.view.table().mirrors];
    levels.into_iter().find(|level| !level.is_empty()).unwrap_or_default()
}

impl<S, A> Mirror<S, A>
where
    A: Service<Attempt, Response = Response<ResponseBody>, Error = AttemptFailed> + Clone + Send + 'static,
    A::Future: Send,
{
    fn copy(&self, routed: &mut Routed) {
        let mut chosen = Vec::new();
        for policy in policies(routed).iter().filter(|policy| policy.fraction.contains(fastrand::u64(..))) {
            match destination(policy, routed) {
                Some(cluster) => chosen.push((cluster, policy.keep_host)),
                // The configuration asks for it, and the answer must not depend on it.
                None => tracing::debug!(target: "mesh", "a mirror is left out: its cluster takes no requests"),
            }
        }
        for (cluster, keep_host) in chosen {
            let Some(guard) = self.settings.active.enter(self.settings.most) else {
                tracing::debug!(target: "mesh", "a mirror is left out: {} are under way", self.settings.most);
                return;
            };
            let Ok(runtime) = Handle::try_current() else { return };
            let until = routed.deadline.map_or_else(|| Instant::now() + PATIENCE, Instant::from);
            let attempt = attempt(routed, cluster, keep_host);
            runtime.spawn(send(self.settings.attempts.clone(), attempt, until, guard));
        }
    }
}

fn destination(policy: &Policy, routed: &Routed) -> Option<Arc<ClusterHandle>> {
    let name: Name = match &policy.cluster {
        ClusterChoice::Cluster(name) => name.clone(),
        ClusterChoice::Header(header) => canonical_name(routed.request.headers().get(header)?.to_str().ok()?),
        _ => return None,
    };
    routed.view.cluster(&name)?.ok()
}

/// The copy: the request as it leaves, with a host that says what it is unless the policy keeps it.
fn attempt(routed: &mut Routed, cluster: Arc<ClusterHandle>, keep_host: bool) -> Attempt {
    let (kept, copy) = tee(std::mem::take(routed.request.body_mut()));
    *routed.request.body_mut() = kept;
    let mut request = Request::new(copy);
    *request.method_mut() = routed.request.method().clone();
    *request.uri_mut() = routed.request.uri().clone();
    *request.version_mut() = routed.request.version();
    *request.headers_mut() = routed.request.headers().clone();
    if !keep_host {
        mark_host(&mut request);
    }
    Attempt {
        request,
        // It is no part of the call: neither its spans nor its waiting.
        call: Call { link: CallLink::off(), wait_for_ready: false, ..routed.call.clone() },
        cluster,
        view: routed.view.clone(),
        hash: routed.hash,
        number: 1,
        tried: Tried::default(),
        choice: None,
        // A copy asks for no subset (Envoy).
        metadata: None,
        auto_host: false,
    }
}

/// `svc.test:80` becomes `svc.test-shadow:80` (Envoy).
fn mark_host(request: &mut Request<MeshBody>) {
    let said = authority_of(request.uri(), request.headers());
    let Ok(authority) = said.parse::<Authority>() else { return };
    let marked = match authority.port() {
        Some(port) => format!("{}-shadow:{port}", authority.host()),
        None => format!("{}-shadow", authority.host()),
    };
    if let Ok(marked) = Authority::try_from(marked) {
        // A URI with another authority is still one.
        let _ = set_authority(request, marked);
    }
}

/// Sends a copy, reads its answer to the end, so that its connection can be used again, and forgets both.
async fn send<A>(mut attempts: A, attempt: Attempt, until: Instant, guard: BreakerGuard)
where
    A: Service<Attempt, Response = Response<ResponseBody>, Error = AttemptFailed>,
{
    let exchange = async {
        let mut body = pin!(attempts.call(attempt).await.ok()?.into_body());
        while let Some(Ok(_)) = body.frame().await {}
        Some(())
    };
    let _ = tokio::time::timeout_at(until, exchange).await;
    drop(guard);
}
