//! A part of a candidate list with a picker of its own: a priority, a locality, or a subset.

use std::sync::Arc;
use std::time::Instant;

use super::{Candidate, Pick, PickInput, Picker, PolicyConfig};

/// More tried candidates than this are forgotten, oldest first: avoiding them is a preference, and a call has few.
const TRIED: usize = 16;

/// Some candidates of a list, by ascending index, and the picker built from just those.
#[derive(Debug)]
pub(crate) struct Part {
    indices: Vec<usize>,
    picker: Arc<dyn Picker>,
}

impl Part {
    /// Builds the picker for the candidates at `indices`, which ascend.
    pub(crate) fn build(
        policy: &(impl PolicyConfig + ?Sized),
        candidates: &[Arc<Candidate>],
        indices: Vec<usize>,
        previous: Option<&Arc<dyn Picker>>,
        seed: u64,
    ) -> Self {
        let members: Vec<Arc<Candidate>> = indices.iter().map(|&index| candidates[index].clone()).collect();
        let picker = policy.build(&members, previous, seed);
        Self::of(indices, picker)
    }

    /// The candidates at `indices`, which ascend, with the `picker` that was built from them.
    pub(crate) fn of(indices: Vec<usize>, picker: Arc<dyn Picker>) -> Self {
        Self { indices, picker }
    }

    /// The part's own picker, to hand to its successor.
    pub(crate) fn picker(&self) -> &Arc<dyn Picker> {
        &self.picker
    }

    /// Refreshes the part's own picker.
    pub(crate) fn refresh(&self, now: Instant) -> Option<Instant> {
        self.picker.refresh(now)
    }

    /// Whether a member is ready now.
    pub(crate) fn any_ready(&self, candidates: &[Arc<Candidate>]) -> bool {
        self.indices.iter().any(|&index| candidates[index].state.is_ready())
    }

    /// The weight of the locality that the members are in.
    pub(crate) fn weight(&self, candidates: &[Arc<Candidate>]) -> u64 {
        self.indices.first().map_or(0, |&index| u64::from(candidates[index].locality_weight))
    }

    /// Picks; what goes in and comes out are indices of the whole list.
    pub(crate) fn pick(&self, input: &PickInput<'_>) -> Pick {
        let mut local = [0; TRIED];
        let mut count = 0;
        for index in input.tried.iter().rev().take(TRIED) {
            if let Ok(position) = self.indices.binary_search(index) {
                local[count] = position;
                count += 1;
            }
        }
        match self.picker.pick(&PickInput { tried: &local[..count], ..*input }) {
            Pick::Candidate(position) => Pick::Candidate(self.indices[position]),
            Pick::Wait { connect } => Pick::Wait { connect: connect.map(|position| self.indices[position]) },
            Pick::Fail => Pick::Fail,
        }
    }
}

/// Whether a pick names a candidate that the call has not tried.
pub(crate) fn is_fresh(pick: Pick, tried: &[usize]) -> bool {
    matches!(pick, Pick::Candidate(index) if !tried.contains(&index))
}

/// The better of two picks, the first if they are alike: a candidate, then one to connect and wait for, then waiting.
pub(crate) fn better(a: Pick, b: Pick) -> Pick {
    let rank = |pick| match pick {
        Pick::Candidate(_) => 0,
        Pick::Wait { connect: Some(_) } => 1,
        Pick::Wait { connect: None } => 2,
        Pick::Fail => 3,
    };
    if rank(b) < rank(a) { b } else { a }
}
