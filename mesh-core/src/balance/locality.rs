//! Choosing a locality by weight before an endpoint in it (gRFC A52's `xds_wrr_locality`).

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::part::{Part, better, is_fresh};
use super::ready::{WeightLine, mix};
use super::{Candidate, CandidateState, Observer, Pick, PickInput, Picker, PolicyConfig};
use crate::model::Locality;

/// `load_balancing_policies.wrr_locality.v3.WrrLocality`: what `ROUND_ROBIN` and `LEAST_REQUEST` mean in xDS.
#[derive(Debug, Clone)]
pub struct WrrLocality {
    /// The policy inside each locality.
    pub child: Arc<dyn PolicyConfig>,
}

impl PolicyConfig for WrrLocality {
    fn build(&self, candidates: &[Arc<Candidate>], previous: Option<&Arc<dyn Picker>>, seed: u64) -> Arc<dyn Picker> {
        let previous =
            previous.map(|picker| &**picker as &dyn Any).and_then(|any| any.downcast_ref::<LocalityPicker>());
        let mut localities: Vec<(Arc<Locality>, Part)> = Vec::new();
        for group in by_locality(candidates) {
            let locality = candidates[group[0]].locality.clone();
            let before = previous.and_then(|picker| picker.child_of(&locality));
            let part = Part::build(&*self.child, candidates, group, before, seed);
            localities.push((locality, part));
        }
        // Only localities with a ready endpoint take part.
        let weight = |part: &Part| if part.any_ready(candidates) { part.weight(candidates) } else { 0 };
        let line = WeightLine::new(localities.iter().map(|(_, part)| weight(part)));
        Arc::new(LocalityPicker { localities, line })
    }

    fn connects_all(&self) -> bool {
        self.child.connects_all()
    }

    fn observer(&self, state: &CandidateState) -> Option<Arc<dyn Observer>> {
        self.child.observer(state)
    }

    fn out_of_band(&self) -> Option<Duration> {
        self.child.out_of_band()
    }
}

/// The indices of `candidates` by locality, localities in order of appearance.
fn by_locality(candidates: &[Arc<Candidate>]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut known: HashMap<&Locality, usize> = HashMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let group = *known.entry(&candidate.locality).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(index);
    }
    groups
}

#[derive(Debug)]
struct LocalityPicker {
    localities: Vec<(Arc<Locality>, Part)>,
    line: WeightLine,
}

impl LocalityPicker {
    fn child_of(&self, locality: &Locality) -> Option<&Arc<dyn Picker>> {
        self.localities.iter().find(|(known, _)| **known == *locality).map(|(_, part)| part.picker())
    }

    /// The best answer of the localities other than `drawn`.
    fn pick_elsewhere(&self, input: &PickInput<'_>, drawn: usize) -> Pick {
        // Each says for itself whether waiting is of use.
        let mut best = Pick::Fail;
        for (position, (_, part)) in self.localities.iter().enumerate() {
            if position == drawn {
                continue;
            }
            let pick = part.pick(input);
            if is_fresh(pick, input.tried) {
                return pick;
            }
            best = better(best, pick);
        }
        best
    }
}

impl Picker for LocalityPicker {
    fn pick(&self, input: &PickInput<'_>) -> Pick {
        if self.line.total() == 0 {
            // On-demand children (pick first, ring hash) connect nothing until they are asked.
            return self.pick_elsewhere(input, usize::MAX);
        }
        let drawn = self.line.draw(input.random);
        let inner = PickInput { random: mix(input.random), ..*input };
        let first = self.localities[drawn].1.pick(&inner);
        if is_fresh(first, input.tried) {
            return first;
        }
        // All of the drawn locality died or was tried: another locality is better than a second try.
        let other = self.pick_elsewhere(&inner, drawn);
        if is_fresh(other, input.tried) { other } else { better(first, other) }
    }

    fn refresh(&self, now: Instant) -> Option<Instant> {
        self.localities.iter().filter_map(|(_, part)| part.refresh(now)).min()
    }
}
