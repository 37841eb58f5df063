//! What becomes of a request's path and authority.

use std::borrow::Cow;

use crate::model::RegexRewrite;

impl RegexRewrite {
    /// `value` with every match of the pattern replaced. In the substitution, `\0` is the whole match, `\1` to `\9` are
    /// groups, and `\\` is a backslash; a group that is not there is empty (RE2's `GlobalReplace`).
    pub fn apply<'v>(&self, value: &'v [u8]) -> Cow<'v, [u8]> {
        self.pattern.search().replace_all(value, |captures: &regex::bytes::Captures<'_>| {
            let mut out = Vec::new();
            let mut rest = self.substitution.bytes();
            while let Some(byte) = rest.next() {
                match (byte, byte == b'\\') {
                    (_, true) => match rest.next() {
                        Some(digit @ b'0'..=b'9') => {
                            let group = captures.get(usize::from(digit - b'0'));
                            out.extend_from_slice(group.map_or(b"", |group| group.as_bytes()));
                        }
                        Some(other) => out.push(other),
                        None => out.push(b'\\'),
                    },
                    (plain, false) => out.push(plain),
                }
            }
            out
        })
    }
}
