//! The endpoint of an attempt, as far as the attempts before and the retry policy have a word.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_core::balance::{Candidate, CandidateState, Pick, PickInput};
use mesh_core::policy::retry::{omits, previous_priorities};

use crate::outbound::cluster::LaneView;
use crate::outbound::stage::Attempt;

/// Picks, and picks again where the policy says how often (`host_selection_retry_max_attempts`) and what was picked is to be
/// avoided: pickers keep clear of few endpoints, and a policy may omit many.
pub(super) fn choose(view: &LaneView, attempt: &Attempt) -> Pick {
    let tried = tried(view, attempt);
    let (hash, metadata) = (attempt.hash, attempt.metadata.as_deref());
    let input = |random| PickInput { hash, tried: &tried, override_host: None, metadata, random };
    let mut pick = view.pick(&input(fastrand::u64(..)));
    let again = attempt.choice.as_ref().map_or(0, |policy| policy.host_selection_attempts);
    for _ in 0..again.min(MOST_PICKS) {
        match pick {
            Pick::Candidate(index) if tried.contains(&index) => pick = view.pick(&input(fastrand::u64(..))),
            _ => break,
        }
    }
    pick
}

/// No policy makes a request pick for longer.
const MOST_PICKS: u32 = 100;

/// The indices of what the attempt avoids, ascending. Few calls are tried twice.
fn tried(view: &LaneView, attempt: &Attempt) -> Vec<usize> {
    if attempt.tried.is_empty() && attempt.choice.is_none() {
        return Vec::new();
    }
    let priorities = priorities(view, attempt);
    let avoids = |candidate: &Candidate| {
        attempt.tried.avoids(&candidate.state)
            || priorities.contains(&candidate.priority)
            || attempt.choice.as_ref().is_some_and(|policy| omits(policy, &candidate.endpoint.metadata))
    };
    let all = view.candidates.iter().enumerate();
    all.filter(|(_, candidate)| avoids(candidate)).map(|(index, _)| index).collect()
}

/// The priorities that the policy leaves alone (`previous_priorities`).
fn priorities(view: &LaneView, attempt: &Attempt) -> BTreeSet<u32> {
    let Some(every) = attempt.choice.as_ref().and_then(|policy| policy.previous_priorities) else {
        return BTreeSet::new();
    };
    let candidates = || view.candidates.iter();
    let of = |state: &Arc<CandidateState>| {
        candidates().find(|candidate| Arc::ptr_eq(&candidate.state, state)).map(|candidate| candidate.priority)
    };
    let available = candidates()
        .filter(|candidate| candidate.endpoint.health.takes_requests() && !candidate.state.is_failed())
        .map(|candidate| candidate.priority)
        .collect();
    previous_priorities(attempt.tried.all().filter_map(of), &available, every)
}
