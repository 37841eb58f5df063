//! Ways to endpoints that left, let go of a few at a time.
//!
//! No request is sent there any more; what is left is to close connections. That runs on the application's threads, and a
//! thousand of them at once would stand in line before its requests.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::connect::EndpointHandle;

/// How many are let go of at a time. Closing one takes some tens of microseconds: a request waits for less than a millisecond.
const AT_ONCE: usize = 8;
/// How long after them the next ones are. A thousand are gone within an eighth of a second.
const PAUSE: Duration = Duration::from_millis(1);

/// What is to be let go of.
#[derive(Default)]
pub(super) struct Leaving {
    ways: VecDeque<Arc<dyn EndpointHandle>>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Leaving {
    /// Adds ways that nobody is to use again.
    pub(super) fn add(&mut self, ways: impl IntoIterator<Item = Arc<dyn EndpointHandle>>) {
        self.ways.extend(ways);
    }

    /// Lets go of those whose turn it is.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(pause) = &mut self.pause
                && pause.as_mut().poll(cx) == Poll::Pending
            {
                return;
            }
            self.pause = None;
            if self.ways.is_empty() {
                // The room for a thousand is not kept for the next one.
                self.ways = VecDeque::new();
                return;
            }
            drop(self.ways.drain(..AT_ONCE.min(self.ways.len())));
            self.pause = Some(Box::pin(sleep(PAUSE)));
        }
    }
}
