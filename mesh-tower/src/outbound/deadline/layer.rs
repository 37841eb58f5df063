//! Puts [`Deadline`] around a service.

use tower_layer::Layer;

use super::{Deadline, From};

/// Puts [`Deadline`] around a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeadlineLayer(pub(crate) From);

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline::new(inner, self.0)
    }
}
