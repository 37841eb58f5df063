//! The types of resources that a client speaks of: rows, not code.

use std::fmt;
use std::sync::Arc;

use super::transport::{AGGREGATED_RESOURCES, DELTA_AGGREGATED_RESOURCES, DELTA_SECRETS, STREAM_SECRETS};
use crate::decode::DecodeResource;
use crate::model::Name;
use crate::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, SECRET, WILDCARD};

/// A type of resource.
#[derive(Clone)]
pub struct ResourceType {
    /// Its name, without `type.googleapis.com/`.
    pub type_url: Name,
    /// Which of the two protocols it needs. State of the world is the lesser one: of a server with `delta_grpc` it is asked
    /// for incrementally too, while a type that needs the incremental one is refused where a server of the resource's
    /// authority does not speak it.
    pub variant: Variant,
    /// What of it may be asked for.
    pub subscription: Subscription,
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
            .field("subscription", &self.subscription)
            .field("full_state", &self.full_state)
            .finish_non_exhaustive()
    }
}

/// What of a type may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Subscription {
    /// Resources by name, as gRPC asks for everything.
    #[default]
    Named,
    /// Resources by name, and [`WILDCARD`]: everything that the server means us to have, as Envoy asks for Listeners and
    /// clusters.
    Wildcard,
    /// [`WILDCARD`] alone, in the form that servers understand which do not know `*`: a first request without any name. It
    /// ends only with the stream, so that unsubscribing closes that and opens another for what else is wanted.
    LegacyWildcard,
}

impl Subscription {
    /// Whether requests say this name that is asked for: they do not where saying nothing means everything.
    pub(super) fn is_said(self, name: &str) -> bool {
        self != Self::LegacyWildcard || name != WILDCARD
    }

    /// Why this name of the type cannot be asked for.
    pub(super) fn refusal(self, name: &str) -> Option<&'static str> {
        match (self, name == WILDCARD) {
            (Self::Named, true) => Some("resources of this type are asked for by name, and `*` is none"),
            (Self::LegacyWildcard, false) => Some("of this type everything is asked for, as `*`, and no names"),
            _ => None,
        }
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

/// Which of the discovery services a client speaks to. One client has one of them: a stream carries the types of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Service {
    /// The aggregated discovery service, which has all types but secrets.
    #[default]
    Aggregated,
    /// The secret discovery service, whose streams carry keys and therefore nothing else.
    Secrets,
}

impl Service {
    /// The gRPC method over which `variant` is spoken.
    pub fn method(self, variant: Variant) -> &'static str {
        match (self, variant) {
            (Self::Aggregated, Variant::StateOfTheWorld) => AGGREGATED_RESOURCES,
            (Self::Aggregated, Variant::Incremental) => DELTA_AGGREGATED_RESOURCES,
            (Self::Secrets, Variant::StateOfTheWorld) => STREAM_SECRETS,
            (Self::Secrets, Variant::Incremental) => DELTA_SECRETS,
        }
    }
}

/// The types a client knows, in the order in which their requests are sent, and the service that has them.
#[derive(Debug, Clone, Default)]
pub struct ResourceTypes {
    rows: Vec<ResourceType>,
    service: Service,
}

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
            subscription: Subscription::Named,
            full_state,
            decoder: decoder.clone(),
        };
        Self::empty()
            .with(row(LISTENER, true))
            .with(row(ROUTE_CONFIGURATION, false))
            .with(row(CLUSTER, true))
            .with(row(CLUSTER_LOAD_ASSIGNMENT, false))
    }

    /// Secrets, of the secret discovery service.
    pub fn secrets(decoder: Arc<dyn DecodeResource>) -> Self {
        let types = Self { rows: Vec::new(), service: Service::Secrets };
        types.with(ResourceType {
            type_url: SECRET.into(),
            variant: Variant::StateOfTheWorld,
            subscription: Subscription::Named,
            full_state: false,
            decoder,
        })
    }

    /// Adds a type, replacing the one of the same name.
    #[must_use]
    pub fn with(mut self, row: ResourceType) -> Self {
        match self.rows.iter_mut().find(|known| known.type_url == row.type_url) {
            Some(known) => *known = row,
            None => self.rows.push(row),
        }
        self
    }

    pub(super) fn index(&self, type_url: &str) -> Option<usize> {
        self.rows.iter().position(|row| &*row.type_url == type_url)
    }

    pub(super) fn rows(&self) -> &[ResourceType] {
        &self.rows
    }

    pub(super) fn method(&self, variant: Variant) -> &'static str {
        self.service.method(variant)
    }
}
