//! From proto-JSON to a message's bytes, by descriptors.
//!
//! The same JSON always gives the same bytes: fields go out by number and map entries by key. The version of a
//! configuration is a digest of them.

use std::sync::LazyLock;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde::de::DeserializeSeed;
use serde_json::{Map, Value};

use crate::bootstrap::json::{Path, kind};
use crate::decode::Fault;
use crate::error::{Code, Error};
use crate::resource::TYPE_URL_PREFIX;
use crate::source::responder::EncodedResource;

/// So deep may JSON be: protobuf's own limit, which a decoder would refuse the bytes at.
const MAX_DEPTH: usize = 100;

/// Every message that an `@type` may name, and what they hold. `benches/src/bin/descriptors.rs` makes it.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(include_bytes!("descriptors.bin").as_slice()).expect("the embedded descriptor set is whole")
});

/// Reads an xDS resource that is written as proto-JSON with `@type`, as Envoy's own configuration is. Both spellings of
/// field names are taken, `route_config` and `routeConfig`.
///
/// Its meaning is not looked at; that is the decoder's work.
///
/// # Errors
///
/// [`Code::BAD_FILE`], with the field's path and the rule it broke: an unknown field, a value of the wrong type, two fields
/// of a oneof, an `@type`, here or inside, that is not known.
///
/// ```
/// use mesh_core::source::file::resource_from_json;
///
/// let mut json: serde_json::Value = serde_json::from_str(
///     r#"{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "backend", "connect_timeout": "0.5s"}"#,
/// )?;
/// assert_eq!(&*resource_from_json(&json)?.key.name, "backend");
///
/// json["connect_timeout"] = "soon".into();
/// let error = resource_from_json(&json).unwrap_err();
/// assert!(error.to_string().contains("connect_timeout"), "{error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn resource_from_json(json: &Value) -> Result<EncodedResource, Error> {
    resource(json).map_err(|fault| Error::new(Code::BAD_FILE, fault.to_string()))
}

pub(super) fn resource(json: &Value) -> Result<EncodedResource, Fault> {
    let (descriptor, fields) = typed(json, Path::Root)?;
    let bytes = message(&descriptor, &fields, At { path: Path::Root, depth: 0 })?;
    EncodedResource::named_by_first_field(descriptor.full_name(), bytes)
        .ok_or_else(|| Fault::new("name", format!("is missing: a {} must have one", descriptor.name())))
}

/// Where a value is, and how deep.
#[derive(Clone, Copy)]
struct At<'a> {
    path: Path<'a>,
    depth: usize,
}

impl<'a> At<'a> {
    fn inside(&'a self, path: Path<'a>) -> Self {
        At { path, depth: self.depth + 1 }
    }

    fn fault(&self, rule: impl Into<String>) -> Fault {
        Fault::new(self.path.to_string(), rule)
    }
}

/// The message that `@type` names, and the other fields.
fn typed(json: &Value, path: Path<'_>) -> Result<(MessageDescriptor, Map<String, Value>), Fault> {
    let fault = |rule: String| Fault::new(Path::Field(&path, "@type").to_string(), rule);
    let Value::Object(fields) = json else {
        return Err(Fault::new(path.to_string(), format!("must be an object with `@type`, and is {}", kind(json))));
    };
    let mut fields = fields.clone();
    let name = match fields.remove("@type") {
        Some(Value::String(name)) => name,
        Some(other) => return Err(fault(format!("must be a string, and is {}", kind(&other)))),
        None => return Err(fault(format!("is missing, and would name a message: {TYPE_URL_PREFIX}..."))),
    };
    let Some((_, bare)) = name.rsplit_once('/') else {
        return Err(fault(format!("is `{name}`, and must begin with {TYPE_URL_PREFIX}")));
    };
    let descriptor = POOL.get_message_by_name(bare).ok_or_else(|| {
        let else_way = "a filter of your own can be written as an xds.type.v3.TypedStruct";
        fault(format!("is `{bare}`, which is not a message known here; {else_way}"))
    })?;
    Ok((descriptor, fields))
}

/// Encodes the fields of a message that is written as a JSON object.
fn message(descriptor: &MessageDescriptor, json: &Map<String, Value>, at: At<'_>) -> Result<Vec<u8>, Fault> {
    if at.depth > MAX_DEPTH {
        return Err(at.fault(format!("is more than {MAX_DEPTH} levels deep")));
    }
    let mut fields = Vec::new();
    for (name, value) in json {
        let found = descriptor.get_field_by_json_name(name).or_else(|| descriptor.get_field_by_name(name));
        let Some(field) = found else {
            let path = Path::Field(&at.path, name);
            return Err(Fault::new(path.to_string(), format!("is not a field of {}", descriptor.full_name())));
        };
        // `null` is how proto-JSON leaves a field out, unless null is what it holds.
        if !value.is_null() || is(&field, "google.protobuf.Value") {
            fields.push((field, name, value));
        }
    }
    fields.sort_by_key(|(field, ..)| field.number());
    exclude_each_other(&fields, at)?;
    let mut out = Vec::new();
    for (field, name, value) in fields {
        put_field(&field, name, value, at, &mut out)?;
    }
    Ok(out)
}

/// A field may be given once, and of a oneof only one.
fn exclude_each_other(fields: &[(FieldDescriptor, &String, &Value)], at: At<'_>) -> Result<(), Fault> {
    for (index, (field, name, _)) in fields.iter().enumerate() {
        let group = field.containing_oneof();
        let clash = fields[..index]
            .iter()
            .find(|(other, ..)| other == field || (group.is_some() && other.containing_oneof() == group));
        if let Some((_, other, _)) = clash {
            let path = Path::Field(&at.path, name);
            return Err(Fault::new(path.to_string(), format!("is given together with `{other}`; only one may be")));
        }
    }
    Ok(())
}

fn is(field: &FieldDescriptor, message: &str) -> bool {
    field.kind().as_message().is_some_and(|descriptor| descriptor.full_name() == message)
}

fn put_field(
    field: &FieldDescriptor,
    name: &str,
    value: &Value,
    outer: At<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let at = outer.inside(Path::Field(&outer.path, name));
    let Kind::Message(inner) = field.kind() else { return put_scalar(field, value, at, out) };
    if field.is_map() {
        let Value::Object(entries) = value else {
            return Err(at.fault(format!("must be an object, and is {}", kind(value))));
        };
        return put_entries(field, &inner, entries, at, out);
    }
    if field.cardinality() != Cardinality::Repeated {
        put_message(field, &any_message(&inner, value, at)?, out);
        return Ok(());
    }
    let Value::Array(values) = value else {
        return Err(at.fault(format!("must be an array, and is {}", kind(value))));
    };
    for (index, value) in values.iter().enumerate() {
        let at = outer.inside(Path::Index(&outer.path, name, index));
        put_message(field, &any_message(&inner, value, at)?, out);
    }
    Ok(())
}

/// A map is a list of messages of a key and a value.
fn put_entries(
    field: &FieldDescriptor,
    entry: &MessageDescriptor,
    entries: &Map<String, Value>,
    at: At<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    for (key, value) in sorted {
        let mut bytes = Vec::new();
        put_field(&entry.map_entry_key_field(), "", &Value::String(key.clone()), at, &mut bytes)?;
        put_field(&entry.map_entry_value_field(), key, value, at, &mut bytes)?;
        put_message(field, &bytes, out);
    }
    Ok(())
}

fn put_message(field: &FieldDescriptor, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(field.number(), WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Numbers, strings, enums, and lists of them.
fn put_scalar(field: &FieldDescriptor, value: &Value, at: At<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    if put_plain(field, value, out) {
        return Ok(());
    }
    let object = Value::Object(Map::from_iter([(field.name().to_owned(), value.clone())]));
    let message = field.parent_message().clone().deserialize(object).map_err(|error| at.fault(because(&error)))?;
    out.extend(message.encode_to_vec());
    Ok(())
}

/// What endpoints are made of, put down as it is: a message of its own for each of their values would take longer than all
/// the rest. False: it is something else, or something is wrong with it.
fn put_plain(field: &FieldDescriptor, value: &Value, out: &mut Vec<u8>) -> bool {
    if field.is_list() {
        return false;
    }
    // A value that is the default is not encoded, where nobody can ask whether it is there.
    let is_encoded = |is_default: bool| !is_default || field.supports_presence();
    match (field.kind(), value) {
        (Kind::String, Value::String(text)) => {
            if is_encoded(text.is_empty()) {
                put_message(field, text.as_bytes(), out);
            }
        }
        (Kind::Uint32, Value::Number(number)) => {
            let Some(number) = number.as_u64().filter(|number| u32::try_from(*number).is_ok()) else { return false };
            if is_encoded(number == 0) {
                encode_key(field.number(), WireType::Varint, out);
                encode_varint(number, out);
            }
        }
        _ => return false,
    }
    true
}

/// The bytes of a message of any kind, the well-known ones with a JSON of their own among them.
fn any_message(descriptor: &MessageDescriptor, value: &Value, at: At<'_>) -> Result<Vec<u8>, Fault> {
    match (descriptor.full_name(), value) {
        ("google.protobuf.Any", _) => any(value, at),
        ("google.protobuf.Struct", Value::Object(fields)) => Ok(structure(fields, at)?.encode_to_vec()),
        ("google.protobuf.Value", _) => Ok(dynamic(value, at)?.encode_to_vec()),
        (name, _) if name.starts_with("google.protobuf.") => {
            let message: DynamicMessage =
                descriptor.clone().deserialize(value.clone()).map_err(|error| at.fault(because(&error)))?;
            Ok(message.encode_to_vec())
        }
        (_, Value::Object(fields)) => message(descriptor, fields, at),
        _ => Err(at.fault(format!("must be an object, and is {}", kind(value)))),
    }
}

fn any(value: &Value, at: At<'_>) -> Result<Vec<u8>, Fault> {
    let (descriptor, mut fields) = typed(value, at.path)?;
    let bytes = if descriptor.full_name().starts_with("google.protobuf.") {
        let path = Path::Field(&at.path, "value");
        match fields.remove("value") {
            Some(value) => any_message(&descriptor, &value, at.inside(path))?,
            None if fields.is_empty() && descriptor.full_name() == "google.protobuf.Empty" => Vec::new(),
            None => return Err(Fault::new(path.to_string(), "is missing")),
        }
    } else {
        message(&descriptor, &fields, at)?
    };
    let type_url = format!("{TYPE_URL_PREFIX}{}", descriptor.full_name());
    Ok(prost_types::Any { type_url, value: bytes }.encode_to_vec())
}

fn structure(fields: &Map<String, Value>, at: At<'_>) -> Result<prost_types::Struct, Fault> {
    let field =
        |(name, value): (&String, &Value)| Ok((name.clone(), dynamic(value, at.inside(Path::Field(&at.path, name)))?));
    Ok(prost_types::Struct { fields: fields.iter().map(field).collect::<Result<_, Fault>>()? })
}

fn dynamic(value: &Value, at: At<'_>) -> Result<prost_types::Value, Fault> {
    use prost_types::value::Kind;
    if at.depth > MAX_DEPTH {
        return Err(at.fault(format!("is more than {MAX_DEPTH} levels deep")));
    }
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().ok_or_else(|| at.fault("is too large"))?),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(values) => {
            let inner = At { depth: at.depth + 1, ..at };
            let values = values.iter().map(|value| dynamic(value, inner)).collect::<Result<_, _>>()?;
            Kind::ListValue(prost_types::ListValue { values })
        }
        Value::Object(fields) => Kind::StructValue(structure(fields, at)?),
    };
    Ok(prost_types::Value { kind: Some(kind) })
}

/// What the reader of a single value says, as a rule.
fn because(error: &serde_json::Error) -> String {
    format!("cannot be read: {error}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

    fn fault(fields: &Value) -> String {
        let mut all = json!({"@type": CLUSTER, "name": "a"});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        resource(&all).unwrap_err().to_string()
    }

    #[test]
    fn faults_name_the_field() {
        let any = |value: Value| json!({"typed_extension_protocol_options": {"x": value}});
        let policies =
            |value: Value| json!({"load_balancing_policy": {"policies": [{"typed_extension_config": value}]}});
        for (fields, expected) in [
            (json!({"nope": 1}), "nope: is not a field of envoy.config.cluster.v3.Cluster"),
            (json!({"type": "PIGEON"}), "type: cannot be read"),
            (json!({"connect_timeout": 5}), "connect_timeout: cannot be read"),
            (json!({"eds_cluster_config": []}), "eds_cluster_config: must be an object, and is an array"),
            (json!({"type": "EDS", "cluster_type": {}}), "only one may be"),
            (json!({"connect_timeout": "1s", "connectTimeout": "1s"}), "only one may be"),
            (
                json!({"load_assignment": {"endpoints": [{}, {"priority": -1}]}}),
                "load_assignment.endpoints[1].priority: ",
            ),
            (any(json!({})), "typed_extension_protocol_options.x.@type: is missing"),
            (any(json!({"@type": "type.googleapis.com/a.B"})), "typed_extension_protocol_options.x.@type: is `a.B`"),
            (
                policies(json!({"name": "p", "oops": 1})),
                "load_balancing_policy.policies[0].typed_extension_config.oops: ",
            ),
        ] {
            let text = fault(&fields);
            assert!(text.contains(expected), "{text}, without {expected}");
        }
        assert!(resource(&json!({"@type": CLUSTER})).unwrap_err().to_string().starts_with("name: is missing"));
        assert!(resource(&json!("x")).is_err());
    }

    /// With a default where one can be told from none (`port_value` is one of several) and where it cannot.
    #[test]
    fn plain_values_are_put_down_as_reflection_does() {
        let address = POOL.get_message_by_name("envoy.config.core.v3.SocketAddress").unwrap();
        for (name, value) in [
            ("address", json!("10.0.0.1")),
            ("address", json!("")),
            ("port_value", json!(80)),
            ("port_value", json!(0)),
            ("port_value", json!(u32::MAX)),
        ] {
            let field = address.get_field_by_name(name).unwrap();
            let mut plain = Vec::new();
            assert!(put_plain(&field, &value, &mut plain));
            let reflected = address.clone().deserialize(json!({name: value})).unwrap();
            assert_eq!(plain, reflected.encode_to_vec(), "{name} {value}");
        }
        let port = address.get_field_by_name("port_value").unwrap();
        for value in [json!(u64::from(u32::MAX) + 1), json!(-1), json!(1.5), json!("80")] {
            let mut nothing = Vec::new();
            assert!(!put_plain(&port, &value, &mut nothing) && nothing.is_empty(), "{value}");
        }
    }

    #[test]
    fn a_value_without_end_is_refused() {
        let mut deep = json!({});
        for _ in 0..200 {
            deep = Value::Object(Map::from_iter([("a".to_owned(), deep)]));
        }
        let text = fault(&json!({"metadata": {"filter_metadata": {"x": deep}}}));
        assert!(text.contains("levels deep"), "{text}");
    }

    #[test]
    fn both_spellings_and_any_order_give_the_same_bytes() {
        let one = json!({"@type": CLUSTER, "name": "a", "connect_timeout": "0.25s", "lb_policy": "LEAST_REQUEST"});
        let other = json!({"lbPolicy": 1, "connectTimeout": "0.250s", "name": "a", "@type": CLUSTER, "type": null});
        assert_eq!(resource(&one).unwrap(), resource(&other).unwrap());

        let fields: Map<String, Value> = (0..50).map(|number| (format!("f{number}"), json!({"x": number}))).collect();
        let many = json!({"@type": CLUSTER, "name": "a", "metadata": {"filter_metadata": fields}});
        assert_eq!(resource(&many).unwrap(), resource(&many).unwrap());
    }

    #[test]
    fn what_is_encoded_is_what_the_typed_message_says() {
        use envoy_types::pb::envoy::config::cluster::v3::Cluster;
        use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;

        let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let json = json!({
            "@type": CLUSTER,
            "name": "a",
            "connect_timeout": "1.5s",
            "per_connection_buffer_limit_bytes": 7,
            "typed_extension_protocol_options": {
                options: {
                    "@type": format!("type.googleapis.com/{options}"),
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            },
            "metadata": {"filter_metadata": {"x": {"list": [1, null, {"deep": true}], "text": "t"}}},
        });
        let cluster = Cluster::decode(&resource(&json).unwrap().bytes[..]).unwrap();
        assert_eq!((&*cluster.name, cluster.connect_timeout.unwrap().nanos), ("a", 500_000_000));
        assert_eq!(cluster.per_connection_buffer_limit_bytes.unwrap().value, 7);
        let any = &cluster.typed_extension_protocol_options[options];
        let options = HttpProtocolOptions::decode(&any.value[..]).unwrap();
        assert!(format!("{options:?}").contains("Http2ProtocolOptions(Http2ProtocolOptions"), "{options:?}");
        let metadata = &cluster.metadata.unwrap().filter_metadata["x"];
        assert!(metadata.fields.len() == 2 && metadata.fields.contains_key("list"), "{metadata:?}");
    }
}
