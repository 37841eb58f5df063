//! Subsets by metadata: `lb_subset_config`, and the policy of the same fields. gRPC can't.

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::extensions::load_balancing_policies::subset::v3 as typed;
use pb::cluster::LbSubsetConfig;
use pb::cluster::lb_subset_config::lb_subset_selector::LbSubsetSelectorFallbackPolicy as SelectorFallback;
use pb::cluster::lb_subset_config::{LbSubsetFallbackPolicy, LbSubsetMetadataFallbackPolicy, LbSubsetSelector};
use prost::Message;

use super::PolicyScope;
use crate::balance::{MetadataSubsets, PolicyConfig, SubsetFallback, SubsetSelector};
use crate::decode::at::{At, Findings};
use crate::decode::envelope::proto;
use crate::decode::value::json;
use crate::decode::{ExtensionValue, Fault};

/// Every endpoint is held against each of them.
const MOST_SELECTORS: usize = 256;

/// `load_balancing_policies.subset.v3.Subset`.
pub(super) fn subset(value: ExtensionValue<'_>, scope: &PolicyScope<'_>) -> Result<Arc<dyn PolicyConfig>, Vec<Fault>> {
    const CHILD: &str = "subset_lb_policy";
    let value = proto::<typed::Subset>(value)?;
    let Some(child) = &value.subset_lb_policy else {
        return super::refuse(CHILD, "is missing");
    };
    let child = scope.nested(CHILD, &child.encode_to_vec());
    let findings = Findings::default();
    let at = findings.root();
    // The fields that both have are the same, and have the same numbers.
    let shared = LbSubsetConfig::decode(value.encode_to_vec().as_slice());
    let shared = shared.map_err(|error| at.fault(format!("cannot be decoded: {error}"))).unwrap_or_default();
    let config = child.map(|child| MetadataSubsets {
        allow_redundant_keys: value.allow_redundant_keys,
        ..subsets(child, &shared, &at)
    });
    let faults = findings.into_faults();
    match config {
        Some(config) if faults.is_empty() => Ok(Arc::new(config)),
        _ => Err(faults),
    }
}

/// A cluster's policy in the subsets of its `lb_subset_config`. Without selectors it means nothing (Envoy).
pub(super) fn of_cluster(
    policy: Arc<dyn PolicyConfig>,
    value: Option<&LbSubsetConfig>,
    at: &At<'_>,
) -> Arc<dyn PolicyConfig> {
    let Some(value) = value else { return policy };
    let config = subsets(policy.clone(), value, &at.field("lb_subset_config"));
    if config.selectors.is_empty() { policy } else { Arc::new(config) }
}

fn subsets(child: Arc<dyn PolicyConfig>, value: &LbSubsetConfig, at: &At<'_>) -> MetadataSubsets {
    if value.subset_selectors.len() > MOST_SELECTORS {
        at.field("subset_selectors").fault(format!("must be at most {MOST_SELECTORS}"));
    }
    let selectors = value.subset_selectors.iter().take(MOST_SELECTORS).enumerate();
    let selectors = selectors.map(|(index, one)| selector(one, &at.item("subset_selectors", index))).collect();
    let default = value.default_subset.clone().unwrap_or_default().fields;
    MetadataSubsets {
        fallback: fallback(value, at),
        default_subset: default.into_iter().map(|(key, value)| (key, json(value))).collect(),
        panic_mode_any: value.panic_mode_any,
        list_as_any: value.list_as_any,
        fallback_list: fallback_list(value, at),
        locality_weight_aware: value.locality_weight_aware,
        scale_locality_weight: value.scale_locality_weight,
        ..MetadataSubsets::new(child, selectors)
    }
}

fn fallback(value: &LbSubsetConfig, at: &At<'_>) -> SubsetFallback {
    match LbSubsetFallbackPolicy::try_from(value.fallback_policy) {
        Ok(LbSubsetFallbackPolicy::NoFallback) => SubsetFallback::Nobody,
        Ok(LbSubsetFallbackPolicy::AnyEndpoint) => SubsetFallback::Any,
        Ok(LbSubsetFallbackPolicy::DefaultSubset) => SubsetFallback::Default,
        Err(_) => {
            at.field("fallback_policy").fault(format!("is {}, which is not known", value.fallback_policy));
            SubsetFallback::Nobody
        }
    }
}

fn fallback_list(value: &LbSubsetConfig, at: &At<'_>) -> bool {
    match LbSubsetMetadataFallbackPolicy::try_from(value.metadata_fallback_policy) {
        Ok(policy) => policy == LbSubsetMetadataFallbackPolicy::FallbackList,
        Err(_) => {
            let text = format!("is {}, which is not known", value.metadata_fallback_policy);
            at.field("metadata_fallback_policy").fault(text);
            false
        }
    }
}

fn selector(value: &LbSubsetSelector, at: &At<'_>) -> SubsetSelector {
    let keys: BTreeSet<String> = value.keys.iter().cloned().collect();
    let policy = SelectorFallback::try_from(value.fallback_policy);
    let fewer: BTreeSet<String> = value.fallback_keys_subset.iter().cloned().collect();
    let here = at.field("fallback_keys_subset");
    match policy {
        Ok(SelectorFallback::KeysSubset) if fewer.is_empty() => here.fault("is empty"),
        Ok(SelectorFallback::KeysSubset) if fewer == keys => here.fault("has all of the selector's keys"),
        Ok(SelectorFallback::KeysSubset) if !fewer.is_subset(&keys) => here.fault("has keys that the selector has not"),
        Ok(SelectorFallback::KeysSubset) => {}
        _ if !fewer.is_empty() => here.fault("is for fallback_policy KEYS_SUBSET only"),
        _ => {}
    }
    let fallback = match policy {
        Ok(SelectorFallback::NotDefined) => None,
        Ok(SelectorFallback::NoFallback) => Some(SubsetFallback::Nobody),
        Ok(SelectorFallback::AnyEndpoint) => Some(SubsetFallback::Any),
        Ok(SelectorFallback::DefaultSubset) => Some(SubsetFallback::Default),
        Ok(SelectorFallback::KeysSubset) => Some(SubsetFallback::Keys(fewer)),
        Err(_) => {
            at.field("fallback_policy").fault(format!("is {}, which is not known", value.fallback_policy));
            None
        }
    };
    SubsetSelector { keys, fallback, single_host: value.single_host_per_subset }
}
