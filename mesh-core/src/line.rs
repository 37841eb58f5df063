//! Text that others chose, as a part of one line for people: nobody's bytes can end the line, move a terminal's cursor, or
//! fill a disk.

use std::fmt::{self, Write};

/// So many characters of a version are shown: any that is made for people fits.
const LONGEST_VERSION: usize = 128;
/// So many characters has a line: the faults of some dozen resources fit.
const LONGEST_LINE: usize = 16 * 1024;

/// A version that a server gave.
pub(crate) struct Version<'a>(pub(crate) &'a str);

impl fmt::Display for Version<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Cut { out: f, left: LONGEST_VERSION }.write_str(self.0)
    }
}

/// Takes what is written as one line.
pub(crate) fn one_line<'a, W: Write>(out: &'a mut W) -> impl Write + use<'a, W> {
    Cut { out, left: LONGEST_LINE }
}

/// Passes on so many characters, and those that are no letters as escapes.
struct Cut<'a, W> {
    out: &'a mut W,
    left: usize,
}

impl<W: Write> Write for Cut<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            match self.left {
                0 => return Ok(()),
                1 => self.out.write_char('…')?,
                _ if is_unseen(letter) => write!(self.out, "{}", letter.escape_default())?,
                _ => self.out.write_char(letter)?,
            }
            self.left -= 1;
        }
        Ok(())
    }
}

/// Control characters, and what changes lines or the direction of text without being seen.
fn is_unseen(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_escaped_and_what_is_long_is_cut() {
        for (text, shown) in [
            ("v1", "v1"),
            ("ü/é", "ü/é"),
            ("a\nb\u{1b}[2J", "a\\nb\\u{1b}[2J"),
            ("\u{202e}x\u{2028}", "\\u{202e}x\\u{2028}"),
        ] {
            assert_eq!(Version(text).to_string(), shown);
        }
        let long = Version(&"v".repeat(1000)).to_string();
        assert_eq!((long.chars().count(), long.ends_with("vv…")), (LONGEST_VERSION, true));
        let mut line = String::new();
        let mut out = one_line(&mut line);
        for _ in 0..100 {
            out.write_str(&"x".repeat(1000)).expect("a string takes all");
        }
        drop(out);
        assert_eq!(line.chars().count(), LONGEST_LINE);
    }
}
