//! Least request: the least loaded of a few endpoints drawn at random (gRFC A48).

use std::cmp::Ordering;
use std::sync::Arc;

use super::ready::{Member, ReadySet, WeightLine, mix, scale};
use super::{Candidate, Pick, PickInput, Picker, PolicyConfig};

/// `load_balancing_policies.least_request.v3.LeastRequest`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeastRequestConfig {
    /// `choice_count`: how many are drawn, with replacement; 2 by default, at most [`Self::MAX_CHOICES`].
    pub choice_count: u32,
    /// `active_request_bias`: how strongly load counts against weight where the weights differ; 1.0 by default, 0.0
    /// leaves only the weights (Envoy).
    pub active_request_bias: f64,
}

impl LeastRequestConfig {
    /// More choices than this are read as this many (gRFC A48): the gain is nothing, and each one costs.
    pub const MAX_CHOICES: u32 = 10;
}

impl Default for LeastRequestConfig {
    fn default() -> Self {
        Self { choice_count: 2, active_request_bias: 1.0 }
    }
}

impl PolicyConfig for LeastRequestConfig {
    fn build(&self, candidates: &[Arc<Candidate>], _previous: Option<&Arc<dyn Picker>>, _seed: u64) -> Arc<dyn Picker> {
        let ready = ReadySet::new(candidates);
        let weights: Vec<u32> = ready.members().iter().map(|member| candidates[member.index].endpoint.weight).collect();
        let line = WeightLine::uneven(weights.iter().copied().map(u64::from));
        Arc::new(LeastRequestPicker {
            ready,
            weighted: line.map(|line| Weighted { line, weights, bias: self.active_request_bias }),
            choices: self.choice_count.clamp(1, Self::MAX_CHOICES),
        })
    }
}

#[derive(Debug)]
struct LeastRequestPicker {
    ready: ReadySet,
    weighted: Option<Weighted>,
    choices: u32,
}

/// What is needed only where the weights differ: draws follow the weights, and so does what load is compared with.
#[derive(Debug)]
struct Weighted {
    line: WeightLine,
    weights: Vec<u32>,
    bias: f64,
}

impl LeastRequestPicker {
    fn draw(&self, random: u64) -> usize {
        match &self.weighted {
            Some(weighted) => weighted.line.draw(random),
            None => scale(random, self.ready.len()),
        }
    }

    /// Which of two positions is less loaded.
    fn compare(&self, a: usize, b: usize) -> Ordering {
        let members = self.ready.members();
        let (a_load, b_load) = (members[a].state.outstanding(), members[b].state.outstanding());
        match &self.weighted {
            None => a_load.cmp(&b_load),
            Some(weighted) => weighted.load(a, a_load).total_cmp(&weighted.load(b, b_load)),
        }
    }

    fn usable(&self, position: usize, tried: &[usize]) -> bool {
        let Member { index, state } = &self.ready.members()[position];
        state.is_ready() && !tried.contains(index)
    }
}

impl Weighted {
    /// An idle endpoint has no load whatever its weight, so that idle ones are chosen by the draw alone.
    fn load(&self, position: usize, outstanding: u32) -> f64 {
        if outstanding == 0 {
            return 0.0;
        }
        f64::from(outstanding).powf(self.bias) / f64::from(self.weights[position].max(1))
    }
}

impl Picker for LeastRequestPicker {
    fn pick(&self, input: &PickInput<'_>) -> Pick {
        if self.ready.is_empty() {
            return self.ready.otherwise();
        }
        let mut random = input.random;
        let first = self.draw(random);
        let mut best = self.usable(first, input.tried).then_some(first);
        for _ in 1..self.choices {
            random = mix(random);
            let position = self.draw(random);
            if self.usable(position, input.tried)
                && best.is_none_or(|best| self.compare(position, best) == Ordering::Less)
            {
                best = Some(position);
            }
        }
        // Where no draw will do, any endpoint that will is better than none.
        self.ready.pick_from(best.unwrap_or(first), input.tried)
    }
}
