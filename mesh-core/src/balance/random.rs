//! Random: any ready endpoint, all alike.

use std::sync::Arc;

use super::ready::{ReadySet, scale};
use super::{Candidate, Pick, PickInput, Picker, PolicyConfig};

/// `load_balancing_policies.random.v3.Random`. Weights do not count, as in Envoy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RandomConfig;

impl PolicyConfig for RandomConfig {
    fn build(&self, candidates: &[Arc<Candidate>], _previous: Option<&Arc<dyn Picker>>, _seed: u64) -> Arc<dyn Picker> {
        Arc::new(RandomPicker { ready: ReadySet::new(candidates) })
    }
}

#[derive(Debug)]
struct RandomPicker {
    ready: ReadySet,
}

impl Picker for RandomPicker {
    fn pick(&self, input: &PickInput<'_>) -> Pick {
        if self.ready.is_empty() {
            return self.ready.otherwise();
        }
        self.ready.pick_from(scale(input.random, self.ready.len()), input.tried)
    }
}
