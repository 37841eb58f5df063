//! The inbound stack, in request order, as one Tower layer:
//!
//! ```text
//! identify   is this a connection of our listener, and whose?
//! normalize  one authority, one spelling of the path; what is ambiguous is answered 400
//! route      virtual host, route, non_forwarding_action
//! filters    the Listener's HTTP filters in order, with the route's overrides
//! handler    the application; its panics fail its own request only
//! ```

mod future;
mod service;

use std::sync::Arc;

use tower_layer::Layer;

use super::slot::InboundSlot;
use super::split::Half;

pub use future::InboundFuture;
pub use service::InboundService;

/// Applies a Listener's rules to the requests of its connections: the other half of
/// [`MeshListener`](super::MeshListener).
///
/// It must be the outermost layer that can answer a request. Requests of other connections are refused.
#[derive(Debug, Clone)]
pub struct InboundLayer {
    slot: Arc<InboundSlot>,
    half: Option<Arc<Half>>,
}

impl InboundLayer {
    pub(crate) fn new(slot: Arc<InboundSlot>, half: Option<Arc<Half>>) -> Self {
        Self { slot, half }
    }
}

impl<S> Layer<S> for InboundLayer {
    type Service = InboundService<S>;

    fn layer(&self, inner: S) -> InboundService<S> {
        if let Some(half) = &self.half {
            half.install();
        }
        InboundService::new(inner, self.slot.clone(), self.half.clone())
    }
}
