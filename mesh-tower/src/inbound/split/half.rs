//! What the two halves of a split server know of each other.

use mesh_core::error::Error;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Shared by a listener and its layer.
#[derive(Debug, Default)]
pub(crate) struct Half {
    installed: AtomicBool,
    refusals: AtomicUsize,
    complained: AtomicBool,
}

impl Half {
    /// The layer was put around a service.
    pub(crate) fn install(&self) {
        self.installed.store(true, Ordering::Release);
    }

    pub(crate) fn is_installed(&self) -> bool {
        self.installed.load(Ordering::Acquire)
    }

    /// The layer refuses a request without knowing its connection: one response may pass the listener for it.
    pub(crate) fn allow_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::AcqRel);
    }

    /// Tells of a misuse: the first time as a warning, as each request that follows says the same.
    pub(crate) fn complain(&self, error: &Error) {
        if self.complained.swap(true, Ordering::Relaxed) {
            tracing::debug!(target: "mesh", "{error}");
        } else {
            tracing::warn!(target: "mesh", "{error}");
        }
    }

    /// Whether there was such a refusal; it is used up.
    pub(super) fn take_refusal(&self) -> bool {
        self.refusals.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1)).is_ok()
    }
}
