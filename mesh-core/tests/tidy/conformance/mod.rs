//! `docs/conformance.md`: what is implemented of gRPC's proposals, with the tests that show it.
//!
//! A test carries a proposal's number in its name (`a57_a_broken_stream_stops_timers`) or in its doc comment (`/// gRFC A57.`).
//! What has no number has a word, which the test's name begins with (`delta_...`). [`rows::ROWS`] has a line for each: whether
//! something is missing is said there, and what is implemented is what tests carry.

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::rules::Fault;
use crate::source::{Test, words};
use crate::tree::Tree;
pub(crate) use rows::{ROWS, Row};

/// Where the document is.
pub(crate) const PATH: &str = "docs/conformance.md";
/// Set to write the document anew.
pub(crate) const UPDATE: &str = "UPDATE_DOCS";

const HEAD: &str = "\
# Conformance

What there is of gRPC's proposals (gRFCs) on xDS, and of the protocol beyond them. *Yes*: everything a test can ask for is there.
*In part*: what is said to be missing is missing. *No*: the reason is said. What a control plane asks for and is not there is
refused, or fails its requests, or is left out with an event; it is never skipped in silence.

Generated from the tests that carry a proposal's number, by `UPDATE_DOCS=1 cargo test -p mesh-core --test tidy conformance`; a
test fails when it is out of date. What becomes of a resource field by field is in [validation](validation.md).
";

/// Where a test is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Evidence {
    path: String,
    line: usize,
    name: String,
}

/// The tests of each row, and what is wrong with the tests or the rows.
pub(crate) fn evidence(tree: &Tree, rows: &[Row]) -> (BTreeMap<&'static str, Vec<Evidence>>, Vec<Fault>) {
    let (mut found, mut faults) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
    for file in tree.rust().filter(|file| !file.path.starts_with("mesh-core/tests/tidy/")) {
        for test in file.tests() {
            for id in carried(&test, rows) {
                match rows.iter().find(|row| row.id == id) {
                    Some(row) => found.entry(row.id).or_default().push(Evidence {
                        path: file.path.clone(),
                        line: test.line,
                        name: test.name.clone(),
                    }),
                    None => faults.push(Fault::new(file, test.line, format!("carries `{id}`, which has no row"))),
                }
            }
        }
    }
    (found, faults)
}

/// The rows that a test is for: numbers anywhere in its name and doc comment, and the word its name begins with.
fn carried(test: &Test, rows: &[Row]) -> BTreeSet<String> {
    let in_name = test.name.split('_').map(str::to_ascii_uppercase);
    let in_doc = words(&test.doc).map(str::to_owned);
    let mut carried: BTreeSet<String> = in_name.chain(in_doc).filter(|word| is_number(word)).collect();
    let first = test.name.split('_').next().unwrap_or_default();
    carried.extend(rows.iter().map(|row| row.id).filter(|id| *id == first).map(str::to_owned));
    carried
}

/// Whether this is the number of a proposal, not the name of something: `A57`.
fn is_number(word: &str) -> bool {
    word.strip_prefix('A').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Rows that say neither what is there nor why not.
pub(crate) fn unexplained(rows: &[Row], found: &BTreeMap<&str, Vec<Evidence>>) -> Vec<String> {
    let silent = |row: &&Row| row.missing.is_empty() && !found.contains_key(row.id);
    rows.iter().filter(silent).map(|row| format!("  {} has no test, and no reason for it", row.id)).collect()
}

/// The document.
pub(crate) fn render(rows: &[Row], found: &BTreeMap<&str, Vec<Evidence>>) -> String {
    let mut text = HEAD.to_owned();
    let mut area = "";
    for row in rows {
        if row.area != area {
            area = row.area;
            let _ = write!(text, "\n## {area}\n\n| | what | there | missing |\n| --- | --- | --- | --- |\n");
        }
        let state = match (found.contains_key(row.id), row.missing) {
            (true, "") => "yes",
            (true, _) => "in part",
            (false, _) => "no",
        };
        let _ = writeln!(text, "| {} | {} | {state} | {} |", row.id, row.what, row.missing);
    }
    text.push_str("\n## Tests\n");
    for row in rows {
        let Some(tests) = found.get(row.id) else { continue };
        let _ = write!(text, "\n### {}\n\n", row.id);
        let mut tests: Vec<_> = tests.iter().collect();
        tests.sort();
        for test in tests {
            let _ = writeln!(text, "- `{}` in [{}](../{})", test.name, test.path, test.path);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::File;

    const SOME: &[Row] = &[
        Row { area: "One", id: "A1", what: "a thing", missing: "" },
        Row { area: "One", id: "A2", what: "half a thing", missing: "the other half" },
        Row { area: "Two", id: "A3", what: "nothing", missing: "nobody asks for it" },
        Row { area: "Two", id: "delta", what: "a thing without a number", missing: "" },
    ];

    fn of(text: &str) -> (BTreeMap<&'static str, Vec<Evidence>>, Vec<Fault>) {
        evidence(&Tree::of(vec![File::new("mesh-core/src/x/tests.rs", text)]), SOME)
    }

    #[test]
    fn a_test_carries_what_its_name_and_its_comment_say() {
        let (found, faults) = of("\
            #[test]\nfn a1_and_more() {}\n\
            /// As gRFC A2 has it.\n#[tokio::test(start_paused = true)]\nasync fn by_its_comment() {}\n\
            #[test]\nfn delta_by_its_word() {}\n\
            #[test]\nfn not_by_a_delta_inside() {}\n\
            fn a1_is_no_test() {}\n\
            // #[test]\n// fn a1_is_a_comment() {}\n\
            #[test]\n#[ignore = \"why\"]\nfn a1_never_runs() {}\n");
        assert_eq!(faults, []);
        let names = |id: &str| found[id].iter().map(|it| it.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names("A1"), ["a1_and_more"]);
        assert_eq!(names("A2"), ["by_its_comment"]);
        assert_eq!(names("delta"), ["delta_by_its_word"]);
        assert!(!found.contains_key("A3"));
    }

    #[test]
    fn a_number_without_a_row_is_caught() {
        assert_eq!(of("#[test]\nfn a99_is_unknown() {}").1.len(), 1);
    }

    #[test]
    fn a_row_with_neither_test_nor_reason_is_caught() {
        let (found, _) = of("#[test]\nfn a1_and_more() {}");
        assert_eq!(unexplained(SOME, &found), ["  delta has no test, and no reason for it"]);
    }

    #[test]
    fn the_document_says_what_is_there() {
        let (found, _) = of("#[test]\nfn a1_it_is() {}\n#[test]\nfn a2_half() {}\n#[test]\nfn delta_too() {}");
        let text = render(SOME, &found);
        for line in [
            "| A1 | a thing | yes |  |",
            "| A2 | half a thing | in part | the other half |",
            "| A3 | nothing | no | nobody asks for it |",
            "- `a1_it_is` in [mesh-core/src/x/tests.rs](../mesh-core/src/x/tests.rs)",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn rows_are_there_once() {
        let ids: BTreeSet<_> = ROWS.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), ROWS.len());
    }
}
