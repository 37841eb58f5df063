//! Which routes of a virtual host can match a path at all: an index that skips most of those that cannot.

use std::collections::HashMap;

use regex::bytes::{RegexSet, RegexSetBuilder};

use super::prefix::{PrefixSet, Prefixes};
use crate::model::matcher::UriTemplate;
use crate::model::{ByteRegex, PathMatch, Route, VirtualHost};

/// The routes of one virtual host, by what their paths must be or begin with. Routes are named by their position; lists
/// ascend.
#[derive(Debug)]
pub(super) struct PathIndex {
    exact: HashMap<Box<[u8]>, Vec<u32>>,
    prefixes: PrefixSet<Vec<u32>>,
    /// What is compared without case has keys and lookups in lower case.
    folded_exact: HashMap<Box<[u8]>, Vec<u32>>,
    folded_prefixes: PrefixSet<Vec<u32>>,
    has_folded: bool,
    loose: Option<Loose>,
}

/// Regular expressions that begin with no literal to file them under, together: if none of them matches a path, which one
/// search finds out, none is tried.
#[derive(Debug)]
struct Loose {
    any: RegexSet,
    routes: Vec<u32>,
}

impl Loose {
    /// From how many on it pays: a set costs about what two expressions cost.
    const WORTH_IT: usize = 4;

    /// None where the set would be too few, or too large to compile; each is tried for itself then.
    fn new(routes: &[(u32, &ByteRegex)]) -> Option<Self> {
        if routes.len() < Self::WORTH_IT {
            return None;
        }
        let patterns = routes.iter().map(|(_, regex)| format!("^(?:{})$", regex.source()));
        let any = RegexSetBuilder::new(patterns).unicode(false).size_limit(ByteRegex::SIZE_LIMIT).build().ok()?;
        Some(Self { any, routes: routes.iter().map(|(position, _)| *position).collect() })
    }
}

impl PathIndex {
    pub(super) fn new(host: &VirtualHost) -> Self {
        let mut exact: HashMap<Box<[u8]>, Vec<u32>> = HashMap::new();
        let mut folded_exact: HashMap<Box<[u8]>, Vec<u32>> = HashMap::new();
        let mut prefixes = Vec::new();
        let mut folded_prefixes = Vec::new();
        let mut loose: Vec<(u32, &ByteRegex)> = Vec::new();
        for (position, route) in host.routes.iter().enumerate() {
            let position = position as u32;
            match key_of(route) {
                Key::Exact(path) => exact.entry(path.into()).or_default().push(position),
                Key::Prefix(prefix) => prefixes.push((prefix, vec![position])),
                Key::FoldedExact(path) => folded_exact.entry(path.into()).or_default().push(position),
                Key::FoldedPrefix(prefix) => folded_prefixes.push((prefix, vec![position])),
                Key::Loose(regex) => loose.push((position, regex)),
            }
        }
        let set = Loose::new(&loose);
        if set.is_none() {
            prefixes.extend(loose.into_iter().map(|(position, _)| (Vec::new(), vec![position])));
            // Lists ascend: equal keys keep the order they are given in.
            prefixes.sort_by_key(|(_, positions)| positions[0]);
        }
        let append = |known: &mut Vec<u32>, more: Vec<u32>| known.extend(more);
        Self {
            has_folded: !folded_exact.is_empty() || !folded_prefixes.is_empty(),
            exact,
            prefixes: PrefixSet::new(prefixes, append),
            folded_exact,
            folded_prefixes: PrefixSet::new(folded_prefixes, append),
            loose: set,
        }
    }

    /// Calls `visit` with the position of each route whose path may match `path`, in order, until it answers.
    pub(super) fn candidates<T>(&self, path: &[u8], visit: impl FnMut(usize) -> Option<T>) -> Option<T> {
        let loose = self.loose.as_ref().filter(|loose| loose.any.is_match(path));
        let plain = Sources {
            lists: [list(&self.exact, path), loose.map_or(&[], |loose| &loose.routes)],
            prefixes: self.prefixes.prefixes_of(path),
        };
        if !self.has_folded {
            return visit_in_order(&[plain], visit);
        }
        let mut buffer = [0; 256];
        let mut long;
        let folded: &mut [u8] = match buffer.get_mut(..path.len()) {
            Some(short) => {
                short.copy_from_slice(path);
                short
            }
            None => {
                long = path.to_vec();
                &mut long
            }
        };
        folded.make_ascii_lowercase();
        let folded = Sources {
            lists: [list(&self.folded_exact, folded), &[]],
            prefixes: self.folded_prefixes.prefixes_of(folded),
        };
        visit_in_order(&[plain, folded], visit)
    }
}

fn list<'a>(map: &'a HashMap<Box<[u8]>, Vec<u32>>, path: &[u8]) -> &'a [u32] {
    if map.is_empty() { &[] } else { map.get(path).map_or(&[], Vec::as_slice) }
}

/// The ascending lists that a path selects.
struct Sources<'a> {
    lists: [&'a [u32]; 2],
    prefixes: Prefixes<'a, Vec<u32>>,
}

/// Merges the lists on the fly. Each step looks for the next position in each list; there are few lists, and the first or
/// second position mostly ends it.
fn visit_in_order<T>(sources: &[Sources<'_>], mut visit: impl FnMut(usize) -> Option<T>) -> Option<T> {
    let mut from = 0;
    loop {
        let next_of = |list: &[u32]| list.get(list.partition_point(|position| *position < from)).copied();
        let next = sources
            .iter()
            .flat_map(|source| {
                let prefixes = source.prefixes.clone().filter_map(|(_, list)| next_of(list));
                prefixes.chain(source.lists.into_iter().filter_map(next_of))
            })
            .min()?;
        if let Some(answer) = visit(next as usize) {
            return Some(answer);
        }
        from = next + 1;
    }
}

/// Where a route is filed.
enum Key<'a> {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    FoldedExact(Vec<u8>),
    FoldedPrefix(Vec<u8>),
    Loose(&'a ByteRegex),
}

fn key_of(route: &Route) -> Key<'_> {
    let folds = !route.matches.case_sensitive;
    match &route.matches.path {
        PathMatch::Exact(path) if folds => Key::FoldedExact(path.to_ascii_lowercase().into()),
        PathMatch::Exact(path) => Key::Exact(path.clone().into()),
        PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) if folds => {
            Key::FoldedPrefix(prefix.to_ascii_lowercase().into())
        }
        PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => Key::Prefix(prefix.clone().into()),
        PathMatch::Regex(regex) | PathMatch::Template(UriTemplate { regex, .. }) => {
            let prefix = literal_prefix(regex.as_str());
            // Every path begins with a slash.
            if prefix.len() < 2 { Key::Loose(regex) } else { Key::Prefix(prefix) }
        }
        PathMatch::Connect => Key::Prefix(Vec::new()),
    }
}

/// What every match of the regular expression `pattern` begins with: its leading literal characters. When in doubt less,
/// which costs time and never a match.
fn literal_prefix(pattern: &str) -> Vec<u8> {
    // An alternative may begin otherwise.
    if pattern.contains('|') && !alternatives_are_grouped(pattern) {
        return Vec::new();
    }
    let mut literal = String::new();
    let mut rest = pattern.strip_prefix('^').unwrap_or(pattern).chars().peekable();
    while let Some(next) = rest.next() {
        let character = match next {
            '\\' => match rest.next() {
                // `\<` and `\>` are the edges of a word.
                Some(escaped) if escaped.is_ascii_punctuation() && !matches!(escaped, '<' | '>') => escaped,
                _ => break,
            },
            '.' | '[' | ']' | '(' | ')' | '{' | '}' | '*' | '+' | '?' | '^' | '$' => break,
            other => other,
        };
        // A character that may be left out is not part of it. (Outside of Unicode mode a character of several bytes is
        // repeated as bytes or not at all, so it ends the literal as well.)
        if !character.is_ascii() || matches!(rest.peek(), Some('*' | '?' | '{')) {
            break;
        }
        literal.push(character);
        if rest.peek() == Some(&'+') {
            break;
        }
    }
    literal.into_bytes()
}

/// Whether every `|` of `pattern` is inside parentheses. Patterns with character classes are not taken apart.
fn alternatives_are_grouped(pattern: &str) -> bool {
    let mut depth = 0_u32;
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                characters.next();
            }
            '[' => return false,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return false,
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_prefix_is_what_every_match_begins_with() {
        let cases = [
            ("/api/v[0-9]+/.*", "/api/v", "up to the first class"),
            ("/api(/.*)?", "/api", "up to the first group"),
            ("^/api$", "/api", "anchors say nothing here"),
            ("/ab?", "/a", "an optional character is not part of it"),
            ("/ab*", "/a", "nor one that may be repeated no time"),
            ("/ab{0,2}", "/a", "in any spelling"),
            ("/ab+c", "/ab", "one is there at least"),
            (r"/v1\.0/x", "/v1.0/x", "an escaped sign is itself"),
            (r"/\d+", "/", "an escaped letter is a class"),
            (r"/\<a", "/", "and some signs are not themselves"),
            ("/api|/v1", "", "alternatives begin anyhow"),
            ("/(a|b)/c", "/", "unless they are grouped"),
            ("/[|(]|/b", "", "classes are not taken apart"),
            ("(?i)/api", "", "flags change what is literal"),
            ("/caf\u{e9}?", "/caf", "beyond ASCII it ends"),
            ("", "", "nothing"),
        ];
        for (pattern, expected, why) in cases {
            assert_eq!(String::from_utf8(literal_prefix(pattern)).unwrap(), expected, "{pattern}: {why}");
        }
    }
}
