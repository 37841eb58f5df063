//! Round robin: each ready endpoint in turn, by weight where the weights differ.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ready::{ReadySet, WeightLine};
use super::{Candidate, Pick, PickInput, Picker, PolicyConfig};

/// `load_balancing_policies.round_robin.v3.RoundRobin`, the default of every cluster.
///
/// Endpoint weights count, as in Envoy; gRPC's round robin has none, and equal weights give its behaviour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoundRobinConfig;

impl PolicyConfig for RoundRobinConfig {
    fn build(&self, candidates: &[Arc<Candidate>], previous: Option<&Arc<dyn Picker>>, seed: u64) -> Arc<dyn Picker> {
        let ready = ReadySet::new(candidates);
        let weights = ready.members().iter().map(|member| u64::from(candidates[member.index].endpoint.weight));
        let line = WeightLine::uneven(weights).map(Turns::new);
        Arc::new(RoundRobinPicker { ready, line, next: AtomicU64::new(position(previous, seed)) })
    }
}

/// Where to begin: where the previous picker stopped, or anywhere, so that many clients do not start on one endpoint.
fn position(previous: Option<&Arc<dyn Picker>>, seed: u64) -> u64 {
    let previous: Option<&dyn Any> = previous.map(|picker| &**picker as &dyn Any);
    previous
        .and_then(|picker| picker.downcast_ref::<RoundRobinPicker>())
        // Half the range, so that a position can only wrap after more requests than a process lives for.
        .map_or(seed >> 1, |picker| picker.next.load(Ordering::Relaxed))
}

#[derive(Debug)]
struct RoundRobinPicker {
    ready: ReadySet,
    line: Option<Turns>,
    next: AtomicU64,
}

impl Picker for RoundRobinPicker {
    fn pick(&self, input: &PickInput<'_>) -> Pick {
        if self.ready.is_empty() {
            return self.ready.otherwise();
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let start = match &self.line {
            Some(line) => line.at(turn),
            None => (turn % self.ready.len() as u64) as usize,
        };
        self.ready.pick_from(start, input.tried)
    }
}

/// Turns by weight: a walk over the weight line whose step shares no factor with its length, so that every window of
/// `total` turns gives each member exactly its weight, well spread.
#[derive(Debug)]
struct Turns {
    line: WeightLine,
    step: u64,
}

impl Turns {
    fn new(line: WeightLine) -> Self {
        let total = line.total();
        // The golden section spreads best; the next number without a common factor is near it.
        let golden = ((u128::from(total) * 0x9e37_79b9) >> 32) as u64;
        let step = (golden.max(1)..).find(|step| gcd(*step, total) == 1).unwrap_or(1);
        Self { line, step }
    }

    fn at(&self, turn: u64) -> usize {
        let point = u128::from(turn) * u128::from(self.step) % u128::from(self.line.total());
        self.line.at(point as u64)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
