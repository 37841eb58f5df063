//! Names and when they are looked up. Time is a number or virtual; the resolver is the test's.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::names::Names;
use super::*;
use crate::error::Code;
use crate::model::{DnsFamily, DnsHost, Endpoints};
use crate::resource::ResourceEvent;
use crate::source::Feed;

fn at(addresses: &[&str]) -> Vec<SocketAddr> {
    addresses.iter().map(|address| address.parse().expect("an address")).collect()
}

fn name(host: &str, refresh: Option<Duration>) -> ResourceKey {
    let host = DnsHost { host: host.to_owned(), port: 80 };
    key(&host, &DnsEndpoints { hosts: vec![host.clone()], like: Endpoints::default(), family: DnsFamily::All, refresh })
}

fn silence() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "silence")
}

/// What an event says: addresses, or `!` for trouble beside them, or `none`.
fn said(event: Option<ResourceEvent>) -> String {
    match event {
        None => String::new(),
        Some(ResourceEvent::Changed { value, .. }) => {
            format!("{:?}", value.downcast_ref::<Addresses>().expect("addresses").list)
        }
        Some(ResourceEvent::Ambient { error: None, .. }) => "well".to_owned(),
        Some(ResourceEvent::Ambient { error: Some(_), .. }) => "!".to_owned(),
        Some(ResourceEvent::Unusable { error, .. }) => error.code().to_string(),
    }
}

// ===== the schedule =====

struct Schedule {
    names: Names,
    now: Instant,
    key: ResourceKey,
    again: Option<Again>,
}

impl Schedule {
    fn of(refresh: Option<Duration>) -> Self {
        let (now, key) = (Instant::now(), name("blue.test", refresh));
        let mut names = Names::new(1, Arc::new(Publisher::new(Arc::new(()))));
        names.subscribe(&key, now);
        Self { names, now, key, again: None }
    }

    /// Looks up what is due now and answers; false: nothing is due.
    fn answer(&mut self, answer: io::Result<Vec<SocketAddr>>) -> bool {
        let Some(task) = self.names.poll_task(self.now) else { return false };
        assert_eq!((&*task.host, task.port), ("blue.test", 80));
        self.names.answered(&task.name, task.began, answer, self.now);
        true
    }

    fn said(&mut self) -> String {
        let event = self.names.poll_event();
        if let Some(ResourceEvent::Changed { value, .. }) = &event {
            self.again = value.downcast_ref::<Addresses>().map(|addresses| addresses.again.clone());
        }
        said(event)
    }

    fn fails(&mut self) {
        self.again.as_ref().expect("it was told").ask();
        self.names.ask_again(self.now);
    }

    fn until_due(&self) -> Option<Duration> {
        self.names.poll_timeout().map(|due| due.saturating_duration_since(self.now))
    }
}

#[test]
fn a37_a_name_is_looked_up_at_once_and_again_when_connections_fail_but_not_within_30_seconds() {
    let mut it = Schedule::of(None);
    assert!(it.answer(Ok(at(&["10.0.0.1:80"]))));
    assert_eq!(it.said(), "[10.0.0.1:80]");
    assert_eq!(it.until_due(), None, "as long as nothing fails, nothing is asked");
    it.now += Duration::from_secs(10);
    it.fails();
    it.fails();
    assert_eq!(it.until_due(), Some(Duration::from_secs(20)));
    it.now += Duration::from_secs(20);
    assert!(it.answer(Ok(at(&["10.0.0.2:80"]))));
    assert_eq!(it.said(), "[10.0.0.2:80]");
    it.now += Duration::from_secs(40);
    it.fails();
    assert!(it.answer(Ok(at(&["10.0.0.2:80"]))), "long enough ago: at once");
    assert_eq!((it.said().as_str(), it.until_due()), ("", None), "the same is no news");
}

#[test]
fn a37_without_an_answer_it_is_asked_ever_more_seldom_and_an_answer_once_had_is_kept() {
    let mut it = Schedule::of(None);
    let mut last = Duration::ZERO;
    for _ in 0..14 {
        assert!(it.answer(Err(silence())));
        assert_eq!(it.said(), Code::UNRESOLVED.to_string());
        let wait = it.until_due().expect("it is tried again");
        // gRPC's: from 1 s by 1.6 to 120 s, a fifth to either side.
        let within = |from: f64, to: f64| (from..=to).contains(&wait.as_secs_f64());
        assert!(if last.is_zero() { within(0.8, 1.2) } else { within(1.2, 144.0) }, "{wait:?}");
        (last, it.now) = (wait, it.now + wait);
    }
    assert!(last > Duration::from_secs(90), "{last:?}");
    assert!(it.answer(Ok(at(&["10.0.0.1:80"]))));
    assert_eq!(it.said(), "[10.0.0.1:80]");
    it.now += Duration::from_secs(60);
    it.fails();
    assert!(it.answer(Err(silence())));
    assert_eq!(it.said(), "!");
    assert!(it.until_due().is_some_and(|wait| wait < Duration::from_secs(2)), "the waits start over");
    it.names.subscribe(&it.key.clone(), it.now);
    assert_eq!((it.said().as_str(), it.said().as_str()), ("[10.0.0.1:80]", "!"), "who comes later is told both");
    it.now += Duration::from_secs(2);
    assert!(it.answer(Ok(at(&["10.0.0.1:80"]))));
    assert_eq!(it.said(), "well");
}

#[test]
fn a_name_with_a_rate_is_asked_at_that_rate_and_a_turned_list_is_no_news() {
    let mut it = Schedule::of(Some(Duration::from_secs(5)));
    assert!(it.answer(Ok(at(&["10.0.0.1:80", "10.0.0.2:80"]))));
    assert_eq!(it.said(), "[10.0.0.1:80, 10.0.0.2:80]");
    it.now += Duration::from_secs(4);
    assert!(!it.answer(Ok(Vec::new())));
    it.now += Duration::from_secs(1);
    assert!(it.answer(Ok(at(&["10.0.0.2:80", "10.0.0.1:80"]))));
    assert_eq!(it.said(), "");
    it.now += Duration::from_secs(5);
    assert!(it.answer(Ok(at(&["10.0.0.2:80"]))));
    assert_eq!(it.said(), "[10.0.0.2:80]");
}

#[test]
fn what_nobody_wants_any_more_is_not_asked_and_a_late_answer_means_nothing() {
    let mut it = Schedule::of(Some(Duration::from_secs(5)));
    let task = it.names.poll_task(it.now).expect("due");
    it.names.unsubscribe(&it.key.clone());
    assert_eq!(it.until_due(), None);
    it.now += Duration::from_secs(1);
    it.names.subscribe(&it.key.clone(), it.now);
    it.names.answered(&task.name, task.began, Ok(at(&["10.9.9.9:80"])), it.now);
    assert_eq!(it.said(), "");
    assert!(it.answer(Ok(at(&["10.0.0.1:80"]))));
    assert_eq!(it.said(), "[10.0.0.1:80]");
}

#[test]
fn a_question_is_read_back_from_its_resource() {
    for (host, refresh) in [("blue.test", None), ("a/b", Some(Duration::from_millis(1500))), ("::1", None)] {
        let question = Question::of(&name(host, refresh)).expect("a question");
        assert_eq!(question, Question { host: host.to_owned(), port: 80, refresh });
    }
}

// ===== the feed =====

/// A source that says nothing, and remembers what it was asked.
#[derive(Default)]
struct Silent(Arc<Mutex<Vec<String>>>);

impl Feed for Silent {
    fn subscribe(&mut self, key: &ResourceKey) {
        self.0.lock().expect("whole").push(key.to_string());
    }
    fn unsubscribe(&mut self, _: &ResourceKey) {}
    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<ResourceEvent> {
        Poll::Pending
    }
    fn poll_settled(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// Knows some names; of `never` it says nothing, and at `panic` it does.
#[derive(Debug, Default)]
struct Zone(Mutex<BTreeMap<String, Vec<SocketAddr>>>);

impl Zone {
    fn says(&self, host: &str, addresses: &[&str]) {
        self.0.lock().expect("whole").insert(host.to_owned(), at(addresses));
    }
}

impl Resolve for Zone {
    fn resolve(&self, host: &str, _: u16) -> Resolving {
        if host == "never" {
            return Box::pin(std::future::pending());
        }
        assert_ne!(host, "panic");
        let found = self.0.lock().expect("whole").get(host).cloned();
        Box::pin(async move { found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)) })
    }
}

struct Running {
    feed: Named,
    zone: Arc<Zone>,
    source: Arc<Mutex<Vec<String>>>,
}

impl Running {
    fn new() -> Self {
        let (zone, silent) = (Arc::<Zone>::default(), Silent::default());
        let source = silent.0.clone();
        Self { feed: Named::new(Box::new(silent), zone.clone(), 1), zone, source }
    }

    async fn next(&mut self) -> ResourceEvent {
        std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(event) = self.feed.poll_event(cx) {
                    return Poll::Ready(event);
                }
                if self.feed.poll_settled(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}

#[tokio::test(start_paused = true)]
async fn a37_names_are_asked_of_the_resolver_and_all_else_of_the_source() {
    let mut it = Running::new();
    it.zone.says("blue.test", &["10.0.0.1:80"]);
    it.feed.subscribe(&ResourceKey::new(crate::resource::CLUSTER, "c"));
    it.feed.subscribe(&name("blue.test", None));
    let event = it.next().await;
    let ResourceEvent::Changed { value, .. } = &event else { panic!("{event:?}") };
    let again = value.downcast_ref::<Addresses>().expect("addresses").again.clone();
    assert_eq!(*it.source.lock().expect("whole"), ["Cluster `c`"]);
    it.zone.says("blue.test", &["10.0.0.2:80"]);
    let began = tokio::time::Instant::now();
    again.ask();
    assert_eq!(said(Some(it.next().await)), "[10.0.0.2:80]");
    assert_eq!(began.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_says_nothing_or_panics_has_no_answer() {
    for host in ["never", "panic", "unknown"] {
        let mut it = Running::new();
        it.feed.subscribe(&name(host, None));
        let began = tokio::time::Instant::now();
        let event = it.next().await;
        let ResourceEvent::Unusable { error, .. } = event else { panic!("{event:?}") };
        assert!(error.code() == Code::UNRESOLVED && error.message().contains(&format!("`{host}`")), "{error}");
        assert_eq!(began.elapsed().as_secs(), if host == "never" { 5 } else { 0 });
    }
}

// ===== a lookup =====

#[tokio::test]
async fn addresses_need_no_dns_and_each_counts_once() {
    let zone = Zone::default();
    zone.says("twice", &["10.0.0.2:81", "10.0.0.1:81", "10.0.0.2:81"]);
    zone.says("empty", &[]);
    for (host, found) in [
        ("127.0.0.1", vec!["127.0.0.1:81"]),
        ("[::1]", vec!["[::1]:81"]),
        ("::1", vec!["[::1]:81"]),
        ("twice", vec!["10.0.0.2:81", "10.0.0.1:81"]),
    ] {
        assert_eq!(lookup(&zone, host, 81).await.expect(host), at(&found), "{host}");
    }
    assert!(lookup(&zone, "empty", 81).await.is_err(), "a name without an address is of no use");
}

#[tokio::test]
async fn the_system_knows_itself() {
    let found = lookup(&SystemResolver::default(), "localhost", 81).await.expect("localhost");
    assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 81), "{found:?}");
}
