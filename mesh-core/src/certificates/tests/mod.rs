//! Sources over connections that tests play the other side of, on paused time.

mod istio;
mod sds;
mod spiffe;

use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::ads::{ControlStream, Opening, TransportError};
use crate::bootstrap::ServerConfig;
use crate::event::Event;
use crate::identity::testing::{Authority, pair};
use crate::identity::{CertificateSource, Roots};

const DAY: Duration = Duration::from_secs(24 * 3600);
const ALICE: &str = "spiffe://example.org/ns/default/sa/alice";

/// What was said.
#[derive(Default)]
struct Said(Mutex<Vec<Event>>);

impl Said {
    fn troubles(&self) -> Vec<String> {
        let trouble = |event: &Event| match event {
            Event::CertificateTrouble { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(trouble).collect()
    }
}

impl EventSink for Said {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

fn around(transport: Arc<dyn ControlTransport>, said: &Arc<Said>) -> Surroundings {
    Surroundings {
        transport,
        node: Node { id: "node".to_owned(), ..Node::default() },
        settings: Settings::default(),
        pair: pair(),
        events: said.clone(),
        seed: 7,
        clock: wall,
    }
}

/// The wall's clock goes as the paused one does.
fn wall() -> SystemTime {
    use std::sync::OnceLock;
    static BEGAN: OnceLock<SystemTime> = OnceLock::new();
    let virtual_now = tokio::time::Instant::now().into_std();
    let ahead = virtual_now.saturating_duration_since(std::time::Instant::now());
    *BEGAN.get_or_init(SystemTime::now) + ahead
}

/// A transport whose streams the test answers.
struct Played(UnboundedSender<Opened>);

/// A stream that was opened.
struct Opened {
    server: ServerConfig,
    path: String,
    requests: UnboundedReceiver<Bytes>,
    responses: UnboundedSender<Result<Bytes, TransportError>>,
}

struct PlayedStream {
    requests: Option<UnboundedSender<Bytes>>,
    responses: UnboundedReceiver<Result<Bytes, TransportError>>,
}

fn played() -> (Arc<dyn ControlTransport>, UnboundedReceiver<Opened>) {
    let (opened, openings) = unbounded_channel();
    (Arc::new(Played(opened)), openings)
}

impl ControlTransport for Played {
    fn open(&self, server: &ServerConfig, path: &str) -> Opening {
        let ((requests, asked), (responses, answers)) = (unbounded_channel(), unbounded_channel());
        let stream = PlayedStream { requests: Some(requests), responses: answers };
        let opened = Opened { server: server.clone(), path: path.to_owned(), requests: asked, responses };
        self.0.send(opened).expect("the test plays on");
        Box::pin(std::future::ready(Ok(Box::new(stream) as Box<dyn ControlStream>)))
    }
}

impl ControlStream for PlayedStream {
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, message: Bytes) {
        let requests = self.requests.as_ref().expect("nothing is sent after the end");
        // Whoever plays may have seen enough.
        let _ = requests.send(message);
    }

    fn finish(&mut self) {
        self.requests = None;
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        self.responses.poll_recv(cx)
    }
}

impl Opened {
    /// The one request of a call that has one: its end must be said, or servers wait for ever.
    async fn request(&mut self) -> Bytes {
        let request = self.requests.recv().await.expect("there is a request");
        assert_eq!(self.requests.recv().await, None, "and it is the only one");
        request
    }

    fn answer(&self, message: &impl Message) {
        self.responses.send(Ok(message.encode_to_vec().into())).expect("the stream is there");
    }

    fn fail(self, reason: &str) {
        self.responses.send(Err(TransportError::new(reason))).expect("the stream is there");
    }
}

/// Waits until `holds`, for a minute of paused time.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

/// Runs `work` in the background until the test is over.
fn background(work: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::spawn(work)
}
