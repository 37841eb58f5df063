//! Puts [`Resolve`] around a service.

use tower_layer::Layer;

use super::{Resolve, Way};

/// Puts [`Resolve`] around a service.
#[derive(Debug, Clone)]
pub(crate) struct ResolveLayer {
    way: Way,
    channel_id: u64,
}

impl ResolveLayer {
    pub(crate) fn new(way: Way, channel_id: u64) -> Self {
        Self { way, channel_id }
    }
}

impl<S> Layer<S> for ResolveLayer {
    type Service = Resolve<S>;

    fn layer(&self, inner: S) -> Resolve<S> {
        Resolve::new(inner, self.way.clone(), self.channel_id)
    }
}
