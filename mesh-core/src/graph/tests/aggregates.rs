//! Aggregate clusters that say the same again and again (gRFC A37).

use super::outage::aggregate;
use super::*;
use crate::graph::clusters::ClusterWalk;
use crate::graph::nodes::Inquiry;

/// These clusters, walked from `root`.
fn walked(root: &str, all: Vec<(String, ResourceValue)>) -> ClusterWalk {
    let (mut nodes, user) = (Nodes::default(), TargetId::Client("svc".into()));
    for (name, value) in all {
        let keys = [(CLUSTER, value), (CLUSTER_LOAD_ASSIGNMENT, endpoints(1))];
        for (type_url, value) in keys {
            let key = ResourceKey::new(type_url, &*name);
            nodes.claim(&key, &user);
            nodes.take(ResourceEvent::Changed { key, value, version: "1".to_owned(), server: None });
        }
    }
    let mut walk = ClusterWalk::default();
    walk.visit(&root.into(), &mut Inquiry::new(&nodes, None), &mut Clusters::default());
    walk
}

/// Layers of aggregates, each of which names the two below four times, above two leaves.
fn layers(count: usize) -> Vec<(String, ResourceValue)> {
    let names = |layer: usize| [format!("x{layer}"), format!("y{layer}")];
    let mut all: Vec<_> = names(count).into_iter().map(|name| (name.clone(), eds(&name))).collect();
    for layer in 0..count {
        let below = names(layer + 1).map(|name| [name.clone(), name]).concat();
        let below: Vec<&str> = below.iter().map(String::as_str).collect();
        all.extend(names(layer).map(|name| (name.clone(), aggregate(&name, &below))));
    }
    all
}

fn leaves(walk: &ClusterWalk, root: &str) -> Vec<String> {
    match &walk.found[root].as_ref().expect("a cluster").children {
        Children::Leaves(names) => names.iter().map(ToString::to_string).collect(),
        Children::Endpoints { .. } => panic!("not an aggregate"),
    }
}

#[test]
fn a37_children_that_are_named_again_and_again_are_walked_once() {
    // The work grows with the layers. Without that, it is four times as much with each.
    let walk = walked("x0", layers(8));
    assert!(walk.met <= 8 * 8 + 1, "{} steps", walk.met);
    let walk = walked("x0", layers(15));
    assert!(walk.met <= 15 * 8 + 1, "{} steps", walk.met);
    assert_eq!(leaves(&walk, "x0"), ["x15", "y15"]);
    assert_eq!(walked("x0", layers(16)).found["x0"].as_ref().err().map(Error::code), Some(Code::RESOURCE_REFUSED));
}

/// What was met near the top and is met again further down is as deep as that.
#[test]
fn a37_the_deepest_way_to_a_child_counts() {
    let chain = |length: usize| {
        let mut all = vec![("leaf".to_owned(), eds("leaf"))];
        for number in 1..length {
            let below = if number + 1 < length { format!("c{}", number + 1) } else { "shared".to_owned() };
            all.push((format!("c{number}"), aggregate("c", &[&below])));
        }
        all.push(("shared".to_owned(), aggregate("shared", &["leaf"])));
        all.push(("top".to_owned(), aggregate("top", &["shared", "c1"])));
        walked("top", all)
    };
    // `top`, 13 of the chain, `shared` and `leaf` are 16.
    assert_eq!(leaves(&chain(14), "top"), ["leaf"]);
    let error = chain(15).found["top"].clone().expect_err("one deeper");
    assert!(error.message().contains("16 deep at `leaf`"), "{error}");
}

#[test]
fn a37_a_leaf_has_its_first_place() {
    let all = vec![
        ("x".to_owned(), eds("x")),
        ("y".to_owned(), eds("y")),
        ("mid".to_owned(), aggregate("mid", &["y", "x", "top"])),
        ("top".to_owned(), aggregate("top", &["mid", "x", "mid", "y"])),
    ];
    assert_eq!(leaves(&walked("top", all), "top"), ["y", "x"]);
}
