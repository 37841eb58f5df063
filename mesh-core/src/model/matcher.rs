//! The smallest questions a configuration asks of a request: does this string, header, path or query parameter match?
//!
//! Everything is matched as bytes. A header's value need not be UTF-8, and what Envoy's regular expressions see is Latin-1:
//! `admin.` matches `admin\xff` and not `admin\xc3\xa9` (CVE-2026-73552).

use std::fmt;

use http::HeaderName;

use super::re2;

/// `type.matcher.v3.StringMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringMatch {
    /// What to look for.
    pub pattern: Pattern,
    /// Compare ASCII letters without case. Has no effect on a regular expression (gRFC A63).
    pub ignore_case: bool,
}

/// The kinds of [`StringMatch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// The whole string.
    Exact(String),
    /// Its beginning; never empty.
    Prefix(String),
    /// Its end; never empty.
    Suffix(String),
    /// Any part; never empty.
    Contains(String),
    /// A regular expression over the whole string.
    Regex(ByteRegex),
}

/// A linear-time regular expression in RE2's syntax (`re2` beside this) that must match the whole input, byte by byte.
#[derive(Clone)]
pub struct ByteRegex {
    pattern: String,
    source: String,
    whole: regex::bytes::Regex,
    anywhere: regex::bytes::Regex,
}

impl ByteRegex {
    /// The most memory one compiled expression may take, so that a hostile configuration cannot exhaust the process.
    pub const SIZE_LIMIT: usize = 1 << 20;

    /// Compiles `pattern`; the error is the compiler's own text.
    pub fn new(pattern: &str) -> Result<Self, String> {
        Self::within(pattern, Self::SIZE_LIMIT)
    }

    /// Compiles `pattern`, whose program may have `size` bytes.
    pub(crate) fn within(pattern: &str, size: usize) -> Result<Self, String> {
        let build = |text: &str| {
            regex::bytes::RegexBuilder::new(text)
                .unicode(false)
                .size_limit(size)
                .build()
                .map_err(|error| error.to_string())
        };
        let source = re2::translate(pattern)?;
        // The unanchored one is compiled first: an unbalanced `)` must not escape the group around the whole.
        let anywhere = build(&source)?;
        let whole = build(&format!("^(?:{source})$"))?;
        Ok(Self { pattern: pattern.to_owned(), source, whole, anywhere })
    }

    /// Whether the whole of `input` matches.
    pub fn is_full_match(&self, input: &[u8]) -> bool {
        self.whole.is_match(input)
    }

    /// The expression for searching and replacing inside a string (regex rewrites).
    pub fn search(&self) -> &regex::bytes::Regex {
        &self.anywhere
    }

    /// The pattern as the `regex` crate has it, without Unicode.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// At least as many instructions as RE2's program of the pattern has.
    pub(crate) fn program_size(&self) -> u64 {
        re2::program_size(&self.source)
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }
}

impl fmt::Debug for ByteRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ByteRegex").field(&self.pattern).finish()
    }
}

impl PartialEq for ByteRegex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for ByteRegex {}

/// `config.route.v3.HeaderMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// The header's name, lower case. Pseudo-headers keep their colon and are kept apart from real headers.
    pub name: MatchName,
    /// What its value must be.
    pub test: HeaderTest,
    /// Invert the result.
    pub invert: bool,
    /// Treat an absent header as an empty value instead of as "does not match".
    pub treat_missing_as_empty: bool,
}

/// The name a [`HeaderMatch`] looks up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MatchName {
    /// `:method`.
    Method,
    /// `:authority`, which `host` is another name for.
    Authority,
    /// `:path`, with the query string.
    Path,
    /// `:scheme`.
    Scheme,
    /// A header.
    Header(HeaderName),
    /// A header that no message can have: one that is never there.
    Impossible(String),
}

/// What a [`HeaderMatch`] asks of the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderTest {
    /// The value matches.
    String(StringMatch),
    /// The value is a base-10 integer in `start..end`.
    Range {
        /// The first integer inside.
        start: i64,
        /// The first integer past the end.
        end: i64,
    },
    /// The header is there (`true`) or is not (`false`).
    Present(bool),
}

/// `config.route.v3.QueryParameterMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryMatch {
    /// The parameter's name.
    pub name: String,
    /// What its (first) value must be.
    pub test: QueryTest,
}

/// What a [`QueryMatch`] asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryTest {
    /// The value matches.
    String(StringMatch),
    /// The parameter is there (`true`) or is not (`false`).
    Present(bool),
}

/// `config.route.v3.CookieMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieMatch {
    /// The cookie's name.
    pub name: String,
    /// What its (first) value must be, without the quotes that may be around it.
    pub test: StringMatch,
    /// Invert the result, that of a cookie which is not there included.
    pub invert: bool,
}

/// The path half of `config.route.v3.RouteMatch`. The query string is not part of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathMatch {
    /// The path begins so; `""` matches every path.
    Prefix(String),
    /// The whole path.
    Exact(String),
    /// The whole path, by regular expression. `case_sensitive` does not apply to it.
    Regex(ByteRegex),
    /// The path is this, or continues it after a `/` (`path_separated_prefix`).
    SeparatedPrefix(String),
    /// `envoy.path.match.uri_template.uri_template_matcher`.
    Template(UriTemplate),
    /// `connect_matcher`: matches CONNECT requests only.
    Connect,
}

/// A URI template of `extensions.path.match.uri_template.v3`, as written and as the expression that recognises it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriTemplate {
    /// The template: `/api/{version}/**`.
    pub text: String,
    /// The expression, with one named group for each variable.
    pub regex: ByteRegex,
}

/// `type.v3.FractionalPercent`: `numerator` of `denominator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    /// The share; more than `denominator` means always.
    pub numerator: u32,
    /// 100, 10,000 or 1,000,000.
    pub denominator: u32,
}

impl Fraction {
    /// Always.
    pub const ALWAYS: Self = Self { numerator: 100, denominator: 100 };

    /// Whether a draw of `random` (any 64 bits) falls inside; strictly below, so that 0 never does.
    pub fn contains(self, random: u64) -> bool {
        random % u64::from(self.denominator) < u64::from(self.numerator)
    }
}
