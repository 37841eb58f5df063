//! Puts [`Resolve`] around a service.

use tower_layer::Layer;

use super::{Resolve, Way};

/// Puts [`Resolve`] around a service.
#[derive(Debug, Clone)]
pub(crate) struct ResolveLayer {
    way: Way,
    channel_id: u64,
    own_connections: bool,
}

impl ResolveLayer {
    pub(crate) fn new(way: Way, channel_id: u64, own_connections: bool) -> Self {
        Self { way, channel_id, own_connections }
    }
}

impl<S> Layer<S> for ResolveLayer {
    type Service = Resolve<S>;

    fn layer(&self, inner: S) -> Resolve<S> {
        Resolve::new(inner, self.way.clone(), self.channel_id, self.own_connections)
    }
}
