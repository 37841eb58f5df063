//! Ring hash: requests with the same hash go to the same endpoint, and few move when endpoints come and go (gRFC A42).

use std::any::Any;
use std::sync::Arc;

use super::hash_key::TableKey;
use super::murmur::murmur2;
use super::ready::unready;
use super::{Candidate, Pick, PickInput, Picker, PolicyConfig};

/// `load_balancing_policies.ring_hash.v3.RingHash`.
#[derive(Debug, Clone, PartialEq)]
pub struct RingHashConfig {
    /// `minimum_ring_size`: 1,024 by default.
    pub min_size: u64,
    /// `maximum_ring_size`: 8,388,608 by default, which is also the most there can be.
    pub max_size: u64,
    /// `hash_function`; gRPC refuses any but XXH64.
    pub function: HashFunction,
    /// `consistent_hashing_lb_config.use_hostname_for_hashing`.
    pub use_hostname: bool,
}

/// `RingHash.HashFunction`: how endpoints are placed on the ring. Requests are always hashed with XXH64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HashFunction {
    /// `XX_HASH`.
    #[default]
    Xx,
    /// `MURMUR_HASH_2`.
    Murmur2,
}

impl RingHashConfig {
    /// No ring is larger, as in Envoy: a hostile configuration must not exhaust the process.
    pub const LARGEST: u64 = 8_388_608;
}

impl Default for RingHashConfig {
    fn default() -> Self {
        Self { min_size: 1024, max_size: Self::LARGEST, function: HashFunction::Xx, use_hostname: false }
    }
}

impl PolicyConfig for RingHashConfig {
    fn build(&self, candidates: &[Arc<Candidate>], previous: Option<&Arc<dyn Picker>>, _seed: u64) -> Arc<dyn Picker> {
        let key = TableKey::new(candidates, self.use_hostname);
        let previous = previous.map(|picker| &**picker as &dyn Any).and_then(|any| any.downcast_ref::<RingPicker>());
        let ring = match previous {
            Some(previous) if previous.ring.key == key && previous.ring.config == *self => previous.ring.clone(),
            _ => Arc::new(Ring::new(self.clone(), key)),
        };
        Arc::new(RingPicker { ring, candidates: candidates.to_vec(), hopeless: unready(candidates) == Pick::Fail })
    }

    fn connects_all(&self) -> bool {
        false
    }
}

/// The ring: hashes in order, each with the index of its candidate.
#[derive(Debug)]
struct Ring {
    config: RingHashConfig,
    key: TableKey,
    entries: Vec<(u64, u32)>,
}

impl Ring {
    fn new(config: RingHashConfig, key: TableKey) -> Self {
        let max = config.max_size.min(RingHashConfig::LARGEST) as f64;
        let smallest = key.smallest();
        // Enough entries that the smallest endpoint has a whole number of them, if the maximum allows.
        let scale = ((smallest * config.min_size as f64).ceil() / smallest).min(max);
        let mut entries = Vec::with_capacity(scale.ceil() as usize);
        let mut target = 0.0;
        let mut name = String::new();
        for (index, (host, share)) in key.entries().enumerate() {
            target += scale * share;
            let mut replica = 0_u64;
            while (entries.len() as f64) < target {
                name.clear();
                name.push_str(host);
                name.push('_');
                name.push_str(&replica.to_string());
                entries.push((config.function.hash(name.as_bytes()), index as u32));
                replica += 1;
            }
        }
        entries.sort_unstable();
        Self { config, key, entries }
    }

    /// The candidates that a request with `hash` should try, best first, with repetition.
    fn walk(&self, hash: u64) -> impl Iterator<Item = usize> {
        let start = self.entries.partition_point(|(entry, _)| *entry < hash);
        let (head, tail) = self.entries.split_at(start);
        tail.iter().chain(head).map(|(_, index)| *index as usize)
    }
}

impl HashFunction {
    fn hash(self, bytes: &[u8]) -> u64 {
        match self {
            Self::Xx => twox_hash::XxHash64::oneshot(0, bytes),
            Self::Murmur2 => murmur2(bytes),
        }
    }
}

#[derive(Debug)]
struct RingPicker {
    ring: Arc<Ring>,
    candidates: Vec<Arc<Candidate>>,
    /// All had failed when it was built: walking the ring would only find that out again.
    hopeless: bool,
}

impl Picker for RingPicker {
    fn pick(&self, input: &PickInput<'_>) -> Pick {
        if self.hopeless {
            return Pick::Fail;
        }
        // A request without a hash goes anywhere (gRFC A42).
        let walk = self.ring.walk(input.hash.unwrap_or(input.random));
        walk_states(walk, &self.candidates, input.tried)
    }
}

/// The first candidate of `walk` that is ready and not tried; one that is not connected yet is waited for, as moving on
/// would scatter the requests of one hash; one that failed is stepped over (gRFC A61).
pub(crate) fn walk_states(walk: impl Iterator<Item = usize>, candidates: &[Arc<Candidate>], tried: &[usize]) -> Pick {
    let mut second_best = Pick::Fail;
    for index in walk {
        let state = &candidates[index].state;
        let was_tried = tried.contains(&index);
        if state.is_ready() {
            if !was_tried {
                return Pick::Candidate(index);
            }
            if second_best == Pick::Fail {
                second_best = Pick::Candidate(index);
            }
        } else if !state.is_failed() && !was_tried {
            return Pick::Wait { connect: Some(index) };
        }
    }
    second_best
}
