//! The subsets of one selector: who has which values.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

use serde_json::Value;

use super::SubsetSelector;
use crate::balance::Candidate;
use crate::balance::part::Part;
use crate::model::{Endpoint, lb_metadata};

/// An endpoint whose lists make more subsets of one selector than this is in none of them: lists multiply.
const MOST_PLACES: usize = 256;

/// The subsets of a selector.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// By the hash of their values, so that a request looks one up without a key of its own.
    by_hash: HashMap<u64, Vec<Group>>,
    hasher: RandomState,
}

/// One subset.
#[derive(Debug)]
pub(super) struct Group {
    values: Vec<Value>,
    pub(super) part: Part,
}

impl Groups {
    /// Sorts `candidates` by what they have for the selector's keys, and has `part` made of each sort.
    pub(super) fn new(
        selector: &SubsetSelector,
        candidates: &[Arc<Candidate>],
        list_as_any: bool,
        previous: Option<&Self>,
        part: impl Fn(Vec<usize>, Option<&Part>) -> Part,
    ) -> Self {
        let mut members: HashMap<Vec<Value>, Vec<usize>> = HashMap::new();
        for (index, candidate) in candidates.iter().enumerate() {
            for values in places(selector, &candidate.endpoint, list_as_any) {
                let indices = members.entry(values).or_default();
                if !(selector.single_host && !indices.is_empty() || indices.last() == Some(&index)) {
                    indices.push(index);
                }
            }
        }
        let mut groups = Self::default();
        for (values, indices) in members {
            let before = previous.and_then(|before| before.find(&values.iter()));
            let part = part(indices, before.map(|group| &group.part));
            groups.by_hash.entry(groups.hash(values.iter())).or_default().push(Group { values, part });
        }
        groups
    }

    /// The subset of those with just these values.
    pub(super) fn find<'a>(&self, values: &(impl Iterator<Item = &'a Value> + Clone)) -> Option<&Group> {
        let alike = self.by_hash.get(&self.hash(values.clone()))?;
        alike.iter().find(|group| group.values.iter().eq(values.clone()))
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.by_hash.values().flatten().map(|group| &group.part)
    }

    fn hash<'a>(&self, values: impl Iterator<Item = &'a Value>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        values.for_each(|value| value.hash(&mut hasher));
        hasher.finish()
    }
}

/// The values by which an endpoint is in a subset of the selector: none, if it lacks a key.
fn places(selector: &SubsetSelector, endpoint: &Endpoint, list_as_any: bool) -> Vec<Vec<Value>> {
    let mut places = vec![Vec::new()];
    for key in &selector.keys {
        let Some(value) = lb_metadata(&endpoint.metadata, key) else { return Vec::new() };
        let each: &[Value] = match value {
            Value::Array(items) if list_as_any => items,
            one => std::slice::from_ref(one),
        };
        if places.len().saturating_mul(each.len()) > MOST_PLACES {
            return Vec::new();
        }
        places = places
            .iter()
            .flat_map(|place| each.iter().map(|item| [&place[..], std::slice::from_ref(item)].concat()))
            .collect();
    }
    if selector.keys.is_empty() { Vec::new() } else { places }
}
