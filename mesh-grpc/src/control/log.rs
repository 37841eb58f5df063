//! What was said, remembered.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;

use mesh_core::model::Name;
use tokio::sync::watch;

use super::load::LoadReport;

/// So many events are remembered.
const LONGEST: usize = 10_000;

/// Something that happened on a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The stream's number, from 1.
    pub stream: u64,
    /// The client's `node.id`; empty until it said it.
    pub node: Name,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum What {
    /// A stream was opened.
    Opened {
        /// By whom.
        peer: SocketAddr,
    },
    /// The client said something.
    Request(Request),
    /// It was answered.
    Response(Response),
    /// The client reported load, of one cluster.
    Load(LoadReport),
    /// The stream is over.
    Closed {
        /// Why.
        reason: String,
    },
}

/// A `DiscoveryRequest` or `DeltaDiscoveryRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The type, without `type.googleapis.com/`.
    pub type_url: Name,
    /// The version that the client uses; empty in incremental xDS, where each resource has its own.
    pub version: String,
    /// The nonce of the response it is about; empty at first.
    pub nonce: String,
    /// All names that the client subscribes to; in incremental xDS, those it subscribes to from now on.
    pub names: Vec<Name>,
    /// In incremental xDS, the names it unsubscribes from.
    pub dropped: Vec<Name>,
    /// What the client says about the last response.
    pub verdict: Verdict,
}

/// What a client says about a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it subscribes, or changes what it is subscribed to.
    None,
    /// It took it.
    Ack,
    /// It refused it, with this text.
    Nack(String),
}

/// A `DiscoveryResponse` or `DeltaDiscoveryResponse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The type, without `type.googleapis.com/`.
    pub type_url: Name,
    /// The version of its contents.
    pub version: String,
    /// Its nonce.
    pub nonce: String,
    /// How many resources are in it.
    pub resources: usize,
}

impl Event {
    /// The request it tells of.
    pub fn request(&self) -> Option<&Request> {
        match &self.what {
            What::Request(request) => Some(request),
            _ => None,
        }
    }

    /// The text of the NACK it tells of.
    pub fn nack(&self) -> Option<&str> {
        match &self.request()?.verdict {
            Verdict::Nack(text) => Some(text),
            _ => None,
        }
    }

    /// The request it tells of, if it is an ACK for this type.
    pub fn ack(&self, type_url: &str) -> Option<&Request> {
        self.request().filter(|request| &*request.type_url == type_url && request.verdict == Verdict::Ack)
    }

    fn trace(&self) {
        match self.nack() {
            Some(_) => tracing::warn!(target: "mesh", "{self}"),
            None => tracing::info!(target: "mesh", "{self}"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}", self.stream)?;
        if !self.node.is_empty() {
            write!(f, " of `{}`", self.node)?;
        }
        match &self.what {
            What::Opened { peer } => write!(f, " opened by {peer}"),
            What::Request(request) => write!(f, " {request}"),
            What::Response(response) => write!(f, " {response}"),
            What::Load(report) => write!(f, " {report}"),
            What::Closed { reason } => write!(f, " closed: {reason}"),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let type_name = short(&self.type_url);
        match &self.verdict {
            Verdict::None => write!(f, "asks for {type_name}")?,
            Verdict::Ack if self.version.is_empty() => write!(f, "ACKs {type_name}")?,
            Verdict::Ack => write!(f, "ACKs {type_name} {}", self.version)?,
            Verdict::Nack(text) => write!(f, "NACKs {type_name} and keeps `{}`: {text};", self.version)?,
        }
        write!(f, " [{}]", self.names.join(", "))?;
        if self.dropped.is_empty() { Ok(()) } else { write!(f, " without [{}]", self.dropped.join(", ")) }
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is sent {} {} ({} resources)", short(&self.type_url), self.version, self.resources)
    }
}

fn short(type_url: &str) -> &str {
    type_url.rsplit('.').next().unwrap_or(type_url)
}

/// The events of a control plane.
pub(super) struct Log {
    sender: watch::Sender<Remembered>,
}

#[derive(Default)]
struct Remembered {
    /// How many were forgotten.
    forgotten: usize,
    events: VecDeque<Event>,
}

impl Remembered {
    fn end(&self) -> usize {
        self.forgotten + self.events.len()
    }
}

impl Log {
    pub(super) fn add(&self, event: Event) {
        event.trace();
        self.sender.send_modify(|log| {
            if log.events.len() == LONGEST {
                log.events.pop_front();
                log.forgotten += 1;
            }
            log.events.push_back(event);
        });
    }

    pub(super) fn all(&self) -> Vec<Event> {
        self.sender.borrow().events.iter().cloned().collect()
    }

    pub(super) fn events(&self) -> Events {
        Events { receiver: self.sender.subscribe(), next: 0 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { sender: watch::Sender::new(Remembered::default()) }
    }
}

/// The events of a [`ControlPlane`](super::ControlPlane), each once and in order.
pub struct Events {
    receiver: watch::Receiver<Remembered>,
    next: usize,
}

impl Events {
    /// The next event; waits for it. None: the control plane is gone and everything was seen.
    pub async fn next(&mut self) -> Option<Event> {
        let next = self.next;
        let log = match self.receiver.wait_for(|log| log.end() > next).await {
            Ok(log) => log,
            Err(_) => return None,
        };
        let index = next.saturating_sub(log.forgotten);
        self.next = log.forgotten + index + 1;
        log.events.get(index).cloned()
    }

    /// The next event for which `wanted` gives something, and that.
    pub async fn find<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = wanted(&self.next().await?) {
                return Some(found);
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("next", &self.next).finish_non_exhaustive()
    }
}
