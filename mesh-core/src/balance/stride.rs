//! The static stride scheduler: turns by weight, without a lock and without a queue (gRFC A58; C-core's algorithm).

use std::sync::atomic::{AtomicU64, Ordering};

/// The largest weight: so many rounds it takes until all have had their share.
const MAX: u64 = 0xffff;
/// No weight counts for more than so many times the mean: else a pick would walk many rounds past the others.
const MAX_RATIO: f64 = 10.0;
/// No weight counts for less than this share of the mean: its endpoint would not be asked often enough to be heard of again.
const MIN_RATIO: f64 = 0.1;

/// Whose turn it is, by weight.
///
/// A number counts turns: over and over through the list, a round after the other. In each round a member is passed over or not,
/// so that of [`MAX`] rounds it takes part in as many as its weight says, evenly spread.
#[derive(Debug, PartialEq)]
pub(super) struct StaticStride {
    weights: Vec<u16>,
}

impl StaticStride {
    /// The turns of members with these weights; those that have none yet count as the mean of the others. None: fewer than two
    /// have one, or all are alike, and the turns are a round robin's.
    pub(super) fn new(weights: &[Option<f64>]) -> Option<Self> {
        let known = || weights.iter().copied().flatten();
        let (count, sum) = known().fold((0_u32, 0.0), |(count, sum), weight| (count + 1, sum + weight));
        let largest = known().fold(0.0, f64::max);
        let mean = sum / f64::from(count);
        if count < 2 || !mean.is_normal() {
            return None;
        }
        let largest = largest.min(MAX_RATIO * mean);
        let scaled = |weight: f64| (weight.min(largest) / largest * MAX as f64).round() as u16;
        let floor = (f64::from(scaled(mean)) * MIN_RATIO).round().max(1.0) as u16;
        let of = |weight: &Option<f64>| weight.map_or(scaled(mean), |weight| scaled(weight).max(floor));
        let weights: Vec<u16> = weights.iter().map(of).collect();
        (weights.iter().any(|weight| *weight != weights[0])).then_some(Self { weights })
    }

    /// Who is next. `turns` counts on from wherever it is.
    pub(super) fn next(&self, turns: &AtomicU64) -> usize {
        let length = self.weights.len() as u64;
        loop {
            let turn = turns.fetch_add(1, Ordering::Relaxed);
            let (position, round) = (turn % length, turn / length);
            let weight = u64::from(self.weights[position as usize]);
            // The offset keeps members of one weight from being passed over in the same round. What is heaviest is never.
            if (weight * (round % MAX) + position * (MAX / 2)) % MAX >= MAX - weight {
                return position as usize;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[Option<f64>], rounds: u64) -> Vec<u64> {
        let stride = StaticStride::new(weights).unwrap();
        let turns = AtomicU64::new(0);
        let mut shares = vec![0; weights.len()];
        while turns.load(Ordering::Relaxed) < rounds * weights.len() as u64 {
            shares[stride.next(&turns)] += 1;
        }
        shares
    }

    /// gRFC A58.
    #[test]
    fn turns_follow_weights_and_whoever_has_none_gets_the_mean() {
        // 65,535 rounds are a whole cycle: everybody has as many turns as its weight.
        assert_eq!(shares(&[Some(1.0), Some(3.0)], 0xffff), [21_845, 65_535]);
        assert_eq!(shares(&[Some(1.0), None, Some(3.0)], 0xffff), [21_845, 43_690, 65_535]);
        let few = shares(&[Some(100.0), Some(200.0), Some(300.0)], 600);
        assert!(few.iter().zip([200, 400, 600]).all(|(found, share)| found.abs_diff(share) <= 1), "{few:?}");
    }

    /// gRFC A58.
    #[test]
    fn without_two_weights_that_differ_there_is_nothing_to_schedule() {
        let none: [&[Option<f64>]; 6] = [
            &[],
            &[Some(1.0)],
            &[None, None],
            &[None, Some(5.0), None],
            &[Some(5.0), Some(5.0)],
            &[Some(5.0), None, Some(5.0)],
        ];
        for weights in none {
            assert_eq!(StaticStride::new(weights), None, "{weights:?}");
        }
    }

    /// No report can make a pick walk for long, or leave somebody out for ever.
    #[test]
    fn weights_are_kept_within_bounds_of_the_mean() {
        let mut weights = vec![Some(1.0); 100];
        weights[0] = Some(1e300);
        let turns = AtomicU64::new(0);
        let stride = StaticStride::new(&weights).unwrap();
        for picks in 1..10_000 {
            stride.next(&turns);
            assert!(turns.load(Ordering::Relaxed) <= picks * 100 + 100, "at most a round for each pick");
        }
        let few = shares(&[Some(1e-300), Some(1.0), Some(1.0)], 0xffff);
        assert_eq!(few, [4369, 65_535, 65_535], "a tenth of the mean");
    }
}
