//! The control plane as its owner sees it.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_core::error::Error;
use mesh_core::event::LogSink;
use mesh_core::publish::{Publisher, Reader};
use mesh_core::source::file::FileWatch;
use mesh_core::source::responder::{EncodedResource, ResourceSet};
use tokio::task::JoinHandle;

use super::bootstrap::DevBootstrap;
use super::door::Door;
use super::faults::{Faults, State};
use super::invalid::Instead;
use super::log::{Event, Events, Log};
use super::registry::{Registry, StreamInfo};

/// How often clients report load: often enough to be looked at, seldom enough not to be noticed.
const LOAD_INTERVAL: Duration = Duration::from_secs(10);

/// A running control plane. Dropping it closes its address and every stream.
///
/// ```no_run
/// # async fn example() -> Result<(), mesh_core::error::Error> {
/// use mesh_grpc::control::ControlPlane;
///
/// let control = ControlPlane::builder().listen("127.0.0.1:18000").await?;
/// println!("{}", control.bootstrap("node-1").to_json());
/// # Ok(())
/// # }
/// ```
pub struct ControlPlane {
    pub(super) shared: Arc<Shared>,
    pub(super) door: Door,
    /// Follow what it was told to follow.
    _followers: Vec<AbortOnDrop>,
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl AbortOnDrop {
    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What all its streams look at.
pub(super) struct Shared {
    /// What is served: `wanted`, with what is spoiled in it.
    pub(super) served: Publisher<ResourceSet>,
    wanted: Mutex<Wanted>,
    pub(super) tells_missing: bool,
    pub(super) load_interval: Duration,
    pub(super) faults: tokio::sync::watch::Sender<State>,
    pub(super) streams: Registry,
    pub(super) log: Log,
}

/// What the owner wants to be served.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) set: Arc<ResourceSet>,
    pub(super) spoiled: Vec<(String, Instead)>,
}

/// Makes a [`ControlPlane`].
#[derive(Debug)]
pub struct Builder {
    origin: Origin,
    tells_missing: bool,
    load_interval: Duration,
}

#[derive(Debug)]
enum Origin {
    Fixed(ResourceSet),
    File(Box<FileWatch>),
    Followed(Reader<ResourceSet>),
}

impl Builder {
    /// Serves these resources until [`ControlPlane::set`] says otherwise. Default: none.
    #[must_use]
    pub fn resources(mut self, resources: impl IntoIterator<Item = EncodedResource>) -> Self {
        self.origin = Origin::Fixed(ResourceSet::new(resources));
        self
    }

    /// Serves the YAML file at `path` (see [`mesh_core::source::file`]), and follows its edits; one that is not good is logged,
    /// and what was good before is served on.
    ///
    /// # Errors
    ///
    /// `BAD_FILE`, with file, line and reason.
    pub fn file(mut self, path: impl AsRef<Path>) -> Result<Self, Error> {
        self.origin = Origin::File(Box::new(FileWatch::open(path)?));
        Ok(self)
    }

    /// Serves what `reader` gives, now and whenever that changes.
    #[must_use]
    pub fn follow(mut self, reader: Reader<ResourceSet>) -> Self {
        self.origin = Origin::Followed(reader);
        self
    }

    /// Says nothing about names that do not exist, as most servers do, so that clients wait for their timer. By default it
    /// says so in `DiscoveryResponse.resource_errors`, which clients that do not know the field ignore.
    #[must_use]
    pub fn without_resource_errors(mut self) -> Self {
        self.tells_missing = false;
        self
    }

    /// How often clients report the load of clusters that ask for it (`lrs_server.self`): every 10 s by default.
    #[must_use]
    pub fn load_interval(mut self, interval: Duration) -> Self {
        self.load_interval = interval;
        self
    }

    /// Begins to serve on `address`, `host:port`; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// `BIND` when the address cannot be listened on.
    pub async fn listen(self, address: impl tokio::net::ToSocketAddrs + fmt::Display) -> Result<ControlPlane, Error> {
        let mut followers = Vec::new();
        let (set, followed) = match self.origin {
            Origin::Fixed(set) => (Arc::new(set), None),
            Origin::Followed(reader) => (reader.current(), Some(reader)),
            Origin::File(watch) => {
                let reader = watch.reader();
                followers.push(AbortOnDrop::spawn(watch.run(Arc::new(LogSink))));
                (reader.current(), Some(reader))
            }
        };
        let shared = Arc::new(Shared::new(set, self.tells_missing, self.load_interval));
        let door = Door::open(address, &shared).await?;
        followers.extend(followed.map(|reader| AbortOnDrop::spawn(follow(reader, shared.clone()))));
        Ok(ControlPlane { shared, door, _followers: followers })
    }
}

async fn follow(mut reader: Reader<ResourceSet>, shared: Arc<Shared>) {
    while reader.changed().await.is_ok() {
        shared.set(reader.current());
    }
}

impl ControlPlane {
    /// A control plane with nothing to serve yet.
    pub fn builder() -> Builder {
        Builder { origin: Origin::Fixed(ResourceSet::default()), tells_missing: true, load_interval: LOAD_INTERVAL }
    }

    /// Where it listens, or listened before it [vanished](Faults::vanish).
    pub fn address(&self) -> SocketAddr {
        self.door.address()
    }

    /// Serves `resources` from now on, in the place of all it served before. Each stream is sent what changed of that which
    /// it asked for.
    pub fn set(&self, resources: impl IntoIterator<Item = EncodedResource>) {
        self.shared.set(Arc::new(ResourceSet::new(resources)));
    }

    /// What it serves, apart from what is [spoiled](Faults::spoil).
    pub fn resources(&self) -> Arc<ResourceSet> {
        self.shared.wanted().set.clone()
    }

    /// The ways in which it can fail.
    pub fn faults(&self) -> Faults<'_> {
        Faults::new(self)
    }

    /// What was said on all streams, the oldest first. Of more than 10,000 events the oldest are forgotten.
    pub fn log(&self) -> Vec<Event> {
        self.shared.log.all()
    }

    /// The same as it happens, from the oldest that is remembered.
    pub fn events(&self) -> Events {
        self.shared.log.events()
    }

    /// The streams that are open.
    pub fn streams(&self) -> Vec<StreamInfo> {
        self.shared.streams.infos()
    }

    /// A bootstrap with which a client of this name finds it.
    pub fn bootstrap(&self, node_id: impl Into<String>) -> DevBootstrap {
        DevBootstrap::new(self.address().to_string(), node_id)
    }

    /// Closes the address and every stream, and waits until that is done.
    pub async fn shutdown(self) {
        self.door.close().await;
    }
}

impl Shared {
    fn new(set: Arc<ResourceSet>, tells_missing: bool, load_interval: Duration) -> Self {
        Self {
            served: Publisher::new(set.clone()),
            wanted: Mutex::new(Wanted { set, spoiled: Vec::new() }),
            tells_missing,
            load_interval,
            faults: tokio::sync::watch::Sender::new(State::default()),
            streams: Registry::default(),
            log: Log::default(),
        }
    }

    pub(super) fn wanted(&self) -> MutexGuard<'_, Wanted> {
        // Nothing panics while it is held, and what is in it is whole at any time.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, set: Arc<ResourceSet>) {
        self.change(|wanted| wanted.set = set);
    }

    /// Changes what is wanted and publishes what follows from it. The lock is held over both, so that the last change is
    /// the one that stays.
    pub(super) fn change(&self, change: impl FnOnce(&mut Wanted)) {
        let mut wanted = self.wanted();
        change(&mut wanted);
        self.served.publish(wanted.served());
    }
}

impl Wanted {
    fn served(&self) -> Arc<ResourceSet> {
        if self.spoiled.is_empty() {
            return self.set.clone();
        }
        let spoiled = self.set.iter().map(|resource| {
            let spoiled = self.spoiled.iter().find(|(name, _)| **name == *resource.key.name);
            spoiled.map_or_else(|| resource.clone(), |(_, instead)| instead(&resource.key))
        });
        Arc::new(ResourceSet::new(spoiled))
    }
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane").field("address", &self.address()).finish_non_exhaustive()
    }
}
