//! A set of strings that finds those which another string begins with.

/// Not a node.
const NONE: u32 = u32::MAX;

/// Keys in order, each linked to the longest other key that it begins with.
///
/// The longest key that a text begins with is the text's predecessor in order, or one of the predecessor's links: whatever
/// lies between a prefix of the text and the text begins with that prefix too. So a lookup is one binary search and a
/// short walk, and the walk goes on to all shorter keys.
#[derive(Debug)]
pub(super) struct PrefixSet<V> {
    nodes: Vec<Node<V>>,
}

#[derive(Debug)]
struct Node<V> {
    key: Box<[u8]>,
    shorter: u32,
    value: V,
}

impl<V> Default for PrefixSet<V> {
    fn default() -> Self {
        Self { nodes: Vec::new() }
    }
}

impl<V> PrefixSet<V> {
    /// Builds the set; of equal keys, `merge` adds the later value to the earlier.
    pub(super) fn new(mut entries: Vec<(Vec<u8>, V)>, mut merge: impl FnMut(&mut V, V)) -> Self {
        // Stable, so that the first of equal keys stays first.
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut nodes: Vec<Node<V>> = Vec::new();
        for (key, value) in entries {
            match nodes.last_mut() {
                Some(last) if *last.key == *key => merge(&mut last.value, value),
                _ => {
                    let previous = (nodes.len() as u32).wrapping_sub(1);
                    let shorter = first_prefix(&nodes, previous, &key);
                    nodes.push(Node { key: key.into(), shorter, value });
                }
            }
        }
        Self { nodes }
    }

    /// The values of the keys that `text` begins with, longest first, with the key's length. The number of steps is
    /// bounded by the text's length.
    pub(super) fn prefixes_of(&self, text: &[u8]) -> Prefixes<'_, V> {
        let after = self.nodes.partition_point(|node| *node.key <= *text) as u32;
        Prefixes { set: self, next: first_prefix(&self.nodes, after.wrapping_sub(1), text) }
    }
}

/// The first of `node` and its links that `text` begins with.
fn first_prefix<V>(nodes: &[Node<V>], mut node: u32, text: &[u8]) -> u32 {
    while let Some(there) = nodes.get(node as usize) {
        if text.starts_with(&there.key) {
            return node;
        }
        node = there.shorter;
    }
    NONE
}

/// See [`PrefixSet::prefixes_of`].
#[derive(Debug)]
pub(super) struct Prefixes<'a, V> {
    set: &'a PrefixSet<V>,
    next: u32,
}

impl<V> Clone for Prefixes<'_, V> {
    fn clone(&self) -> Self {
        Self { set: self.set, next: self.next }
    }
}

impl<'a, V> Iterator for Prefixes<'a, V> {
    type Item = (usize, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.set.nodes.get(self.next as usize)?;
        self.next = node.shorter;
        Some((node.key.len(), &node.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(keys: &[&str]) -> PrefixSet<Vec<usize>> {
        let entries = keys.iter().enumerate().map(|(index, key)| (key.as_bytes().to_vec(), vec![index])).collect();
        PrefixSet::new(entries, Vec::extend)
    }

    #[test]
    fn a_text_finds_all_keys_it_begins_with_longest_first() {
        let set = set(&["/b", "/", "/a/b", "/a", "/a/c", "/a", "", "/ab"]);
        let cases: &[(&str, &[&[usize]])] = &[
            ("/a/b/c", &[&[2], &[3, 5], &[1], &[6]]),
            ("/a/bb", &[&[2], &[3, 5], &[1], &[6]]),
            ("/a", &[&[3, 5], &[1], &[6]]),
            ("/abc", &[&[7], &[3, 5], &[1], &[6]]),
            ("/zzz", &[&[1], &[6]]),
            ("", &[&[6]]),
            ("x", &[&[6]]),
        ];
        for (text, expected) in cases {
            let found: Vec<&[usize]> = set.prefixes_of(text.as_bytes()).map(|(_, value)| &value[..]).collect();
            assert_eq!(&found, expected, "{text}");
        }
    }

    #[test]
    fn an_empty_set_finds_nothing() {
        assert!(set(&[]).prefixes_of(b"/a").next().is_none());
        assert!(set(&["/a"]).prefixes_of(b"/").next().is_none());
    }
}
