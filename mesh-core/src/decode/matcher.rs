//! String, regular-expression, header and query matchers: rules 56 and 59 to 63, and Envoy's where gRPC has no word.

use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use pb::header_matcher::HeaderMatchSpecifier;
use pb::query_parameter_matcher::QueryParameterMatchSpecifier;

use super::at::At;
use super::expressions;
use super::value::header_name;
use crate::model::matcher::MatchName;
use crate::model::route::RegexRewrite;
use crate::model::{ByteRegex, HeaderMatch, HeaderTest, Pattern, QueryMatch, QueryTest, StringMatch};

/// Envoy's bound for the name of a query parameter.
const LONGEST_QUERY_NAME: usize = 1024;
/// RE2's bound for a counted repetition.
const MOST_REPEATS: u32 = 1000;

/// A regular expression: rules 56 and 61. `google_re2` and its `max_program_size` are not read.
pub(super) fn regex(value: &matcher::RegexMatcher, at: &At<'_>) -> Option<ByteRegex> {
    let at = at.field("regex");
    if value.regex.is_empty() {
        at.fault("is empty");
        return None;
    }
    if repeats_too_often(&value.regex) {
        at.fault(format!("repeats something more than {MOST_REPEATS} times"));
        return None;
    }
    expressions::compile(&value.regex).map_err(|error| at.fault(format!("is not a regular expression: {error}"))).ok()
}

/// Whether a counted repetition is more than RE2 takes.
fn repeats_too_often(pattern: &str) -> bool {
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        rest = &rest[open + 1..];
        let inside = rest.split('}').next().unwrap_or_default();
        let counts = inside.split(',').filter_map(|count| count.parse::<u64>().ok());
        let is_count = inside.bytes().all(|byte| byte.is_ascii_digit() || byte == b',');
        if is_count && counts.max().is_some_and(|most| most > u64::from(MOST_REPEATS)) {
            return true;
        }
    }
    false
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
    check_substitution(&value.substitution, groups, &at.field("substitution"));
    Some(RegexRewrite { pattern, substitution: value.substitution.clone() })
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
            // Rule 63.
            if range.start > range.end {
                at.field("range_match").fault("starts after its end");
            }
            Some(HeaderTest::Range { start: range.start, end: range.end })
        }
        // Rule 59. Envoy reads it as "is present", but so would it read a matcher newer than itself.
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
