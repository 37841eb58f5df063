//! The loop with a graph of one sort of resource: a client target is a Listener.

mod simulation;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::ads::Settings;
use crate::ads::tests::TextDecoder;
use crate::resource::{LISTENER, ResourceEvent, ResourceKey};
use crate::source::MemorySource;
use crate::source::responder::EncodedResource;
use crate::status::ClientStatus;

#[derive(Default)]
struct OneLevel {
    wants: VecDeque<Want>,
    updates: VecDeque<Update>,
    due: Option<Instant>,
}

impl OneLevel {
    fn say(&mut self, target: &Name, what: &str) {
        self.updates.push_back(Update::Failed {
            target: target.clone(),
            error: Error::new(Code::INTERNAL, what),
            absent: false,
        });
    }
}

impl Dependencies for OneLevel {
    fn add_client(&mut self, target: &Name, _now: Instant) {
        self.wants.push_back(Want::Subscribe(ResourceKey::new(LISTENER, target.clone())));
    }
    fn remove_client(&mut self, target: &Name, _now: Instant) {
        self.wants.push_back(Want::Unsubscribe(ResourceKey::new(LISTENER, target.clone())));
        self.say(target, "removed");
    }
    fn add_server(&mut self, listener: &Name, now: Instant) {
        self.due = Some(now + Duration::from_millis(20));
        self.say(listener, "waits");
    }
    fn remove_server(&mut self, listener: &Name, _now: Instant) {
        self.say(listener, "removed");
    }
    fn add_dynamic_cluster(&mut self, target: &Name, cluster: &Name, _now: Instant) {
        self.say(target, cluster);
    }
    fn handle_event(&mut self, event: ResourceEvent, _now: Instant) {
        match event {
            ResourceEvent::Changed { key, value, .. } => self.say(&key.name, value.downcast_ref::<String>().unwrap()),
            ResourceEvent::Unusable { key, error } => self.say(&key.name, &error.code().to_string()),
            ResourceEvent::Ambient { .. } => {}
        }
    }
    fn handle_time(&mut self, now: Instant) {
        assert!(self.due.take().unwrap() <= now);
        self.say(&"time".into(), "came");
    }
    fn poll_wants(&mut self) -> Option<Want> {
        self.wants.pop_front()
    }
    fn poll_update(&mut self) -> Option<Update> {
        self.updates.pop_front()
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

/// Passes what is put in force to the test; its end shows as the channel's.
struct Record(tokio::sync::mpsc::UnboundedSender<String>);

impl Apply for Record {
    fn apply(&mut self, update: Update) {
        let Update::Failed { target, error, .. } = update else { panic!("{update:?}") };
        self.0.send(format!("{target}: {}", error.message())).unwrap();
    }
}

#[derive(Default)]
struct Events(Mutex<Vec<String>>);

impl EventSink for Events {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.to_string());
    }
}

struct Running {
    handle: ConfigHandle,
    memory: MemorySource,
    applied: tokio::sync::mpsc::UnboundedReceiver<String>,
    events: Arc<Events>,
}

fn resources(list: &[(&str, &str)]) -> Vec<EncodedResource> {
    list.iter()
        .map(|(name, content)| EncodedResource::new(ResourceKey::new(LISTENER, *name), format!("{name}:{content}")))
        .collect()
}

fn start(list: &[(&str, &str)]) -> Running {
    let settings = Settings { deletion_grace: Some(Duration::ZERO), ..Settings::default() };
    let memory = MemorySource::new(resources(list)).with_settings(settings);
    let (sender, applied) = tokio::sync::mpsc::unbounded_channel();
    let events = Arc::new(Events::default());
    let options = Options::new(
        Box::new(memory.clone()),
        Arc::new(TextDecoder),
        Box::new(|| Box::new(Record(sender))),
        events.clone(),
        1,
    );
    let handle = ConfigThread::spawn_with(options, || Box::new(OneLevel::default())).unwrap();
    Running { handle, memory, applied, events }
}

#[tokio::test]
async fn a_watched_target_follows_its_source() {
    let mut it = start(&[("a", "one")]);
    it.handle.watch_client("a");
    assert_eq!(it.applied.recv().await.unwrap(), "a: one");
    it.memory.set(resources(&[("a", "two")]));
    assert_eq!(it.applied.recv().await.unwrap(), "a: two");
    it.memory.set(resources(&[]));
    assert_eq!(it.applied.recv().await.unwrap(), "a: MESH-112");
    it.memory.set(resources(&[("a", "three"), ("b", "one")]));
    assert_eq!(it.applied.recv().await.unwrap(), "a: three");
    it.handle.watch_client("b");
    assert_eq!(it.applied.recv().await.unwrap(), "b: one");
    it.handle.unwatch_client("a");
    assert_eq!(it.applied.recv().await.unwrap(), "a: removed");
    it.memory.set(resources(&[("a", "four"), ("b", "two")]));
    assert_eq!(it.applied.recv().await.unwrap(), "b: two", "a is not wanted any more");
    let events = it.events.0.lock().unwrap();
    assert!(events.iter().any(|event| event.starts_with("`a` has no configuration")), "{events:?}");
}

#[tokio::test]
async fn every_command_reaches_the_graph_and_its_time_comes() {
    let mut it = start(&[]);
    it.handle.watch_server("s");
    assert_eq!(it.applied.recv().await.unwrap(), "s: waits");
    assert_eq!(it.applied.recv().await.unwrap(), "time: came");
    it.handle.unwatch_server("s");
    assert_eq!(it.applied.recv().await.unwrap(), "s: removed");
    it.handle.want_cluster("t", "c");
    assert_eq!(it.applied.recv().await.unwrap(), "t: c");
    it.handle.watch_client("missing");
    assert_eq!(it.applied.recv().await.unwrap(), "missing: MESH-112");
}

#[tokio::test]
async fn the_last_handle_ends_the_thread_and_what_it_put_in_force_with_it() {
    let Running { handle, mut applied, .. } = start(&[]);
    let other = handle.clone();
    drop(handle);
    other.want_cluster("t", "c");
    assert_eq!(applied.recv().await.unwrap(), "t: c");
    drop(other);
    assert_eq!(applied.recv().await, None);
}

#[tokio::test]
async fn shutdown_waits_for_the_end() {
    let Running { handle, mut applied, .. } = start(&[]);
    let other = handle.clone();
    handle.shutdown();
    handle.stopped().await;
    assert_eq!(applied.try_recv(), Err(tokio::sync::mpsc::error::TryRecvError::Disconnected));
    other.watch_client("nobody listens");
    other.stopped().await;
}

/// The seam: a second kind of source.
struct Broken;

impl Source for Broken {
    fn start(self: Box<Self>, _setup: Setup) -> Result<Box<dyn Feed>, Error> {
        Err(Error::new(Code::BAD_FILE, "line 3: no"))
    }
}

struct Ignore;

impl Apply for Ignore {
    fn apply(&mut self, _update: Update) {}
}

#[test]
fn a_source_that_cannot_start_fails_the_spawn() {
    let options = Options::new(
        Box::new(Broken),
        Arc::new(TextDecoder),
        Box::new(|| Box::new(Ignore)),
        Arc::new(Events::default()),
        1,
    );
    let error = ConfigThread::spawn_with(options, || Box::new(OneLevel::default())).unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::BAD_FILE, "line 3: no"));
}

/// A source that says one thing for ever, as fast as it is asked.
struct Chatter;

struct ChatterFeed(Option<ResourceKey>, u64);

impl Source for Chatter {
    fn start(self: Box<Self>, _setup: Setup) -> Result<Box<dyn Feed>, Error> {
        Ok(Box::new(ChatterFeed(None, 0)))
    }
}

impl Feed for ChatterFeed {
    fn subscribe(&mut self, key: &ResourceKey) {
        self.0 = Some(key.clone());
    }
    fn unsubscribe(&mut self, _key: &ResourceKey) {
        self.0 = None;
    }
    fn poll_event(&mut self, _cx: &mut Context<'_>) -> Poll<ResourceEvent> {
        match &self.0 {
            Some(key) if self.1.is_multiple_of(2) => {
                self.1 += 1;
                let value = Arc::new(self.1.to_string());
                Poll::Ready(ResourceEvent::Changed { key: key.clone(), value, version: String::new(), server: None })
            }
            _ => Poll::Pending,
        }
    }
    fn poll_settled(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        self.1 += 1;
        if self.0.is_some() { Poll::Ready(()) } else { Poll::Pending }
    }
    fn status(&self) -> Vec<ClientStatus> {
        vec![ClientStatus::new(self.1.to_string().into(), Vec::new())]
    }
}

#[tokio::test]
async fn a_source_that_never_rests_does_not_keep_commands_out() {
    let (sender, mut applied) = tokio::sync::mpsc::unbounded_channel();
    let options = Options::new(
        Box::new(Chatter),
        Arc::new(TextDecoder),
        Box::new(|| Box::new(Record(sender))),
        Arc::new(Events::default()),
        1,
    );
    let handle = ConfigThread::spawn_with(options, || Box::new(OneLevel::default())).unwrap();
    handle.watch_client("a");
    applied.recv().await.unwrap();
    handle.want_cluster("t", "c");
    while applied.recv().await.unwrap() != "t: c" {}
    let counted = |status: &ConfigStatus| -> u64 { str::from_utf8(&status.clients[0].node).unwrap().parse().unwrap() };
    let first = counted(&handle.status().await.unwrap());
    assert!(counted(&handle.status().await.unwrap()) > first, "it is asked anew, however busy it is");
    handle.shutdown();
    handle.stopped().await;
}

#[tokio::test]
async fn work_in_the_background_runs_on_the_thread_and_ends_with_it() {
    let (done, mut ticks) = tokio::sync::mpsc::unbounded_channel();
    let mut options = Options::new(
        Box::new(MemorySource::new([])),
        Arc::new(TextDecoder),
        Box::new(|| Box::new(Ignore)),
        Arc::new(Events::default()),
        1,
    );
    options.background = Box::pin(async move {
        loop {
            done.send(std::thread::current().name().unwrap().to_owned()).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let handle = ConfigThread::spawn_with(options, || Box::new(OneLevel::default())).unwrap();
    for _ in 0..3 {
        assert_eq!(ticks.recv().await.unwrap(), "mesh-config");
    }
    drop(handle);
    while ticks.recv().await.is_some() {}
}

#[tokio::test]
async fn a40_who_asks_for_the_status_in_one_turn_shares_it_and_after_the_end_gets_an_error() {
    let source = MemorySource::new([EncodedResource::new(ResourceKey::new(LISTENER, "a"), "a:one")]);
    let (sender, mut applied) = tokio::sync::mpsc::unbounded_channel();
    let options = Options::new(
        Box::new(source),
        Arc::new(TextDecoder),
        Box::new(|| Box::new(Record(sender))),
        Arc::new(Events::default()),
        1,
    );
    let before = SystemTime::now();
    let (started, start) = blocking::sync_channel(1);
    let (commands, inbox) = unbounded_channel();
    let running = Publisher::new(Arc::new(()));
    let handle = ConfigHandle { commands, stopped: running.reader() };
    // All are there before the thread takes its first turn.
    handle.watch_client("a");
    let ((one, first), (other, second), (gone, _)) = (oneshot::channel(), oneshot::channel(), oneshot::channel());
    for asker in [one, other, gone] {
        handle.send(Command::Status(asker));
    }
    let thread = thread::spawn(move || run(options, || Box::new(OneLevel::default()), inbox, &started, running));
    start.recv().unwrap().unwrap();
    let (one, other) = (first.await.unwrap(), second.await.unwrap());
    assert!(Arc::ptr_eq(&one, &other), "put together once for both");
    assert_eq!(applied.recv().await.unwrap(), "a: one");
    let status = handle.status().await.unwrap();
    let [client] = &status.clients[..] else { panic!("{status:?}") };
    assert_eq!((&*client.scope, client.resources.len()), ("process", 1));
    let resource = &client.resources[0];
    assert_eq!((&*resource.key.name, resource.bytes.as_deref()), ("a", Some(&b"a:one"[..])));
    let updated = status.wall_time(resource.updated.unwrap());
    assert!(before <= updated && updated <= SystemTime::now(), "{updated:?}");
    handle.shutdown();
    thread.join().unwrap();
    assert_eq!(handle.status().await.unwrap_err().code(), Code::SHUT_DOWN);
}
