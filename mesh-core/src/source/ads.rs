//! Resources from an xDS server.

use std::fmt;
use std::sync::Arc;

use super::{Feed, Setup, Source};
use crate::ads::{Authorities, ControlTransport, Driver, Engine, ResourceType, ResourceTypes, Settings};
use crate::bootstrap::{Bootstrap, Node};
use crate::error::Error;

/// The servers of a bootstrap, over a transport.
pub struct AdsSource {
    authorities: Authorities,
    node: Node,
    transport: Arc<dyn ControlTransport>,
    settings: Settings,
    more: Vec<ResourceType>,
}

impl AdsSource {
    /// The servers of `bootstrap` and of its authorities, reached over `transport`.
    pub fn new(bootstrap: &Bootstrap, transport: Arc<dyn ControlTransport>) -> Self {
        Self::of(bootstrap, bootstrap.node.clone(), transport)
    }

    /// These servers; of a plain list, the preferred one first.
    pub fn of(authorities: impl Into<Authorities>, node: Node, transport: Arc<dyn ControlTransport>) -> Self {
        Self { authorities: authorities.into(), node, transport, settings: Settings::default(), more: Vec::new() }
    }

    /// With these settings.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Speaks of this type too, or of a standard one in another way.
    #[must_use]
    pub fn with_type(mut self, row: ResourceType) -> Self {
        self.more.push(row);
        self
    }
}

impl Source for AdsSource {
    fn start(self: Box<Self>, setup: Setup) -> Result<Box<dyn Feed>, Error> {
        let types = self.more.into_iter().fold(ResourceTypes::standard(&setup.decoder), ResourceTypes::with);
        let engine = Engine::new(self.authorities, &self.node, types, self.settings, setup.seed);
        Ok(Box::new(Driver::new(engine, self.transport, setup.events)))
    }
}

impl fmt::Debug for AdsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdsSource").field("authorities", &self.authorities).finish_non_exhaustive()
    }
}
