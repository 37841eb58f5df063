//! Bodies of which a filter reads the beginning, and that go on whole.

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::BoxError;

/// What is there of a request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its beginning: more than was asked for if the client sent more at once.
    pub bytes: Bytes,
    /// Whether that is all of it.
    pub whole: bool,
}

/// A body that can keep what was read of it.
pub(crate) trait Hold {
    /// Reads until `enough` bytes are there, or all of it.
    ///
    /// # Errors
    ///
    /// The client has stopped in the middle of it.
    fn poll_hold(&mut self, cx: &mut Context<'_>, enough: usize) -> Poll<Result<Held, BoxError>>;
}
