//! Puts [`Pick`] around a service.

use tower_layer::Layer;

use super::Pick;

/// Puts [`Pick`] around a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PickLayer;

impl<S> Layer<S> for PickLayer {
    type Service = Pick<S>;

    fn layer(&self, inner: S) -> Pick<S> {
        Pick::new(inner)
    }
}
