//! Matchers and rewrites in the words of the configuration, one line each: what `explain` shows.

use std::fmt::{self, Display, Formatter};

use crate::model::matcher::MatchName;
use crate::model::{
    ClusterChoice, CookieMatch, Fraction, HeaderMatch, HeaderTest, HostRewrite, MetadataMatch, Mirror, PathMatch,
    Pattern, QueryMatch, QueryTest, StringMatch, ValueMatch,
};

impl Display for PathMatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => write!(f, "prefix: {prefix:?}"),
            Self::Exact(path) => write!(f, "path: {path:?}"),
            Self::Regex(regex) => write!(f, "safe_regex: {:?}", regex.as_str()),
            Self::SeparatedPrefix(prefix) => write!(f, "path_separated_prefix: {prefix:?}"),
            Self::Template(template) => write!(f, "path_template: {:?}", template.text),
            Self::Connect => f.write_str("connect_matcher"),
        }
    }
}

impl Display for StringMatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.pattern {
            Pattern::Exact(text) => write!(f, "exact: {text:?}")?,
            Pattern::Prefix(text) => write!(f, "prefix: {text:?}")?,
            Pattern::Suffix(text) => write!(f, "suffix: {text:?}")?,
            Pattern::Contains(text) => write!(f, "contains: {text:?}")?,
            Pattern::Regex(regex) => write!(f, "safe_regex: {:?}", regex.as_str())?,
        }
        said_if(f, self.ignore_case, "ignore_case")
    }
}

fn said_if(f: &mut Formatter<'_>, is_so: bool, what: &str) -> fmt::Result {
    if is_so { write!(f, ", {what}") } else { Ok(()) }
}

impl Display for MatchName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => ":method",
            Self::Authority => ":authority",
            Self::Path => ":path",
            Self::Scheme => ":scheme",
            Self::Header(name) => name.as_str(),
            Self::Impossible(name) => return write!(f, "{name:?}"),
        })
    }
}

impl Display for HeaderMatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name)?;
        match &self.test {
            HeaderTest::String(test) => write!(f, "{test}")?,
            HeaderTest::Range { start, end } => write!(f, "range_match: {start} to {end}")?,
            HeaderTest::Present(present) => write!(f, "present_match: {present}")?,
        }
        said_if(f, self.treat_missing_as_empty, "treat_missing_header_as_empty")?;
        said_if(f, self.invert, "invert_match")
    }
}

impl Display for QueryMatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.test {
            QueryTest::String(test) => write!(f, "{} {test}", self.name),
            QueryTest::Present(present) => write!(f, "{} present_match: {present}", self.name),
        }
    }
}

impl Display for CookieMatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.test)?;
        said_if(f, self.invert, "invert_match")
    }
}

impl Display for MetadataMatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.filter)?;
        for key in &self.path {
            write!(f, ".{key}")?;
        }
        write!(f, " {}", self.value)?;
        said_if(f, self.invert, "invert")
    }
}

impl Display for ValueMatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null_match"),
            Self::Number(number) => write!(f, "double_match: {number}"),
            Self::NumberRange { start, end } => write!(f, "double_match: {start} to {end}"),
            Self::String(test) => write!(f, "{test}"),
            Self::Bool(truth) => write!(f, "bool_match: {truth}"),
            Self::Present(present) => write!(f, "present_match: {present}"),
            Self::OneOf(one) => write!(f, "list_match of {one}"),
            Self::Or(any) => {
                f.write_str("or_match of ")?;
                for (index, one) in any.iter().enumerate() {
                    write!(f, "{}{one}", if index == 0 { "" } else { " | " })?;
                }
                Ok(())
            }
        }
    }
}

impl Display for Fraction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.numerator, self.denominator)
    }
}

impl Display for HostRewrite {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(host) => write!(f, "becomes {host}"),
            Self::Auto => f.write_str("becomes the endpoint's hostname (auto_host_rewrite)"),
            Self::Header(name) => write!(f, "becomes what the header {name} says"),
            Self::PathRegex(rewrite) => {
                write!(f, "is made of the path by {:?} and {:?}", rewrite.pattern.as_str(), rewrite.substitution)
            }
            Self::Format(format) => write!(f, "becomes {}", String::from_utf8_lossy(format.as_bytes())),
        }
    }
}

impl Display for Mirror {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.cluster {
            ClusterChoice::Cluster(name) => write!(f, "to cluster `{name}`")?,
            ClusterChoice::Header(header) => write!(f, "to the cluster that the header {header} names")?,
            ClusterChoice::Weighted(_) => f.write_str("to one of several clusters")?,
        }
        write!(f, ", {}", self.fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ByteRegex, MetadataSource};

    fn header(test: HeaderTest, invert: bool) -> HeaderMatch {
        HeaderMatch { name: MatchName::Header("x-user".parse().unwrap()), test, invert, treat_missing_as_empty: invert }
    }

    #[test]
    fn a_matcher_is_one_line_in_the_words_of_the_configuration() {
        let text = |pattern, ignore_case| StringMatch { pattern, ignore_case };
        let regex = || ByteRegex::new("a.*").unwrap();
        let exact = || text(Pattern::Exact("ann\n".to_owned()), true);
        let metadata = MetadataMatch {
            source: MetadataSource::Dynamic,
            filter: "jwt".to_owned(),
            path: vec!["claims".to_owned(), "sub".to_owned()],
            value: ValueMatch::Or(vec![ValueMatch::String(exact()), ValueMatch::Null]),
            invert: true,
        };
        let said: Vec<(Box<dyn Display>, &str)> = vec![
            (Box::new(PathMatch::Prefix("/api".to_owned())), "prefix: \"/api\""),
            (Box::new(PathMatch::Regex(regex())), "safe_regex: \"a.*\""),
            (Box::new(PathMatch::Connect), "connect_matcher"),
            (Box::new(header(HeaderTest::String(exact()), false)), "x-user exact: \"ann\\n\", ignore_case"),
            (
                Box::new(header(HeaderTest::Range { start: 1, end: 5 }, true)),
                "x-user range_match: 1 to 5, treat_missing_header_as_empty, invert_match",
            ),
            (Box::new(header(HeaderTest::Present(true), false)), "x-user present_match: true"),
            (
                Box::new(QueryMatch {
                    name: "q".to_owned(),
                    test: QueryTest::String(text(Pattern::Regex(regex()), false)),
                }),
                "q safe_regex: \"a.*\"",
            ),
            (Box::new(metadata), "jwt.claims.sub or_match of exact: \"ann\\n\", ignore_case | null_match, invert"),
            (Box::new(Fraction { numerator: 5, denominator: 100 }), "5 of 100"),
        ];
        for (matcher, expected) in said {
            let said = matcher.to_string();
            assert_eq!(said, expected);
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}
