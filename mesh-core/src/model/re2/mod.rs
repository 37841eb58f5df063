//! RE2's expressions in the words of the `regex` crate.
//!
//! Envoy and gRPC's C-core compile expressions with RE2. The two syntaxes share nearly everything; where they do not, an
//! expression would mean one thing to Envoy and another here, or would be an error in one of them only: `[a&&b]`, `[[a]]`,
//! `\Q.\E`, `\07`, `a**`, `\s`. So the text is taken apart by RE2's rules and written down again.
//!
//! As in Envoy, a character is a byte (RE2's Latin-1): `é` in a configuration, which is UTF-8, is two of them, and `\p{L}` is a
//! letter among the first 256 code points.

mod class;
mod size;

use std::collections::BTreeSet;

pub(super) use size::program_size;

/// RE2's bound for a counted repetition.
const MOST_REPEATS: u32 = 1000;

/// Writes `pattern` down for the `regex` crate, without Unicode.
///
/// # Errors
///
/// What of it RE2 does not take. What neither of the two takes may be left for the compiler to say.
pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let mut reader =
        Reader { rest: pattern.as_bytes(), out: String::with_capacity(pattern.len()), names: BTreeSet::new() };
    let mut after_repeat = false;
    while let Some(byte) = reader.next() {
        after_repeat = match byte {
            b'*' | b'+' | b'?' => reader.repeat(char::from(byte).encode_utf8(&mut [0; 4]), after_repeat)?,
            b'{' => match reader.count()? {
                Some(count) => reader.repeat(&count, after_repeat)?,
                None => reader.literal(byte),
            },
            b'[' => reader.class()?,
            b'(' => reader.group()?,
            b')' | b'|' | b'^' | b'$' | b'.' => reader.copy(byte),
            b'\\' => reader.escape()?,
            other => reader.literal(other),
        };
    }
    Ok(reader.out)
}

/// What is left to read, and what was written. Methods that write tell whether it was a repetition, which may not follow
/// another one.
struct Reader<'a> {
    rest: &'a [u8],
    out: String,
    names: BTreeSet<&'a str>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// What is before `end`, if it is there; both are read then.
    fn until(&mut self, end: &[u8]) -> Option<&'a [u8]> {
        let at = self.rest.windows(end.len()).position(|window| window == end)?;
        let found = &self.rest[..at];
        self.rest = &self.rest[at + end.len()..];
        Some(found)
    }

    fn skip(&mut self, prefix: &[u8]) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn copy(&mut self, byte: u8) -> bool {
        self.out.push(char::from(byte));
        false
    }

    /// A character that stands for itself.
    fn literal(&mut self, byte: u8) -> bool {
        match byte {
            b'\\' | b'.' | b'+' | b'*' | b'?' | b'(' | b')' | b'|' | b'[' | b']' | b'{' | b'}' | b'^' | b'$' => {
                self.out.push('\\');
                self.copy(byte)
            }
            b' '..=b'~' => self.copy(byte),
            _ => {
                self.out.push_str(&hex(byte));
                false
            }
        }
    }

    /// An operator, and the `?` that makes it lazy.
    fn repeat(&mut self, operator: &str, after_repeat: bool) -> Result<bool, String> {
        if after_repeat {
            return Err("repeats a repetition: put parentheses around the inner one".to_owned());
        }
        self.out.push_str(operator);
        if self.skip(b"?") {
            self.out.push('?');
        }
        Ok(true)
    }

    /// `{3}`, `{3,}` or `{3,5}`, of which the `{` is read; anything else that begins so stands for itself.
    fn count(&mut self) -> Result<Option<String>, String> {
        let Some(end) = self.rest.iter().position(|byte| *byte == b'}') else { return Ok(None) };
        let Ok(inside) = std::str::from_utf8(&self.rest[..end]) else { return Ok(None) };
        let (least, most) = inside.split_once(',').map_or((inside, None), |(least, most)| (least, Some(most)));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(least) || !most.is_none_or(|most| most.is_empty() || is_number(most)) {
            return Ok(None);
        }
        let value = |text: &str| text.parse::<u32>().ok().filter(|count| *count <= MOST_REPEATS);
        let too_often = || format!("repeats something more than {MOST_REPEATS} times");
        let first = value(least).ok_or_else(too_often)?;
        if let Some(last) = most.filter(|most| !most.is_empty())
            && value(last).ok_or_else(too_often)? < first
        {
            return Err(format!("repeats something `{{{inside}}}` times, which is from more to less"));
        }
        self.rest = &self.rest[end + 1..];
        Ok(Some(format!("{{{inside}}}")))
    }

    /// What follows a `(`.
    fn group(&mut self) -> Result<bool, String> {
        if !self.skip(b"?") {
            return Ok(self.copy(b'('));
        }
        if self.skip(b"P<") || self.skip(b"<") {
            let name = self.until(b">").and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err("has a group whose name is not made of letters, digits and `_`".to_owned());
            }
            // RE2 takes names twice, and names that begin with a digit; a group without a name is the same to whoever matches.
            if self.names.insert(name) && !name.starts_with(|first: char| first.is_ascii_digit()) {
                self.out.push_str(&format!("(?P<{name}>"));
                return Ok(false);
            }
            return Ok(self.copy(b'('));
        }
        let flags = self.rest.iter().position(|byte| matches!(byte, b':' | b')')).unwrap_or(self.rest.len());
        let (flags, rest) = self.rest.split_at(flags);
        let good = flags.iter().all(|flag| b"imsU-".contains(flag))
            && flags.iter().filter(|flag| **flag == b'-').count() <= 1
            && !flags.ends_with(b"-");
        if !good || rest.is_empty() {
            return Err("has a `(?` that RE2 does not know".to_owned());
        }
        self.rest = &rest[1..];
        self.out.push_str("(?");
        self.out.extend(flags.iter().map(|flag| char::from(*flag)));
        Ok(self.copy(rest[0]))
    }

    /// What follows a `\` outside of a class.
    fn escape(&mut self) -> Result<bool, String> {
        let Some(next) = self.rest.first().copied() else {
            return Err("ends with a `\\`".to_owned());
        };
        match next {
            b'Q' => {
                self.next();
                let text = self.until(b"\\E").unwrap_or_else(|| std::mem::take(&mut self.rest));
                for byte in text {
                    self.literal(*byte);
                }
            }
            b'C' => {
                self.next();
                self.out.push_str("(?s:.)");
            }
            b'A' | b'b' | b'B' | b'z' => {
                self.next();
                self.out.extend(['\\', char::from(next)]);
            }
            b'd' | b'D' | b's' | b'S' | b'w' | b'W' | b'p' | b'P' => {
                let set = self.named_set()?;
                self.out.push_str(&class::written(&set, false));
            }
            _ => {
                let byte = self.escaped_byte()?;
                self.literal(byte);
            }
        }
        Ok(false)
    }

    /// The one byte that an escape means; its `\` is read.
    fn escaped_byte(&mut self) -> Result<u8, String> {
        let bad = |what: u8| format!("has `\\{}`, which RE2 does not know", char::from(what).escape_debug());
        let first = self.next().ok_or("ends with a `\\`")?;
        match first {
            b'a' => Ok(0x07),
            b'f' => Ok(0x0C),
            b't' => Ok(b'\t'),
            b'n' => Ok(b'\n'),
            b'r' => Ok(b'\r'),
            b'v' => Ok(0x0B),
            b'0'..=b'7' => {
                // One digit alone, unless it is 0, would be a back-reference.
                let more = self.rest.iter().take(2).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
                if first != b'0' && more == 0 {
                    return Err(bad(first));
                }
                let (digits, rest) = self.rest.split_at(more);
                self.rest = rest;
                let code =
                    digits.iter().fold(u32::from(first - b'0'), |code, digit| code * 8 + u32::from(digit - b'0'));
                u8::try_from(code).map_err(|_| bad(first))
            }
            b'x' => self.hexadecimal().ok_or_else(|| bad(b'x')),
            other if other.is_ascii() && !other.is_ascii_alphanumeric() => Ok(other),
            other => Err(bad(other)),
        }
    }

    fn hexadecimal(&mut self) -> Option<u8> {
        let digits = if self.skip(b"{") {
            self.until(b"}")?
        } else {
            let (digits, rest) = self.rest.split_at_checked(2)?;
            self.rest = rest;
            digits
        };
        let good = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
        let code = std::str::from_utf8(digits).ok().filter(|_| good)?;
        u8::try_from(u32::from_str_radix(code, 16).ok()?).ok()
    }
}

fn hex(byte: u8) -> String {
    format!("\\x{byte:02X}")
}

#[cfg(test)]
mod tests;
