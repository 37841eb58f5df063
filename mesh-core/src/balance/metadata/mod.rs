//! Subsets: the endpoints whose metadata say what a request's route asks for (`metadata_match`), and what becomes of requests
//! for which there are none.

mod groups;
mod picker;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use self::picker::SubsetPicker;
use super::{Candidate, CandidateState, Observer, Picker, PolicyConfig, WrrLocality, priority};
use crate::model::Metadata;

/// `Cluster.LbSubsetConfig`, or `load_balancing_policies.subset.v3.Subset`: another policy, in the subset of a request.
///
/// A subset is made of the endpoints that have the same values, in the namespace `envoy.lb` of their metadata, for the keys of
/// a selector. A request takes the one that its route, and the weighted cluster in it, ask for by just those keys.
#[derive(Debug, Clone)]
pub struct MetadataSubsets {
    /// The policy in each subset (`subset_lb_policy`).
    pub child: Arc<dyn PolicyConfig>,
    /// `subset_selectors`.
    pub selectors: Vec<SubsetSelector>,
    /// `fallback_policy`: who takes a request for which there is no subset. Nobody by default; not [`SubsetFallback::Keys`].
    pub fallback: SubsetFallback,
    /// `default_subset`: what the endpoints of [`SubsetFallback::Default`] have; with nothing in it, they are all.
    pub default_subset: Metadata,
    /// `panic_mode_any`: any endpoint, where the fallback's have none that can take a request. Not by default.
    pub panic_mode_any: bool,
    /// `list_as_any`: an endpoint's value that is a list stands for each of its items. Not by default.
    pub list_as_any: bool,
    /// `metadata_fallback_policy: FALLBACK_LIST`: the routes' value `fallback_list` is a list of what to ask for, one after the
    /// other. Not by default.
    pub fallback_list: bool,
    /// `allow_redundant_keys`: a request may ask for more than a selector's keys, and the selector with the most of them
    /// counts. Not by default: then such a request has no subset.
    pub allow_redundant_keys: bool,
    /// `locality_weight_aware`: localities keep their weights in a subset. Not by default: a subset may have few endpoints in
    /// one of them.
    pub locality_weight_aware: bool,
    /// `scale_locality_weight`: by how many of a locality's endpoints are in the subset. Not by default.
    pub scale_locality_weight: bool,
}

/// `LbSubsetConfig.LbSubsetSelector`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubsetSelector {
    /// `keys` of metadata.
    pub keys: BTreeSet<String>,
    /// `fallback_policy`: who takes a request that asks by these keys for what no endpoint has; None: who takes the cluster's
    /// others.
    pub fallback: Option<SubsetFallback>,
    /// `single_host_per_subset`: only the first endpoint of each subset is used. Not by default.
    pub single_host: bool,
}

/// Who takes a request for which there is no subset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubsetFallback {
    /// `NO_FALLBACK`: nobody; it fails.
    #[default]
    Nobody,
    /// `ANY_ENDPOINT`.
    Any,
    /// `DEFAULT_SUBSET`: those of [`MetadataSubsets::default_subset`].
    Default,
    /// `KEYS_SUBSET`: those that the request gets by these of its keys, which are fewer.
    Keys(BTreeSet<String>),
}

impl MetadataSubsets {
    /// Subsets of `child`'s endpoints, with every default.
    pub fn new(child: Arc<dyn PolicyConfig>, selectors: Vec<SubsetSelector>) -> Self {
        Self {
            child,
            selectors,
            fallback: SubsetFallback::Nobody,
            default_subset: Metadata::new(),
            panic_mode_any: false,
            list_as_any: false,
            fallback_list: false,
            allow_redundant_keys: false,
            locality_weight_aware: false,
            scale_locality_weight: false,
        }
    }

    /// The policy of one subset.
    fn inner(&self) -> &dyn PolicyConfig {
        let child: &dyn Any = &*self.child;
        match child.downcast_ref::<WrrLocality>() {
            Some(weighted) if !self.locality_weight_aware => &*weighted.child,
            _ => &*self.child,
        }
    }
}

impl PolicyConfig for MetadataSubsets {
    fn build(&self, candidates: &[Arc<Candidate>], previous: Option<&Arc<dyn Picker>>, seed: u64) -> Arc<dyn Picker> {
        let child =
            |members: &[Arc<Candidate>], before: Option<&Arc<dyn Picker>>| self.inner().build(members, before, seed);
        Arc::new(SubsetPicker::new(self, candidates, previous, &child))
    }

    fn build_whole(
        &self,
        candidates: &[Arc<Candidate>],
        previous: Option<&Arc<dyn Picker>>,
        seed: u64,
    ) -> Arc<dyn Picker> {
        let child = |members: &[Arc<Candidate>], before: Option<&Arc<dyn Picker>>| {
            priority::by_priority(self.inner(), members, before, seed)
        };
        Arc::new(SubsetPicker::new(self, candidates, previous, &child))
    }

    fn connects_all(&self) -> bool {
        self.child.connects_all()
    }

    fn takes_a_part(&self) -> bool {
        false
    }

    fn observer(&self, state: &CandidateState) -> Option<Arc<dyn Observer>> {
        self.child.observer(state)
    }

    fn out_of_band(&self) -> Option<Duration> {
        self.child.out_of_band()
    }
}
