//! Resources from an xDS server.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::last_good::{self, KeepingFeed, LastGoodDirectory};
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
    last_good: Option<LastGoodDirectory>,
}

impl AdsSource {
    /// The servers of `bootstrap` and of its authorities, reached over `transport`.
    pub fn new(bootstrap: &Bootstrap, transport: Arc<dyn ControlTransport>) -> Self {
        Self::of(bootstrap, bootstrap.node.clone(), transport)
    }

    /// These servers; of a plain list, the preferred one first.
    pub fn of(authorities: impl Into<Authorities>, node: Node, transport: Arc<dyn ControlTransport>) -> Self {
        Self {
            authorities: authorities.into(),
            node,
            transport,
            settings: Settings::default(),
            more: Vec::new(),
            last_good: None,
        }
    }

    /// With these settings.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Keeps what the servers gave in this directory, and starts on what an earlier process of the same `node.id` kept there
    /// while no server can be reached. Default: nothing is kept, since endpoints that are a day old are worse than none
    /// where nobody expects them.
    ///
    /// The directory is made if it is not there; nobody but its owner may write to it. The file in it has mode 600 and is
    /// replaced as a whole. It holds Listeners, routes, clusters and endpoints as they came, but none that hold a private
    /// key. What is over 24 h old, of another node or of a server that the bootstrap does not have is not used, and nor is a
    /// file that others may read or that is damaged; [`Event::LastGoodRefused`](crate::event::Event::LastGoodRefused) says
    /// why. On systems other than Unix nothing is kept.
    #[must_use]
    pub fn with_last_good(mut self, directory: impl Into<PathBuf>) -> Self {
        self.last_good = Some(LastGoodDirectory::new(directory, &*self.node.id));
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
        let mut engine = Engine::new(self.authorities, &self.node, types, self.settings, setup.seed);
        let Some(directory) = self.last_good else {
            return Ok(Box::new(Driver::new(engine, self.transport, setup.events)));
        };
        last_good::recall(&directory, &mut engine, &*setup.events);
        let driver = Driver::new(engine, self.transport, setup.events.clone());
        Ok(Box::new(KeepingFeed::new(driver, directory, setup.events)))
    }
}

impl fmt::Debug for AdsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdsSource").field("authorities", &self.authorities).finish_non_exhaustive()
    }
}
