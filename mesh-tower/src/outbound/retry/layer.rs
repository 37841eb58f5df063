//! Puts [`Retry`] around a service.

use tower_layer::Layer;

use super::Retry;

/// Puts [`Retry`] around a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryLayer {
    /// How many bytes of a request's body are kept for another attempt.
    pub(crate) replay_bytes: usize,
    /// Whether endpoints may look at a request's extensions: those of our own connections do not.
    pub(crate) keep_extensions: bool,
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry::new(inner, *self)
    }
}
