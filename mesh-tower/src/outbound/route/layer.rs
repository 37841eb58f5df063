//! Puts [`Route`] around a service.

use std::sync::Arc;

use tower_layer::Layer;

use super::Route;
use crate::outbound::target::Targets;

/// Puts [`Route`] around a service.
#[derive(Clone)]
pub(crate) struct RouteLayer {
    targets: Arc<Targets>,
}

impl RouteLayer {
    pub(crate) fn new(targets: Arc<Targets>) -> Self {
        Self { targets }
    }
}

impl<S> Layer<S> for RouteLayer {
    type Service = Route<S>;

    fn layer(&self, inner: S) -> Route<S> {
        Route::new(inner, self.targets.clone())
    }
}
