//! What a response holds, in either protocol, sorted by what it means (`spec` sections 2.2 and 2.12).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::ControlPlane;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryResponse, Resource, ResourceError, ResourceName,
};
use envoy_types::pb::google::protobuf::{self, Any};
use envoy_types::pb::google::rpc::Status;
use prost::Message;

use super::types::{ResourceType, Variant};
use crate::decode::{Decoded, Fault};
use crate::model::Name;
use crate::resource::{ResourceKey, ResourceValue, WILDCARD, canonical_name, name_fault};

/// The wrapper that a server may put around each resource (gRFC A47).
const WRAPPER: &str = "envoy.service.discovery.v3.Resource";
/// A NACK's text ends after so many bytes: the server's own limit of a message must not end the stream.
const LONGEST_NACK: usize = 256 * 1024;
/// So many characters of what a control plane calls itself are shown: istiod's build information fits.
const LONGEST_IDENTIFIER: usize = 512;
/// So many other names may a resource have. Each is looked for, so a server must not choose how long that takes.
const MOST_ALIASES: usize = 100;

/// A response whose envelope could be read.
pub(super) struct Envelope {
    /// The type, without its prefix.
    pub(super) type_url: Name,
    /// The version of the whole; in an incremental response it is for people only.
    pub(super) version: String,
    pub(super) nonce: String,
    /// What the process that answered calls itself.
    pub(super) control_plane: Option<Name>,
    resources: Vec<Result<Wrapper, Refused>>,
    removed: Vec<String>,
    errors: Vec<ResourceError>,
}

impl Envelope {
    pub(super) fn read(variant: Variant, bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        Ok(match variant {
            Variant::StateOfTheWorld => {
                let response = DiscoveryResponse::decode(bytes)?;
                Self {
                    type_url: bare(&response.type_url).into(),
                    version: response.version_info,
                    nonce: response.nonce,
                    control_plane: identifier(response.control_plane),
                    resources: response.resources.into_iter().map(Wrapper::around).collect(),
                    removed: Vec::new(),
                    errors: response.resource_errors,
                }
            }
            Variant::Incremental => {
                let response = DeltaDiscoveryResponse::decode(bytes)?;
                let mut removed = response.removed_resources;
                removed.extend(response.removed_resource_names.into_iter().map(|name| name.name));
                Self {
                    type_url: bare(&response.type_url).into(),
                    version: response.system_version_info,
                    nonce: response.nonce,
                    control_plane: identifier(response.control_plane),
                    resources: response.resources.into_iter().map(|inner| Ok(Wrapper::from(inner))).collect(),
                    removed,
                    errors: response.resource_errors,
                }
            }
        })
    }

    /// Reads everything in it. `in_use` gives the version that is in use of a resource that is wanted.
    pub(super) fn open<'a>(self, row: &ResourceType, in_use: impl Fn(&str) -> Option<Option<&'a str>>) -> Contents {
        let mut contents = Contents { total: self.resources.len(), ..Contents::default() };
        for (index, wrapper) in self.resources.into_iter().enumerate() {
            match wrapper.and_then(|wrapper| wrapper.read(row, &in_use)) {
                Ok(item) => contents.add(item),
                Err(Refused { name: None, faults, .. }) => {
                    contents.has_nameless = true;
                    contents
                        .complaints
                        .push(complaint(&format!("resource {index}, which has no readable name"), &faults));
                }
                Err(Refused { name: Some(name), faults, bytes }) => contents.refuse(row, name, &faults, bytes),
            }
        }
        for (name, fault) in std::mem::take(&mut contents.duplicates) {
            contents.refuse(row, name, &[fault], None);
        }
        for name in self.removed {
            contents.add_removed(row, canonical_name(name));
        }
        for error in self.errors {
            contents.add_error(row, error);
        }
        contents
    }
}

/// For people only (`spec` section 2.2): cut, and in one line.
fn identifier(value: Option<ControlPlane>) -> Option<Name> {
    let shown = |letter: &char| !letter.is_control();
    let text: String = value?.identifier.chars().filter(shown).take(LONGEST_IDENTIFIER).collect();
    (!text.is_empty()).then(|| text.into())
}

/// What a response holds, sorted by what it means.
#[derive(Default)]
pub(super) struct Contents {
    /// How many resources it held, good and bad.
    pub(super) total: usize,
    pub(super) valid: BTreeMap<Name, Item>,
    /// The resources that are refused.
    pub(super) invalid: BTreeMap<Name, Refusal>,
    /// Whether one was refused whose name could not be read: it could be any.
    pub(super) has_nameless: bool,
    /// What the server says not to exist (any more), in an incremental response.
    pub(super) removed: BTreeSet<Name>,
    /// What the server says about resources it does not send.
    pub(super) errors: BTreeMap<Name, Status>,
    complaints: Vec<String>,
    duplicates: BTreeMap<Name, Fault>,
}

impl Contents {
    fn add(&mut self, item: Item) {
        let name = item.name.clone();
        if self.invalid.contains_key(&name) || self.valid.insert(name.clone(), item).is_some() {
            self.duplicates
                .insert(name, Fault::new("", "is in the response twice; which one is meant cannot be known"));
        }
    }

    /// The names of what it brings, good and bad.
    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        let has_value = |(_, item): &(&Name, &Item)| matches!(item.body, Body::Value(..));
        self.valid.iter().filter(has_value).map(|(name, _)| name).chain(self.invalid.keys())
    }

    pub(super) fn refuse(&mut self, row: &ResourceType, name: Name, faults: &[Fault], bytes: Option<Bytes>) {
        let complaint = complaint(&ResourceKey::new(row.type_url.clone(), name.clone()).to_string(), faults);
        self.complaints.push(complaint.clone());
        if &*name == WILDCARD {
            return;
        }
        // A name that is there twice, once valid and once not, is not valid.
        let valid = self.valid.remove(&name).and_then(|item| item.body.into_bytes());
        self.invalid
            .entry(name)
            .and_modify(|refusal| {
                refusal.text.push_str("; ");
                refusal.text.push_str(&complaint);
            })
            .or_insert_with(|| Refusal { text: complaint, bytes: bytes.or(valid) });
    }

    fn add_removed(&mut self, row: &ResourceType, name: Name) {
        if self.valid.contains_key(&name) {
            self.refuse(row, name, &[Fault::new("", "is among the resources and among removed_resources")], None);
        } else if !self.invalid.contains_key(&name) {
            self.removed.insert(name);
        }
    }

    fn add_error(&mut self, row: &ResourceType, error: ResourceError) {
        let name = canonical_name(error.resource_name.unwrap_or_default().name);
        if self.valid.contains_key(&name) {
            let fault = Fault::new("", "is among the resources and among resource_errors");
            self.refuse(row, name, &[fault], None);
        } else if !name.is_empty() && !self.invalid.contains_key(&name) {
            self.errors.insert(name, error.error_detail.unwrap_or_default());
        }
    }

    /// Whether the response said anything about this resource.
    pub(super) fn mentions(&self, name: &str) -> bool {
        self.valid.contains_key(name) || self.invalid.contains_key(name) || self.errors.contains_key(name)
    }

    /// The text of the NACK; None: everything is fine.
    pub(super) fn nack(&self) -> Option<String> {
        if self.complaints.is_empty() {
            return None;
        }
        let mut text = format!("{} of {} resources refused: ", self.complaints.len(), self.total);
        for (index, complaint) in self.complaints.iter().enumerate() {
            if text.len() + complaint.len() > LONGEST_NACK {
                // Writing to a string cannot fail.
                let _ = write!(text, " and {} more", self.complaints.len() - index);
                break;
            }
            text.push_str(if index == 0 { "" } else { " | " });
            text.push_str(complaint);
        }
        Some(text)
    }
}

/// Why a resource is refused.
pub(super) struct Refusal {
    /// What is wrong with it.
    pub(super) text: String,
    /// The resource itself, as it came.
    pub(super) bytes: Option<Bytes>,
}

fn complaint(what: &str, faults: &[Fault]) -> String {
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    format!("{what}: {}", faults.join("; "))
}

/// A valid resource.
pub(super) struct Item {
    pub(super) name: Name,
    /// Its other names; state of the world has none.
    pub(super) aliases: Vec<Name>,
    /// Its own version, if it has one.
    pub(super) version: Option<String>,
    /// How long it may be used without another word about it.
    pub(super) ttl: Option<Duration>,
    pub(super) body: Body,
}

pub(super) enum Body {
    /// A value, and the inner `Any`'s bytes, as they came.
    Value(ResourceValue, Bytes),
    /// None: the value in use stays so for another TTL.
    Heartbeat,
}

impl Body {
    fn into_bytes(self) -> Option<Bytes> {
        match self {
            Self::Value(_, bytes) => Some(bytes),
            Self::Heartbeat => None,
        }
    }
}

/// A resource that is refused.
struct Refused {
    name: Option<Name>,
    faults: Vec<Fault>,
    bytes: Option<Bytes>,
}

impl Refused {
    fn new(name: Option<Name>, field: &str, rule: impl Into<String>) -> Self {
        Self { name, faults: vec![Fault::new(field, rule)], bytes: None }
    }
}

/// `envoy.service.discovery.v3.Resource`, or what a bare resource would be in one.
#[derive(Default)]
struct Wrapper {
    name: Option<Name>,
    aliases: Vec<String>,
    version: Option<String>,
    ttl: Option<protobuf::Duration>,
    inner: Option<Any>,
}

impl From<Resource> for Wrapper {
    fn from(resource: Resource) -> Self {
        let name = if resource.name.is_empty() {
            resource.resource_name.map(|ResourceName { name, .. }| name).unwrap_or_default()
        } else {
            resource.name
        };
        Self {
            name: Some(canonical_name(name)).filter(|name| !name.is_empty()),
            aliases: resource.aliases,
            version: Some(resource.version),
            ttl: resource.ttl,
            inner: resource.resource,
        }
    }
}

impl Wrapper {
    /// A resource of a state-of-the-world response: bare, or in its wrapper, of which only name and TTL count.
    fn around(any: Any) -> Result<Self, Refused> {
        if bare(&any.type_url) != WRAPPER {
            return Ok(Self { inner: Some(any), ..Self::default() });
        }
        let resource = Resource::decode(&any.value[..])
            .map_err(|error| Refused::new(None, "", format!("its wrapper cannot be decoded: {error}")))?;
        Ok(Self { aliases: Vec::new(), version: None, ..Self::from(resource) })
    }

    fn read<'a>(self, row: &ResourceType, in_use: &impl Fn(&str) -> Option<Option<&'a str>>) -> Result<Item, Refused> {
        let refuse = |field: &str, rule: String| Err(Refused::new(self.name.clone(), field, rule));
        let ttl = match self.ttl.map(time_to_live).transpose() {
            Ok(ttl) => ttl,
            Err(rule) => return refuse("ttl", rule.to_owned()),
        };
        if self.aliases.len() > MOST_ALIASES {
            return refuse("aliases", format!("has {} names, and may have {MOST_ALIASES}", self.aliases.len()));
        }
        let aliases = self.aliases.into_iter().map(canonical_name).filter(|name| &**name != WILDCARD).collect();
        let item = |name, body| Item { name, aliases, version: self.version.clone(), ttl, body };
        let Some(any) = self.inner else {
            let Some(name) = self.name.clone().filter(|_| ttl.is_some()) else {
                return refuse("resource", "is missing from the wrapper".to_owned());
            };
            return match (in_use(&name), &self.version) {
                // Nobody wants it, so nobody minds.
                (None, _) => Ok(item(name, Body::Heartbeat)),
                (Some(Some(_)), None) => Ok(item(name, Body::Heartbeat)),
                (Some(Some(ours)), Some(theirs)) if ours == theirs => Ok(item(name, Body::Heartbeat)),
                _ => refuse("resource", "is missing, and what is in use is not of this version".to_owned()),
            };
        };
        let bytes = Bytes::from(any.value);
        let refuse = |name, faults| Err(Refused { name, faults, bytes: Some(bytes.clone()) });
        if bare(&any.type_url) != &*row.type_url {
            let rule = format!("its type is `{}` in a response of type `{}`", any.type_url, row.type_url);
            return refuse(self.name, vec![Fault::new("", rule)]);
        }
        match row.decoder.decode(&row.type_url, &bytes) {
            Decoded::Ok { name, value } => {
                let name = self.name.clone().unwrap_or_else(|| canonical_name(name));
                if name.is_empty() {
                    return refuse(None, vec![Fault::new("", "its name is empty")]);
                }
                if &*name == WILDCARD {
                    return refuse(Some(name), vec![Fault::new("name", "stands for all resources of a type")]);
                }
                // `spec` 3.1, rule 6 (gRFC A47).
                match name_fault(&row.type_url, &name) {
                    Some(why) => refuse(Some(name), vec![Fault::new("name", why)]),
                    None => Ok(item(name, Body::Value(value, bytes))),
                }
            }
            Decoded::Err { name, faults } => {
                let name = self.name.or_else(|| name.filter(|name| !name.is_empty()).map(canonical_name));
                refuse(name, faults)
            }
        }
    }
}

fn time_to_live(ttl: protobuf::Duration) -> Result<Duration, &'static str> {
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(ttl.seconds), u32::try_from(ttl.nanos)) else {
        return Err("must not be negative");
    };
    if seconds > 315_576_000_000 || nanos > 999_999_999 {
        return Err("is not a duration");
    }
    Some(Duration::new(seconds, nanos)).filter(|ttl| !ttl.is_zero()).ok_or("must be greater than zero")
}

/// A type URL without what comes before its last `/`.
fn bare(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}
