//! Clusters that requests name themselves, by a header or by a redirect that they follow: they come with the first request, and
//! go when no request takes them any more (gRFC A74 counts who uses a cluster).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::model::Name;

/// How many there may be per target: the names come from headers, and those from strangers.
const MAX_DYNAMIC: usize = 1024;

/// How long one stays that no request takes: as long as a target that no request asks for.
const IDLE: Duration = Duration::from_secs(300);

/// How long one stays that there is nothing to be had of: requests that name it meanwhile fail at once, and the control plane is
/// not asked for it with each of them.
const FAILED: Duration = Duration::from_secs(15);

/// How often it is looked which of them requests took.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// Those of one target, each with the time at which a request was last known to want it.
#[derive(Debug, Default)]
pub(super) struct Dynamic(BTreeMap<Name, Instant>);

impl Dynamic {
    /// A request wants this one. Whether it is new; over the bound it gives way, unless another that `fails` does.
    pub(super) fn add(&mut self, name: &Name, now: Instant, fails: impl Fn(&Name) -> bool) -> bool {
        if let Some(wanted) = self.0.get_mut(name) {
            *wanted = now;
            return false;
        }
        if self.0.len() >= MAX_DYNAMIC {
            let failed = self.0.iter().filter(|(name, _)| fails(name)).min_by_key(|(_, wanted)| **wanted);
            let Some(failed) = failed.map(|(name, _)| name.clone()) else { return false };
            self.0.remove(&failed);
        }
        self.0.insert(name.clone(), now).is_none()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.keys()
    }

    /// Lets go of those that no request wants any more; those in `taken` were taken since the last time. Whether any went.
    pub(super) fn let_go(&mut self, taken: &BTreeSet<Name>, now: Instant, fails: impl Fn(&Name) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|name, wanted| {
            if taken.contains(name) {
                *wanted = now;
            }
            let patience = if fails(name) { FAILED } else { IDLE };
            now.saturating_duration_since(*wanted) < patience
        });
        self.0.len() < before
    }
}
