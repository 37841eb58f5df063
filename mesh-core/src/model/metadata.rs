//! Questions about metadata: what filters found out of a request, or a route says of itself.

use super::StringMatch;

/// `type.matcher.v3.MetadataMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataMatch {
    /// Where the value is looked up.
    pub source: MetadataSource,
    /// The namespace: the name of the filter that set it.
    pub filter: String,
    /// The keys from there to the value.
    pub path: Vec<String>,
    /// What it must be.
    pub value: ValueMatch,
    /// Invert the result, also of a value that is not there.
    pub invert: bool,
}

/// `config.rbac.v3.MetadataSource`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataSource {
    /// What filters found out of the request.
    Dynamic,
    /// The route's own.
    Route,
}

/// `type.matcher.v3.ValueMatcher`. A value that is not there matches none.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueMatch {
    /// It is null.
    Null,
    /// It is this number.
    Number(f64),
    /// It is a number in `start..end`.
    NumberRange {
        /// The first number inside.
        start: f64,
        /// The first number past the end.
        end: f64,
    },
    /// It is a string that matches.
    String(StringMatch),
    /// It is this truth.
    Bool(bool),
    /// It is there (`true`); `false` matches nothing.
    Present(bool),
    /// It is a list with an element that matches.
    OneOf(Box<ValueMatch>),
    /// Any of these matches.
    Or(Vec<ValueMatch>),
}
