//! Small values made of a fuzzer's bytes.

use arbitrary::{Result, Unstructured};

/// Text that means something somewhere.
const WORDS: &[&str] = &[
    "",
    "a",
    "b",
    "c",
    "*",
    "*.a",
    "a.*",
    "/",
    "/a",
    "/a/b",
    "//",
    "/%2e",
    "x",
    ":path",
    "host",
    "127.0.0.1",
    "::1",
    "10.0.0.0",
    "localhost",
    "0.0.0.0",
    "content-type",
    "-bin",
    "x-bin",
    "grpc-timeout",
    "1S",
    "9999999999H",
    "a{1000}",
    "(a|b)*",
    "(",
    "\\",
    "[[:alpha:]]",
    "(?i)x",
    "%",
    "%%",
    "%REQ(a)%",
    "%REQ(",
    "{a}",
    "/{a}/**",
    "/{a=*}",
    "\\1",
    "\\0",
    "\n",
    "\0",
    "é",
    "\u{0}",
    "xdstp:",
    "xdstp://a/t/x",
    "xdstp://a/envoy.config.cluster.v3.Cluster/x?b=1&a=2",
    "xdstp:///%zz",
    "spiffe://a/b",
    "spiffe://",
    "envoy.lb",
    "hash_key",
    "5xx,reset",
    "unavailable",
    "default",
    "envoy.transport_sockets.tls",
    "raw_buffer",
    "{\"a\":1}",
    "- a",
    "&a [*a]",
    "!!binary x",
    "1e400",
    "-0",
    "0x7fffffffffffffff",
    "NaN",
    ".inf",
];

/// Text: mostly words, alone or joined, sometimes anything.
pub(crate) fn text(u: &mut Unstructured<'_>) -> Result<String> {
    match u.int_in_range(0..=9)? {
        0..=5 => Ok((*u.choose(WORDS)?).to_owned()),
        6 | 7 => Ok(format!("{}{}", u.choose(WORDS)?, u.choose(WORDS)?)),
        8 => {
            let times = u.int_in_range(1..=2000_usize)?;
            Ok(u.choose(WORDS)?.repeat(times))
        }
        _ => u.arbitrary::<String>(),
    }
}

/// A number where bounds lie.
pub(crate) fn number(u: &mut Unstructured<'_>) -> Result<u64> {
    const EDGES: &[u64] = &[
        0,
        1,
        2,
        3,
        16,
        32,
        33,
        80,
        100,
        101,
        128,
        129,
        200,
        599,
        1000,
        65_535,
        65_536,
        999_999_999,
        1_000_000_000,
        i32::MAX as u64,
        u32::MAX as u64,
        u32::MAX as u64 + 1,
        65_537,
        315_576_000_000,
        i64::MAX as u64,
        u64::MAX,
    ];
    if u.ratio(4, 5)? { Ok(*u.choose(EDGES)?) } else { u.arbitrary() }
}

/// Spoils text in a few places: lines and pieces moved, repeated, left out, replaced.
pub(crate) fn spoil(text: &str, u: &mut Unstructured<'_>) -> Result<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..u.int_in_range(0..=6)? {
        if lines.is_empty() {
            break;
        }
        let at = u.choose_index(lines.len())?;
        match u.int_in_range(0..=6)? {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            2 => lines.insert(at, self::text(u)?),
            3 => {
                let other = u.choose_index(lines.len())?;
                lines.swap(at, other);
            }
            4 => lines[at].insert_str(0, "  "),
            _ => {
                let line = &mut lines[at];
                let from = floor(line, u.choose_index(line.len() + 1)?);
                let to = floor(line, from + u.int_in_range(0..=8)?);
                let replacement = self::text(u)?;
                line.replace_range(from..to, &replacement);
            }
        }
    }
    Ok(lines.join("\n"))
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Spoils bytes in a few places.
pub(crate) fn spoil_bytes(bytes: &mut Vec<u8>, u: &mut Unstructured<'_>) -> Result<()> {
    for _ in 0..u.int_in_range(0..=4)? {
        if bytes.is_empty() {
            break;
        }
        let at = u.choose_index(bytes.len())?;
        match u.int_in_range(0..=3)? {
            0 => bytes[at] = u.arbitrary()?,
            1 => bytes[at] ^= 1 << u.int_in_range(0..=7)?,
            2 => bytes.truncate(at),
            _ => bytes.insert(at, u.arbitrary()?),
        }
    }
    Ok(())
}
