//! Resources from memory: what a test, or an application that makes its own configuration, hands in.

use std::sync::Arc;

use super::local::LocalTransport;
use super::responder::{EncodedResource, ResourceSet};
use super::{Feed, Setup, Source};
use crate::ads::{Driver, Engine, ResourceTypes, Settings};
use crate::bootstrap::{Node, ServerConfig};
use crate::decode::Dialect;
use crate::error::Error;
use crate::publish::Publisher;

/// A set of encoded resources that can be replaced while it is in use. Clones are handles of the same set; dropping them all
/// leaves the last set in force.
#[derive(Debug, Clone)]
pub struct MemorySource {
    name: Arc<str>,
    sets: Arc<Publisher<ResourceSet>>,
    settings: Settings,
}

impl MemorySource {
    /// A source of these resources.
    pub fn new(resources: impl IntoIterator<Item = EncodedResource>) -> Self {
        Self {
            name: "memory".into(),
            sets: Arc::new(Publisher::new(Arc::new(ResourceSet::new(resources)))),
            settings: Settings::default(),
        }
    }

    /// Called `name` in events and errors, in the place of a server's address; `memory` by default.
    #[must_use]
    pub fn with_name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// With these settings of the client above it.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Puts these resources in the place of all of the last ones.
    pub fn set(&self, resources: impl IntoIterator<Item = EncodedResource>) {
        self.sets.publish(Arc::new(ResourceSet::new(resources)));
    }

    /// The resources in force.
    pub fn current(&self) -> Arc<ResourceSet> {
        self.sets.current()
    }
}

impl Source for MemorySource {
    fn start(self: Box<Self>, setup: Setup) -> Result<Box<dyn Feed>, Error> {
        let transport = Arc::new(LocalTransport::new(self.sets.reader()));
        let servers = vec![ServerConfig::insecure(self.name)];
        let types = ResourceTypes::standard(&setup.decoder);
        let engine = Engine::new(servers, &Node::default(), types, self.settings, setup.seed);
        Ok(Box::new(Driver::new(engine, transport, setup.events)))
    }

    fn dialect(&self) -> Dialect {
        Dialect::Envoy
    }
}
