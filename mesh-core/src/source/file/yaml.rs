//! YAML as JSON that remembers its lines.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Budget, Options, Spanned};

use crate::decode::Fault;

/// So many values may be in a file: a mesh of 100,000 endpoints has fewer.
const MAX_NODES: usize = 2_000_000;
/// So deep may they be nested.
const MAX_DEPTH: usize = 64;
/// The stack that takes: the parser uses much of it for each level when it is not optimized.
const STACK: usize = 16 << 20;
/// So many values may come out of aliases, all together: a few lines of them could ask for any number.
const MAX_ALIASED: usize = 100_000;

/// One document of a file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) value: Value,
    lines: Lines,
}

/// A fault, and the line of the file it is in.
#[derive(Debug, Clone)]
pub(super) struct Located {
    /// 0: the file as a whole.
    pub(super) line: u64,
    pub(super) message: String,
}

impl Document {
    /// `fault`, at the line of the field that it names, or of the innermost one around it that is in the document.
    pub(super) fn locate(&self, fault: &Fault) -> Located {
        Located { line: self.lines.find(&fault.path), message: format!("{}: {fault}", self.title()) }
    }

    /// What it is, for messages: its kind and name.
    fn title(&self) -> String {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &self.value["metadata"];
        match (&self.value["kind"], &self.value["@type"]) {
            (Value::String(kind), _) => {
                let namespace = metadata["namespace"].as_str().unwrap_or(super::object::NAMESPACE);
                format!("{kind} {namespace}/{}", text(&metadata["name"]))
            }
            (_, Value::String(url)) => {
                let short = url.rsplit(['.', '/']).next().unwrap_or(url);
                let name = self.value.get("name").or_else(|| self.value.get("cluster_name"));
                format!("{short} `{}`", name.map(text).unwrap_or_default())
            }
            _ => "document".to_owned(),
        }
    }
}

/// Reads every document of `text`; those without content are left out.
pub(super) fn documents(text: &str) -> Result<Vec<Document>, Located> {
    // How large the caller's stack is, nobody knows.
    let read = std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().name("mesh-file".to_owned()).stack_size(STACK);
        parser.spawn_scoped(scope, || parse(text)).map(std::thread::ScopedJoinHandle::join)
    });
    let whole = |message: &str| Located { line: 0, message: message.to_owned() };
    match read {
        Ok(Ok(parsed)) => parsed,
        Ok(Err(_)) => Err(whole("cannot be parsed: the YAML parser panicked")),
        Err(error) => Err(whole(&format!("cannot be parsed: the system gives no thread: {error}"))),
    }
}

fn parse(text: &str) -> Result<Vec<Document>, Located> {
    let read = serde_saphyr::from_multiple_with_options::<Spanned<Tree>>(text, options());
    let trees = read.map_err(|error| Located {
        line: error.location().map_or(0, |location| location.line()),
        message: error.without_snippet().to_string(),
    })?;
    let document = |tree: Spanned<Tree>| {
        let line = tree.referenced.line();
        let (value, inside) = tree.value.split();
        Document { value, lines: Lines { line, inside } }
    };
    Ok(trees.into_iter().map(document).collect())
}

fn options() -> Options {
    let mut budget = Budget::default();
    budget.max_nodes = MAX_NODES;
    budget.max_events = 2 * MAX_NODES;
    budget.max_documents = MAX_NODES;
    budget.max_depth = MAX_DEPTH;
    let mut options = Options::default();
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = MAX_ALIASED;
    // `no` is a word, `010` a text: as in YAML 1.2, and never a surprise.
    options.strict_booleans = true;
    options.leading_zero_numbers_as_strings = true;
    options.with_snippet = false;
    options
}

/// Where a value and what is in it begins.
#[derive(Debug)]
struct Lines {
    line: u64,
    inside: Inside,
}

#[derive(Debug)]
enum Inside {
    Nothing,
    List(Vec<Lines>),
    Fields(BTreeMap<String, Lines>),
}

impl Lines {
    /// The line of the value at `path` (`spec.rules[0].matches`), as near as there is one. Keys may have dots, and may be
    /// spelled as protobuf or as JSON spells them.
    fn find(&self, path: &str) -> u64 {
        let path = path.trim_start_matches('.');
        let found = match &self.inside {
            Inside::Nothing => None,
            Inside::List(items) => path.strip_prefix('[').and_then(|rest| {
                let (index, rest) = rest.split_once(']')?;
                Some((items.get(index.parse::<usize>().ok()?)?, rest.to_owned()))
            }),
            Inside::Fields(fields) => {
                let beginnings = fields.iter().filter_map(|(name, lines)| Some((lines, after(path, name)?)));
                beginnings.min_by_key(|(_, rest)| rest.len())
            }
        };
        found.map_or(self.line, |(lines, rest)| lines.find(&rest))
    }
}

/// What follows the field `name` in `path`; None if that is not where the path goes.
fn after(path: &str, name: &str) -> Option<String> {
    let snake = snake_case(name);
    let rest = path.strip_prefix(name).or_else(|| path.strip_prefix(snake.as_str())).or_else(|| {
        // A map's key is in brackets and quotes in the decoder's paths.
        let rest = path.strip_prefix("[\"")?.strip_prefix(name)?;
        rest.strip_prefix("\"]")
    })?;
    (rest.is_empty() || rest.starts_with(['.', '['])).then(|| rest.to_owned())
}

fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

/// A value as the parser gives it.
enum Tree {
    Leaf(Value),
    List(Vec<Spanned<Tree>>),
    Fields(Vec<(String, Spanned<Tree>)>),
}

impl Tree {
    fn split(self) -> (Value, Inside) {
        match self {
            Self::Leaf(value) => (value, Inside::Nothing),
            Self::List(items) => {
                let (values, lines) = items.into_iter().map(split).unzip();
                (Value::Array(values), Inside::List(lines))
            }
            Self::Fields(fields) => {
                let mut values = Map::new();
                let mut lines = BTreeMap::new();
                for (name, tree) in fields {
                    let (value, line) = split(tree);
                    lines.insert(name.clone(), line);
                    values.insert(name, value);
                }
                (Value::Object(values), Inside::Fields(lines))
            }
        }
    }
}

fn split(tree: Spanned<Tree>) -> (Value, Lines) {
    let line = tree.referenced.line();
    let (value, inside) = tree.value.split();
    (value, Lines { line, inside })
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has too")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree, E> {
        Number::from_f64(value)
            .map(|number| Tree::Leaf(number.into()))
            .ok_or_else(|| E::custom("is not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = entries.next_key::<Tree>()? {
            let Tree::Leaf(name) = name else { return Err(A::Error::custom("a key must be a text")) };
            let name = match name {
                Value::String(name) => name,
                other => other.to_string(),
            };
            fields.push((name, entries.next_value()?));
        }
        Ok(Tree::Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, path: &str) -> u64 {
        documents(text).unwrap()[0].locate(&Fault::new(path, "")).line
    }

    #[test]
    fn a_path_leads_to_its_line_or_to_the_nearest_one_around_it() {
        let text = "a:\n  b.c/d:\n  - x: 1\n  -\n    routeConfig: {}\n  plain: 1\n";
        for (path, expected) in [
            ("a.plain", 6),
            ("a.b.c/d[0].x", 3),
            ("a.b.c/d[1].route_config.name", 5),
            ("a.b.c/d[7]", 3),
            ("a.nothing", 2),
            ("", 1),
        ] {
            assert_eq!(line(text, path), expected, "{path}");
        }
    }

    #[test]
    fn documents_are_told_apart_and_empty_ones_left_out() {
        let found = documents("# one\n---\na: 1\n---\n---\nb: no\nc: 010\nd: '1'\ne: 1.5\n").unwrap();
        assert_eq!(found.iter().map(|document| document.lines.line).collect::<Vec<_>>(), [3, 6]);
        assert_eq!(found[1].value, serde_json::json!({"b": "no", "c": "010", "d": "1", "e": 1.5}));
    }

    #[test]
    fn what_is_not_yaml_is_refused_with_its_line() {
        for (text, expected) in [("a: 1\nb: [1, 2\nc: 3\n", 2..=4), ("a: 1\na: 2\n", 1..=2), ("a: .nan\n", 1..=1)] {
            let error = documents(text).unwrap_err();
            assert!(expected.contains(&error.line), "{text:?}: {error:?}");
        }
    }

    #[test]
    fn aliases_work_and_bombs_do_not() {
        assert_eq!(documents("a: &x {b: 1}\nc: *x\n").unwrap()[0].value["c"]["b"], 1);
        let mut bomb = "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let last = format!("*l{}, ", level - 1).repeat(10);
            bomb.push_str(&format!("l{level}: &l{level} [{}]\n", last.trim_end_matches(", ")));
        }
        assert!(documents(&bomb).is_err());
        assert!(documents(&"[".repeat(100_000)).is_err());
        let nested = |levels: usize| documents(&format!("{}x{}", "{a: ".repeat(levels), "}".repeat(levels)));
        assert!(nested(MAX_DEPTH - 1).is_ok() && nested(MAX_DEPTH + 1).is_err());
    }
}
