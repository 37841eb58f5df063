//! Subsets by metadata: the cluster's field and the policy, which gRPC can't; and what routes ask of them.

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::extensions::load_balancing_policies::subset::v3::Subset;
use envoy_types::pb::google::protobuf;
use pb::cluster::LbSubsetConfig;
use pb::cluster::lb_subset_config::LbSubsetSelector;

use super::cluster::{cluster, eds};
use super::policies::{list, nested};
use super::*;
use crate::balance::{MetadataSubsets, SubsetFallback, WrrLocality};
use crate::model::Cluster;
use crate::resource::CLUSTER;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A selector that is content with fewer keys.
fn base() -> LbSubsetConfig {
    let selector = LbSubsetSelector {
        keys: names(&["stage", "version"]),
        fallback_policy: 4,
        fallback_keys_subset: names(&["stage"]),
        ..Default::default()
    };
    LbSubsetConfig { fallback_policy: 2, subset_selectors: vec![selector], ..Default::default() }
}

fn subsets() -> Part<LbSubsetConfig> {
    let wrap = |config| {
        let mut cluster = eds();
        cluster.lb_subset_config = Some(config);
        cluster.encode_to_vec()
    };
    Part { type_url: CLUSTER, base: base(), wrap, path: "lb_subset_config" }
}

/// The same as a policy, which has the same fields.
fn typed() -> Part<LbSubsetConfig> {
    let wrap = |config: LbSubsetConfig| {
        let subset = Subset::decode(config.encode_to_vec().as_slice()).unwrap();
        let mut cluster = eds();
        cluster.load_balancing_policy = Some(list(vec![any(&Subset { subset_lb_policy: Some(nested(1)), ..subset })]));
        cluster.encode_to_vec()
    };
    const PATH: &str = "load_balancing_policy.policies[0].typed_extension_config.typed_config";
    Part { type_url: CLUSTER, base: base(), wrap, path: PATH }
}

fn config_of(cluster: &Cluster) -> &MetadataSubsets {
    downcast(&*cluster.policy)
}

#[test]
fn a_cluster_and_a_policy_say_the_same() {
    let change: fn(&mut LbSubsetConfig) = |config| {
        let version = protobuf::Value { kind: Some(protobuf::value::Kind::StringValue("1".to_owned())) };
        let fields = [("version".to_owned(), version)].into_iter().collect();
        config.default_subset = Some(protobuf::Struct { fields });
        config.panic_mode_any = true;
        config.list_as_any = true;
        config.metadata_fallback_policy = 1;
        config.locality_weight_aware = true;
        config.scale_locality_weight = true;
        config.subset_selectors.push(LbSubsetSelector {
            keys: names(&["b", "a", "b"]),
            single_host_per_subset: true,
            fallback_policy: 1,
            ..Default::default()
        });
    };
    for part in [subsets(), typed()] {
        let cluster: Arc<Cluster> = part.value(change);
        assert!(cluster.unsupported.is_empty());
        let config = config_of(&cluster);
        assert_eq!(config.fallback, SubsetFallback::Default);
        assert_eq!(config.default_subset["version"], "1");
        assert!(config.panic_mode_any && config.list_as_any && config.fallback_list && !config.allow_redundant_keys);
        assert!(config.locality_weight_aware && config.scale_locality_weight);
        let [first, second] = &config.selectors[..] else { panic!("{config:?}") };
        let keys: std::collections::BTreeSet<_> = names(&["stage"]).into_iter().collect();
        assert_eq!(first.fallback, Some(SubsetFallback::Keys(keys)));
        assert!(second.keys.iter().eq(["a", "b"]) && second.single_host);
        assert_eq!(second.fallback, Some(SubsetFallback::Nobody));
    }
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    type Change = fn(&mut LbSubsetConfig);
    let rows: [(&str, Change); 9] = [
        ("fallback_policy", |config| config.fallback_policy = 9),
        ("metadata_fallback_policy", |config| config.metadata_fallback_policy = 9),
        ("subset_selectors[0].fallback_policy", |config| {
            config.subset_selectors[0].fallback_policy = 9;
            config.subset_selectors[0].fallback_keys_subset.clear();
        }),
        ("subset_selectors[0].fallback_keys_subset", |config| {
            config.subset_selectors[0].fallback_keys_subset.clear();
        }),
        ("subset_selectors[0].fallback_keys_subset", |config| {
            config.subset_selectors[0].fallback_keys_subset = names(&["other"]);
        }),
        ("subset_selectors[0].fallback_keys_subset", |config| {
            config.subset_selectors[0].fallback_keys_subset = names(&["version", "stage"]);
        }),
        ("subset_selectors[0].fallback_keys_subset", |config| config.subset_selectors[0].fallback_policy = 2),
        ("subset_selectors", |config| config.subset_selectors = vec![LbSubsetSelector::default(); 257]),
        ("subset_selectors[0].fallback_keys_subset", |config| config.subset_selectors[0].fallback_policy = 0),
    ];
    for part in [subsets(), typed()] {
        taken::<Cluster>(part.decode(|_| {}));
        for (path, change) in rows {
            let faults = refused(part.decode(change));
            let place = format!("{}.{path}", part.path);
            assert!(faults.len() == 1 && faults[0].starts_with(&place), "{place}: {faults:?}");
        }
    }
}

#[test]
fn without_selectors_a_clusters_field_means_nothing() {
    let cluster: Arc<Cluster> = subsets().value(|config| config.subset_selectors.clear());
    assert!((&*cluster.policy as &dyn std::any::Any).is::<WrrLocality>());
    // The policy is one nevertheless, and nobody is in a subset of it.
    assert!(config_of(&typed().value(|config| config.subset_selectors.clear())).selectors.is_empty());
}

#[test]
fn the_field_is_left_out_where_there_is_a_policy() {
    let both: fn(&mut pb::Cluster) = |cluster| {
        cluster.lb_subset_config = Some(LbSubsetConfig::default());
        cluster.load_balancing_policy = Some(nested(1));
    };
    // gRPC does not look at it, and it is said that nobody does; by Envoy's rules it is refused (dialect.rs).
    let cluster: Arc<Cluster> = cluster().value(both);
    assert_eq!(cluster.unsupported[0].field, "lb_subset_config");
}

#[test]
fn a_policy_needs_one_for_its_subsets() {
    let alone: fn(&mut pb::Cluster) =
        |cluster| cluster.load_balancing_policy = Some(list(vec![any(&Subset::default())]));
    let faults = refused(cluster().decode(alone));
    assert!(faults[0].contains("subset_lb_policy"), "{faults:?}");
    let redundant: fn(&mut pb::Cluster) = |cluster| {
        let subset = Subset { allow_redundant_keys: true, subset_lb_policy: Some(nested(1)), ..Subset::default() };
        cluster.load_balancing_policy = Some(list(vec![any(&subset)]));
    };
    assert!(config_of(&cluster().value(redundant)).allow_redundant_keys);
}
