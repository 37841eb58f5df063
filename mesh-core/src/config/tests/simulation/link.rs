//! One server as the client sees it: the stream to it, what is on its way, and what was said. It checks the requests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use prost::Message;

use super::contents::BAD;
use super::{Checked, check};
use crate::ads::Variant;
use crate::model::Name;
use crate::resource::{ResourceKey, TYPE_URL_PREFIX};
use crate::source::responder::{ResourceSet, Responder};

/// Whether a stream can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    Closed,
    /// Nothing happens.
    Silent,
}

pub(super) struct Link {
    variant: Variant,
    tells_missing: bool,
    pub(super) door: Door,
    /// It neither reads nor writes.
    pub(super) stalls: bool,
    /// The client waits for a stream.
    pub(super) is_opening: bool,
    pub(super) stream: Option<Stream>,
    /// When the stream was lost, unless it was closed; and whether the server had answered on it.
    pub(super) lost: Option<(Instant, bool)>,
    /// Those of earlier streams.
    taken: BTreeSet<(Name, String)>,
    /// When the first of the streams was lost that did not get an answer.
    pub(super) outage: Option<Instant>,
}

/// An open stream.
pub(super) struct Stream {
    variant: Variant,
    pub(super) responder: Responder,
    set: Arc<ResourceSet>,
    to_server: VecDeque<Bytes>,
    to_client: VecDeque<Bytes>,
    pub(super) writing: Option<Bytes>,
    pub(super) answered: bool,
    node_said: bool,
    /// When each name was asked for.
    pub(super) asked: BTreeMap<ResourceKey, Instant>,
    /// The version of each response that came, by type and nonce.
    came: BTreeMap<(Name, String), String>,
    /// The versions of which a response came that is good as a whole. Another of the same version may hold more names, and
    /// be refused: then the version is in use nevertheless.
    taken: BTreeSet<(Name, String)>,
    /// The responses that came and were not acknowledged, oldest first.
    pub(super) owed: Vec<(Name, String)>,
}

impl Link {
    pub(super) fn new(variant: Variant, tells_missing: bool) -> Self {
        Self {
            variant,
            tells_missing,
            door: Door::Open,
            stalls: false,
            is_opening: false,
            stream: None,
            lost: None,
            taken: BTreeSet::new(),
            outage: None,
        }
    }

    pub(super) fn open(&mut self, set: Arc<ResourceSet>) {
        let responder = Responder::of(self.variant, set.clone());
        let responder = if self.tells_missing { responder } else { responder.without_resource_errors() };
        self.is_opening = false;
        self.stream = Some(Stream {
            variant: self.variant,
            responder,
            set,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            writing: None,
            answered: false,
            node_said: false,
            asked: BTreeMap::new(),
            came: BTreeMap::new(),
            taken: std::mem::take(&mut self.taken),
            owed: Vec::new(),
        });
    }

    /// The stream is lost, with what was on its way.
    pub(super) fn lose(&mut self, now: Instant) {
        let answered = self.end();
        self.lost = Some((now, answered));
        if answered || self.outage.is_none() {
            self.outage = Some(now);
        }
    }

    /// The client closed the stream, or stopped waiting for it.
    pub(super) fn close(&mut self, now: Instant) {
        if self.is_opening {
            self.outage.get_or_insert(now);
        }
        self.end();
        self.lost = None;
    }

    /// There is no stream any more. Whether the server had answered on it.
    fn end(&mut self) -> bool {
        self.is_opening = false;
        let Some(stream) = self.stream.take() else { return false };
        self.taken.extend(stream.taken);
        stream.answered
    }

    /// The longest time until the client is to try again.
    pub(super) fn patience(&self) -> Option<(Instant, u64)> {
        let (at, answered) = self.lost?;
        let age = self.outage.map_or(0, |since| (at - since).as_secs());
        Some((
            at,
            if answered {
                1
            } else if age < 60 {
                2
            } else {
                30
            },
        ))
    }
}

impl Stream {
    pub(super) fn is_quiet(&self) -> bool {
        self.to_server.is_empty() && self.to_client.is_empty() && self.writing.is_none()
    }

    /// Takes a new set; `order` may put the responses in another order.
    pub(super) fn push(&mut self, set: Arc<ResourceSet>, order: impl FnOnce(&mut Vec<Bytes>)) {
        if Arc::ptr_eq(&self.set, &set) {
            return;
        }
        self.set = set.clone();
        let mut responses = self.responder.set_resources(set);
        if responses.iter().map(|bytes| self.read(bytes).0).collect::<BTreeSet<_>>().len() == responses.len() {
            // Two of one type stay as they are: the second answers the first.
            order(&mut responses);
        }
        self.to_client.extend(responses);
    }

    /// The server reads a request and answers it.
    pub(super) fn answer(&mut self) {
        if let Some(request) = self.to_server.pop_front() {
            self.to_client.extend(self.responder.handle_request(&request));
            self.responder.take_rejections();
        }
    }

    /// What comes next.
    pub(super) fn receive(&mut self) -> Option<Bytes> {
        let message = self.to_client.pop_front()?;
        let (type_url, nonce, version) = self.read(&message);
        if self.is_good(&message) {
            self.taken.insert((type_url.clone(), version.clone()));
        }
        self.came.insert((type_url.clone(), nonce.clone()), version);
        self.owed.push((type_url, nonce));
        self.answered = true;
        Some(message)
    }

    fn read(&self, bytes: &[u8]) -> (Name, String, String) {
        let (type_url, nonce, version) = match self.variant {
            Variant::StateOfTheWorld => {
                let response = DiscoveryResponse::decode(bytes).unwrap();
                (response.type_url, response.nonce, response.version_info)
            }
            Variant::Incremental => {
                let response = DeltaDiscoveryResponse::decode(bytes).unwrap();
                (response.type_url, response.nonce, String::new())
            }
        };
        (bare(&type_url), nonce, version)
    }

    /// Whether nothing in the response is to be refused.
    fn is_good(&self, bytes: &[u8]) -> bool {
        let resources: Vec<_> = match self.variant {
            Variant::StateOfTheWorld => DiscoveryResponse::decode(bytes).unwrap().resources,
            Variant::Incremental => {
                let response = DeltaDiscoveryResponse::decode(bytes).unwrap();
                response.resources.into_iter().filter_map(|wrapper| wrapper.resource).collect()
            }
        };
        resources.iter().all(|any| !any.value.ends_with(BAD.as_bytes()))
    }

    /// The request that was being written is on its way.
    pub(super) fn written(&mut self, now: Instant) -> Checked {
        let Some(request) = self.writing.take() else { return Ok(()) };
        let node_said = match self.variant {
            Variant::StateOfTheWorld => self.hear(&DiscoveryRequest::decode(&request[..]).unwrap(), now)?,
            Variant::Incremental => self.hear_delta(DeltaDiscoveryRequest::decode(&request[..]).unwrap(), now)?,
        };
        check(node_said != self.node_said, || "the node is not in the first request of a stream alone".to_owned())?;
        self.node_said = true;
        self.to_server.push_back(request);
        Ok(())
    }

    fn hear(&mut self, request: &DiscoveryRequest, now: Instant) -> Checked<bool> {
        let type_url = bare(&request.type_url);
        let (nonce, refuses) = (request.response_nonce.clone(), request.error_detail.is_some());
        if !nonce.is_empty() {
            let version = self.came.get(&(type_url.clone(), nonce.clone()));
            let version = version.ok_or_else(|| format!("nonce {nonce} of {type_url} is not of this stream"))?.clone();
            // An answer is for all responses of the type until then.
            self.owed.retain(|(of, _)| *of != type_url);
            let is_claimed = refuses && version == request.version_info;
            let is_known = self.taken.contains(&(type_url.clone(), version.clone()));
            check(!is_claimed || is_known, || {
                format!("version {version} of {type_url} is refused and said to be in use")
            })?;
        }
        let key = |name: &String| ResourceKey::new(type_url.clone(), name.clone());
        let names: BTreeSet<ResourceKey> = request.resource_names.iter().map(key).collect();
        self.asked.retain(|key, _| key.type_url != type_url || names.contains(key));
        for key in names {
            self.asked.entry(key).or_insert(now);
        }
        Ok(request.node.is_some())
    }

    fn hear_delta(&mut self, request: DeltaDiscoveryRequest, now: Instant) -> Checked<bool> {
        let type_url = bare(&request.type_url);
        let nonce = request.response_nonce;
        if !nonce.is_empty() {
            let at = self.owed.iter().position(|owed| *owed == (type_url.clone(), nonce.clone()));
            let at = at.ok_or_else(|| format!("nonce {nonce} of {type_url} is not owed on this stream"))?;
            self.owed.remove(at);
        }
        let key = |name: String| ResourceKey::new(type_url.clone(), name);
        for name in request.resource_names_unsubscribe {
            self.asked.remove(&key(name));
        }
        for name in request.resource_names_subscribe {
            self.asked.insert(key(name), now);
        }
        Ok(request.node.is_some())
    }
}

fn bare(type_url: &str) -> Name {
    type_url.strip_prefix(TYPE_URL_PREFIX).unwrap_or(type_url).into()
}
