//! The decoder: which type goes to which file.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use prost::Message;

use super::at::{At, Findings};
use super::endpoints::Assignment;
use super::expressions;
use super::{DecodeResource, Decoded, Dialect, Fault, Registry, SecretServers};
use crate::model::{Endpoints, Name};
use crate::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, ResourceValue};

/// Decodes the four resource types of the mesh with the extensions of a [`Registry`].
#[derive(Clone)]
pub struct Decoder {
    pub(super) registry: Arc<Registry>,
    pub(super) providers: Arc<BTreeSet<Name>>,
    pub(super) insecure: Arc<BTreeSet<Name>>,
    pub(super) secrets: Arc<SecretServers>,
    dialect: Dialect,
}

impl Decoder {
    /// A decoder that knows the extensions of `registry` and the certificate provider instances `providers`, the keys of
    /// the bootstrap's `certificate_providers`: a resource that names another is refused (rules 42, 44 and 120).
    pub fn new(registry: Arc<Registry>, providers: impl IntoIterator<Item = Name>) -> Self {
        Self {
            registry,
            providers: Arc::new(providers.into_iter().collect()),
            insecure: Arc::default(),
            secrets: Arc::default(),
            dialect: Dialect::default(),
        }
    }

    /// With the names of Clusters and Listeners that may ask for TLS with anybody: without a trust anchor, with
    /// `trust_chain_verification: ACCEPT_UNTRUSTED` or with `allow_expired_certificate`. None by default: in others the first is
    /// refused (rules 43, 45, 118 and 119), and the last two are not read (rule 149).
    #[must_use]
    pub fn with_insecure(mut self, names: impl IntoIterator<Item = Name>) -> Self {
        self.insecure = Arc::new(names.into_iter().collect());
        self
    }

    /// Goes by these rules where gRPC's and Envoy's differ; gRPC's by default.
    #[must_use]
    pub fn with_dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("registry", &self.registry)
            .field("providers", &self.providers)
            .field("dialect", &self.dialect)
            .finish()
    }
}

impl DecodeResource for Decoder {
    fn decode(&self, type_url: &str, bytes: &[u8]) -> Decoded {
        self.dialect.scope(|| match type_url {
            LISTENER => resource(bytes, |value: &Listener| &value.name, |value, at| self.listener(&value, at)),
            ROUTE_CONFIGURATION => {
                resource(bytes, |value: &RouteConfiguration| &value.name, |value, at| Some(self.route_table(value, at)))
            }
            CLUSTER => resource(bytes, |value: &Cluster| &value.name, |value, at| self.cluster(value, at)),
            CLUSTER_LOAD_ASSIGNMENT => resource(
                // What is sliced from one copy is not copied again.
                Bytes::copy_from_slice(bytes),
                |value: &Assignment| &value.cluster_name,
                |value, at| Some(value.endpoints(at)),
            ),
            other => Decoded::Err {
                name: None,
                faults: vec![Fault::new("", format!("is a `{other}`, which is not a type of resource known here"))],
            },
        })
    }

    /// An endpoint set without an endpoint is one.
    fn is_emptied(&self, value: &ResourceValue) -> bool {
        value.downcast_ref::<Endpoints>().is_some_and(Endpoints::is_empty)
    }
}

/// Name first, then meaning: rules 2 and 4.
pub(super) fn resource<M, T>(
    bytes: impl Buf,
    name: impl Fn(&M) -> &String,
    meaning: impl FnOnce(M, &At<'_>) -> Option<T>,
) -> Decoded
where
    M: Message + Default,
    T: Any + Send + Sync,
{
    let message = match M::decode(bytes) {
        Ok(message) => message,
        Err(error) => {
            return Decoded::Err { name: None, faults: vec![Fault::new("", format!("cannot be decoded: {error}"))] };
        }
    };
    let name: Name = name(&message).as_str().into();
    if name.is_empty() {
        return Decoded::Err { name: None, faults: vec![Fault::new("name", "is empty")] };
    }
    let findings = Findings::default();
    let value = expressions::of_one_resource(|| meaning(message, &findings.root()));
    let mut faults = findings.into_faults();
    match value {
        Some(value) if faults.is_empty() => Decoded::Ok { name, value: Arc::new(value) as ResourceValue },
        _ => {
            if faults.is_empty() {
                faults.push(Fault::new("", "cannot be used"));
            }
            Decoded::Err { name: Some(name), faults }
        }
    }
}
