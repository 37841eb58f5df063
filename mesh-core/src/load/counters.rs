//! Counts of requests and sums of reports, by atomics alone: they are on the way of every request to a cluster that reports
//! its load.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::LoadReport;
use super::store::{ClusterCounts, ClusterKey, LocalityCounts, Summed};
use crate::model::{EndpointMetric, Locality, Name};

/// So many names of metrics are remembered for a locality; reports come from backends, and nothing they say may grow without
/// bound. Values under further names are left out.
const MAX_NAMES: usize = 128;
/// The longest name that is remembered.
const LONGEST_NAME: usize = 256;

/// How a request to an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With success: gRPC status OK; of other HTTP a status below 500.
    Succeeded,
    /// With an error: another gRPC status, an HTTP status from 500, a broken connection.
    Failed,
    /// Nobody waited for its end any more: a timeout, or the caller's change of mind. Of gRPC that is any end without a
    /// status, of other HTTP one before the response's head. Load reports count it as an error, as gRPC does; Envoy does so
    /// for timeouts only.
    Abandoned,
}

/// What the requests to one cluster under one EDS service name come to.
#[derive(Debug)]
pub struct ClusterLoad {
    key: ClusterKey,
    /// For the configuration thread; requests hold the [`LocalityLoad`] they need.
    localities: Mutex<BTreeMap<Arc<Locality>, Arc<LocalityLoad>>>,
    uncategorized: AtomicU64,
    categories: Table<AtomicU64>,
}

impl ClusterLoad {
    pub(super) fn new(key: ClusterKey) -> Self {
        Self { key, localities: Mutex::default(), uncategorized: AtomicU64::new(0), categories: Table::default() }
    }

    /// Which cluster.
    pub fn key(&self) -> &ClusterKey {
        &self.key
    }

    /// The counts of a locality. It locks: for the configuration thread, when it builds what requests use.
    pub fn locality(&self, locality: &Arc<Locality>) -> Arc<LocalityLoad> {
        self.localities().entry(locality.clone()).or_default().clone()
    }

    /// A request was dropped: by a category of `drop_overloads`, or without one by the circuit breaker (gRFC A32).
    pub fn dropped(&self, category: Option<&str>) {
        // Categories come from the configuration, which bounds them.
        let counter = category.and_then(|category| self.categories.get(category, usize::MAX));
        match counter {
            Some(counter) => counter.fetch_add(1, Ordering::Relaxed),
            None => self.uncategorized.fetch_add(1, Ordering::Relaxed),
        };
    }

    fn localities(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<Locality>, Arc<LocalityLoad>>> {
        // Nothing panics while it is held.
        self.localities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts since they were last taken, of localities that have any.
    pub(super) fn take_localities(&self) -> Vec<(Arc<Locality>, LocalityCounts)> {
        let mut taken = Vec::new();
        self.localities().retain(|locality, load| {
            // A locality that nobody can write to any more tells its last, and is forgotten.
            let is_held = Arc::get_mut(load).is_none();
            let counts = load.take();
            if !counts.is_zero() {
                taken.push((locality.clone(), counts));
            }
            is_held
        });
        taken
    }

    /// The drops since they were last taken: all of them, and those of a category.
    pub(super) fn take_drops(&self) -> (u64, Vec<(Name, u64)>) {
        let mut all = self.uncategorized.swap(0, Ordering::Relaxed);
        let mut categories = Vec::new();
        self.categories.each(|name, counter| {
            let count = counter.swap(0, Ordering::Relaxed);
            all += count;
            if count > 0 {
                categories.push((name.clone(), count));
            }
        });
        (all, categories)
    }

    /// Counts again what was taken.
    pub(super) fn put_back(&self, counts: &ClusterCounts) {
        for (locality, counts) in &counts.localities {
            self.locality(locality).put_back(counts);
        }
        let mut uncategorized = counts.dropped;
        for (category, count) in &counts.categories {
            if let Some(counter) = self.categories.get(category, usize::MAX) {
                counter.fetch_add(*count, Ordering::Relaxed);
                uncategorized = uncategorized.saturating_sub(*count);
            }
        }
        self.uncategorized.fetch_add(uncategorized, Ordering::Relaxed);
    }

    /// Whether requests are under way.
    pub(super) fn is_busy(&self) -> bool {
        self.localities().values().any(|load| load.in_progress.load(Ordering::Relaxed) > 0)
    }
}

/// What the requests to one locality of a cluster come to.
#[derive(Debug, Default)]
pub struct LocalityLoad {
    issued: AtomicU64,
    in_progress: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    cpu: Sum,
    memory: Sum,
    application: Sum,
    named: Table<Sum>,
}

impl LocalityLoad {
    /// A request goes to an endpoint of the locality.
    pub fn begin(&self) {
        self.issued.fetch_add(1, Ordering::Relaxed);
        self.in_progress.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that [began](Self::begin) is over.
    pub fn end(&self, outcome: Outcome) {
        match outcome {
            Outcome::Succeeded => drop(self.succeeded.fetch_add(1, Ordering::Relaxed)),
            Outcome::Failed | Outcome::Abandoned => drop(self.failed.fetch_add(1, Ordering::Relaxed)),
        }
        self.in_progress.fetch_sub(1, Ordering::Relaxed);
    }

    /// Adds what an endpoint says of itself, as far as it is wanted (gRFCs A64, A85).
    pub fn add(&self, report: &LoadReport<'_>, wanted: &[EndpointMetric]) {
        for metric in wanted {
            match metric {
                EndpointMetric::Cpu => self.cpu.add_set(report.cpu_utilization),
                EndpointMetric::Memory => self.memory.add_set(report.mem_utilization),
                EndpointMetric::Application => self.application.add_set(report.application_utilization),
                // The wildcard has it already.
                EndpointMetric::Named(_) if wanted.contains(&EndpointMetric::AllNamed) => {}
                EndpointMetric::Named(name) => {
                    report.named_metrics().filter(|(found, _)| *found == &**name).for_each(|pair| self.add_named(pair));
                }
                EndpointMetric::AllNamed => report.named_metrics().for_each(|pair| self.add_named(pair)),
            }
        }
    }

    fn add_named(&self, (name, value): (&str, f64)) {
        if name.len() <= LONGEST_NAME
            && let Some(sum) = self.named.get(name, MAX_NAMES)
        {
            sum.add(value);
        }
    }

    /// Adds counts to what there is. How many requests are under way is what it is.
    fn put_back(&self, counts: &LocalityCounts) {
        let numbers =
            [(&self.issued, counts.issued), (&self.succeeded, counts.succeeded), (&self.failed, counts.failed)];
        for (counter, count) in numbers {
            counter.fetch_add(count, Ordering::Relaxed);
        }
        let sums = [(&self.cpu, counts.cpu), (&self.memory, counts.memory), (&self.application, counts.application)];
        for (sum, summed) in sums {
            sum.put_back(summed);
        }
        for (name, summed) in &counts.named {
            if let Some(sum) = self.named.get(name, MAX_NAMES) {
                sum.put_back(Some(*summed));
            }
        }
    }

    fn take(&self) -> LocalityCounts {
        let mut named = Vec::new();
        self.named.each(|name, sum| named.extend(sum.take().map(|summed| (name.clone(), summed))));
        LocalityCounts {
            issued: self.issued.swap(0, Ordering::Relaxed),
            in_progress: self.in_progress.load(Ordering::Relaxed),
            succeeded: self.succeeded.swap(0, Ordering::Relaxed),
            failed: self.failed.swap(0, Ordering::Relaxed),
            cpu: self.cpu.take(),
            memory: self.memory.take(),
            application: self.application.take(),
            named,
        }
    }
}

/// How many values there were, and what they add up to. A report that is taken while a value is added may have its count and
/// its amount in two neighbouring reports; nothing is lost or counted twice.
#[derive(Debug, Default)]
struct Sum {
    count: AtomicU64,
    /// An `f64`'s bits.
    total: AtomicU64,
}

impl Sum {
    fn add(&self, value: f64) {
        self.put_back(Some(Summed { count: 1, total: value }));
    }

    fn put_back(&self, summed: Option<Summed>) {
        let Some(Summed { count, total }) = summed else { return };
        let add = |bits| Some((f64::from_bits(bits) + total).to_bits());
        // It always gives a new value.
        let _ = self.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        self.count.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds a number that is 0 where it is unset.
    fn add_set(&self, value: f64) {
        if value > 0.0 {
            self.add(value);
        }
    }

    fn take(&self) -> Option<Summed> {
        let count = self.count.swap(0, Ordering::Relaxed);
        (count > 0).then(|| Summed { count, total: f64::from_bits(self.total.swap(0, Ordering::Relaxed)) })
    }
}

/// Counters by name. Looking one up takes no lock; a name that is new is added to a copy of the table, once.
struct Table<T>(ArcSwap<Vec<(Name, Arc<T>)>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl<T: Default> Table<T> {
    /// The counter of `name`; None: it is new, and there are `max` names already.
    fn get(&self, name: &str, max: usize) -> Option<Arc<T>> {
        let find =
            |table: &[(Name, Arc<T>)]| table.iter().find(|(known, _)| &**known == name).map(|(_, one)| one.clone());
        if let Some(known) = find(&self.0.load()) {
            return Some(known);
        }
        self.0.rcu(|table| {
            if table.len() >= max || find(table).is_some() {
                return table.clone();
            }
            let mut longer = Vec::clone(table);
            longer.push((name.into(), Arc::default()));
            Arc::new(longer)
        });
        find(&self.0.load())
    }

    fn each(&self, mut tell: impl FnMut(&Name, &T)) {
        self.0.load().iter().for_each(|(name, one)| tell(name, one));
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.load().iter().map(|(name, _)| name)).finish()
    }
}
