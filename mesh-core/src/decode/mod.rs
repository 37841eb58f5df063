//! From bytes to the model: one file for each type, name first and then meaning, every fault collected with its field path.
//!
//! This is the only module that knows protobuf types. What an extension point may hold (HTTP filters, balancing policies)
//! comes from a [`Registry`], by type URL.

// Control planes go on sending what Envoy calls deprecated, istiod and go-control-plane among them.
#![allow(deprecated)]

mod at;
mod cluster;
mod decoder;
mod dialect;
mod endpoints;
mod envelope;
mod expressions;
mod filter;
mod listener;
mod matcher;
mod metadata;
mod policy;
mod route;
mod secret;
mod template;
#[cfg(test)]
mod tests;
mod tls;
mod tls_checks;
mod value;

pub use decoder::Decoder;
pub use dialect::Dialect;
pub use filter::{
    CorsFilter, ExtAuthzFilter, FaultFilter, HeaderMutationFilter, JwtAuthnFilter, JwtOverride, LocalRateLimitFilter,
    RbacFilter, RouterFilter,
};
pub use policy::PolicyScope;
pub use secret::{SecretDecoder, SecretServers};
pub(crate) use value::json_struct;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::balance::PolicyConfig;
use crate::model::{FilterConfig, Name};
use crate::resource::ResourceValue;

/// Turns one resource's bytes into its model. The stream engine knows types only through this seam.
pub trait DecodeResource: Send + Sync {
    /// Decodes a resource of `type_url` (without [`TYPE_URL_PREFIX`](crate::resource::TYPE_URL_PREFIX)) from the `value`
    /// bytes of its `Any`. Name first, then meaning.
    fn decode(&self, type_url: &str, bytes: &[u8]) -> Decoded;

    /// Whether a value of its own is a set with nothing in it. A set that had something before and has nothing now is used
    /// on for a grace period, as a resource that was deleted is. By default nothing is such a set.
    fn is_emptied(&self, _value: &ResourceValue) -> bool {
        false
    }
}

/// What became of a resource's bytes.
#[derive(Clone)]
pub enum Decoded {
    /// It is valid.
    Ok {
        /// Its name.
        name: Name,
        /// Its value: the model type that [`resource`](crate::resource) names for the type.
        value: ResourceValue,
    },
    /// It is refused.
    Err {
        /// Its name, when that much could be read.
        name: Option<Name>,
        /// Every rule it broke; never empty.
        faults: Vec<Fault>,
    },
}

impl fmt::Debug for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok { name, .. } => write!(f, "Ok({name})"),
            Self::Err { name, faults } => f.debug_struct("Err").field("name", name).field("faults", faults).finish(),
        }
    }
}

/// One broken rule: which field of a resource, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field's path inside the resource: `virtual_hosts[0].routes[2].match.safe_regex`.
    pub path: String,
    /// The rule it broke, and what would be right.
    pub rule: String,
}

impl Fault {
    /// A fault at `path`.
    pub fn new(path: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { path: path.into(), rule: rule.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.rule) } else { write!(f, "{}: {}", self.path, self.rule) }
    }
}

/// Which side of a call something is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that calls.
    Client,
    /// The one that is called.
    Server,
}

/// The configuration of an extension, as it arrived.
#[derive(Debug, Clone, Copy)]
pub enum ExtensionValue<'a> {
    /// The bytes of the message that the type URL names.
    Proto(&'a [u8]),
    /// A `TypedStruct`'s fields.
    Struct(&'a serde_json::Value),
}

/// A type of HTTP filter, for the registry (gRFC A39).
pub trait HttpFilterType: Send + Sync {
    /// The type of its configuration, without `type.googleapis.com/`.
    fn type_url(&self) -> &str;

    /// The type of its overrides; None: the same.
    fn override_type_url(&self) -> Option<&str> {
        None
    }

    /// Whether it can be used on `side`.
    fn supports(&self, side: Side) -> bool;

    /// Whether it ends the list (the router does).
    fn is_terminal(&self) -> bool {
        false
    }

    /// Decodes its configuration; the faults' paths start inside it.
    fn decode(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>>;

    /// Decodes an override; by default as [`decode`](Self::decode).
    fn decode_override(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        self.decode(value)
    }
}

/// A type of balancing policy, for the registry (gRFC A52).
pub trait PolicyType: Send + Sync {
    /// The type of its configuration, without `type.googleapis.com/`.
    fn type_url(&self) -> &str;

    /// Decodes its configuration; the faults' paths start inside it. `scope` decodes policies inside it, and notes what
    /// is left out.
    fn decode(&self, value: ExtensionValue<'_>, scope: &PolicyScope<'_>) -> Result<Arc<dyn PolicyConfig>, Vec<Fault>>;
}

/// The extensions this process knows, by type URL.
#[derive(Clone, Default)]
pub struct Registry {
    filters: BTreeMap<Name, Arc<dyn HttpFilterType>>,
    overrides: BTreeMap<Name, Arc<dyn HttpFilterType>>,
    policies: BTreeMap<Name, Arc<dyn PolicyType>>,
}

impl Registry {
    /// A registry that knows nothing.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The built-in types: the router, fault injection, CORS, JWT authentication, external
    /// authorization and RBAC; and every policy of [`balance`](crate::balance).
    pub fn standard() -> Self {
        let filters = Self::empty()
            .with_filter(Arc::new(RouterFilter))
            .with_filter(Arc::new(FaultFilter))
            .with_filter(Arc::new(HeaderMutationFilter))
            .with_filter(Arc::new(LocalRateLimitFilter))
            .with_filter(Arc::new(CorsFilter))
            .with_filter(Arc::new(JwtAuthnFilter))
            .with_filter(Arc::new(ExtAuthzFilter))
            .with_filter(Arc::new(RbacFilter));
        policy::built_in().into_iter().fold(filters, Self::with_policy)
    }

    /// Adds a type of HTTP filter, replacing one of the same type URL.
    #[must_use]
    pub fn with_filter(mut self, filter: Arc<dyn HttpFilterType>) -> Self {
        let over = filter.override_type_url().unwrap_or(filter.type_url()).into();
        self.overrides.insert(over, filter.clone());
        self.filters.insert(filter.type_url().into(), filter);
        self
    }

    /// Adds a type of balancing policy, replacing one of the same type URL.
    #[must_use]
    pub fn with_policy(mut self, policy: Arc<dyn PolicyType>) -> Self {
        self.policies.insert(policy.type_url().into(), policy);
        self
    }

    /// The filter whose configuration has this type.
    pub fn filter(&self, type_url: &str) -> Option<&Arc<dyn HttpFilterType>> {
        self.filters.get(type_url)
    }

    /// The filter whose overrides have this type.
    pub fn filter_override(&self, type_url: &str) -> Option<&Arc<dyn HttpFilterType>> {
        self.overrides.get(type_url)
    }

    /// The policy whose configuration has this type.
    pub fn policy(&self, type_url: &str) -> Option<&Arc<dyn PolicyType>> {
        self.policies.get(type_url)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("filters", &self.filters.keys())
            .field("policies", &self.policies.keys())
            .finish_non_exhaustive()
    }
}
