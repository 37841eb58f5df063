//! The driver over a scripted transport, on paused time.

use std::future::poll_fn;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::event::EventSink;
use crate::source::Feed;

/// What happens to one stream.
enum Fate {
    Refused,
    Open(UnboundedReceiver<Result<Bytes, TransportError>>),
    Hangs,
}

/// A transport whose streams end as they are told, and that keeps what was sent.
#[derive(Default)]
struct Scripted {
    fates: Mutex<VecDeque<Fate>>,
    sent: Arc<Mutex<Vec<String>>>,
    /// How many messages may be sent.
    window: Arc<Mutex<usize>>,
}

struct ScriptedStream {
    inbox: UnboundedReceiver<Result<Bytes, TransportError>>,
    sent: Arc<Mutex<Vec<String>>>,
    window: Arc<Mutex<usize>>,
}

impl ControlTransport for Scripted {
    fn open(&self, server: &ServerConfig, path: &str) -> Opening {
        assert_eq!((&*server.uri, path), ("a", AGGREGATED_RESOURCES));
        match self.fates.lock().unwrap().pop_front() {
            None | Some(Fate::Hangs) => Box::pin(std::future::pending()),
            Some(Fate::Refused) => Box::pin(std::future::ready(Err(TransportError::new("connection refused")))),
            Some(Fate::Open(inbox)) => {
                let stream = ScriptedStream { inbox, sent: self.sent.clone(), window: self.window.clone() };
                Box::pin(std::future::ready(Ok(Box::new(stream) as Box<dyn ControlStream>)))
            }
        }
    }
}

impl ControlStream for ScriptedStream {
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if *self.window.lock().unwrap() == 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn send(&mut self, message: Bytes) {
        *self.window.lock().unwrap() -= 1;
        self.sent.lock().unwrap().push(describe(&DiscoveryRequest::decode(message).unwrap()));
    }

    fn finish(&mut self) {}

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        self.inbox.poll_recv(cx)
    }
}

struct Deaf;

impl EventSink for Deaf {
    fn event(&self, _event: &Event) {}
}

type Server = UnboundedSender<Result<Bytes, TransportError>>;

fn stream() -> (Server, Fate) {
    let (server, inbox) = unbounded_channel();
    (server, Fate::Open(inbox))
}

fn drive(fates: Vec<Fate>) -> (Driver, Arc<Scripted>) {
    let transport = Arc::new(Scripted { fates: Mutex::new(fates.into()), ..Scripted::default() });
    *transport.window.lock().unwrap() = 100;
    let engine = Dialogue::new().engine;
    (Driver::new(engine, transport.clone(), Arc::new(Deaf)), transport)
}

fn subscribe(driver: &mut Driver, name: &str) {
    driver.subscribe(&ResourceKey::new(LISTENER, name));
}

/// The next thing told, as text, letting time pass until there is one.
async fn next(driver: &mut Driver) -> String {
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(event) = driver.poll_event(cx) {
                return Poll::Ready(tell(&event));
            }
            if driver.poll_settled(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
}

fn push(server: &Server, version: &str, content: &str) {
    server.send(Ok(response(LISTENER, version, version, &[content]).encode_to_vec().into())).unwrap();
}

#[tokio::test(start_paused = true)]
async fn bytes_go_both_ways() {
    let (server, fate) = stream();
    let (mut driver, transport) = drive(vec![fate]);
    subscribe(&mut driver, "a");
    push(&server, "1", "a:one");
    assert_eq!(next(&mut driver).await, "a=one");
    push(&server, "2", "a:two");
    assert_eq!(next(&mut driver).await, "a=two");
    assert_eq!(
        *transport.sent.lock().unwrap(),
        ["Listener a version  nonce  node", "Listener a version 1 nonce 1"],
        "the second is not settled yet"
    );
}

/// grpc-go's `TestADSFlowControl_ResourceUpdates_SingleResource`.
#[tokio::test(start_paused = true)]
async fn the_next_message_is_read_when_the_last_one_is_settled() {
    let (server, fate) = stream();
    let (mut driver, transport) = drive(vec![fate]);
    subscribe(&mut driver, "a");
    for version in ["1", "2", "3"] {
        push(&server, version, &format!("a:{version}"));
    }
    assert_eq!(next(&mut driver).await, "a=1");
    let mut cx = Context::from_waker(std::task::Waker::noop());
    for _ in 0..10 {
        assert!(driver.poll_event(&mut cx).is_pending(), "nothing more while the reader is at work");
    }
    assert_eq!(transport.sent.lock().unwrap().len(), 1, "and no ACK");
    assert_eq!(next(&mut driver).await, "a=2");
    assert_eq!(transport.sent.lock().unwrap()[1..], ["Listener a version 1 nonce 1"]);
}

/// grpc-go's `TestADSFlowControl_ResourceErrors` and `TestADSFlowControl_ResourceDoesNotExist`.
#[tokio::test(start_paused = true)]
async fn an_error_and_a_deletion_are_settled_before_the_next_message_is_read() {
    let cases: [(&[&str], &str, &str); 2] = [
        (&["a:bad"], "a ambient MESH-113", "Listener a version 1 nonce 2 NACK"),
        (&[], "a lapsing MESH-112", "Listener a version 2 nonce 2"),
    ];
    for (content, told, answer) in cases {
        let (server, fate) = stream();
        let (mut driver, transport) = drive(vec![fate]);
        subscribe(&mut driver, "a");
        push(&server, "1", "a:one");
        assert_eq!(next(&mut driver).await, "a=one");
        server.send(Ok(response(LISTENER, "2", "2", content).encode_to_vec().into())).unwrap();
        push(&server, "3", "a:three");
        assert_eq!(next(&mut driver).await, told);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for _ in 0..10 {
            assert!(driver.poll_event(&mut cx).is_pending(), "nothing more while the reader is at work");
        }
        assert_eq!(transport.sent.lock().unwrap().len(), 2, "and neither ACK nor NACK");
        assert_eq!(next(&mut driver).await, "a=three");
        assert_eq!(transport.sent.lock().unwrap()[2..], [answer]);
    }
}

/// What is known is told at once, whatever the reader is at work on: nothing is read for it.
#[tokio::test(start_paused = true)]
async fn what_is_cached_is_told_without_waiting_for_a_message() {
    let (server, fate) = stream();
    let (mut driver, _transport) = drive(vec![fate]);
    subscribe(&mut driver, "a");
    push(&server, "1", "a:one");
    push(&server, "2", "a:two");
    assert_eq!(next(&mut driver).await, "a=one");
    subscribe(&mut driver, "a");
    driver.unsubscribe(&ResourceKey::new(LISTENER, "a"));
    subscribe(&mut driver, "a");
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let Poll::Ready(event) = driver.poll_event(&mut cx) else { panic!("it is known") };
    assert_eq!(tell(&event), "a=one");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_is_tried_again() {
    let (server, fate) = stream();
    let (mut driver, _transport) = drive(vec![Fate::Refused, Fate::Refused, fate]);
    subscribe(&mut driver, "a");
    assert_eq!(next(&mut driver).await, "a unusable MESH-110");
    push(&server, "1", "a:one");
    assert_eq!(next(&mut driver).await, "a=one");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_is_replaced() {
    let (first, fate_1) = stream();
    let (second, fate_2) = stream();
    let (third, fate_3) = stream();
    let (mut driver, transport) = drive(vec![fate_1, fate_2, fate_3]);
    subscribe(&mut driver, "a");
    push(&first, "1", "a:one");
    assert_eq!(next(&mut driver).await, "a=one");
    drop(first);
    push(&second, "2", "a:two");
    assert_eq!(next(&mut driver).await, "a=two");
    second.send(Err(TransportError::new("reset"))).unwrap();
    push(&third, "3", "a:three");
    assert_eq!(next(&mut driver).await, "a=three");
    let sent = transport.sent.lock().unwrap();
    assert!(sent.contains(&"Listener a version 1 nonce  node".to_owned()), "{sent:?}");
    assert!(sent.contains(&"Listener a version 2 nonce  node".to_owned()), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_hangs_is_given_up_and_tried_again() {
    let (server, fate) = stream();
    let (mut driver, _transport) = drive(vec![Fate::Hangs, fate]);
    let start = tokio::time::Instant::now();
    subscribe(&mut driver, "a");
    assert_eq!(next(&mut driver).await, "a unusable MESH-110");
    assert_eq!(start.elapsed().as_secs(), 10);
    push(&server, "1", "a:one");
    assert_eq!(next(&mut driver).await, "a=one");
}

#[tokio::test(start_paused = true)]
async fn a57_a_request_that_cannot_be_written_runs_no_timer() {
    let (_server, fate) = stream();
    let (mut driver, transport) = drive(vec![fate]);
    *transport.window.lock().unwrap() = 1;
    let start = tokio::time::Instant::now();
    subscribe(&mut driver, "a");
    assert_eq!(next(&mut driver).await, "a unusable MESH-110", "told by the patience, not by the timer");
    assert_eq!(start.elapsed().as_secs(), 15);
    *transport.window.lock().unwrap() = 1;
    assert_eq!(next(&mut driver).await, "a unusable MESH-111");
    assert_eq!(start.elapsed().as_secs(), 30);
}
