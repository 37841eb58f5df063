//! Puts [`Mirror`] around a service.

use std::sync::Arc;

use mesh_core::policy::limit::Breaker;
use tower_layer::Layer;

use super::Mirror;

/// Puts [`Mirror`] around a service. `attempts` is where copies go.
#[derive(Debug, Clone)]
pub(crate) struct MirrorLayer<A> {
    pub(super) attempts: A,
    /// Copies in flight, of all requests of a client.
    pub(super) active: Arc<Breaker>,
    pub(super) most: u32,
}

impl<A> MirrorLayer<A> {
    pub(crate) fn new(attempts: A, most: u32) -> Self {
        Self { attempts, active: Arc::default(), most }
    }
}

impl<S, A: Clone> Layer<S> for MirrorLayer<A> {
    type Service = Mirror<S, A>;

    fn layer(&self, inner: S) -> Mirror<S, A> {
        Mirror::new(inner, self.clone())
    }
}
