//! String, regular-expression, header and query matchers: rules 56 and 59 to 63, and Envoy's where gRPC has no word.

use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use pb::header_matcher::HeaderMatchSpecifier;
use pb::query_parameter_matcher::QueryParameterMatchSpecifier;

use super::Dialect;
use super::at::At;
use super::expressions;
use super::value::{header_name, is_sendable};
use crate::model::matcher::MatchName;
use crate::model::route::RegexRewrite;
use crate::model::{ByteRegex, HeaderMatch, HeaderTest, Pattern, QueryMatch, QueryTest, StringMatch};

/// Envoy's bound for the name of a query parameter.
const LONGEST_QUERY_NAME: usize = 1024;
/// Envoy's bound for an expression, in instructions of RE2's program: `re2.max_program_size.error_level` of its runtime. Envoy's
/// own default is 100, which is little: istio sets 32,768. 1,000 is what the recorded Envoy was run with.
const LARGEST_PROGRAM: u64 = 1000;

/// A regular expression: rules 56 and 61. `google_re2` and its `max_program_size` are not read.
pub(super) fn regex(value: &matcher::RegexMatcher, at: &At<'_>) -> Option<ByteRegex> {
    let at = at.field("regex");
    if value.regex.is_empty() {
        at.fault("is empty");
        return None;
    }
    match expressions::compile(&value.regex) {
        Ok(regex) => {
            let size = if Dialect::is_envoy() { regex.program_size() } else { 0 };
            if size > LARGEST_PROGRAM {
                at.fault(format!(
                    "is too large: RE2 may need {size} instructions for it, of at most {LARGEST_PROGRAM}"
                ));
                return None;
            }
            Some(regex)
        }
        Err(error) => {
            at.fault(format!("is not a regular expression: {error}"));
            None
        }
    }
}

/// `RegexMatchAndSubstitute`. The pattern is not anchored.
pub(super) fn rewrite(value: &matcher::RegexMatchAndSubstitute, at: &At<'_>) -> Option<RegexRewrite> {
    let here = at.field("pattern");
    let Some(pattern) = &value.pattern else {
        here.fault("is missing");
        return None;
    };
    let pattern = regex(pattern, &here);
    super::value::check_line(&value.substitution, &at.field("substitution"));
    let pattern = pattern?;
    let groups = pattern.search().captures_len();
    let substitution = if Dialect::is_envoy() {
        possible(&value.substitution, groups)
    } else {
        check_substitution(&value.substitution, groups, &at.field("substitution"));
        value.substitution.clone()
    };
    Some(RegexRewrite { pattern, substitution })
}

/// What RE2 does with a substitution that Envoy did not check: a group that is not there is empty, and the text ends at a
/// `\` that says nothing.
fn possible(text: &str, groups: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        if next != '\\' {
            out.push(next);
            continue;
        }
        match chars.next() {
            Some('\\') => out.push_str("\\\\"),
            Some(digit @ '0'..='9') => {
                if (digit as usize - '0' as usize) < groups {
                    out.extend(['\\', digit]);
                }
            }
            _ => break,
        }
    }
    out
}

/// RE2 knows `\0` to `\9` and `\\`, and a group must exist.
fn check_substitution(text: &str, groups: usize, at: &At<'_>) {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            continue;
        }
        match bytes.next() {
            Some(b'\\') => {}
            Some(digit) if digit.is_ascii_digit() => {
                let group = usize::from(digit - b'0');
                if group >= groups {
                    at.fault(format!("uses group {group}, which the pattern does not have"));
                }
            }
            _ => at.fault("has a `\\` that is followed by neither a digit nor another `\\`"),
        }
    }
}

/// A `StringMatcher`: rule 62.
pub(super) fn string(value: &matcher::StringMatcher, at: &At<'_>) -> Option<StringMatch> {
    use matcher::string_matcher::MatchPattern;
    let pattern = match &value.match_pattern {
        Some(MatchPattern::Exact(text)) => Pattern::Exact(text.clone()),
        Some(MatchPattern::Prefix(text)) => Pattern::Prefix(not_empty(text, &at.field("prefix"))?),
        Some(MatchPattern::Suffix(text)) => Pattern::Suffix(not_empty(text, &at.field("suffix"))?),
        Some(MatchPattern::Contains(text)) => Pattern::Contains(not_empty(text, &at.field("contains"))?),
        Some(MatchPattern::SafeRegex(value)) => Pattern::Regex(regex(value, &at.field("safe_regex"))?),
        Some(MatchPattern::Custom(_)) => {
            at.field("custom").fault("is a kind of matcher that is not known here");
            return None;
        }
        None => {
            at.fault("has no pattern");
            return None;
        }
    };
    if value.ignore_case && matches!(pattern, Pattern::Regex(_)) {
        at.field("ignore_case").envoy_fault("has no effect on safe_regex; write `(?i)` in the expression");
    }
    Some(StringMatch { pattern, ignore_case: value.ignore_case })
}

/// Rule 60: prefix, suffix and contains must say something.
fn not_empty(text: &str, at: &At<'_>) -> Option<String> {
    if text.is_empty() {
        at.fault("is empty");
        return None;
    }
    Some(text.to_owned())
}

/// Several string matchers.
pub(super) fn strings(values: &[matcher::StringMatcher], name: &str, at: &At<'_>) -> Vec<StringMatch> {
    values.iter().enumerate().filter_map(|(index, value)| string(value, &at.item(name, index))).collect()
}

/// A `HeaderMatcher`.
pub(super) fn header(value: &pb::HeaderMatcher, at: &At<'_>) -> Option<HeaderMatch> {
    let name = match_name(&value.name, &at.field("name"));
    let test = header_test(value, at);
    Some(HeaderMatch {
        name: name?,
        test: test?,
        invert: value.invert_match,
        treat_missing_as_empty: value.treat_missing_header_as_empty,
    })
}

/// Several header matchers.
pub(super) fn headers(values: &[pb::HeaderMatcher], name: &str, at: &At<'_>) -> Vec<HeaderMatch> {
    values.iter().enumerate().filter_map(|(index, value)| header(value, &at.item(name, index))).collect()
}

pub(super) fn match_name(name: &str, at: &At<'_>) -> Option<MatchName> {
    match name.to_ascii_lowercase().as_str() {
        ":method" => Some(MatchName::Method),
        ":authority" | "host" => Some(MatchName::Authority),
        ":path" => Some(MatchName::Path),
        ":scheme" => Some(MatchName::Scheme),
        _ if Dialect::is_envoy() && is_sendable(name) == Some(false) => Some(MatchName::Impossible(name.to_owned())),
        _ => header_name(name, at).map(MatchName::Header),
    }
}

fn header_test(value: &pb::HeaderMatcher, at: &At<'_>) -> Option<HeaderTest> {
    let text = |pattern| Some(HeaderTest::String(StringMatch { pattern, ignore_case: false }));
    match &value.header_match_specifier {
        // Rule 60: an empty exact_match is fine.
        Some(HeaderMatchSpecifier::ExactMatch(exact)) => text(Pattern::Exact(exact.clone())),
        Some(HeaderMatchSpecifier::PrefixMatch(prefix)) => {
            text(Pattern::Prefix(not_empty(prefix, &at.field("prefix_match"))?))
        }
        Some(HeaderMatchSpecifier::SuffixMatch(suffix)) => {
            text(Pattern::Suffix(not_empty(suffix, &at.field("suffix_match"))?))
        }
        Some(HeaderMatchSpecifier::ContainsMatch(part)) => {
            text(Pattern::Contains(not_empty(part, &at.field("contains_match"))?))
        }
        // Rule 61.
        Some(HeaderMatchSpecifier::SafeRegexMatch(value)) => {
            text(Pattern::Regex(regex(value, &at.field("safe_regex_match"))?))
        }
        Some(HeaderMatchSpecifier::StringMatch(value)) => {
            string(value, &at.field("string_match")).map(HeaderTest::String)
        }
        Some(HeaderMatchSpecifier::PresentMatch(present)) => Some(HeaderTest::Present(*present)),
        Some(HeaderMatchSpecifier::RangeMatch(range)) => {
            // Rule 63. In Envoy nothing is in it.
            if range.start > range.end {
                at.field("range_match").grpc_fault("starts after its end");
            }
            Some(HeaderTest::Range { start: range.start, end: range.end })
        }
        // Rule 59. A matcher newer than this version looks the same; Envoy takes that risk.
        None if Dialect::is_envoy() => Some(HeaderTest::Present(true)),
        None => {
            at.fault("does not say what the header must be; to ask for its presence, set `present_match: true`");
            None
        }
    }
}

/// A `QueryParameterMatcher`. gRPC has none; Envoy's bounds.
pub(super) fn query(value: &pb::QueryParameterMatcher, at: &At<'_>) -> Option<QueryMatch> {
    if value.name.is_empty() || value.name.len() > LONGEST_QUERY_NAME {
        at.field("name").fault("must have from 1 to 1024 bytes");
    }
    let test = match &value.query_parameter_match_specifier {
        Some(QueryParameterMatchSpecifier::StringMatch(value)) => {
            QueryTest::String(string(value, &at.field("string_match"))?)
        }
        Some(QueryParameterMatchSpecifier::PresentMatch(present)) => QueryTest::Present(*present),
        None => QueryTest::Present(true),
    };
    Some(QueryMatch { name: value.name.clone(), test })
}
