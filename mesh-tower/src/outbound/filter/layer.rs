//! Puts [`Filter`] around a service.

use tower_layer::Layer;

use super::Filter;

/// Puts [`Filter`] around a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FilterLayer;

impl<S> Layer<S> for FilterLayer {
    type Service = Filter<S>;

    fn layer(&self, inner: S) -> Filter<S> {
        Filter::new(inner)
    }
}
