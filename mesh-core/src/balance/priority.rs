//! Priorities: the first that works takes everything (gRFC A56), above whatever policy the cluster has.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::part::{Part, better, is_fresh};
use super::{Candidate, Pick, PickInput, Picker, PolicyConfig};
use crate::model::Health;

/// Builds the picker of a whole cluster: priority first, then `policy` among the priority's candidates.
///
/// Candidates that the control plane calls unhealthy or draining take no requests (gRFC A27), except for one that the
/// request asks for by address (session affinity), which may be draining. `previous` is what this function built before.
pub fn build(
    policy: &dyn PolicyConfig,
    candidates: &[Arc<Candidate>],
    previous: Option<&Arc<dyn Picker>>,
    seed: u64,
) -> Arc<dyn Picker> {
    policy.build_whole(candidates, previous, seed)
}

/// What most policies are in a whole cluster: the same in each priority.
pub(super) fn by_priority(
    policy: &(impl PolicyConfig + ?Sized),
    candidates: &[Arc<Candidate>],
    previous: Option<&Arc<dyn Picker>>,
    seed: u64,
) -> Arc<dyn Picker> {
    let previous = previous.map(|picker| &**picker as &dyn Any).and_then(|any| any.downcast_ref::<PriorityPicker>());
    let mut groups: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        if candidate.endpoint.health.takes_requests() {
            groups.entry(candidate.priority).or_default().push(index);
        }
    }
    let levels = groups
        .into_iter()
        .map(|(priority, indices)| {
            let before = previous.and_then(|picker| picker.child_of(priority));
            Level { priority, part: Part::build(policy, candidates, indices, before, seed) }
        })
        .collect();
    Arc::new(PriorityPicker { levels, candidates: candidates.to_vec(), by_address: OnceLock::new() })
}

#[derive(Debug)]
struct Level {
    priority: u32,
    part: Part,
}

#[derive(Debug)]
struct PriorityPicker {
    levels: Vec<Level>,
    candidates: Vec<Arc<Candidate>>,
    /// Filled by the first request that asks for an address, as few clusters have session affinity.
    by_address: OnceLock<HashMap<SocketAddr, usize>>,
}

impl PriorityPicker {
    fn child_of(&self, priority: u32) -> Option<&Arc<dyn Picker>> {
        self.levels.iter().find(|level| level.priority == priority).map(|level| level.part.picker())
    }

    /// The endpoint that the request asks for, if it is there and can take it.
    fn overridden(&self, address: SocketAddr, tried: &[usize]) -> Option<Pick> {
        let known = self.by_address.get_or_init(|| {
            let addresses = |(index, candidate): (usize, &Arc<Candidate>)| {
                let endpoint = candidate.endpoint.clone();
                let all = std::iter::once(endpoint.address).chain(endpoint.additional.clone());
                all.map(move |address| (address, index)).collect::<Vec<_>>()
            };
            self.candidates.iter().enumerate().flat_map(addresses).collect()
        });
        let index = *known.get(&address)?;
        let candidate = &self.candidates[index];
        let health = candidate.endpoint.health;
        let allowed = health.takes_requests() || health == Health::Draining;
        (allowed && candidate.state.is_ready() && !tried.contains(&index)).then_some(Pick::Candidate(index))
    }
}

impl Picker for PriorityPicker {
    fn pick(&self, input: &PickInput<'_>) -> Pick {
        if let Some(pick) = input.override_host.and_then(|address| self.overridden(address, input.tried)) {
            return pick;
        }
        let mut best = Pick::Fail;
        for level in &self.levels {
            let pick = level.part.pick(input);
            if is_fresh(pick, input.tried) {
                return pick;
            }
            best = better(best, pick);
            // A priority that may yet connect is waited for before a lower one is asked (gRFC A56).
            if matches!(pick, Pick::Wait { .. }) {
                break;
            }
        }
        best
    }

    fn refresh(&self, now: Instant) -> Option<Instant> {
        self.levels.iter().filter_map(|level| level.part.refresh(now)).min()
    }
}
