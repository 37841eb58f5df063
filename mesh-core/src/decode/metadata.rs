//! Metadata matchers.

use envoy_types::pb::envoy::r#type::matcher::v3 as pb;
use pb::double_matcher::MatchPattern as DoublePattern;
use pb::list_matcher::MatchPattern as ListPattern;
use pb::metadata_matcher::path_segment::Segment;
use pb::value_matcher::MatchPattern;

use super::at::At;
use super::matcher;
use crate::model::{MetadataMatch, MetadataSource, ValueMatch};

/// A `MetadataMatcher`, with the bounds of its documentation.
pub(super) fn matches(value: &pb::MetadataMatcher, source: MetadataSource, at: &At<'_>) -> Option<MetadataMatch> {
    if value.filter.is_empty() {
        at.field("filter").fault("is empty");
    }
    if value.path.is_empty() {
        at.field("path").fault("is empty");
    }
    let path: Vec<String> = (value.path.iter().enumerate())
        .filter_map(|(index, step)| match &step.segment {
            Some(Segment::Key(key)) if !key.is_empty() => Some(key.clone()),
            _ => {
                at.item("path", index).fault("must have a key that is not empty");
                None
            }
        })
        .collect();
    let Some(wanted) = &value.value else {
        at.field("value").fault("is missing");
        return None;
    };
    let wanted = value_match(wanted, &at.field("value"))?;
    Some(MetadataMatch { source, filter: value.filter.clone(), path, value: wanted, invert: value.invert })
}

/// prost bounds the depth.
fn value_match(value: &pb::ValueMatcher, at: &At<'_>) -> Option<ValueMatch> {
    match &value.match_pattern {
        Some(MatchPattern::NullMatch(_)) => Some(ValueMatch::Null),
        Some(MatchPattern::DoubleMatch(number)) => double(number, &at.field("double_match")),
        Some(MatchPattern::StringMatch(text)) => {
            matcher::string(text, &at.field("string_match")).map(ValueMatch::String)
        }
        Some(MatchPattern::BoolMatch(truth)) => Some(ValueMatch::Bool(*truth)),
        Some(MatchPattern::PresentMatch(present)) => Some(ValueMatch::Present(*present)),
        Some(MatchPattern::ListMatch(list)) => match &list.match_pattern {
            Some(ListPattern::OneOf(one)) => {
                value_match(one, &at.field("list_match").field("one_of")).map(|one| ValueMatch::OneOf(Box::new(one)))
            }
            None => {
                at.field("list_match").fault("does not say what one of its elements must be");
                None
            }
        },
        Some(MatchPattern::OrMatch(any)) => {
            let here = at.field("or_match");
            if any.value_matchers.len() < 2 {
                here.field("value_matchers").fault("must be two or more");
            }
            let any = any.value_matchers.iter().enumerate();
            let any = any.filter_map(|(index, one)| value_match(one, &here.item("value_matchers", index))).collect();
            Some(ValueMatch::Or(any))
        }
        None => {
            at.fault("does not say what the value must be");
            None
        }
    }
}

fn double(value: &pb::DoubleMatcher, at: &At<'_>) -> Option<ValueMatch> {
    match &value.match_pattern {
        Some(DoublePattern::Exact(number)) => Some(ValueMatch::Number(*number)),
        Some(DoublePattern::Range(range)) => Some(ValueMatch::NumberRange { start: range.start, end: range.end }),
        None => {
            at.fault("has neither exact nor range");
            None
        }
    }
}
