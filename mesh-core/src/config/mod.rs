//! The configuration thread: source, graph and whoever applies the result, in one loop on a thread of its own.
//!
//! Nothing here runs on the application's threads: a large response is decoded, validated and turned into pickers while
//! requests go on. The thread lives as long as a [`ConfigHandle`] does.

mod dependencies;

#[cfg(test)]
mod end_to_end;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Instant, SystemTime};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use dependencies::Dependencies;

use crate::decode::DecodeResource;
use crate::dns::{Named, Resolve, SystemResolver};
use crate::error::{Code, Error};
use crate::event::{Event, EventSink};
use crate::graph::{Graph, Want};
use crate::model::Name;
use crate::publish::{Publisher, Reader};
use crate::snapshot::{Apply, Update};
use crate::source::{Feed, Setup, Source};
use crate::status::{Clocks, ConfigStatus};

/// So many rounds are done at a stretch before timers, sockets and commands get their turn.
const ROUNDS: usize = 32;

/// What the source leaves behind when it ends, as a stream's last frames, has so many turns.
const FAREWELL_TURNS: usize = 16;

/// Makes the one who puts configuration in force, on the configuration thread.
pub type MakeApply = Box<dyn FnOnce() -> Box<dyn Apply> + Send>;

/// Work that is done on the configuration thread beside everything else; it may not block.
pub type Background = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the configuration thread is made of.
pub struct Options {
    /// Where resources come from.
    pub source: Box<dyn Source>,
    /// Turns their bytes into the model.
    pub decoder: Arc<dyn DecodeResource>,
    /// Makes the one who puts configuration in force.
    pub apply: MakeApply,
    /// Who is told what happens.
    pub events: Arc<dyn EventSink>,
    /// All the randomness of the thread.
    pub seed: u64,
    /// Who knows the addresses of names. By default the system's resolver.
    pub resolver: Arc<dyn Resolve>,
    /// Runs as long as the thread does: certificate files are read again in it. Its end means nothing.
    pub background: Background,
}

impl Options {
    /// These parts, and nothing in the background.
    pub fn new(
        source: Box<dyn Source>,
        decoder: Arc<dyn DecodeResource>,
        apply: MakeApply,
        events: Arc<dyn EventSink>,
        seed: u64,
    ) -> Self {
        let resolver = Arc::new(SystemResolver::default());
        Self { source, decoder, apply, events, seed, resolver, background: Box::pin(std::future::ready(())) }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// Starts configuration threads.
#[derive(Debug)]
pub struct ConfigThread;

impl ConfigThread {
    /// Starts one, and waits until its source has started.
    ///
    /// # Errors
    ///
    /// What the source fails to start with, and [`Code::INTERNAL`] if the system gives no thread.
    pub fn spawn(options: Options) -> Result<ConfigHandle, Error> {
        Self::spawn_with(options, || Box::new(Graph::new()))
    }

    fn spawn_with(options: Options, graph: fn() -> Box<dyn Dependencies>) -> Result<ConfigHandle, Error> {
        let (commands, inbox) = unbounded_channel();
        let running = Publisher::new(Arc::new(()));
        let stopped = running.reader();
        let (started, start) = blocking::sync_channel(1);
        thread::Builder::new()
            .name("mesh-config".to_owned())
            .spawn(move || run(options, graph, inbox, &started, running))
            .map_err(|error| Error::new(Code::INTERNAL, "the system gives no thread").with_source(error))?;
        // A thread that ends without a word has panicked.
        start.recv().unwrap_or_else(|_| Err(Error::new(Code::INTERNAL, "the configuration thread did not start")))?;
        Ok(ConfigHandle { commands, stopped })
    }
}

fn run(
    options: Options,
    graph: fn() -> Box<dyn Dependencies>,
    inbox: UnboundedReceiver<Command>,
    started: &blocking::SyncSender<Result<(), Error>>,
    running: Publisher<()>,
) {
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(Code::INTERNAL, "the configuration thread has no runtime").with_source(error));
    match result {
        Err(error) => drop(started.send(Err(error))),
        Ok(runtime) => {
            runtime.block_on(async {
                match Loop::start(options, graph(), inbox) {
                    Err(error) => drop(started.send(Err(error))),
                    Ok(mut config) => {
                        // Whoever spawned this waits for it.
                        drop(started.send(Ok(())));
                        poll_fn(|cx| config.poll(cx)).await;
                        drop(config);
                        say_farewell().await;
                    }
                }
            });
            // The system's resolver cannot be stopped, and nobody waits for its answer any more.
            runtime.shutdown_background();
        }
    }
    drop(running);
}

/// Lets tasks end that were told to: the runtime would drop them with a connection that just breaks off, which control planes
/// log as an error. Nothing is waited for, so a server that does not listen holds nobody up.
async fn say_farewell() {
    for _ in 0..FAREWELL_TURNS {
        tokio::task::yield_now().await;
    }
}

/// Says what is to be configured. Clones are handles of the same thread, which ends with the last one.
#[derive(Debug, Clone)]
pub struct ConfigHandle {
    commands: UnboundedSender<Command>,
    stopped: Reader<()>,
}

/// Someone who waits for a status.
type Asker = oneshot::Sender<Arc<ConfigStatus>>;

#[derive(Debug)]
enum Command {
    WatchClient(Name),
    UnwatchClient(Name),
    WatchServer(Name),
    UnwatchServer(Name),
    WantCluster { target: Name, cluster: Name },
    Status(Asker),
    Stop,
}

impl ConfigHandle {
    /// Configures a client target: the name of its Listener. Updates for it follow. Watching twice is as once.
    pub fn watch_client(&self, target: impl Into<Name>) {
        self.send(Command::WatchClient(target.into()));
    }

    /// Configures a client target no more.
    pub fn unwatch_client(&self, target: impl Into<Name>) {
        self.send(Command::UnwatchClient(target.into()));
    }

    /// Configures a listening address: by the name of its Listener resource.
    pub fn watch_server(&self, listener: impl Into<Name>) {
        self.send(Command::WatchServer(listener.into()));
    }

    /// Configures a listening address no more.
    pub fn unwatch_server(&self, listener: impl Into<Name>) {
        self.send(Command::UnwatchServer(listener.into()));
    }

    /// Adds a cluster to a target's snapshots that a request names itself (`cluster_header`).
    pub fn want_cluster(&self, target: impl Into<Name>, cluster: impl Into<Name>) {
        self.send(Command::WantCluster { target: target.into(), cluster: cluster.into() });
    }

    /// What the source's xDS clients know (gRFC A40), taken between two updates. It is put together on the thread, at most once
    /// in each of its turns however many ask, and shares the resources' bytes: 100,000 resources hold it up for some tens
    /// of milliseconds, and requests not at all.
    ///
    /// # Errors
    ///
    /// [`Code::SHUT_DOWN`] once the thread has ended.
    pub async fn status(&self) -> Result<Arc<ConfigStatus>, Error> {
        let (asker, answer) = oneshot::channel();
        self.send(Command::Status(asker));
        answer.await.map_err(|_| Error::new(Code::SHUT_DOWN, "the configuration thread has ended"))
    }

    /// Ends the thread, whoever else holds a handle. What it put in force stays.
    pub fn shutdown(&self) {
        self.send(Command::Stop);
    }

    /// Waits until the thread has ended.
    pub async fn stopped(&self) {
        let mut stopped = self.stopped.clone();
        while stopped.changed().await.is_ok() {}
    }

    fn send(&self, command: Command) {
        // After the end there is nothing to say.
        let _ = self.commands.send(command);
    }
}

/// What the thread does, over and over.
struct Loop {
    inbox: UnboundedReceiver<Command>,
    feed: Box<dyn Feed>,
    graph: Box<dyn Dependencies>,
    apply: Box<dyn Apply>,
    events: Arc<dyn EventSink>,
    background: Option<Background>,
    timer: Option<Pin<Box<Sleep>>>,
    askers: Vec<Asker>,
    clocks: Clocks,
}

impl Loop {
    fn start(options: Options, graph: Box<dyn Dependencies>, inbox: UnboundedReceiver<Command>) -> Result<Self, Error> {
        let Options { source, decoder, apply, events, seed, resolver, background } = options;
        let feed = source.start(Setup { decoder, events: events.clone(), seed })?;
        let feed = Box::new(Named::new(feed, resolver, seed));
        let (askers, clocks) = (Vec::new(), Clocks::new(now(), SystemTime::now()));
        let background = Some(background);
        Ok(Self { inbox, feed, graph, apply: apply(), events, background, timer: None, askers, clocks })
    }

    /// One turn: Ready when the thread is to end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.background.as_mut().is_some_and(|work| work.as_mut().poll(cx).is_ready()) {
            self.background = None;
        }
        for _ in 0..ROUNDS {
            if self.obey(cx).is_ready() {
                return Poll::Ready(());
            }
            self.take_news(cx);
            self.hand_out();
            let settled = self.feed.poll_settled(cx).is_pending();
            let early = self.keep_time(cx).is_pending();
            if settled && early {
                self.apply.poll(cx);
                self.answer();
                return Poll::Pending;
            }
        }
        self.apply.poll(cx);
        self.answer();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Does what handles ask for. Ready when the last one is gone, or one says so.
    fn obey(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(command) = self.inbox.poll_recv(cx) {
            let now = now();
            match command {
                None | Some(Command::Stop) => return Poll::Ready(()),
                Some(Command::WatchClient(target)) => self.graph.add_client(&target, now),
                Some(Command::UnwatchClient(target)) => self.graph.remove_client(&target, now),
                Some(Command::WatchServer(listener)) => self.graph.add_server(&listener, now),
                Some(Command::UnwatchServer(listener)) => self.graph.remove_server(&listener, now),
                Some(Command::Status(asker)) => self.askers.push(asker),
                Some(Command::WantCluster { target, cluster }) => {
                    self.graph.add_dynamic_cluster(&target, &cluster, now);
                }
            }
        }
        self.pass_wants();
        Poll::Pending
    }

    /// Tells the graph what the source says, and the source what the graph wants because of it.
    fn take_news(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(event) = self.feed.poll_event(cx) {
            self.graph.handle_event(event, now());
            self.pass_wants();
        }
    }

    /// Subscribes before it unsubscribes, so that what both rounds want is never lost in between.
    fn pass_wants(&mut self) {
        let mut dropped = Vec::new();
        while let Some(want) = self.graph.poll_wants() {
            match want {
                Want::Subscribe(key) => {
                    dropped.retain(|other| *other != key);
                    self.feed.subscribe(&key);
                }
                Want::Unsubscribe(key) => dropped.push(key),
                Want::Claim(key, target) => self.feed.claim(&key, &target),
                Want::Release(key, target) => self.feed.release(&key, &target),
            }
        }
        for key in dropped {
            self.feed.unsubscribe(&key);
        }
    }

    /// Puts in force what is complete.
    fn hand_out(&mut self) {
        while let Some(update) = self.graph.poll_update() {
            let event = describe(&update);
            self.apply.apply(update);
            if let Some(event) = event {
                self.events.event(&event);
            }
        }
    }

    /// Tells everyone who asked the same, so that a crowd of them costs no more than one.
    fn answer(&mut self) {
        self.askers.retain(|asker| !asker.is_closed());
        if self.askers.is_empty() {
            return;
        }
        let (instant, wall) = self.clocks.moment(now(), SystemTime::now());
        let status = Arc::new(ConfigStatus::new(self.feed.status(), instant, wall));
        for asker in self.askers.drain(..) {
            // Whoever has gone in the meantime misses nothing.
            let _ = asker.send(status.clone());
        }
    }

    /// Sleeps until the graph's next deadline. Ready when one is due.
    fn keep_time(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.graph.poll_timeout() else {
            self.timer = None;
            return Poll::Pending;
        };
        let at = tokio::time::Instant::from_std(at);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        let due = timer.as_mut().poll(cx);
        if due.is_ready() {
            self.timer = None;
            self.graph.handle_time(now());
        }
        due
    }
}

fn describe(update: &Update) -> Option<Event> {
    match update {
        Update::Client(snapshot) => {
            Some(Event::Published { target: snapshot.target.clone(), version: snapshot.version })
        }
        Update::Server(snapshot) => {
            Some(Event::Published { target: snapshot.target.clone(), version: snapshot.version })
        }
        Update::Failed { target, error, .. } | Update::ServerFailed { target, error } => {
            Some(Event::Unpublished { target: target.clone(), reason: error.to_string() })
        }
        _ => None,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
