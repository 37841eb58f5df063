//! Puts [`Limit`] around a service.

use tower_layer::Layer;

use super::Limit;

/// Puts [`Limit`] around a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LimitLayer;

impl<S> Layer<S> for LimitLayer {
    type Service = Limit<S>;

    fn layer(&self, inner: S) -> Limit<S> {
        Limit::new(inner)
    }
}
