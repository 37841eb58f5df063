//! The types of resources that a client speaks of: rows, not code.

use std::fmt;
use std::sync::Arc;

use super::transport::{AGGREGATED_RESOURCES, DELTA_AGGREGATED_RESOURCES};
use crate::decode::DecodeResource;
use crate::model::Name;
use crate::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION};

/// A type of resource.
#[derive(Clone)]
pub struct ResourceType {
    /// Its name, without `type.googleapis.com/`.
    pub type_url: Name,
    /// Which of the two protocols it is asked for with.
    pub variant: Variant,
    /// Whether a state-of-the-world response holds all there is, so that a resource that was there and is absent was
    /// deleted: true for Listener and Cluster alone.
    pub full_state: bool,
    /// Turns its bytes into its model.
    pub decoder: Arc<dyn DecodeResource>,
}

impl fmt::Debug for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceType")
            .field("type_url", &self.type_url)
            .field("variant", &self.variant)
            .field("full_state", &self.full_state)
            .finish_non_exhaustive()
    }
}

/// The two protocols of xDS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Variant {
    /// Each request names everything that is wanted.
    StateOfTheWorld,
    /// Requests and responses hold differences.
    Incremental,
}

impl Variant {
    /// The gRPC method it is spoken over.
    pub fn method(self) -> &'static str {
        match self {
            Self::StateOfTheWorld => AGGREGATED_RESOURCES,
            Self::Incremental => DELTA_AGGREGATED_RESOURCES,
        }
    }
}

/// The types a client knows, in the order in which their requests are sent.
#[derive(Debug, Clone, Default)]
pub struct ResourceTypes(Vec<ResourceType>);

impl ResourceTypes {
    /// No types.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Listeners, routes, clusters and endpoints, by state of the world, as gRPC asks for them.
    pub fn standard(decoder: &Arc<dyn DecodeResource>) -> Self {
        let row = |type_url: &str, full_state| ResourceType {
            type_url: type_url.into(),
            variant: Variant::StateOfTheWorld,
            full_state,
            decoder: decoder.clone(),
        };
        Self::empty()
            .with(row(LISTENER, true))
            .with(row(ROUTE_CONFIGURATION, false))
            .with(row(CLUSTER, true))
            .with(row(CLUSTER_LOAD_ASSIGNMENT, false))
    }

    /// Adds a type, replacing the one of the same name.
    #[must_use]
    pub fn with(mut self, row: ResourceType) -> Self {
        match self.0.iter_mut().find(|known| known.type_url == row.type_url) {
            Some(known) => *known = row,
            None => self.0.push(row),
        }
        self
    }

    pub(super) fn index(&self, type_url: &str) -> Option<usize> {
        self.0.iter().position(|row| &*row.type_url == type_url)
    }

    pub(super) fn rows(&self) -> &[ResourceType] {
        &self.0
    }
}
