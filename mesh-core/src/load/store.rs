//! What is counted, for whom: each control plane is told of the clusters that came from it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ClusterLoad;
use crate::bootstrap::ServerConfig;
use crate::model::{Locality, Name};
use crate::publish::{Publisher, Reader};

/// Which cluster a count is of: reports are by cluster and EDS service name, as its breaker is (gRFC A32).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterKey {
    /// The cluster.
    pub cluster: Name,
    /// `eds_cluster_config.service_name`; empty if it has none.
    pub service: Name,
}

/// The counts of every cluster whose load is wanted, by the server that wants it.
///
/// Everything here is for the configuration thread; what requests write is a [`ClusterLoad`]'s.
pub struct LoadStore {
    servers: Mutex<Vec<ForServer>>,
    changed: Publisher<()>,
    ending: Publisher<Ending>,
}

/// How far the end of all reports is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    NotYet,
    /// What is left is to be reported.
    Asked,
    /// It was, as far as servers took it.
    Over,
}

struct ForServer {
    server: Arc<ServerConfig>,
    clusters: BTreeMap<ClusterKey, Entry>,
}

struct Entry {
    load: Arc<ClusterLoad>,
    /// How many leases there are.
    leases: usize,
    /// When its counts were last taken, or began.
    since: Instant,
}

/// Keeps a cluster's load reported to a server for as long as it is held.
pub struct LoadLease {
    load: Arc<ClusterLoad>,
    server: Arc<ServerConfig>,
    store: Arc<LoadStore>,
}

/// Which clusters a server asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// `send_all_clusters`.
    All,
    /// `clusters`.
    Named(Vec<Name>),
}

/// The counts of one cluster since they were last taken.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterCounts {
    /// Which cluster.
    pub key: ClusterKey,
    /// By locality; only those with any count.
    pub localities: Vec<(Arc<Locality>, LocalityCounts)>,
    /// All drops.
    pub dropped: u64,
    /// The drops that have a category; those of the circuit breaker have none.
    pub categories: Vec<(Name, u64)>,
    /// Since when.
    pub elapsed: Duration,
}

/// The counts of one locality.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalityCounts {
    /// Requests that were sent.
    pub issued: u64,
    /// Requests that are under way now: no difference, but their number.
    pub in_progress: u64,
    /// Requests that ended with success.
    pub succeeded: u64,
    /// Requests that ended with an error.
    pub failed: u64,
    /// The endpoints' `cpu_utilization`.
    pub cpu: Option<Summed>,
    /// The endpoints' `mem_utilization`.
    pub memory: Option<Summed>,
    /// The endpoints' `application_utilization`.
    pub application: Option<Summed>,
    /// The endpoints' `named_metrics`, without a prefix.
    pub named: Vec<(Name, Summed)>,
}

/// Values of many reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summed {
    /// How many there were.
    pub count: u64,
    /// What they add up to.
    pub total: f64,
}

impl LocalityCounts {
    /// Whether there is nothing to say.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing has happened: requests may be under way.
    pub fn is_quiet(&self) -> bool {
        *self == Self { in_progress: self.in_progress, ..Self::default() }
    }
}

impl ClusterCounts {
    /// Whether there is nothing to say.
    pub fn is_zero(&self) -> bool {
        self.localities.is_empty() && self.dropped == 0
    }
}

impl Selection {
    fn covers(&self, cluster: &Name) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(cluster),
        }
    }
}

impl LoadStore {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        let (changed, ending) = (Publisher::new(Arc::new(())), Publisher::new(Arc::new(Ending::NotYet)));
        Arc::new(Self { servers: Mutex::default(), changed, ending })
    }

    /// Counts for a cluster that `server` wants reported. Leases of the same cluster and server share their counts.
    pub fn lease(self: &Arc<Self>, server: &Arc<ServerConfig>, key: ClusterKey, now: Instant) -> LoadLease {
        let load = {
            let mut servers = self.servers();
            let entry = entry(&mut servers, server, key, now);
            entry.leases += 1;
            entry.load.clone()
        };
        self.changed.publish(Arc::new(()));
        LoadLease { load, server: server.clone(), store: self.clone() }
    }

    /// Is woken when a server is wanted that was not, or no longer.
    pub fn changes(&self) -> Reader<()> {
        self.changed.reader()
    }

    /// Has what was counted reported for the last time, and waits until it was. A server that cannot be reached is not waited
    /// for; one that does not take its report is, so bound the time.
    pub async fn end(&self) {
        let mut ending = self.ending.reader();
        if **ending.load() == Ending::NotYet {
            self.ending.publish(Arc::new(Ending::Asked));
            self.changed.publish(Arc::new(()));
        }
        while **ending.load() != Ending::Over && ending.changed().await.is_ok() {}
    }

    /// There is no stream on which anything could still be reported.
    pub(crate) fn all_said(&self) {
        if **self.ending.load() == Ending::Asked {
            self.ending.publish(Arc::new(Ending::Over));
        }
    }

    fn is_ending(&self) -> bool {
        **self.ending.load() != Ending::NotYet
    }

    /// The servers that anything is counted for; none once the end was asked for.
    pub fn wanted(&self) -> Vec<Arc<ServerConfig>> {
        if self.is_ending() {
            return Vec::new();
        }
        self.servers().iter().filter(|known| known.is_wanted()).map(|known| known.server.clone()).collect()
    }

    /// Whether a lease for `server` is held.
    pub fn is_wanted(&self, server: &ServerConfig) -> bool {
        !self.is_ending() && self.servers().iter().any(|known| *known.server == *server && known.is_wanted())
    }

    /// Takes the counts for `server` of the clusters it asked for; only of those that have any.
    pub fn take(&self, server: &ServerConfig, selection: &Selection, now: Instant) -> Vec<ClusterCounts> {
        let mut servers = self.servers();
        let Some(known) = servers.iter_mut().find(|known| *known.server == *server) else { return Vec::new() };
        let selected = known.clusters.iter_mut().filter(|(key, _)| selection.covers(&key.cluster));
        let counts: Vec<ClusterCounts> = selected.map(|(_, entry)| entry.take(now)).collect();
        // What nobody uses has said its last, once its last request is over. What is not asked for has nothing to say.
        known.clusters.retain(|key, entry| entry.leases > 0 || selection.covers(&key.cluster) && entry.load.is_busy());
        servers.retain(|known| !known.clusters.is_empty());
        counts.into_iter().filter(|counts| !counts.is_zero()).collect()
    }

    /// Counts again what was taken for `server` at `taken` and did not reach it: it is in the next report, with its time.
    pub fn put_back(&self, server: &Arc<ServerConfig>, counts: &[ClusterCounts], taken: Instant) {
        let mut servers = self.servers();
        for counts in counts {
            let entry = entry(&mut servers, server, counts.key.clone(), taken);
            entry.load.put_back(counts);
            entry.since = entry.since.checked_sub(counts.elapsed).unwrap_or(entry.since);
        }
    }

    fn release(&self, server: &ServerConfig, key: &ClusterKey) {
        let mut servers = self.servers();
        let known = servers.iter_mut().find(|known| *known.server == *server);
        if let Some(entry) = known.and_then(|known| known.clusters.get_mut(key)) {
            entry.leases -= 1;
        }
        drop(servers);
        self.changed.publish(Arc::new(()));
    }

    fn servers(&self) -> MutexGuard<'_, Vec<ForServer>> {
        // Nothing panics while it is held.
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counts of a cluster for a server, which begin at `now` if there are none.
fn entry<'a>(
    servers: &'a mut Vec<ForServer>,
    server: &Arc<ServerConfig>,
    key: ClusterKey,
    now: Instant,
) -> &'a mut Entry {
    let at = servers.iter().position(|known| known.server == *server).unwrap_or_else(|| {
        servers.push(ForServer { server: server.clone(), clusters: BTreeMap::new() });
        servers.len() - 1
    });
    let new = |key: &ClusterKey| Entry { load: Arc::new(ClusterLoad::new(key.clone())), leases: 0, since: now };
    servers[at].clusters.entry(key).or_insert_with_key(new)
}

impl ForServer {
    fn is_wanted(&self) -> bool {
        self.clusters.values().any(|entry| entry.leases > 0)
    }
}

impl Entry {
    fn take(&mut self, now: Instant) -> ClusterCounts {
        let (dropped, categories) = self.load.take_drops();
        let elapsed = now.saturating_duration_since(self.since);
        self.since = now;
        ClusterCounts {
            key: self.load.key().clone(),
            localities: self.load.take_localities(),
            dropped,
            categories,
            elapsed,
        }
    }
}

impl LoadLease {
    /// The counts.
    pub fn load(&self) -> &Arc<ClusterLoad> {
        &self.load
    }
}

impl Drop for LoadLease {
    fn drop(&mut self) {
        self.store.release(&self.server, self.load.key());
    }
}

impl fmt::Debug for LoadLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadLease").field("server", &self.server.uri).field("load", &self.load).finish_non_exhaustive()
    }
}

impl fmt::Debug for LoadStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.wanted().iter().map(|server| &server.uri)).finish()
    }
}
