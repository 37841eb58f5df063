//! One stream, from its first request to its end.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::rpc;
use mesh_core::ads::Variant;
use mesh_core::model::Name;
use mesh_core::publish::Reader;
use mesh_core::resource::TYPE_URL_PREFIX;
use mesh_core::source::responder::{ResourceSet, Responder};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tonic::{Status, Streaming};

use super::faults::{Mode, State};
use super::grpc::Outgoing;
use super::log::{Event, Request, Response, Verdict, What};
use super::plane::Shared;
use super::registry::Strike;

/// So many requests wait for an answer while it stalls; then no more are read.
const LONGEST_WAIT: usize = 1000;
/// A reset overtakes what is not written yet, so a half response gets so long to leave.
const HALF_LEAVES: Duration = Duration::from_millis(20);
/// What is sent of a torn response when there was none before: only its length matters.
const TORN_FILLER: &[u8] = &[0; 64];
/// Not protobuf: the tag's wire type does not exist.
const GARBAGE: &[u8] = b"\xff\xff\xff\xff garbage";

pub(super) struct Conversation {
    shared: Arc<Shared>,
    id: u64,
    node: Name,
    variant: Variant,
    responder: Responder,
    served: Reader<ResourceSet>,
    faults: watch::Receiver<State>,
    strikes: mpsc::UnboundedReceiver<Strike>,
    outgoing: mpsc::Sender<Outgoing>,
    /// Read while it stalled.
    waiting: VecDeque<Bytes>,
    last: Bytes,
    /// The nonce of the last response of a type, while the client has not said whether it takes it.
    unjudged: BTreeMap<Name, String>,
}

/// Why a stream is over.
struct Over(String);

impl Conversation {
    pub(super) fn new(
        shared: Arc<Shared>,
        peer: SocketAddr,
        variant: Variant,
        outgoing: mpsc::Sender<Outgoing>,
    ) -> Self {
        let served = shared.served.reader();
        let mut responder = Responder::of(variant, served.current());
        if !shared.tells_missing {
            responder = responder.without_resource_errors();
        }
        let (id, strikes) = shared.streams.open(peer, Some(variant));
        let faults = shared.faults.subscribe();
        shared.log.add(Event { stream: id, node: "".into(), what: What::Opened { peer } });
        Self {
            shared,
            id,
            node: "".into(),
            variant,
            responder,
            served,
            faults,
            strikes,
            outgoing,
            waiting: VecDeque::new(),
            last: Bytes::from_static(TORN_FILLER),
            unjudged: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self, mut requests: Streaming<Bytes>) {
        let over = loop {
            if let Err(over) = self.step(&mut requests).await {
                break over;
            }
        };
        self.shared.streams.close(self.id);
        self.record(What::Closed { reason: over.0 });
    }

    /// What happens next, and what follows from it.
    async fn step(&mut self, requests: &mut Streaming<Bytes>) -> Result<(), Over> {
        let mode = self.faults.borrow_and_update().mode;
        match mode {
            Mode::Refuse => return self.end(Status::unavailable("the control plane refuses, on purpose")).await,
            Mode::Answer => self.catch_up().await?,
            Mode::Stall => {}
        }
        let answers = mode == Mode::Answer;
        tokio::select! {
            () = self.outgoing.closed() => Err(Over("the client is gone".to_owned())),
            // The sender is in `shared`, which this has.
            _ = self.faults.changed() => Ok(()),
            Some(strike) = self.strikes.recv() => self.suffer(strike).await,
            Ok(()) = self.served.changed(), if answers => self.push().await,
            message = requests.message(), if self.waiting.len() < LONGEST_WAIT => match message {
                Ok(Some(request)) => {
                    self.hear(&request);
                    self.waiting.push_back(request);
                    Ok(())
                }
                Ok(None) => self.end(Status::ok("")).await,
                Err(status) => Err(Over(status.message().to_owned())),
            },
        }
    }

    /// Answers what waits.
    async fn catch_up(&mut self) -> Result<(), Over> {
        while let Some(request) = self.waiting.pop_front() {
            let responses = self.responder.handle_request(&request);
            // They are in the log already.
            self.responder.take_rejections();
            let subscriptions = self.responder.subscriptions().collect();
            self.shared.streams.update(self.id, |info| info.subscriptions = subscriptions);
            self.send(responses).await?;
        }
        Ok(())
    }

    async fn push(&mut self) -> Result<(), Over> {
        let responses = self.responder.set_resources(self.served.current());
        self.send(responses).await
    }

    async fn send(&mut self, responses: Vec<Bytes>) -> Result<(), Over> {
        for response in responses {
            let delay = self.faults.borrow().delay;
            if !delay.is_zero() {
                sleep(delay).await;
            }
            let described = describe(self.variant, &response);
            self.unjudged.insert(described.type_url.clone(), described.nonce.clone());
            self.record(What::Response(described));
            self.last = response.clone();
            self.put(Outgoing::Message(response)).await?;
        }
        Ok(())
    }

    async fn suffer(&mut self, strike: Strike) -> Result<(), Over> {
        match strike {
            Strike::Garbage => self.put(Outgoing::Message(Bytes::from_static(GARBAGE))).await,
            Strike::Tear => {
                self.put(Outgoing::Half(self.last.clone())).await?;
                sleep(HALF_LEAVES).await;
                self.put(Outgoing::Reset).await?;
                Err(Over("torn, on purpose".to_owned()))
            }
        }
    }

    async fn end(&mut self, status: Status) -> Result<(), Over> {
        let reason = format!("{}: {}", status.code(), status.message());
        self.put(Outgoing::End(status)).await?;
        Err(Over(reason))
    }

    async fn put(&mut self, outgoing: Outgoing) -> Result<(), Over> {
        self.outgoing.send(outgoing).await.map_err(|_| Over("the client is gone".to_owned()))
    }

    /// Records what the client says.
    fn hear(&mut self, request: &[u8]) {
        let said = match Said::read(self.variant, request) {
            Ok(said) => said,
            Err(error) => {
                tracing::warn!(target: "mesh", "stream {} sent what is no request of ADS: {error}", self.id);
                return;
            }
        };
        if let Some(node) = said.node {
            self.node = node;
        }
        let mut request = said.request;
        request.verdict = self.judge(&request, said.error);
        let (node, said) = (self.node.clone(), request.clone());
        self.shared.streams.update(self.id, |info| {
            info.node = node;
            info.versions.insert(said.type_url, said.version);
        });
        self.record(What::Request(request));
    }

    /// A change of names repeats the nonce of a response that was judged before, or crosses one on its way.
    fn judge(&mut self, request: &Request, error: Option<rpc::Status>) -> Verdict {
        let is_first = match self.variant {
            Variant::StateOfTheWorld => self.unjudged.get(&request.type_url) == Some(&request.nonce),
            // There each response is answered, and a request that is about none has no nonce.
            _ => !request.nonce.is_empty(),
        };
        if is_first {
            self.unjudged.remove(&request.type_url);
        }
        match error {
            Some(status) => Verdict::Nack(status.message),
            None if is_first => Verdict::Ack,
            None => Verdict::None,
        }
    }

    fn record(&self, what: What) {
        self.shared.log.add(Event { stream: self.id, node: self.node.clone(), what });
    }
}

/// A request of either protocol.
struct Said {
    node: Option<Name>,
    /// Not judged yet.
    request: Request,
    error: Option<rpc::Status>,
}

impl Said {
    fn read(variant: Variant, bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        let names = |names: Vec<String>| names.into_iter().map(Name::from).collect();
        if variant == Variant::StateOfTheWorld {
            let said = DiscoveryRequest::decode(bytes)?;
            let request = Request {
                type_url: bare(&said.type_url),
                version: said.version_info,
                nonce: said.response_nonce,
                names: names(said.resource_names),
                dropped: Vec::new(),
                verdict: Verdict::None,
            };
            return Ok(Self { node: said.node.map(|node| node.id.into()), request, error: said.error_detail });
        }
        let said = DeltaDiscoveryRequest::decode(bytes)?;
        let request = Request {
            type_url: bare(&said.type_url),
            version: String::new(),
            nonce: said.response_nonce,
            names: names(said.resource_names_subscribe),
            dropped: names(said.resource_names_unsubscribe),
            verdict: Verdict::None,
        };
        Ok(Self { node: said.node.map(|node| node.id.into()), request, error: said.error_detail })
    }
}

/// Its bytes are the responder's own.
fn describe(variant: Variant, response: &[u8]) -> Response {
    if variant == Variant::StateOfTheWorld {
        let response = DiscoveryResponse::decode(response).unwrap_or_default();
        return Response {
            type_url: bare(&response.type_url),
            version: response.version_info,
            nonce: response.nonce,
            resources: response.resources.len(),
        };
    }
    let response = DeltaDiscoveryResponse::decode(response).unwrap_or_default();
    Response {
        type_url: bare(&response.type_url),
        version: response.system_version_info,
        nonce: response.nonce,
        resources: response.resources.len(),
    }
}

fn bare(type_url: &str) -> Name {
    type_url.strip_prefix(TYPE_URL_PREFIX).unwrap_or(type_url).into()
}
