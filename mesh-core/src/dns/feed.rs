//! A source, and before it what answers for names.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::task::JoinSet;
use tokio::time::Sleep;

use super::names::{Names, Task};
use super::{Resolve, lookup};
use crate::model::Name;
use crate::publish::{Publisher, Reader};
use crate::resource::{HOST, ResourceEvent, ResourceKey};
use crate::source::Feed;
use crate::status::ClientStatus;

/// The feed of a source, and names beside its resources. It must be polled inside a Tokio runtime with time.
pub(crate) struct Named {
    feed: Box<dyn Feed>,
    names: Names,
    resolver: Arc<dyn Resolve>,
    asked: Reader<()>,
    under_way: JoinSet<(Name, Instant, io::Result<Vec<SocketAddr>>)>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Named {
    pub(crate) fn new(feed: Box<dyn Feed>, resolver: Arc<dyn Resolve>, seed: u64) -> Self {
        let signal = Arc::new(Publisher::new(Arc::new(())));
        let asked = signal.reader();
        Self { feed, names: Names::new(seed, signal), resolver, asked, under_way: JoinSet::new(), timer: None }
    }

    fn start(&mut self, Task { name, host, port, began }: Task) {
        let resolver = self.resolver.clone();
        self.under_way.spawn(async move {
            // A task of its own: a resolver of the application that panics has no answer, and nothing more.
            let answer = tokio::spawn(async move { lookup(&*resolver, &host, port).await }).await;
            (name, began, answer.map_err(io::Error::other).flatten())
        });
    }

    /// Whether anything came of it.
    fn poll_names(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        while let Poll::Ready(Ok(())) = self.asked.poll_changed(cx) {
            self.names.ask_again(now());
        }
        while let Poll::Ready(Some(done)) = self.under_way.poll_join_next(cx) {
            let Ok((name, began, answer)) = done else { continue };
            self.names.answered(&name, began, answer, now());
            busy = true;
        }
        while let Some(task) = self.names.poll_task(now()) {
            self.start(task);
            busy = true;
        }
        busy | self.keep_time(cx)
    }

    /// Sleeps until the next lookup. Whether one is due.
    fn keep_time(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.names.poll_timeout().map(tokio::time::Instant::from_std) else {
            self.timer = None;
            return false;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn is_host(key: &ResourceKey) -> bool {
    &*key.type_url == HOST
}

impl Feed for Named {
    fn subscribe(&mut self, key: &ResourceKey) {
        if is_host(key) { self.names.subscribe(key, now()) } else { self.feed.subscribe(key) }
    }

    fn unsubscribe(&mut self, key: &ResourceKey) {
        if is_host(key) { self.names.unsubscribe(key) } else { self.feed.unsubscribe(key) }
    }

    fn claim(&mut self, key: &ResourceKey, target: &Name) {
        if !is_host(key) {
            self.feed.claim(key, target);
        }
    }

    fn release(&mut self, key: &ResourceKey, target: &Name) {
        if !is_host(key) {
            self.feed.release(key, target);
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ResourceEvent> {
        self.names.poll_event().map_or_else(|| self.feed.poll_event(cx), Poll::Ready)
    }

    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let busy = self.poll_names(cx);
        let settled = self.feed.poll_settled(cx);
        if busy { Poll::Ready(()) } else { settled }
    }

    fn status(&self) -> Vec<ClientStatus> {
        self.feed.status()
    }
}
