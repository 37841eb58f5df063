//! The answering side of state-of-the-world xDS, as a value: a request in, responses out.
//!
//! A [`ResourceSet`] is a complete, immutable set of encoded resources. A [`Responder`] is one stream over it. The memory
//! and file sources answer our own engine with it, and the local control plane answers anyone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{
    DiscoveryRequest, DiscoveryResponse, ResourceError, ResourceName,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;
use prost::Message;
use twox_hash::XxHash64;

use crate::model::Name;
use crate::resource::{
    CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, ResourceKey, TYPE_URL_PREFIX, canonical_name,
};

/// `google.rpc.Code.NOT_FOUND`.
const NOT_FOUND: i32 = 5;

/// The order in which a change is pushed, so that a client that applies each response at once never sees a name before the
/// thing it names. Other types follow.
const PUSH_ORDER: [&str; 4] = [CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION];

/// The types whose removals come last: what is removed may be in use until a response after theirs is applied.
const REMOVED_LAST: [&str; 2] = [CLUSTER, CLUSTER_LOAD_ASSIGNMENT];

/// Follows the version of a response that still holds what is about to go.
const TRANSITION: &str = "+";

/// One encoded resource.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedResource {
    /// Its type and name.
    pub key: ResourceKey,
    /// The `value` of its `Any`.
    pub bytes: Bytes,
}

impl EncodedResource {
    /// A resource whose name is known.
    pub fn new(key: ResourceKey, bytes: impl Into<Bytes>) -> Self {
        Self { key, bytes: bytes.into() }
    }

    /// A resource whose name is its message's first field, as it is in all of xDS's own types. `type_url` may have the
    /// `type.googleapis.com/` prefix. None if the bytes have no readable name.
    pub fn named_by_first_field(type_url: &str, bytes: impl Into<Bytes>) -> Option<Self> {
        let bytes = bytes.into();
        let name = FirstField::decode(&bytes[..]).ok()?.name;
        let type_url = type_url.strip_prefix(TYPE_URL_PREFIX).unwrap_or(type_url);
        (!name.is_empty()).then(|| Self::new(ResourceKey::new(type_url, name), bytes))
    }

    /// Reads an encoded `google.protobuf.Any` that holds a resource; see
    /// [`named_by_first_field`](Self::named_by_first_field).
    pub fn from_any(any: &[u8]) -> Option<Self> {
        let any = Any::decode(any).ok()?;
        Self::named_by_first_field(&any.type_url, any.value)
    }

    fn to_any(&self) -> Any {
        Any { type_url: format!("{TYPE_URL_PREFIX}{}", self.key.type_url), value: self.bytes.to_vec() }
    }
}

impl fmt::Debug for EncodedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.key, self.bytes.len())
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct FirstField {
    #[prost(string, tag = "1")]
    name: String,
}

/// A complete set of resources. The version of each type is a digest of its resources, so that the same set has the same
/// versions in every process.
#[derive(Debug, Clone, Default)]
pub struct ResourceSet {
    types: BTreeMap<Name, TypeSet>,
}

#[derive(Debug, Clone, Default)]
struct TypeSet {
    version: String,
    resources: BTreeMap<Name, EncodedResource>,
}

impl ResourceSet {
    /// The set of these resources; of two with the same type and name the later one stays.
    pub fn new(resources: impl IntoIterator<Item = EncodedResource>) -> Self {
        let mut types: BTreeMap<Name, TypeSet> = BTreeMap::new();
        for resource in resources {
            let set = types.entry(resource.key.type_url.clone()).or_default();
            set.resources.insert(resource.key.name.clone(), resource);
        }
        for set in types.values_mut() {
            set.version = digest(&set.resources);
        }
        Self { types }
    }

    /// The resource of this type and name.
    pub fn get(&self, type_url: &str, name: &str) -> Option<&EncodedResource> {
        self.types.get(type_url)?.resources.get(name)
    }

    /// Every resource, by type and name.
    pub fn iter(&self) -> impl Iterator<Item = &EncodedResource> {
        self.types.values().flat_map(|set| set.resources.values())
    }

    /// The version of a type; of one that has no resources, `0`.
    pub fn version(&self, type_url: &str) -> &str {
        self.types.get(type_url).map_or("0", |set| &set.version)
    }
}

fn digest(resources: &BTreeMap<Name, EncodedResource>) -> String {
    let mut hasher = XxHash64::with_seed(0);
    for (name, resource) in resources {
        for part in [name.as_bytes(), &resource.bytes] {
            hasher.write_u64(part.len() as u64);
            hasher.write(part);
        }
    }
    format!("{:016x}", hasher.finish())
}

/// A response that the client refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The type, without `type.googleapis.com/`.
    pub type_url: Name,
    /// What the client says about it.
    pub message: String,
}

/// One stream's answering side.
///
/// It keeps to the protocol: a request with an old nonce is stale and not answered; a name that is newly subscribed is
/// always answered, even if it was sent before; Listener and Cluster responses are complete, the others hold what is new;
/// `*`, and an empty first request, subscribe to all Listeners or Clusters. Subscribed names that do not exist are told
/// through `DiscoveryResponse.resource_errors`, so that a client that understands them need not wait for its timer.
#[derive(Debug)]
pub struct Responder {
    set: Arc<ResourceSet>,
    types: BTreeMap<Name, Subscription>,
    nonces: u64,
    rejections: Vec<Rejection>,
    tells_missing: bool,
}

#[derive(Debug, Default)]
struct Subscription {
    /// The nonce of the last response; None before the first.
    nonce: Option<String>,
    names: BTreeSet<Name>,
    wildcard: bool,
    /// Whether a name (or `*`) was ever named on this stream, after which an empty list means none.
    explicit: bool,
}

impl Responder {
    /// A stream over `set`.
    pub fn new(set: Arc<ResourceSet>) -> Self {
        Self { set, types: BTreeMap::new(), nonces: 0, rejections: Vec::new(), tells_missing: true }
    }

    /// Says nothing about names that do not exist, as servers did before `resource_errors` and many do still.
    #[must_use]
    pub fn without_resource_errors(mut self) -> Self {
        self.tells_missing = false;
        self
    }

    /// Takes an encoded `DiscoveryRequest` and gives the encoded responses to send, in order. What cannot be decoded is
    /// ignored.
    pub fn handle_request(&mut self, request: &[u8]) -> Vec<Bytes> {
        let Ok(request) = DiscoveryRequest::decode(request) else { return Vec::new() };
        let type_url: Name = request.type_url.strip_prefix(TYPE_URL_PREFIX).unwrap_or(&request.type_url).into();
        if let Some(status) = &request.error_detail {
            self.rejections.push(Rejection { type_url: type_url.clone(), message: status.message.clone() });
        }
        let subscription = self.types.entry(type_url.clone()).or_default();
        if !request.response_nonce.is_empty() && subscription.nonce.as_ref() != Some(&request.response_nonce) {
            return Vec::new();
        }
        let first = subscription.nonce.is_none();
        let change = subscription.change(request.resource_names, is_full_state(&type_url));
        if !first && change.is_empty() {
            return Vec::new();
        }
        self.answer(&type_url, change, &[]).into_iter().collect()
    }

    /// Puts `set` in the place of the last one and gives the responses to send: those of types in which something changed
    /// that this stream is subscribed to.
    ///
    /// They are in the order in which a client that applies each at once loses nothing: clusters before the routes that name
    /// them, and clusters that are gone after the routes that named them.
    pub fn set_resources(&mut self, set: Arc<ResourceSet>) -> Vec<Bytes> {
        let old = std::mem::replace(&mut self.set, set);
        let mut types: Vec<Name> = self.types.keys().cloned().collect();
        types.sort_by_key(|t| PUSH_ORDER.iter().position(|p| **p == **t).unwrap_or(PUSH_ORDER.len()));
        let mut responses = Vec::new();
        let mut removals = Vec::new();
        for type_url in types {
            let changed = self.changed(&type_url, &old);
            if REMOVED_LAST.contains(&&*type_url) {
                let (kept, gone): (BTreeSet<Name>, BTreeSet<Name>) =
                    changed.into_iter().partition(|name| self.set.get(&type_url, name).is_some());
                let still: Vec<EncodedResource> =
                    gone.iter().filter_map(|name| old.get(&type_url, name).cloned()).collect();
                if !kept.is_empty() {
                    responses.extend(self.answer(&type_url, kept, &still));
                }
                removals.push((type_url, gone));
                continue;
            }
            if !changed.is_empty() {
                responses.extend(self.answer(&type_url, changed, &[]));
            }
        }
        for (type_url, gone) in removals.into_iter().filter(|(_, gone)| !gone.is_empty()) {
            responses.extend(self.answer(&type_url, gone, &[]));
        }
        responses
    }

    /// What the client refused since the last call.
    pub fn take_rejections(&mut self) -> Vec<Rejection> {
        std::mem::take(&mut self.rejections)
    }

    /// The types and names that the client is subscribed to.
    pub fn subscriptions(&self) -> impl Iterator<Item = ResourceKey> {
        self.types.iter().flat_map(|(type_url, subscription)| {
            subscription.names.iter().map(|name| ResourceKey::new(type_url.clone(), name.clone()))
        })
    }

    /// The names of a type that differ from `old` and matter to this stream.
    fn changed(&self, type_url: &Name, old: &ResourceSet) -> BTreeSet<Name> {
        if old.version(type_url) == self.set.version(type_url) {
            return BTreeSet::new();
        }
        self.types.get(type_url).map(|subscription| subscription.changed(type_url, old, &self.set)).unwrap_or_default()
    }

    /// A response for `names`; of a full-state type, for all that is subscribed, and with `kept`, which is about to go.
    fn answer(&mut self, type_url: &Name, names: BTreeSet<Name>, kept: &[EncodedResource]) -> Option<Bytes> {
        let subscription = self.types.get_mut(type_url)?;
        let kept = if is_full_state(type_url) { kept } else { &[] };
        let mut names = if is_full_state(type_url) { subscription.all(type_url, &self.set) } else { names };
        names.retain(|name| !kept.iter().any(|resource| resource.key.name == *name));
        self.nonces += 1;
        let nonce = self.nonces.to_string();
        subscription.nonce = Some(nonce.clone());
        let mut version = self.set.version(type_url).to_owned();
        version.push_str(if kept.is_empty() { "" } else { TRANSITION });
        let (found, missing): (Vec<_>, Vec<_>) =
            names.iter().map(|name| (name, self.set.get(type_url, name))).partition(|(_, found)| found.is_some());
        let found = found.into_iter().filter_map(|(_, found)| found);
        let errors = missing.into_iter().filter(|_| self.tells_missing).map(|(name, _)| not_found(type_url, name));
        let response = DiscoveryResponse {
            version_info: version,
            resources: found.chain(kept).map(EncodedResource::to_any).collect(),
            type_url: format!("{TYPE_URL_PREFIX}{type_url}"),
            nonce,
            resource_errors: errors.collect(),
            ..DiscoveryResponse::default()
        };
        Some(response.encode_to_vec().into())
    }
}

impl Subscription {
    /// Takes the names of a request and gives those that must be answered.
    fn change(&mut self, names: Vec<String>, may_be_wildcard: bool) -> BTreeSet<Name> {
        let had_wildcard = self.wildcard;
        self.explicit |= !names.is_empty();
        self.wildcard = may_be_wildcard && (!self.explicit || names.iter().any(|name| name == "*"));
        let names = names.into_iter().filter(|name| name != "*").map(canonical_name).collect();
        let old = std::mem::replace(&mut self.names, names);
        let mut added: BTreeSet<Name> = self.names.difference(&old).cloned().collect();
        if self.wildcard && !had_wildcard {
            added.insert("*".into());
        }
        added
    }

    /// Every name it stands for now.
    fn all(&self, type_url: &str, set: &ResourceSet) -> BTreeSet<Name> {
        let mut names = self.names.clone();
        if self.wildcard {
            names.extend(set.types.get(type_url).into_iter().flat_map(|set| set.resources.keys().cloned()));
        }
        names
    }

    /// The names it stands for whose resource differs between the sets.
    fn changed(&self, type_url: &str, old: &ResourceSet, new: &ResourceSet) -> BTreeSet<Name> {
        let mut names = self.all(type_url, old);
        names.append(&mut self.all(type_url, new));
        names.retain(|name| old.get(type_url, name) != new.get(type_url, name));
        names
    }
}

/// Whether a response of this type is the complete state, so that absence means deletion.
fn is_full_state(type_url: &str) -> bool {
    type_url == LISTENER || type_url == CLUSTER
}

fn not_found(type_url: &str, name: &str) -> ResourceError {
    let key = ResourceKey::new(type_url, name);
    ResourceError {
        resource_name: Some(ResourceName { name: name.to_owned(), dynamic_parameter_constraints: None }),
        error_detail: Some(Status { code: NOT_FOUND, message: format!("{key} does not exist"), details: Vec::new() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(type_url: &str, name: &str, content: &str) -> EncodedResource {
        EncodedResource::new(ResourceKey::new(type_url, name), content.to_owned())
    }

    fn set(resources: &[(&str, &str, &str)]) -> Arc<ResourceSet> {
        Arc::new(ResourceSet::new(resources.iter().map(|(t, n, c)| resource(t, n, c))))
    }

    fn request(type_url: &str, names: &[&str], nonce: &str) -> Vec<u8> {
        DiscoveryRequest {
            type_url: format!("{TYPE_URL_PREFIX}{type_url}"),
            resource_names: names.iter().map(ToString::to_string).collect(),
            response_nonce: nonce.to_owned(),
            ..DiscoveryRequest::default()
        }
        .encode_to_vec()
    }

    /// (short type, nonce, contents, missing names) of each response.
    fn read(responses: Vec<Bytes>) -> Vec<(String, String, Vec<String>, Vec<String>)> {
        responses
            .into_iter()
            .map(|bytes| {
                let response = DiscoveryResponse::decode(bytes).unwrap();
                (
                    response.type_url.rsplit('.').next().unwrap().to_owned(),
                    response.nonce,
                    response.resources.into_iter().map(|any| String::from_utf8(any.value).unwrap()).collect(),
                    response.resource_errors.into_iter().map(|error| error.resource_name.unwrap().name).collect(),
                )
            })
            .collect()
    }

    fn answer(
        short: &str,
        nonce: &str,
        contents: &[&str],
        missing: &[&str],
    ) -> (String, String, Vec<String>, Vec<String>) {
        let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        (short.to_owned(), nonce.to_owned(), strings(contents), strings(missing))
    }

    #[test]
    fn a_subscription_is_answered_and_its_ack_is_not() {
        let mut responder = Responder::new(set(&[(LISTENER, "a", "A"), (LISTENER, "b", "B")]));
        let first = read(responder.handle_request(&request(LISTENER, &["a"], "")));
        assert_eq!(first, [answer("Listener", "1", &["A"], &[])]);
        assert_eq!(read(responder.handle_request(&request(LISTENER, &["a"], "1"))), []);
    }

    #[test]
    fn full_state_types_are_answered_whole_and_others_by_what_is_new() {
        let all = [
            (LISTENER, "a", "A"),
            (LISTENER, "b", "B"),
            (ROUTE_CONFIGURATION, "r", "R"),
            (ROUTE_CONFIGURATION, "s", "S"),
        ];
        let mut responder = Responder::new(set(&all));
        responder.handle_request(&request(LISTENER, &["a"], ""));
        let second = read(responder.handle_request(&request(LISTENER, &["a", "b"], "1")));
        assert_eq!(second, [answer("Listener", "2", &["A", "B"], &[])]);
        responder.handle_request(&request(ROUTE_CONFIGURATION, &["r"], ""));
        let fourth = read(responder.handle_request(&request(ROUTE_CONFIGURATION, &["r", "s"], "3")));
        assert_eq!(fourth, [answer("RouteConfiguration", "4", &["S"], &[])]);
    }

    #[test]
    fn a_stale_nonce_is_not_answered() {
        let mut responder = Responder::new(set(&[(LISTENER, "a", "A")]));
        responder.handle_request(&request(LISTENER, &["a"], ""));
        responder.set_resources(set(&[(LISTENER, "a", "A2")]));
        assert_eq!(read(responder.handle_request(&request(LISTENER, &["a", "b"], "1"))), []);
        let fresh = read(responder.handle_request(&request(LISTENER, &["a", "b"], "2")));
        assert_eq!(fresh, [answer("Listener", "3", &["A2"], &["b"])]);
    }

    #[test]
    fn a_name_that_is_subscribed_again_is_sent_again() {
        let mut responder = Responder::new(set(&[(CLUSTER_LOAD_ASSIGNMENT, "e", "E")]));
        responder.handle_request(&request(CLUSTER_LOAD_ASSIGNMENT, &["e"], ""));
        assert_eq!(read(responder.handle_request(&request(CLUSTER_LOAD_ASSIGNMENT, &[], "1"))), []);
        let again = read(responder.handle_request(&request(CLUSTER_LOAD_ASSIGNMENT, &["e"], "1")));
        assert_eq!(again, [answer("ClusterLoadAssignment", "2", &["E"], &[])]);
    }

    #[test]
    fn names_that_do_not_exist_are_errors() {
        let mut responder = Responder::new(set(&[]));
        let first = read(responder.handle_request(&request(ROUTE_CONFIGURATION, &["r"], "")));
        assert_eq!(first, [answer("RouteConfiguration", "1", &[], &["r"])]);
        let then = read(responder.set_resources(set(&[(ROUTE_CONFIGURATION, "r", "R")])));
        assert_eq!(then, [answer("RouteConfiguration", "2", &["R"], &[])]);
        let gone = read(responder.set_resources(set(&[])));
        assert_eq!(gone, [answer("RouteConfiguration", "3", &[], &["r"])]);
    }

    #[test]
    fn a_server_may_be_silent_about_what_does_not_exist() {
        let mut responder = Responder::new(set(&[(LISTENER, "a", "A")])).without_resource_errors();
        let first = read(responder.handle_request(&request(LISTENER, &["a", "b"], "")));
        assert_eq!(first, [answer("Listener", "1", &["A"], &[])]);
    }

    #[test]
    fn a_change_pushes_only_what_changed_clusters_first() {
        let before =
            [(LISTENER, "l", "L"), (CLUSTER, "c", "C"), (ROUTE_CONFIGURATION, "r", "R"), (CLUSTER, "other", "O")];
        let mut responder = Responder::new(set(&before));
        for (type_url, name) in [(LISTENER, "l"), (ROUTE_CONFIGURATION, "r"), (CLUSTER, "c")] {
            responder.handle_request(&request(type_url, &[name], ""));
        }
        let after =
            [(LISTENER, "l", "L"), (CLUSTER, "c", "C2"), (ROUTE_CONFIGURATION, "r", "R2"), (CLUSTER, "other", "O")];
        let pushed = read(responder.set_resources(set(&after)));
        assert_eq!(pushed, [answer("Cluster", "4", &["C2"], &[]), answer("RouteConfiguration", "5", &["R2"], &[])]);
        let unrelated = [after[0], after[1], after[2], (CLUSTER, "other", "O2")];
        assert_eq!(read(responder.set_resources(set(&unrelated))), [], "no one asked for it");
    }

    #[test]
    fn a_cluster_goes_after_the_route_that_named_it() {
        let before =
            [(CLUSTER, "blue", "B"), (CLUSTER_LOAD_ASSIGNMENT, "blue", "E"), (ROUTE_CONFIGURATION, "r", "to blue")];
        let mut responder = Responder::new(set(&before));
        responder.handle_request(&request(CLUSTER, &["blue", "green"], ""));
        responder.handle_request(&request(CLUSTER_LOAD_ASSIGNMENT, &["blue"], ""));
        responder.handle_request(&request(ROUTE_CONFIGURATION, &["r"], ""));
        let pushed = responder.set_resources(set(&[(CLUSTER, "green", "G"), (ROUTE_CONFIGURATION, "r", "to green")]));
        let versions: Vec<String> =
            pushed.iter().map(|bytes| DiscoveryResponse::decode(&bytes[..]).unwrap().version_info).collect();
        assert_eq!(
            read(pushed),
            [
                answer("Cluster", "4", &["G", "B"], &[]),
                answer("RouteConfiguration", "5", &["to green"], &[]),
                answer("Cluster", "6", &["G"], &["blue"]),
                answer("ClusterLoadAssignment", "7", &[], &["blue"]),
            ]
        );
        assert_ne!(versions[0], versions[2], "different contents have different versions");
    }

    #[test]
    fn wildcard_is_star_or_an_empty_first_request_and_ends_with_a_name() {
        let all = [(LISTENER, "a", "A"), (LISTENER, "b", "B")];
        let mut legacy = Responder::new(set(&all));
        assert_eq!(
            read(legacy.handle_request(&request(LISTENER, &[], ""))),
            [answer("Listener", "1", &["A", "B"], &[])]
        );
        assert_eq!(read(legacy.handle_request(&request(LISTENER, &[], "1"))), [], "the ACK of a wildcard");
        assert_eq!(
            read(legacy.handle_request(&request(LISTENER, &["a"], "1"))),
            [answer("Listener", "2", &["A"], &[])]
        );
        assert_eq!(read(legacy.handle_request(&request(LISTENER, &[], "2"))), [], "now an empty list is none");
        assert_eq!(read(legacy.set_resources(set(&[]))), []);

        let mut star = Responder::new(set(&all));
        let first = read(star.handle_request(&request(LISTENER, &["*", "a"], "")));
        assert_eq!(first, [answer("Listener", "1", &["A", "B"], &[])]);
        assert_eq!(
            read(star.handle_request(&request(LISTENER, &["a"], "1"))),
            [],
            "dropping the wildcard asks for nothing"
        );
        assert_eq!(read(star.set_resources(set(&[(LISTENER, "a", "A")]))), [], "b is not wanted any more");
    }

    #[test]
    fn an_empty_first_request_is_no_wildcard_for_routes() {
        let mut responder = Responder::new(set(&[(ROUTE_CONFIGURATION, "r", "R")]));
        let first = read(responder.handle_request(&request(ROUTE_CONFIGURATION, &[], "")));
        assert_eq!(first, [answer("RouteConfiguration", "1", &[], &[])]);
    }

    #[test]
    fn what_a_client_refuses_is_kept_for_the_owner() {
        let mut responder = Responder::new(set(&[(LISTENER, "a", "A")]));
        responder.handle_request(&request(LISTENER, &["a"], ""));
        let mut nack = DiscoveryRequest::decode(&request(LISTENER, &["a"], "1")[..]).unwrap();
        nack.error_detail = Some(Status { code: 3, message: "bad".to_owned(), details: Vec::new() });
        assert_eq!(read(responder.handle_request(&nack.encode_to_vec())), [], "a NACK is not answered");
        assert_eq!(responder.take_rejections(), [Rejection { type_url: LISTENER.into(), message: "bad".to_owned() }]);
        assert_eq!(responder.take_rejections(), []);
    }

    #[test]
    fn garbage_is_ignored_and_names_come_from_the_first_field() {
        let mut responder = Responder::new(set(&[]));
        assert!(responder.handle_request(b"\xff\xff\xff").is_empty());
        let any = Any { type_url: format!("{TYPE_URL_PREFIX}{LISTENER}"), value: b"\x0a\x01x\x12\x00".to_vec() };
        let resource = EncodedResource::from_any(&any.encode_to_vec()).unwrap();
        assert_eq!(resource.key, ResourceKey::new(LISTENER, "x"));
        assert!(EncodedResource::named_by_first_field(LISTENER, &b"\x12\x00"[..]).is_none());
    }

    #[test]
    fn the_same_resources_have_the_same_version_anywhere() {
        let one = set(&[(LISTENER, "a", "A"), (LISTENER, "b", "B")]);
        let two = set(&[(LISTENER, "b", "B"), (LISTENER, "a", "A")]);
        assert_eq!(one.version(LISTENER), two.version(LISTENER));
        assert_ne!(one.version(LISTENER), set(&[(LISTENER, "a", "AB"), (LISTENER, "b", "")]).version(LISTENER));
        assert_eq!(one.version(CLUSTER), "0");
    }
}
