//! Questions of filters to other servers: to a cluster, by the mesh's own client, so that TLS, balancing and identity are
//! those of any other request.

use std::fmt;
use std::sync::Arc;

use http::uri::Authority;
use mesh_core::error::Error;
use mesh_core::model::Name;
use mesh_core::target;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::mesh::{ClientRecord, InFlight};
use crate::observe::Telemetry;
use crate::outbound::{HttpClient, OutboundOptions, Targets, Way, stack};

/// Makes clients for filters, each for one cluster. A handle; clones are the same.
#[derive(Clone)]
pub struct Callouts(Arc<Shared>);

struct Shared {
    targets: Arc<Targets>,
    options: OutboundOptions,
    telemetry: Telemetry,
    runtime: Handle,
}

impl Callouts {
    pub(crate) fn new(targets: Arc<Targets>, options: OutboundOptions, telemetry: Telemetry, runtime: Handle) -> Self {
        Self(Arc::new(Shared { targets, options, telemetry, runtime }))
    }

    /// A client all of whose requests go to the cluster `cluster`, which is subscribed to for as long as the client lives.
    /// There are no routes, filters and retries on its way, and no limit of time: its user has one. A cluster that is not
    /// there fails requests.
    ///
    /// # Errors
    ///
    /// [`Code::TOO_MANY_TARGETS`](mesh_core::error::Code::TOO_MANY_TARGETS).
    pub fn client(&self, cluster: &Name, authority: Authority) -> Result<HttpClient, Error> {
        let Shared { targets, options, telemetry, .. } = &*self.0;
        let pinned = Arc::new(targets.pin_listener(&target::of_cluster(cluster))?);
        let way = Way::Fixed { target: pinned, authority: cluster.clone() };
        let record = ClientRecord::new(&way);
        let stack = stack(way, targets.clone(), options, false);
        // Not the mesh's count of requests: a server that drains still asks whether its last requests may pass. And it does
        // not keep the mesh alive: the mesh's servers hold it.
        let alone = (Arc::<InFlight>::default(), Arc::new(()));
        Ok(HttpClient::new(stack, Some(authority), alone.0, telemetry.clone(), record, alone.1))
    }

    /// Does work on the application's runtime, whose threads requests are on. It ends when what is returned is dropped.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Work {
        Work(self.0.runtime.spawn(work))
    }
}

/// Work that ends with whoever asked for it.
#[derive(Debug)]
pub(crate) struct Work(JoinHandle<()>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Callouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callouts").finish_non_exhaustive()
    }
}
