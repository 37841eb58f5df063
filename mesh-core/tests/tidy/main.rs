//! Keeps the house tidy: who may name whom, in which order modules are listed, how large things may grow, and what no file
//! may hold. Layering rots one import at a time, so each rule is a test over the whole workspace, and each rule is tested
//! on a bad snippet.

mod conformance;
mod rules;
mod source;
mod tree;

use rules::{Fault, Sizes};
use tree::Tree;

/// Fails with all faults, one a line, so that one run shows everything there is to do.
fn hold(rule: &str, faults: &[Fault]) {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert!(faults.is_empty(), "{rule}:\n{}", lines.join("\n"));
}

#[test]
fn every_name_stays_in_its_place() {
    let faults: Vec<Fault> = Tree::read().rust().flat_map(rules::names).collect();
    hold("these name what only other places may name (the table is in tests/tidy/rules.rs)", &faults);
}

#[test]
fn core_modules_know_only_what_is_before_them() {
    let faults: Vec<Fault> = Tree::read().rust().flat_map(rules::core_layers).collect();
    hold("decisions do not know where configuration comes from, nor the reverse", &faults);
}

#[test]
fn modules_are_listed_in_path_order() {
    let tree = Tree::read();
    let faults: Vec<Fault> = rules::ORDERS.iter().flat_map(|order| rules::path_order(order, &tree)).collect();
    hold("modules are listed in the order in which a request, or an update, walks them", &faults);
}

#[test]
fn files_say_what_they_are_and_stay_small() {
    let faults: Vec<Fault> = Tree::read().rust().flat_map(rules::file_shape).collect();
    hold("each file opens with `//!` and has at most 600 lines of code that is not a test", &faults);
}

#[test]
fn functions_stay_small() {
    let tree = Tree::read();
    let mut sizes = Sizes::default();
    tree.rust().for_each(|file| sizes.measure(file));
    hold("no function has over 100 lines", &sizes.too_long());
    let (long, all) = sizes.share();
    assert!(long * 1000 <= all * 15, "{long} of {all} functions have over 50 lines: 1.5 % is the limit\n{sizes}");
}

#[test]
fn nothing_panics_by_shortcut() {
    let faults: Vec<Fault> = Tree::read().rust().flat_map(rules::shortcuts).collect();
    hold("say why it cannot fail (`expect`), or return the error", &faults);
}

#[test]
fn no_file_names_this_machine() {
    let tree = Tree::read();
    let faults: Vec<Fault> = tree.all().flat_map(rules::machine_names).collect();
    hold("no absolute path of a machine and no registry's host belongs in the tree", &faults);
}

#[test]
fn the_conformance_document_is_up_to_date() {
    let tree = Tree::read();
    let (found, faults) = conformance::evidence(&tree, conformance::ROWS);
    hold("a test carries a number that conformance/rows.rs does not have", &faults);
    let unexplained = conformance::unexplained(conformance::ROWS, &found);
    assert!(unexplained.is_empty(), "say in conformance/rows.rs what is missing:\n{}", unexplained.join("\n"));
    let text = conformance::render(conformance::ROWS, &found);
    if std::env::var_os(conformance::UPDATE).is_some() {
        Tree::write(conformance::PATH, &text);
    }
    let there = Tree::read().get(conformance::PATH).map(|file| file.text.clone()).unwrap_or_default();
    let update = format!("{}=1 cargo test -p mesh-core --test tidy conformance", conformance::UPDATE);
    assert!(there == text, "{} is out of date; run `{update}`", conformance::PATH);
}

/// A rule over an empty tree holds always; this is what keeps the others honest.
#[test]
fn the_tree_is_found() {
    let tree = Tree::read();
    for path in
        ["mesh-core/src/lib.rs", "mesh-tower/src/lib.rs", "mesh-grpc/src/lib.rs", "mesh-core/tests/tidy/main.rs"]
    {
        assert!(tree.rust().any(|file| file.path == path), "{path} was not read");
    }
    assert!(tree.all().any(|file| file.path == "Cargo.toml"));
    assert!(!tree.all().any(|file| file.path.starts_with("target/") || file.path.starts_with(".git/")));
}
