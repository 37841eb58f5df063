//! The targets in use: found by name with one lookup, subscribed on first use, forgotten when idle, bounded in number.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mesh_core::bootstrap::ListenerNames;
use mesh_core::error::{Code, Error};
use mesh_core::model::Name;
use mesh_core::publish::{Publisher, Reader};
use mesh_core::target::Target;

use super::view::TargetView;
use super::watches::Watches;

/// So many spellings of an authority are remembered for each target in the bound; more are looked up the long way.
const SPELLINGS: usize = 4;
/// One of so many targets in the bound is forgotten at once where strangers take the room.
const STRANGERS: usize = 8;

/// A target, across configurations.
pub(crate) struct TargetSlot {
    listener: Name,
    state: Publisher<TargetState>,
    /// When a request last asked for it, in seconds since the table began.
    used: AtomicU64,
    /// Clients that are for this target alone: while there are any it is never idle.
    pins: AtomicUsize,
}

/// What is known of a target.
pub(crate) enum TargetState {
    /// Nothing yet.
    Waiting,
    /// Its configuration.
    Ready(Arc<TargetView>),
    /// It has none, or none is to be had.
    Missing(NoConfig),
}

/// Why a target has no configuration.
#[derive(Debug, Clone)]
pub(crate) struct NoConfig {
    pub(crate) error: Error,
    /// The source says that there is no such Listener: the host is not in the mesh.
    pub(crate) absent: bool,
}

impl TargetSlot {
    fn new(listener: Name) -> Self {
        Self {
            listener,
            state: Publisher::new(Arc::new(TargetState::Waiting)),
            used: AtomicU64::new(0),
            pins: AtomicUsize::new(0),
        }
    }

    /// The name of its Listener.
    pub(crate) fn listener(&self) -> &Name {
        &self.listener
    }

    /// What requests see now.
    pub(crate) fn reader(&self) -> Reader<TargetState> {
        self.state.reader()
    }

    /// What requests see now.
    pub(crate) fn current(&self) -> Arc<TargetState> {
        self.state.current()
    }

    /// The configuration in force.
    pub(crate) fn view(&self) -> Option<Arc<TargetView>> {
        match &*self.state.current() {
            TargetState::Ready(view) => Some(view.clone()),
            _ => None,
        }
    }

    /// Puts a state in force; gives the last one back, to be freed by the caller.
    pub(crate) fn publish(&self, state: TargetState) -> Arc<TargetState> {
        self.state.publish(Arc::new(state))
    }
}

impl fmt::Debug for TargetSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TargetSlot").field(&self.listener).finish()
    }
}

/// Keeps a target as long as it lives.
#[derive(Debug)]
pub(crate) struct Pinned {
    slot: Arc<TargetSlot>,
}

impl Pinned {
    pub(crate) fn slot(&self) -> &Arc<TargetSlot> {
        &self.slot
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.slot.pins.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All targets of a mesh.
pub(crate) struct Targets {
    names: ListenerNames,
    limit: usize,
    idle: Duration,
    began: Instant,
    /// By authority as requests spell it, one map for each scheme. Copied to be changed: lookups are many, changes few.
    spelled: [ArcSwap<HashMap<Box<str>, Arc<TargetSlot>>>; 2],
    slots: Mutex<BTreeMap<Name, Arc<TargetSlot>>>,
    watches: Arc<Watches>,
}

impl Targets {
    pub(crate) fn new(names: ListenerNames, limit: usize, idle: Duration, watches: Arc<Watches>) -> Self {
        Self {
            names,
            limit,
            idle,
            began: Instant::now(),
            spelled: Default::default(),
            slots: Mutex::default(),
            watches,
        }
    }

    /// The target of a request with this authority.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_TARGET`] and [`Code::TOO_MANY_TARGETS`].
    pub(crate) fn find(&self, authority: &str, https: bool, now: Instant) -> Result<Arc<TargetSlot>, Error> {
        if let Some(slot) = self.spelled[usize::from(https)].load().get(authority) {
            self.touch(slot, now);
            return Ok(slot.clone());
        }
        let name = self.listener_of(authority, https)?;
        let slot = self.subscribe(&name)?;
        self.touch(&slot, now);
        self.remember(authority, https, &slot);
        Ok(slot)
    }

    /// An authority that is said to be empty names nobody; that is enough where all hosts have one Listener.
    fn listener_of(&self, authority: &str, https: bool) -> Result<Name, Error> {
        match self.names.for_any() {
            Some(name) if authority.is_empty() => Ok(name),
            _ => Target::from_authority(authority, https)?.listener_name(&self.names),
        }
    }

    /// A target that stays.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub(crate) fn pin(&self, target: &Target) -> Result<Pinned, Error> {
        self.pin_listener(&target.listener_name(&self.names)?)
    }

    /// The target whose Listener is `name`, which stays.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub(crate) fn pin_listener(&self, name: &Name) -> Result<Pinned, Error> {
        let slot = self.subscribe(name)?;
        slot.pins.fetch_add(1, Ordering::Relaxed);
        Ok(Pinned { slot })
    }

    fn subscribe(&self, name: &Name) -> Result<Arc<TargetSlot>, Error> {
        let mut slots = self.lock();
        if let Some(slot) = slots.get(name) {
            return Ok(slot.clone());
        }
        if slots.len() >= self.limit {
            self.forget_strangers(&mut slots);
        }
        if slots.len() >= self.limit {
            return Err(Error::new(
                Code::TOO_MANY_TARGETS,
                format!("{} targets are in use, and `{name}` would be one more", slots.len()),
            ));
        }
        let slot = Arc::new(TargetSlot::new(name.clone()));
        slots.insert(name.clone(), slot.clone());
        self.watches.watch(name);
        Ok(slot)
    }

    /// Makes room at the expense of hosts that are not in the mesh, those asked for longest ago first: names that somebody
    /// made up must not keep out those of the mesh. A share at once, as the tables are copied for it.
    fn forget_strangers(&self, slots: &mut BTreeMap<Name, Arc<TargetSlot>>) {
        let is_stranger = |slot: &Arc<TargetSlot>| {
            let absent = matches!(&**slot.state.load(), TargetState::Missing(NoConfig { absent: true, .. }));
            absent && slot.pins.load(Ordering::Relaxed) == 0
        };
        let mut strangers: Vec<_> = slots.values().filter(|slot| is_stranger(slot)).cloned().collect();
        if strangers.is_empty() {
            return;
        }
        strangers.sort_by_key(|slot| slot.used.load(Ordering::Relaxed));
        strangers.truncate(self.limit / STRANGERS + 1);
        for slot in &strangers {
            slots.remove(slot.listener());
            self.watches.unwatch(slot.listener());
        }
        self.forget_spellings(slots);
    }

    fn forget_spellings(&self, slots: &BTreeMap<Name, Arc<TargetSlot>>) {
        for spelled in &self.spelled {
            let mut next = HashMap::clone(&spelled.load());
            next.retain(|_, slot| slots.contains_key(slot.listener()));
            spelled.store(Arc::new(next));
        }
    }

    fn remember(&self, authority: &str, https: bool, slot: &Arc<TargetSlot>) {
        // Under the same lock as `sweep`: a slot that was swept must not be remembered.
        let slots = self.lock();
        let spelled = &self.spelled[usize::from(https)];
        if !slots.contains_key(slot.listener()) || spelled.load().len() >= self.limit * SPELLINGS {
            return;
        }
        let mut next = HashMap::clone(&spelled.load());
        next.insert(authority.into(), slot.clone());
        spelled.store(Arc::new(next));
    }

    fn touch(&self, slot: &TargetSlot, now: Instant) {
        let second = now.saturating_duration_since(self.began).as_secs();
        if slot.used.load(Ordering::Relaxed) != second {
            slot.used.store(second, Ordering::Relaxed);
        }
    }

    /// The target whose Listener is `name`, if it is in use.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<TargetSlot>> {
        self.lock().get(name).cloned()
    }

    /// All targets in use.
    pub(crate) fn all(&self) -> Vec<Arc<TargetSlot>> {
        self.lock().values().cloned().collect()
    }

    /// The targets that have no configuration yet.
    pub(crate) fn waiting(&self) -> Vec<Name> {
        let is_waiting = |slot: &&Arc<TargetSlot>| matches!(&**slot.state.load(), TargetState::Waiting);
        self.lock().values().filter(is_waiting).map(|slot| slot.listener.clone()).collect()
    }

    /// Asks for a cluster that a request names itself.
    pub(crate) fn want_cluster(&self, slot: &TargetSlot, cluster: &Name) {
        self.watches.want_cluster(slot.listener(), cluster);
    }

    /// Forgets the targets that no request has asked for in a while.
    pub(crate) fn sweep(&self, now: Instant) {
        let Some(since) = now.saturating_duration_since(self.began).checked_sub(self.idle) else { return };
        let mut slots = self.lock();
        let before = slots.len();
        slots.retain(|name, slot| {
            let used = slot.used.load(Ordering::Relaxed) >= since.as_secs() || slot.pins.load(Ordering::Relaxed) > 0;
            if !used {
                self.watches.unwatch(name);
            }
            used
        });
        if slots.len() == before {
            return;
        }
        self.forget_spellings(&slots);
    }

    fn forget_all(&self) {
        let slots = std::mem::take(&mut *self.lock());
        slots.keys().for_each(|name| self.watches.unwatch(name));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<TargetSlot>>> {
        // Nothing can panic while it is held.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        self.forget_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(300);

    fn targets(limit: usize) -> Targets {
        let watches = Arc::new(Watches::new(super::super::Signal::new()));
        Targets::new(ListenerNames::local(), limit, IDLE, watches)
    }

    #[test]
    fn spellings_of_one_authority_are_one_target() {
        let targets = targets(8);
        let find = |authority, https| targets.find(authority, https, targets.began).unwrap();
        let first = find("reviews", false);
        assert_eq!(&**first.listener(), "reviews:80");
        for other in ["reviews", "Reviews", "reviews:80", "REVIEWS.:80"] {
            assert!(Arc::ptr_eq(&first, &find(other, false)), "{other}");
        }
        assert_eq!(&**find("reviews", true).listener(), "reviews:443", "https is another port");
    }

    #[test]
    fn an_empty_authority_is_enough_where_all_hosts_have_one_listener() {
        let watches = Arc::new(Watches::new(super::super::Signal::new()));
        let mut names = ListenerNames::local();
        names.set_client_default("everything");
        let one = Targets::new(names, 8, IDLE, watches);
        assert_eq!(&**one.find("", false, one.began).unwrap().listener(), "everything");
        let many = targets(8);
        assert_eq!(many.find("", false, many.began).unwrap_err().code(), Code::BAD_TARGET);
    }

    #[test]
    fn strangers_cannot_make_up_targets_without_end() {
        let targets = targets(2);
        for host in ["a", "b"] {
            targets.find(host, false, targets.began).unwrap();
        }
        let error = targets.find("c", false, targets.began).unwrap_err();
        assert_eq!(error.code(), Code::TOO_MANY_TARGETS);
        assert!(targets.find("a", false, targets.began).is_ok(), "those that are there go on");
        assert_eq!(targets.find("a b", false, targets.began).unwrap_err().code(), Code::BAD_TARGET);
    }

    #[test]
    fn hosts_that_are_not_in_the_mesh_make_room_for_those_that_are() {
        let targets = targets(3);
        let find = |host, second| targets.find(host, false, targets.began + Duration::from_secs(second));
        let absent = |host| {
            let error = Error::new(Code::RESOURCE_NOT_FOUND, "no");
            find(host, 0).unwrap().publish(TargetState::Missing(NoConfig { error, absent: true }))
        };
        find("known", 0).unwrap();
        absent("old");
        absent("new");
        find("new", 5).unwrap();
        find("another", 6).unwrap();
        assert!(
            targets.get("old:80").is_none() && targets.get("known:80").is_some() && targets.get("new:80").is_some()
        );
        assert!(targets.spelled[0].load().get("old").is_none());
        find("more", 7).unwrap();
        assert!(targets.get("new:80").is_none());
        assert_eq!(find("too many", 8).unwrap_err().code(), Code::BAD_TARGET);
        assert_eq!(find("toomany", 8).unwrap_err().code(), Code::TOO_MANY_TARGETS, "nobody else is to make room");
    }

    #[test]
    fn idle_targets_are_forgotten_and_pinned_ones_are_not() {
        let targets = targets(8);
        let pinned = targets.pin(&Target::parse("xds:///fixed").unwrap()).unwrap();
        targets.find("busy", false, targets.began + IDLE).unwrap();
        targets.find("idle", false, targets.began).unwrap();
        targets.sweep(targets.began + IDLE + Duration::from_secs(1));
        assert!(targets.get("idle:80").is_none());
        assert!(targets.get("busy:80").is_some());
        assert!(targets.get("fixed").is_some());
        assert!(targets.spelled[0].load().get("idle").is_none());
        drop(pinned);
        targets.sweep(targets.began + IDLE * 2 + Duration::from_secs(1));
        assert!(targets.get("fixed").is_none());
    }
}
