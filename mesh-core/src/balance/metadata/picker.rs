//! The picker over subsets.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::groups::Groups;
use super::{MetadataSubsets, SubsetFallback, SubsetSelector};
use crate::balance::part::Part;
use crate::balance::{Candidate, Pick, PickInput, Picker};
use crate::model::{Locality, Metadata, has_lb_metadata};

/// The key under which a route lists what to ask for, one after the other.
const FALLBACK_LIST: &str = "fallback_list";

/// Makes the picker of a subset, from its members and the picker before.
type Child<'a> = dyn Fn(&[Arc<Candidate>], Option<&Arc<dyn Picker>>) -> Arc<dyn Picker> + 'a;

#[derive(Debug)]
pub(super) struct SubsetPicker {
    selectors: Vec<(SubsetSelector, Groups)>,
    fallback: SubsetFallback,
    /// All endpoints, where a fallback or panic may send a request to any.
    any: Option<Part>,
    /// Those of the default subset, where a fallback goes there.
    default: Option<Part>,
    panic_mode_any: bool,
    fallback_list: bool,
    redundant_keys: bool,
}

impl SubsetPicker {
    pub(super) fn new(
        config: &MetadataSubsets,
        candidates: &[Arc<Candidate>],
        previous: Option<&Arc<dyn Picker>>,
        child: &Child<'_>,
    ) -> Self {
        let previous = previous.map(|picker| &**picker as &dyn Any).and_then(|any| any.downcast_ref::<Self>());
        let scale = (config.locality_weight_aware && config.scale_locality_weight).then(|| Scale::of(candidates));
        let part = |indices: Vec<usize>, before: Option<&Part>| {
            let mut members: Vec<Arc<Candidate>> = indices.iter().map(|&index| candidates[index].clone()).collect();
            if let Some(scale) = &scale {
                members = scale.apply(&members);
            }
            Part::of(indices, child(&members, before.map(Part::picker)))
        };
        let groups = |(index, selector): (usize, &SubsetSelector)| {
            let before = previous.and_then(|previous| previous.selectors.get(index));
            let before = before.filter(|(before, _)| before.keys == selector.keys).map(|(_, groups)| groups);
            (selector.clone(), Groups::new(selector, candidates, config.list_as_any, before, part))
        };
        let uses = |wanted: &SubsetFallback| {
            let each = config.selectors.iter().filter_map(|selector| selector.fallback.as_ref());
            each.chain([&config.fallback]).any(|fallback| fallback == wanted)
        };
        let any = uses(&SubsetFallback::Any) || config.panic_mode_any;
        let any = any.then(|| part((0..candidates.len()).collect(), previous.and_then(|before| before.any.as_ref())));
        let default = uses(&SubsetFallback::Default).then(|| {
            let has = |candidate: &Candidate| has_all(&candidate.endpoint.metadata, config);
            let indices = (0..candidates.len()).filter(|&index| has(&candidates[index])).collect();
            part(indices, previous.and_then(|before| before.default.as_ref()))
        });
        Self {
            selectors: config.selectors.iter().enumerate().map(groups).collect(),
            fallback: config.fallback.clone(),
            any,
            default,
            panic_mode_any: config.panic_mode_any,
            fallback_list: config.fallback_list,
            redundant_keys: config.allow_redundant_keys,
        }
    }

    /// Asks for what the route lists, one after the other, each with the rest of what it asks for.
    fn pick_listed(&self, wanted: &Metadata, list: &Value, input: &PickInput<'_>) -> Pick {
        let mut rest = wanted.clone();
        rest.remove(FALLBACK_LIST);
        let Some(list) = list.as_array().filter(|list| !list.is_empty()) else { return self.pick_wanted(&rest, input) };
        for fields in list.iter().filter_map(Value::as_object) {
            let mut wanted = rest.clone();
            wanted.extend(fields.iter().map(|(key, value)| (key.clone(), value.clone())));
            match self.pick_wanted(&wanted, input) {
                Pick::Fail => {}
                pick => return pick,
            }
        }
        Pick::Fail
    }

    fn pick_wanted(&self, wanted: &Metadata, input: &PickInput<'_>) -> Pick {
        let Some((selector, groups)) = self.selector(wanted) else { return self.pick_other(wanted, input) };
        let values = selector.keys.iter().filter_map(|key| wanted.get(key));
        match (groups.find(&values), &selector.fallback) {
            (Some(group), _) => group.part.pick(input),
            (None, Some(fallback)) => self.fall_back(fallback, wanted, input),
            (None, None) => self.pick_other(wanted, input),
        }
    }

    /// Picks for a request that no selector has a word on.
    fn pick_other(&self, wanted: &Metadata, input: &PickInput<'_>) -> Pick {
        match self.fall_back(&self.fallback, wanted, input) {
            Pick::Fail if self.panic_mode_any && self.fallback != SubsetFallback::Nobody => pick_in(&self.any, input),
            pick => pick,
        }
    }

    /// The selector that a request asks by: the one that has just its keys or, where more may be asked for, the most of them.
    fn selector(&self, wanted: &Metadata) -> Option<&(SubsetSelector, Groups)> {
        let all = self.selectors.iter();
        if !self.redundant_keys {
            return all.into_iter().find(|(selector, _)| selector.keys.iter().eq(wanted.keys()));
        }
        let known = all.filter(|(selector, _)| selector.keys.iter().all(|key| wanted.contains_key(key)));
        // Of those that are alike the first: it is the last one that `max_by_key` takes.
        known.rev().max_by_key(|(selector, _)| selector.keys.len())
    }

    fn fall_back(&self, fallback: &SubsetFallback, wanted: &Metadata, input: &PickInput<'_>) -> Pick {
        match fallback {
            SubsetFallback::Nobody => Pick::Fail,
            SubsetFallback::Any => pick_in(&self.any, input),
            SubsetFallback::Default => pick_in(&self.default, input),
            SubsetFallback::Keys(keys) => {
                let kept = wanted.iter().filter(|(key, _)| keys.contains(*key));
                let fewer: Metadata = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
                // Whatever a configuration says, this comes to an end.
                if fewer.len() < wanted.len() { self.pick_wanted(&fewer, input) } else { Pick::Fail }
            }
        }
    }
}

fn pick_in(part: &Option<Part>, input: &PickInput<'_>) -> Pick {
    part.as_ref().map_or(Pick::Fail, |part| part.pick(input))
}

impl Picker for SubsetPicker {
    fn pick(&self, input: &PickInput<'_>) -> Pick {
        const NOTHING: &Metadata = &Metadata::new();
        let wanted = input.metadata.unwrap_or(NOTHING);
        match wanted.get(FALLBACK_LIST) {
            Some(list) if self.fallback_list => self.pick_listed(wanted, list, input),
            _ => self.pick_wanted(wanted, input),
        }
    }

    fn refresh(&self, now: Instant) -> Option<Instant> {
        let subsets = self.selectors.iter().flat_map(|(_, groups)| groups.parts());
        subsets.chain(&self.any).chain(&self.default).filter_map(|part| part.refresh(now)).min()
    }
}

fn has_all(metadata: &Metadata, config: &MetadataSubsets) -> bool {
    let has = |(key, wanted): (&String, &Value)| has_lb_metadata(metadata, key, wanted, config.list_as_any);
    config.default_subset.iter().all(has)
}

/// How many endpoints a locality of a priority has.
struct Scale<'a>(HashMap<(u32, &'a Locality), usize>);

impl<'a> Scale<'a> {
    fn of(candidates: &'a [Arc<Candidate>]) -> Self {
        let mut counts = HashMap::new();
        for candidate in candidates {
            *counts.entry((candidate.priority, &*candidate.locality)).or_default() += 1;
        }
        Self(counts)
    }

    /// The members of a subset, under the part of their localities' weights that is theirs.
    fn apply(&self, members: &[Arc<Candidate>]) -> Vec<Arc<Candidate>> {
        let here = Scale::of(members);
        let scaled = |candidate: &Arc<Candidate>| {
            let place = (candidate.priority, &*candidate.locality);
            let count = |scale: &Scale<'_>| scale.0.get(&place).map_or(1, |count| *count as u64);
            let weight = u64::from(candidate.locality_weight) * count(&here) / count(self).max(1);
            let locality_weight = u32::try_from(weight.max(1)).unwrap_or(u32::MAX);
            Arc::new(Candidate { locality_weight, ..Candidate::clone(candidate) })
        };
        members.iter().map(scaled).collect()
    }
}
