//! The messages of state-of-the-world ADS: requests written, responses read.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse, Resource, ResourceError};
use envoy_types::pb::google::protobuf::{self, Any, ListValue, Struct, value::Kind};
use envoy_types::pb::google::rpc::Status;
use prost::Message;
use serde_json::{Map, Value};

use super::types::ResourceType;
use crate::bootstrap::Node;
use crate::decode::{Decoded, Fault};
use crate::model::Name;
use crate::resource::{ResourceKey, ResourceValue, TYPE_URL_PREFIX, canonical_name, name_fault};

/// `google.rpc.Code.INVALID_ARGUMENT`, the code of every NACK.
const INVALID_ARGUMENT: i32 = 3;
/// The wrapper that a server may put around each resource.
const WRAPPER: &str = "envoy.service.discovery.v3.Resource";
/// How we call ourselves to servers.
const USER_AGENT: &str = "mesh Rust";
/// What we understand beyond the basics: endpoint weights without overprovisioning (gRFC A27), and the wrapper. Never TTLs.
const CLIENT_FEATURES: [&str; 2] = ["envoy.lb.does_not_support_overprovisioning", "xds.config.resource-in-sotw"];
/// A NACK's text ends after so many bytes: the server's own limit of a message must not end the stream.
const LONGEST_NACK: usize = 256 * 1024;

/// A request that is about to be written.
pub(super) struct Request<'a> {
    pub(super) type_url: &'a str,
    pub(super) version: &'a str,
    pub(super) nonce: &'a str,
    pub(super) names: Vec<String>,
    /// The text of a NACK.
    pub(super) error: Option<String>,
    /// Only in the first request of a stream.
    pub(super) node: Option<core::Node>,
}

impl Request<'_> {
    pub(super) fn encode(self) -> Bytes {
        let error_detail = self.error.map(|message| Status { code: INVALID_ARGUMENT, message, details: Vec::new() });
        let request = DiscoveryRequest {
            version_info: self.version.to_owned(),
            node: self.node,
            resource_names: self.names,
            type_url: format!("{TYPE_URL_PREFIX}{}", self.type_url),
            response_nonce: self.nonce.to_owned(),
            error_detail,
            ..DiscoveryRequest::default()
        };
        request.encode_to_vec().into()
    }
}

/// Who we are, as servers are told.
pub(super) fn node(node: &Node) -> core::Node {
    core::Node {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        metadata: (!node.metadata.is_empty()).then(|| structure(&node.metadata)),
        locality: node.locality.as_ref().map(|locality| core::Locality {
            region: locality.region.to_string(),
            zone: locality.zone.to_string(),
            sub_zone: locality.sub_zone.to_string(),
        }),
        user_agent_name: USER_AGENT.to_owned(),
        user_agent_version_type: Some(core::node::UserAgentVersionType::UserAgentVersion(
            env!("CARGO_PKG_VERSION").to_owned(),
        )),
        client_features: CLIENT_FEATURES.map(str::to_owned).to_vec(),
        ..core::Node::default()
    }
}

fn structure(map: &Map<String, Value>) -> Struct {
    Struct { fields: map.iter().map(|(key, value)| (key.clone(), self::value(value))).collect() }
}

fn value(value: &Value) -> protobuf::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(self::value).collect() }),
        Value::Object(map) => Kind::StructValue(structure(map)),
    };
    protobuf::Value { kind: Some(kind) }
}

/// A response whose envelope could be read.
pub(super) struct Envelope {
    /// The type, without its prefix.
    pub(super) type_url: Name,
    pub(super) version: String,
    pub(super) nonce: String,
    resources: Vec<Any>,
    errors: Vec<ResourceError>,
}

impl Envelope {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        let response = DiscoveryResponse::decode(bytes)?;
        Ok(Self {
            type_url: bare(&response.type_url).into(),
            version: response.version_info,
            nonce: response.nonce,
            resources: response.resources,
            errors: response.resource_errors,
        })
    }

    /// Reads everything in it.
    pub(super) fn open(self, row: &ResourceType) -> Contents {
        let mut contents = Contents { total: self.resources.len(), ..Contents::default() };
        for (index, any) in self.resources.into_iter().enumerate() {
            match Item::read(any, row) {
                Ok(item) => contents.add(item),
                Err((None, faults)) => {
                    contents.has_nameless = true;
                    contents
                        .complaints
                        .push(complaint(&format!("resource {index}, which has no readable name"), &faults));
                }
                Err((Some(name), faults)) => contents.refuse(row, name, &faults),
            }
        }
        for (name, fault) in std::mem::take(&mut contents.duplicates) {
            contents.valid.remove(&name);
            contents.refuse(row, name, &[fault]);
        }
        for error in self.errors {
            contents.add_error(row, error);
        }
        contents
    }
}

/// What a response holds, sorted by what it means.
#[derive(Default)]
pub(super) struct Contents {
    /// How many resources it held, good and bad.
    pub(super) total: usize,
    pub(super) valid: BTreeMap<Name, Item>,
    /// The resources that are refused, with what is wrong.
    pub(super) invalid: BTreeMap<Name, String>,
    /// Whether one was refused whose name could not be read: it could be any.
    pub(super) has_nameless: bool,
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

    fn refuse(&mut self, row: &ResourceType, name: Name, faults: &[Fault]) {
        let complaint = complaint(&ResourceKey::new(row.type_url.clone(), name.clone()).to_string(), faults);
        self.complaints.push(complaint.clone());
        // A name that is there twice, once valid and once not, is not valid.
        self.valid.remove(&name);
        self.invalid
            .entry(name)
            .and_modify(|text| {
                text.push_str("; ");
                text.push_str(&complaint);
            })
            .or_insert(complaint);
    }

    fn add_error(&mut self, row: &ResourceType, error: ResourceError) {
        let name = canonical_name(error.resource_name.unwrap_or_default().name);
        if self.valid.contains_key(&name) {
            let fault = Fault::new("", "is among the resources and among resource_errors");
            self.refuse(row, name, &[fault]);
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

fn complaint(what: &str, faults: &[Fault]) -> String {
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    format!("{what}: {}", faults.join("; "))
}

/// A valid resource.
pub(super) struct Item {
    pub(super) name: Name,
    pub(super) value: ResourceValue,
    /// The inner `Any`'s bytes, as they came.
    pub(super) bytes: Bytes,
}

type Refused = (Option<Name>, Vec<Fault>);

impl Item {
    fn read(any: Any, row: &ResourceType) -> Result<Self, Refused> {
        let (outer, any) = unwrap(any)?;
        let refuse = |rule: String| Err((outer.clone(), vec![Fault::new("", rule)]));
        if bare(&any.type_url) != &*row.type_url {
            return refuse(format!("its type is `{}` in a response of type `{}`", any.type_url, row.type_url));
        }
        let bytes = Bytes::from(any.value);
        match row.decoder.decode(&row.type_url, &bytes) {
            Decoded::Ok { name, value } => {
                let name = canonical_name(outer.clone().unwrap_or(name));
                if name.is_empty() {
                    return refuse("its name is empty".to_owned());
                }
                // `spec` 3.1, rule 6 (gRFC A47).
                match name_fault(&row.type_url, &name) {
                    Some(why) => Err((Some(name), vec![Fault::new("name", why)])),
                    None => Ok(Self { name, value, bytes }),
                }
            }
            Decoded::Err { name, faults } => {
                let name = outer.or(name).filter(|name| !name.is_empty());
                Err((name.map(canonical_name), faults))
            }
        }
    }
}

/// Takes a resource out of its wrapper, if it has one; the wrapper's name has priority.
fn unwrap(any: Any) -> Result<(Option<Name>, Any), Refused> {
    if bare(&any.type_url) != WRAPPER {
        return Ok((None, any));
    }
    let wrapper = Resource::decode(&any.value[..])
        .map_err(|error| (None, vec![Fault::new("", format!("its wrapper cannot be decoded: {error}"))]))?;
    let name = Some(Name::from(wrapper.name)).filter(|name| !name.is_empty());
    match wrapper.resource {
        Some(any) => Ok((name, any)),
        None => Err((name, vec![Fault::new("resource", "is missing from the wrapper")])),
    }
}

/// A type URL without what comes before its last `/`.
fn bare(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}
