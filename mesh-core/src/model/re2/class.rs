//! Sets of bytes: bracket expressions, `\d` and `\p{Greek}`.

use super::{Reader, hex};

/// Which bytes are in a class.
pub(super) type Set = [bool; 256];

/// Whether a byte is in a class.
type IsIn = fn(&u8) -> bool;

const POSIX: [(&str, IsIn); 14] = [
    ("alnum", u8::is_ascii_alphanumeric),
    ("alpha", u8::is_ascii_alphabetic),
    ("ascii", u8::is_ascii),
    ("blank", |byte| matches!(byte, b' ' | b'\t')),
    ("cntrl", u8::is_ascii_control),
    ("digit", u8::is_ascii_digit),
    ("graph", u8::is_ascii_graphic),
    ("lower", u8::is_ascii_lowercase),
    ("print", |byte| matches!(byte, b' '..=b'~')),
    ("punct", u8::is_ascii_punctuation),
    ("space", |byte| matches!(byte, b'\t'..=b'\r' | b' ')),
    ("upper", u8::is_ascii_uppercase),
    ("word", |byte| byte.is_ascii_alphanumeric() || *byte == b'_'),
    ("xdigit", u8::is_ascii_hexdigit),
];

/// A set, or what is not in it, as a class of the `regex` crate, which may be empty.
pub(super) fn written(set: &Set, inverted: bool) -> String {
    let start = if inverted { "[^" } else { "[" };
    let mut out = String::from(start);
    let mut bytes = 0..=u8::MAX;
    while let Some(first) = bytes.find(|byte| set[usize::from(*byte)]) {
        let last = bytes.by_ref().take_while(|byte| set[usize::from(*byte)]).last().unwrap_or(first);
        out.push_str(&hex(first));
        if last > first {
            out.push('-');
            out.push_str(&hex(last));
        }
    }
    if out.len() == start.len() {
        return if inverted { "[\\x00-\\xFF]" } else { "[^\\x00-\\xFF]" }.to_owned();
    }
    out.push(']');
    out
}

fn set_of(is_in: impl Fn(&u8) -> bool) -> Set {
    let mut set = [false; 256];
    for byte in 0..=u8::MAX {
        set[usize::from(byte)] = is_in(&byte);
    }
    set
}

impl Reader<'_> {
    /// What follows a `[`.
    pub(super) fn class(&mut self) -> Result<bool, String> {
        let inverted = self.skip(b"^");
        let mut all: Set = [false; 256];
        let mut is_first = true;
        loop {
            let Some(next) = self.rest.first().copied() else {
                return Err("has a `[` without `]`".to_owned());
            };
            if next == b']' && !is_first {
                self.next();
                break;
            }
            is_first = false;
            let set = self.part()?;
            all.iter_mut().zip(set).for_each(|(all, more)| *all |= more);
        }
        // Inverted by the compiler: where case does not count, it adds the other case first.
        self.out.push_str(&written(&all, inverted));
        Ok(false)
    }

    /// One part of a bracket expression.
    fn part(&mut self) -> Result<Set, String> {
        if self.rest.starts_with(b"[:") && self.rest.windows(2).skip(2).any(|two| two == b":]") {
            self.skip(b"[:");
            let name = self.until(b":]").unwrap_or_default();
            let (inverted, name) = name.strip_prefix(b"^").map_or((false, name), |name| (true, name));
            let known = POSIX.iter().find(|(known, _)| known.as_bytes() == name);
            let (_, is_in) = known.ok_or("has a `[:name:]` that RE2 does not know")?;
            return Ok(set_of(|byte| is_in(byte) != inverted));
        }
        if let [b'\\', b'd' | b'D' | b's' | b'S' | b'w' | b'W' | b'p' | b'P', ..] = self.rest {
            self.next();
            return self.named_set();
        }
        let first = self.class_byte()?;
        let is_range = matches!(self.rest, [b'-', after, ..] if *after != b']');
        if !is_range {
            return Ok(set_of(|byte| *byte == first));
        }
        self.next();
        let last = self.class_byte()?;
        if last < first {
            return Err("has a range that goes backwards".to_owned());
        }
        Ok(set_of(|byte| (first..=last).contains(byte)))
    }

    fn class_byte(&mut self) -> Result<u8, String> {
        match self.next() {
            Some(b'\\') => self.escaped_byte(),
            Some(byte) => Ok(byte),
            None => Err("has a `[` without `]`".to_owned()),
        }
    }

    /// `\d` and its like, `\pL`, `\p{Greek}`, `\P{^Greek}`; the `\` is read.
    pub(super) fn named_set(&mut self) -> Result<Set, String> {
        let kind = self.next().unwrap_or_default();
        let is_in: IsIn = match kind.to_ascii_lowercase() {
            b'd' => u8::is_ascii_digit,
            // Perl's: without the vertical tab.
            b's' => |byte| matches!(byte, b'\t' | b'\n' | 0x0C | b'\r' | b' '),
            b'w' => |byte| byte.is_ascii_alphanumeric() || *byte == b'_',
            _ => return self.unicode(kind == b'P'),
        };
        Ok(set_of(|byte| is_in(byte) != kind.is_ascii_uppercase()))
    }

    fn unicode(&mut self, outer: bool) -> Result<Set, String> {
        let bytes = if self.skip(b"{") {
            self.until(b"}").unwrap_or_default()
        } else {
            let (letter, rest) = self.rest.split_at(self.rest.len().min(1));
            self.rest = rest;
            letter
        };
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let (inner, name) = text.strip_prefix('^').map_or((false, text), |name| (true, name));
        let members = members(name).ok_or_else(|| format!("has `\\p{{{name}}}`, which RE2 does not know"))?;
        Ok(set_of(|byte| members[usize::from(*byte)] != (outer != inner)))
    }
}

/// The code points below 256 of a general category, by its short name, or of a script.
fn members(name: &str) -> Option<Set> {
    if name == "Any" {
        return Some([true; 256]);
    }
    let is_name = name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    // Those that RE2 has no table for.
    if !is_name || matches!(name, "Cn" | "LC") {
        return None;
    }
    let kind = if name.len() <= 2 { "gc" } else { "sc" };
    let class = regex::Regex::new(&format!("^\\p{{{kind}={name}}}$")).ok()?;
    Some(set_of(|byte| class.is_match(char::from(*byte).encode_utf8(&mut [0; 2]))))
}
