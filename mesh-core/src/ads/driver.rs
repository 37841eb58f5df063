//! Moves the engine's bytes: opens streams, writes requests, reads responses, keeps time.
//!
//! It decides nothing. One message is read at a time, and the next only after all that followed from the one before is done,
//! so that HTTP/2's flow control slows a server that is faster than we are. It does not wait until the answer is written: a
//! server that must be read before it reads would wait for us for ever.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::time::Sleep;

use super::engine::{Action, Engine, ServerId};
use super::link::{Link, StreamEngine};
use super::transport::ControlTransport;
use crate::event::EventSink;
use crate::model::Name;
use crate::resource::{ResourceEvent, ResourceKey};
use crate::source::Feed;
use crate::status::ClientStatus;

/// An engine with its transport, as a [`Feed`]. It must be polled inside a Tokio runtime with time.
pub struct Driver {
    engine: Engine,
    transport: Arc<dyn ControlTransport>,
    events: Arc<dyn EventSink>,
    links: Vec<Link>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Driver {
    /// Drives `engine` over `transport`.
    pub fn new(engine: Engine, transport: Arc<dyn ControlTransport>, events: Arc<dyn EventSink>) -> Self {
        let links = engine.servers().map(|_| Link::Closed).collect();
        Self { engine, transport, events, links, timer: None }
    }

    /// The engine, to ask it what it knows.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn observe(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            self.events.event(&event);
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Close(id) => self.links[id.0] = Link::Closed,
                Action::Open(id) => {
                    let server = self.engine.servers().nth(id.0).map(|(_, server)| server.clone());
                    let opening = server.map(|server| self.transport.open(&server, self.engine.method(id)));
                    self.links[id.0] = opening.map_or(Link::Closed, Link::Opening);
                }
            }
        }
    }

    /// Sleeps until the engine's next deadline. Whether one is due.
    fn keep_time(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(at) = self.engine.poll_timeout() else {
            self.timer = None;
            return false;
        };
        if at <= now {
            self.engine.handle_timeout(now);
            return true;
        }
        let at = tokio::time::Instant::from_std(at);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

/// The engine as the stream to one server sees it.
struct ToServer<'a> {
    engine: &'a mut Engine,
    server: ServerId,
}

impl StreamEngine for ToServer<'_> {
    fn connected(&mut self, now: Instant) {
        self.engine.handle_connected(self.server, now);
    }

    fn next_request(&mut self) -> Option<Bytes> {
        self.engine.poll_request(self.server)
    }

    fn written(&mut self, now: Instant) {
        self.engine.handle_written(self.server, now);
    }

    fn message(&mut self, bytes: &[u8], now: Instant) {
        self.engine.handle_message(self.server, bytes, now);
    }

    fn lost(&mut self, reason: &str, now: Instant) {
        self.engine.handle_lost(self.server, reason, now);
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Feed for Driver {
    fn subscribe(&mut self, key: &ResourceKey) {
        self.engine.subscribe(key, now());
    }

    fn unsubscribe(&mut self, key: &ResourceKey) {
        self.engine.unsubscribe(key, now());
    }

    fn claim(&mut self, key: &ResourceKey, target: &Name) {
        self.engine.claim(key, target, now());
    }

    fn release(&mut self, key: &ResourceKey, target: &Name) {
        self.engine.release(key, target);
    }

    fn poll_event(&mut self, _cx: &mut Context<'_>) -> Poll<ResourceEvent> {
        self.engine.poll_resource().map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = now();
        self.observe();
        self.act();
        let mut busy = false;
        for index in 0..self.links.len() {
            let mut stream = ToServer { engine: &mut self.engine, server: ServerId(index) };
            busy |= self.links[index].exchange(&mut stream, cx, now);
        }
        busy |= self.keep_time(cx, now);
        self.observe();
        if busy { Poll::Ready(()) } else { Poll::Pending }
    }

    fn status(&self) -> Vec<ClientStatus> {
        vec![self.engine.status()]
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("engine", &self.engine).finish_non_exhaustive()
    }
}
