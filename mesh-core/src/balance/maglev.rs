//! Maglev: like ring hash, with a table that is even, of fixed size, and read in one step.

use std::any::Any;
use std::sync::Arc;

use super::hash_key::TableKey;
use super::ready::unready;
use super::ring_hash::walk_states;
use super::{Candidate, Pick, PickInput, Picker, PolicyConfig};

/// `load_balancing_policies.maglev.v3.Maglev`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaglevConfig {
    /// `table_size`: a prime, 65,537 by default, at most [`Self::LARGEST`].
    pub table_size: u64,
    /// `consistent_hashing_lb_config.use_hostname_for_hashing`.
    pub use_hostname: bool,
}

impl MaglevConfig {
    /// The largest table that Envoy takes.
    pub const LARGEST: u64 = 5_000_011;
}

impl Default for MaglevConfig {
    fn default() -> Self {
        Self { table_size: 65_537, use_hostname: false }
    }
}

impl PolicyConfig for MaglevConfig {
    fn build(&self, candidates: &[Arc<Candidate>], previous: Option<&Arc<dyn Picker>>, _seed: u64) -> Arc<dyn Picker> {
        let key = TableKey::new(candidates, self.use_hostname);
        // Two at least: the steps of the permutation are counted modulo one less.
        let size = self.table_size.clamp(2, Self::LARGEST);
        let previous = previous.map(|picker| &**picker as &dyn Any).and_then(|any| any.downcast_ref::<MaglevPicker>());
        let table = match previous {
            Some(previous) if previous.table.key == key && previous.table.slots.len() as u64 == size => {
                previous.table.clone()
            }
            _ => Arc::new(Table::new(key, size)),
        };
        Arc::new(MaglevPicker { table, candidates: candidates.to_vec(), hopeless: unready(candidates) == Pick::Fail })
    }

    fn connects_all(&self) -> bool {
        false
    }
}

/// One slot for each residue of a hash, with the index of its candidate.
#[derive(Debug)]
struct Table {
    key: TableKey,
    slots: Vec<u32>,
}

/// A slot that is not taken yet.
const FREE: u32 = u32::MAX;

/// A candidate while the table is filled: its own permutation of the slots, and how far it is in it.
struct Filler {
    next: u64,
    skip: u64,
    share: f64,
    target: f64,
}

impl Table {
    fn new(key: TableKey, size: u64) -> Self {
        let hash = |name: &str, seed| twox_hash::XxHash64::oneshot(seed, name.as_bytes());
        let mut fillers: Vec<Filler> = key
            .entries()
            .map(|(name, share)| Filler {
                next: hash(name, 0) % size,
                skip: hash(name, 1) % (size - 1) + 1,
                share,
                target: 0.0,
            })
            .collect();
        let mut slots = vec![FREE; size as usize];
        if !fillers.is_empty() {
            fill(&mut slots, &mut fillers, key.largest());
        }
        Self { key, slots }
    }
}

/// Candidates take turns at their next free slot; one of half the largest share takes every other turn.
///
/// A size that is not a prime may leave a permutation without a free slot: that candidate passes, and slots that nobody
/// reaches are dealt out in the end, so that this always ends.
fn fill(slots: &mut [u32], fillers: &mut [Filler], largest: f64) {
    let size = slots.len() as u64;
    let mut free = slots.len();
    let mut turn = 0.0;
    let mut stuck = 0;
    while free > 0 && stuck < fillers.len() {
        turn += 1.0;
        for (index, filler) in fillers.iter_mut().enumerate() {
            if free == 0 {
                return;
            }
            if turn * filler.share < filler.target {
                continue;
            }
            filler.target += largest;
            match filler.take(slots, size) {
                Some(slot) => {
                    slots[slot] = index as u32;
                    free -= 1;
                    stuck = 0;
                }
                None => stuck += 1,
            }
        }
    }
    for (slot, taken) in slots.iter_mut().enumerate().filter(|(_, taken)| **taken == FREE) {
        *taken = (slot % fillers.len()) as u32;
    }
}

impl Filler {
    /// The next free slot of its permutation, if there is one.
    fn take(&mut self, slots: &[u32], size: u64) -> Option<usize> {
        for _ in 0..size {
            let slot = self.next as usize;
            self.next = (self.next + self.skip) % size;
            if slots[slot] == FREE {
                return Some(slot);
            }
        }
        None
    }
}

#[derive(Debug)]
struct MaglevPicker {
    table: Arc<Table>,
    candidates: Vec<Arc<Candidate>>,
    hopeless: bool,
}

impl Picker for MaglevPicker {
    fn pick(&self, input: &PickInput<'_>) -> Pick {
        if self.hopeless || self.candidates.is_empty() {
            return Pick::Fail;
        }
        let hash = input.hash.unwrap_or(input.random);
        let start = (hash % self.table.slots.len() as u64) as usize;
        let (head, tail) = self.table.slots.split_at(start);
        walk_states(tail.iter().chain(head).map(|index| *index as usize), &self.candidates, input.tried)
    }
}
