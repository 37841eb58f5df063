//! What is around a message: `Any`, `TypedStruct`, configuration sources.

use std::borrow::Cow;

use envoy_types::pb::envoy::config::core::v3::{ConfigSource, config_source::ConfigSourceSpecifier};
use envoy_types::pb::google::protobuf::Any;
use prost::Message;

use super::at::At;
use super::value::json_struct;
use super::{ExtensionValue, Fault};
use crate::resource::TYPE_URL_PREFIX;

/// The two names of `TypedStruct`; one layout.
const TYPED_STRUCTS: [&str; 2] = ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

/// `TypedStruct`: an extension's configuration as JSON, for types that have no protobuf.
#[derive(Clone, PartialEq, Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<envoy_types::pb::google::protobuf::Struct>,
}

/// An extension's configuration, taken out of its `Any`.
pub(super) struct Extension<'a> {
    /// Its type, without the prefix.
    pub(super) type_url: Cow<'a, str>,
    content: Content<'a>,
}

enum Content<'a> {
    Proto(&'a [u8]),
    Struct(serde_json::Value),
}

impl<'a> Extension<'a> {
    /// Opens `any`, and the `TypedStruct` in it if there is one. None: it cannot be read, and a fault says so.
    pub(super) fn open(any: &'a Any, at: &At<'_>) -> Option<Self> {
        let type_url = bare(&any.type_url);
        if type_url.is_empty() {
            at.fault("has no type");
            return None;
        }
        if !TYPED_STRUCTS.contains(&type_url) {
            return Some(Self { type_url: Cow::Borrowed(type_url), content: Content::Proto(&any.value) });
        }
        match TypedStruct::decode(&any.value[..]) {
            Ok(typed) => {
                let value = json_struct(typed.value.unwrap_or_default());
                Some(Self { type_url: Cow::Owned(last_part(&typed.type_url)), content: Content::Struct(value) })
            }
            Err(error) => {
                at.fault(format!("is a TypedStruct that cannot be decoded: {error}"));
                None
            }
        }
    }

    /// Its content, for a registered type.
    pub(super) fn value(&self) -> ExtensionValue<'_> {
        match &self.content {
            Content::Proto(bytes) => ExtensionValue::Proto(bytes),
            Content::Struct(value) => ExtensionValue::Struct(value),
        }
    }
}

/// What follows the last `/`: the prefix of a type URL may be any host.
fn last_part(type_url: &str) -> String {
    type_url.rsplit('/').next().unwrap_or_default().to_owned()
}

/// A type URL without its prefix.
pub(super) fn bare(type_url: &str) -> &str {
    type_url.strip_prefix(TYPE_URL_PREFIX).unwrap_or(type_url)
}

/// Decodes the one message type that may be in `any`.
pub(super) fn expect<M: Message + Default + prost::Name>(any: &Any, at: &At<'_>) -> Option<M> {
    let found = bare(&any.type_url);
    let wanted = M::full_name();
    if found != wanted {
        at.fault(format!("is a `{found}`; only `{wanted}` can be here"));
        return None;
    }
    decode(&any.value, at)
}

/// Decodes a message.
pub(super) fn decode<M: Message + Default>(bytes: &[u8], at: &At<'_>) -> Option<M> {
    M::decode(bytes).map_err(|error| at.fault(format!("cannot be decoded: {error}"))).ok()
}

/// For registered types: decodes a message that cannot come as a `TypedStruct`.
pub(super) fn proto<M: Message + Default>(value: ExtensionValue<'_>) -> Result<M, Vec<Fault>> {
    match value {
        ExtensionValue::Proto(bytes) => {
            M::decode(bytes).map_err(|error| vec![Fault::new("", format!("cannot be decoded: {error}"))])
        }
        ExtensionValue::Struct(_) => {
            Err(vec![Fault::new("", "comes as a TypedStruct; this type has a protobuf message, use that")])
        }
    }
}

/// Whether resources named here come over the stream that named them: rules 12 and 93.
pub(super) fn check_source(source: Option<&ConfigSource>, at: &At<'_>) {
    let specifier = source.and_then(|source| source.config_source_specifier.as_ref());
    match specifier {
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => {}
        Some(_) => at.fault("must be `ads` or `self`: resources come over one stream"),
        None => at.fault("is missing; set `ads` or `self`"),
    }
}
