//! Complete sets of encoded resources.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher;

use bytes::Bytes;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use twox_hash::XxHash64;

use crate::model::Name;
use crate::resource::{ResourceKey, TYPE_URL_PREFIX};

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

    /// The version of this one resource: a digest of its bytes.
    pub(super) fn version(&self) -> String {
        format!("{:016x}", XxHash64::oneshot(0, &self.bytes))
    }

    pub(super) fn to_any(&self) -> Any {
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

    /// The names of a type.
    pub(super) fn names(&self, type_url: &str) -> impl Iterator<Item = &Name> {
        self.types.get(type_url).into_iter().flat_map(|set| set.resources.keys())
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
