//! The requests of both protocols, as they are written.

use std::collections::HashMap;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::protobuf::{self, ListValue, Struct, value::Kind};
use envoy_types::pb::google::rpc::Status;
use prost::Message;
use serde_json::{Map, Value};

use crate::bootstrap::Node;
use crate::resource::TYPE_URL_PREFIX;

/// `google.rpc.Code.INVALID_ARGUMENT`, the code of every NACK.
const INVALID_ARGUMENT: i32 = 3;
/// How we call ourselves to servers.
const USER_AGENT: &str = "mesh Rust";
/// What we understand beyond the basics: endpoint weights without overprovisioning (gRFC A27), the wrapper around resources
/// (gRFC A47), and its `ttl`.
const CLIENT_FEATURES: [&str; 3] =
    ["envoy.lb.does_not_support_overprovisioning", "xds.config.resource-in-sotw", "xds.config.supports-resource-ttl"];

/// A `DiscoveryRequest` that is about to be written: it names everything that is wanted.
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
        let request = DiscoveryRequest {
            version_info: self.version.to_owned(),
            node: self.node,
            resource_names: self.names,
            type_url: format!("{TYPE_URL_PREFIX}{}", self.type_url),
            response_nonce: self.nonce.to_owned(),
            error_detail: self.error.map(invalid_argument),
            ..DiscoveryRequest::default()
        };
        request.encode_to_vec().into()
    }
}

/// A `DeltaDiscoveryRequest` that is about to be written: it names what is different from the one before.
pub(super) struct DeltaRequest<'a> {
    pub(super) type_url: &'a str,
    pub(super) subscribe: Vec<String>,
    pub(super) unsubscribe: Vec<String>,
    /// The versions in use, by name; only in the first request of a type on a stream.
    pub(super) initial_versions: HashMap<String, String>,
    /// The response that is acknowledged, and the text of a NACK; None in a request that is about no response.
    pub(super) answer: Option<(String, Option<String>)>,
    /// Only in the first request of a stream.
    pub(super) node: Option<core::Node>,
}

impl DeltaRequest<'_> {
    pub(super) fn encode(self) -> Bytes {
        let (nonce, error) = self.answer.unwrap_or_default();
        let request = DeltaDiscoveryRequest {
            node: self.node,
            type_url: format!("{TYPE_URL_PREFIX}{}", self.type_url),
            resource_names_subscribe: self.subscribe,
            resource_names_unsubscribe: self.unsubscribe,
            initial_resource_versions: self.initial_versions,
            response_nonce: nonce,
            error_detail: error.map(invalid_argument),
            ..DeltaDiscoveryRequest::default()
        };
        request.encode_to_vec().into()
    }
}

fn invalid_argument(message: String) -> Status {
    Status { code: INVALID_ARGUMENT, message, details: Vec::new() }
}

/// Who we are, as servers are told.
pub(crate) fn node(node: &Node) -> core::Node {
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
