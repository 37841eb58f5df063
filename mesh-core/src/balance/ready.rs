//! The candidates that were ready when a picker was built, and how a pick walks them.

use std::sync::Arc;

use super::{Candidate, CandidateState, Pick};

/// The ready candidates of one list, by their index in it.
///
/// Collected once per picker, so that a pick among thousands looks at one or two. A candidate that dies afterwards is
/// stepped over, as its state is shared.
#[derive(Debug)]
pub(crate) struct ReadySet {
    members: Vec<Member>,
    otherwise: Pick,
}

/// One ready candidate.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its index in the list the picker was built from.
    pub(crate) index: usize,
    /// Its live state.
    pub(crate) state: Arc<CandidateState>,
}

impl ReadySet {
    /// Collects the ready ones of `candidates`.
    pub(crate) fn new(candidates: &[Arc<Candidate>]) -> Self {
        let members: Vec<Member> = candidates
            .iter()
            .enumerate()
            .filter(|(_, candidate)| candidate.state.is_ready())
            .map(|(index, candidate)| Member { index, state: candidate.state.clone() })
            .collect();
        let otherwise = if members.is_empty() { unready(candidates) } else { Pick::Wait { connect: None } };
        Self { members, otherwise }
    }

    /// How many were ready.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether none was.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The members, in the order of the list.
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// What a pick answers when no member will do.
    pub(crate) fn otherwise(&self) -> Pick {
        self.otherwise
    }

    /// The first member at or after `start`, wrapping, that is still ready and not in `tried`; failing that, one that was
    /// tried but is still ready.
    pub(crate) fn pick_from(&self, start: usize, tried: &[usize]) -> Pick {
        let (head, tail) = self.members.split_at(start.min(self.members.len()));
        let mut second_best = None;
        for member in tail.iter().chain(head) {
            if !member.state.is_ready() {
                continue;
            }
            if !tried.contains(&member.index) {
                return Pick::Candidate(member.index);
            }
            second_best.get_or_insert(member.index);
        }
        second_best.map_or(self.otherwise, Pick::Candidate)
    }
}

/// What to answer when none of `candidates` is ready: wait while one may yet be, fail once all have failed.
pub(crate) fn unready(candidates: &[Arc<Candidate>]) -> Pick {
    if candidates.iter().all(|candidate| candidate.state.is_failed()) {
        Pick::Fail
    } else {
        Pick::Wait { connect: None }
    }
}

/// Draws from `0..bound` without a division; `bound` must not be zero.
pub(crate) fn scale(random: u64, bound: usize) -> usize {
    // The high half of a 128-bit product is below `bound`, so it fits.
    ((u128::from(random) * bound as u128) >> 64) as usize
}

/// Another 64 random bits out of `random`, for a decision that must not depend on the one before (SplitMix64).
pub(crate) fn mix(random: u64) -> u64 {
    let mut z = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Weights laid end to end: a point on the line names a member in logarithmic time.
#[derive(Debug)]
pub(crate) struct WeightLine {
    ends: Vec<u64>,
}

impl WeightLine {
    /// Lays out `weights`; None when there is nothing to weigh: no weight, a sum of zero, or all the same.
    pub(crate) fn uneven(weights: impl Iterator<Item = u64>) -> Option<Self> {
        let line = Self::new(weights);
        let first = *line.ends.first()?;
        let even = line.ends.windows(2).all(|pair| pair[1] - pair[0] == first);
        (!even && line.total() > 0).then_some(line)
    }

    /// Lays out `weights`.
    pub(crate) fn new(weights: impl Iterator<Item = u64>) -> Self {
        let ends = weights
            .scan(0_u64, |sum, weight| {
                *sum = sum.saturating_add(weight);
                Some(*sum)
            })
            .collect();
        Self { ends }
    }

    /// The sum of the weights.
    pub(crate) fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The member that `point` (below the total) falls in.
    pub(crate) fn at(&self, point: u64) -> usize {
        self.ends.partition_point(|end| *end <= point)
    }

    /// A member drawn by weight.
    pub(crate) fn draw(&self, random: u64) -> usize {
        self.at(((u128::from(random) * u128::from(self.total())) >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_stays_below_its_bound() {
        for bound in [1, 2, 3, 1000] {
            assert_eq!(scale(0, bound), 0);
            assert_eq!(scale(u64::MAX, bound), bound - 1);
        }
    }

    #[test]
    fn a_weight_line_gives_each_its_length() {
        let line = WeightLine::new([1, 0, 3].into_iter());
        let at: Vec<usize> = (0..line.total()).map(|point| line.at(point)).collect();
        assert_eq!(at, [0, 2, 2, 2]);
    }

    #[test]
    fn equal_weights_need_no_line() {
        assert!(WeightLine::uneven([7, 7, 7].into_iter()).is_none());
        assert!(WeightLine::uneven(std::iter::empty()).is_none());
        assert!(WeightLine::uneven([0, 0].into_iter()).is_none());
        assert!(WeightLine::uneven([1, 2].into_iter()).is_some());
    }
}
