//! Puts [`Redirect`] around a service.

use tower_layer::Layer;

use super::Redirect;

/// Puts [`Redirect`] around a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RedirectLayer {
    /// How many bytes of a request's body are kept for another route.
    pub(crate) replay_bytes: usize,
    /// Whether connections are ours to make, so that `https` in a redirect's URL is ours to keep.
    pub(crate) own_connections: bool,
}

impl<S> Layer<S> for RedirectLayer {
    type Service = Redirect<S>;

    fn layer(&self, inner: S) -> Redirect<S> {
        Redirect::new(inner, *self)
    }
}
