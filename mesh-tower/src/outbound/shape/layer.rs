//! Puts [`Shape`] around a service.

use tower_layer::Layer;

use super::Shape;

/// Puts [`Shape`] around a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShapeLayer;

impl<S> Layer<S> for ShapeLayer {
    type Service = Shape<S>;

    fn layer(&self, inner: S) -> Shape<S> {
        Shape::new(inner)
    }
}
