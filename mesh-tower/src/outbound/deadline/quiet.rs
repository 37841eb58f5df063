//! The silence of a stream before its response begins (Envoy's `idle_timeout`): what is sent of the request ends it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mesh_core::error::{Code, Error};
use tokio::time::Sleep;

use crate::BoxError;
use crate::body::MeshBody;

/// Ends a call that is silent for too long.
pub(super) struct Quiet {
    idle: Duration,
    activity: Activity,
    timer: Pin<Box<Sleep>>,
}

/// When the request's body last moved.
#[derive(Clone)]
struct Activity {
    began: Instant,
    millis: Arc<AtomicU64>,
}

/// A request's body that says when it moves.
struct Active {
    body: MeshBody,
    activity: Activity,
}

impl Quiet {
    /// Watches over `body`, which is put in its place.
    pub(super) fn over(body: &mut MeshBody, idle: Duration) -> Self {
        let began = tokio::time::Instant::now().into_std();
        let activity = Activity { began, millis: Arc::default() };
        let watched = Active { body: std::mem::take(body), activity: activity.clone() };
        *body = MeshBody::new(watched);
        Self { idle, activity, timer: Box::pin(tokio::time::sleep(idle)) }
    }

    /// Ready when nothing has moved for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        loop {
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let until = self.activity.last().checked_add(self.idle).map(tokio::time::Instant::from);
            match until.filter(|until| *until > tokio::time::Instant::now()) {
                Some(until) => self.timer.as_mut().reset(until),
                None => {
                    let text = format!("nothing was sent or answered for {:?}", self.idle);
                    return Poll::Ready(Error::new(Code::DEADLINE, text));
                }
            }
        }
    }
}

impl Activity {
    fn touch(&self) {
        let since = tokio::time::Instant::now().into_std().saturating_duration_since(self.began);
        self.millis.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        let millis = self.millis.load(Ordering::Relaxed);
        self.began.checked_add(Duration::from_millis(millis)).unwrap_or(self.began)
    }
}

impl Body for Active {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.activity.touch();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
