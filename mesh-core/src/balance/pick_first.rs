//! Pick first: one endpoint for everything, the next when it fails (gRFC A62).

use std::sync::Arc;

use super::ready::{mix, scale};
use super::{Candidate, Pick, PickInput, Picker, PolicyConfig};

/// `load_balancing_policies.pick_first.v3.PickFirst`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PickFirstConfig {
    /// `shuffle_address_list`: try the endpoints in an order of our own, heavy ones earlier (gRFC A113); off by default.
    pub shuffle: bool,
}

impl PolicyConfig for PickFirstConfig {
    fn build(&self, candidates: &[Arc<Candidate>], _previous: Option<&Arc<dyn Picker>>, seed: u64) -> Arc<dyn Picker> {
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        if self.shuffle {
            shuffle(&mut order, candidates, seed);
        }
        Arc::new(PickFirstPicker { order, candidates: candidates.to_vec() })
    }

    fn connects_all(&self) -> bool {
        false
    }
}

/// Orders by `u^(1/weight)`, descending, which draws without replacement by weight. The draw belongs to the address and
/// the seed, so that a rebuild with the same seed keeps the order.
fn shuffle(order: &mut [usize], candidates: &[Arc<Candidate>], seed: u64) {
    let key = |index: &usize| {
        let endpoint = &candidates[*index].endpoint;
        let address = endpoint.address.to_string();
        let draw = mix(twox_hash::XxHash64::oneshot(seed, address.as_bytes()));
        let uniform = (scale(draw, 1 << 52) as f64 + 1.0) / (1_u64 << 52) as f64;
        uniform.powf(1.0 / f64::from(endpoint.weight.max(1)))
    };
    order.sort_by(|a, b| key(b).total_cmp(&key(a)));
}

#[derive(Debug)]
struct PickFirstPicker {
    order: Vec<usize>,
    candidates: Vec<Arc<Candidate>>,
}

impl Picker for PickFirstPicker {
    fn pick(&self, input: &PickInput<'_>) -> Pick {
        let mut tried = None;
        let mut connect = None;
        for &index in &self.order {
            let state = &self.candidates[index].state;
            if state.is_ready() {
                if !input.tried.contains(&index) {
                    return Pick::Candidate(index);
                }
                tried.get_or_insert(index);
            } else if !state.is_failed() {
                connect.get_or_insert(index);
            }
        }
        match (tried, connect) {
            (Some(index), _) => Pick::Candidate(index),
            (None, Some(index)) => Pick::Wait { connect: Some(index) },
            (None, None) => Pick::Fail,
        }
    }
}
