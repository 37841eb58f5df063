//! Does this metadata match? For whoever asks: authorization today.

use serde_json::Value;

use crate::model::{Metadata, MetadataMatch, ValueMatch};

impl MetadataMatch {
    /// Whether `metadata`, of the kind that [`source`](Self::source) names, matches.
    pub fn is_match(&self, metadata: &Metadata) -> bool {
        let mut path = self.path.iter();
        let found = metadata.get(&self.filter).and_then(|root| path.try_fold(root, |value, key| value.get(key)));
        found.is_some_and(|value| self.value.is_match(value)) != self.invert
    }
}

impl ValueMatch {
    /// Whether a value that is there matches.
    pub fn is_match(&self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            // Bit for bit what the configuration says: whoever asks for 0.1 + 0.2 gets it.
            Self::Number(wanted) => value.as_f64().is_some_and(|number| number.total_cmp(wanted).is_eq()),
            Self::NumberRange { start, end } => value.as_f64().is_some_and(|number| (*start..*end).contains(&number)),
            Self::String(wanted) => value.as_str().is_some_and(|text| wanted.is_match(text.as_bytes())),
            Self::Bool(wanted) => value.as_bool() == Some(*wanted),
            Self::Present(wanted) => *wanted,
            Self::OneOf(wanted) => value.as_array().is_some_and(|list| list.iter().any(|item| wanted.is_match(item))),
            Self::Or(wanted) => wanted.iter().any(|wanted| wanted.is_match(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{MetadataSource, Pattern, StringMatch};

    fn exact(text: &str) -> ValueMatch {
        ValueMatch::String(StringMatch { pattern: Pattern::Exact(text.to_owned()), ignore_case: false })
    }

    #[test]
    fn values_match_by_their_kind() {
        let either = ValueMatch::Or(vec![ValueMatch::Null, ValueMatch::Number(3.0)]);
        for (matcher, value, expected) in [
            (ValueMatch::Null, json!(null), true),
            (ValueMatch::Null, json!(0), false),
            (ValueMatch::Number(1.5), json!(1.5), true),
            (ValueMatch::Number(1.0), json!("1"), false),
            (ValueMatch::NumberRange { start: 1.0, end: 2.0 }, json!(1), true),
            (ValueMatch::NumberRange { start: 1.0, end: 2.0 }, json!(2), false),
            (exact("a"), json!("a"), true),
            (exact("a"), json!(["a"]), false),
            (ValueMatch::OneOf(Box::new(exact("a"))), json!(["b", "a"]), true),
            (ValueMatch::OneOf(Box::new(exact("a"))), json!("a"), false),
            (ValueMatch::Bool(false), json!(false), true),
            (ValueMatch::Bool(false), json!(null), false),
            (ValueMatch::Present(true), json!({}), true),
            (ValueMatch::Present(false), json!({}), false),
            (either.clone(), json!(3), true),
            (either, json!(4), false),
        ] {
            assert_eq!(matcher.is_match(&value), expected, "{matcher:?} {value}");
        }
    }

    #[test]
    fn what_is_not_there_matches_only_inverted() {
        let metadata = Metadata::from([("jwt".to_owned(), json!({"claims": {"sub": "ann"}}))]);
        let ask = |filter: &str, path: &[&str], value, invert| {
            let path = path.iter().map(|&key| key.to_owned()).collect();
            let source = MetadataSource::Dynamic;
            MetadataMatch { source, filter: filter.to_owned(), path, value, invert }.is_match(&metadata)
        };
        assert!(ask("jwt", &["claims", "sub"], exact("ann"), false));
        assert!(!ask("jwt", &["claims", "sub"], exact("ann"), true));
        assert!(!ask("jwt", &["claims", "sub", "deeper"], ValueMatch::Present(true), false), "a string has no keys");
        for (filter, path) in [("other", ["claims"]), ("jwt", ["none"])] {
            for value in [ValueMatch::Present(true), ValueMatch::Present(false), ValueMatch::Null] {
                assert!(!ask(filter, &path, value.clone(), false), "{filter} {value:?}");
                assert!(ask(filter, &path, value.clone(), true), "{filter} {value:?}");
            }
        }
    }
}
