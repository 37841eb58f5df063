//! `xdstp:` names: read, checked, and spelled in one way (gRFC A47 and xRFC TP1; `spec` section 2.10).

use std::collections::BTreeMap;
use std::fmt;

use super::percent;
use crate::model::Name;

/// How a name of this kind begins.
const SCHEME: &str = "xdstp:";

/// A resource's name as a URI: `xdstp://authority/type/id?context`.
///
/// Two names are the same resource if they are equal here: the order of context parameters and needless escapes mean nothing.
/// [`Display`](fmt::Display) gives the one spelling by which the resource is known, asked for and compared.
///
/// ```
/// use mesh_core::resource::XdstpName;
///
/// let name = XdstpName::parse("xdstp://east.example.com/envoy.config.cluster.v3.Cluster/a%2Db?zone=1&env=prod")?;
/// assert_eq!(name.authority(), "east.example.com");
/// assert_eq!(name.to_string(), "xdstp://east.example.com/envoy.config.cluster.v3.Cluster/a-b?env=prod&zone=1");
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XdstpName {
    authority: String,
    type_url: String,
    id: String,
    context: BTreeMap<String, String>,
}

impl XdstpName {
    /// Whether `name` is meant to be one: every other name belongs to the bootstrap's own servers.
    pub fn is_meant(name: &str) -> bool {
        name.starts_with(SCHEME)
    }

    /// Reads one. Without an authority, or with an empty one, the authority is `""`, as in gRFC A47. Of two context parameters
    /// with one key the later one counts.
    ///
    /// # Errors
    ///
    /// What is wrong with it. Collections (`.../*`) and directives (`#...`) are not supported.
    pub fn parse(name: &str) -> Result<Self, String> {
        let rest = name.strip_prefix(SCHEME).ok_or_else(|| format!("does not begin with `{SCHEME}`"))?;
        if rest.contains('#') {
            return Err("has directives after `#`, which are not supported".to_owned());
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match path.strip_prefix("//") {
            Some(path) => path.split_once('/').unwrap_or((path, "")),
            None => ("", path.strip_prefix('/').unwrap_or(path)),
        };
        let malformed = || "is not validly percent-encoded".to_owned();
        let path = percent::normalize(path).ok_or_else(malformed)?;
        let (type_url, id) = path.split_once('/').unwrap_or((&path, ""));
        if type_url.is_empty() || id.is_empty() {
            return Err("is not `xdstp://authority/type/id`".to_owned());
        }
        if id == "*" || id.ends_with("/*") {
            return Err("names a collection, which is not supported".to_owned());
        }
        let mut context = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            context.insert(
                percent::normalize(key).ok_or_else(malformed)?,
                percent::normalize(value).ok_or_else(malformed)?,
            );
        }
        Ok(Self {
            authority: percent::decode(authority).ok_or_else(malformed)?,
            type_url: type_url.to_owned(),
            id: id.to_owned(),
            context,
        })
    }

    /// The authority, decoded: the key in the bootstrap's `authorities`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The resource's type, without `type.googleapis.com/`.
    pub fn type_url(&self) -> &str {
        &self.type_url
    }
}

impl fmt::Display for XdstpName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}//{}/{}/{}", percent::encode_authority(&self.authority), self.type_url, self.id)?;
        for (index, (key, value)) in self.context.iter().enumerate() {
            write!(f, "{}{key}={value}", if index == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

/// The one spelling of a name. One that is no `xdstp:` name, or none that can be read, is its own.
pub(super) fn canonical(name: Name) -> Name {
    if !XdstpName::is_meant(&name) {
        return name;
    }
    match XdstpName::parse(&name).map(|parsed| parsed.to_string()) {
        Ok(spelled) if *spelled != *name => spelled.into(),
        _ => name,
    }
}

/// What keeps `name` from being that of a resource of type `type_url` (`spec` 3.1, rule 6).
pub(crate) fn fault(type_url: &str, name: &str) -> Option<String> {
    if !XdstpName::is_meant(name) {
        return None;
    }
    match XdstpName::parse(name) {
        Err(why) => Some(why),
        Ok(parsed) if parsed.type_url != type_url => Some(format!("names a resource of type `{}`", parsed.type_url)),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(name: &str) -> String {
        XdstpName::parse(name).unwrap().to_string()
    }

    #[test]
    fn a47_equal_names_have_one_spelling() {
        for (written, expected) in [
            ("xdstp://a/t/x", "xdstp://a/t/x"),
            ("xdstp://a/t/x?b=2&a=1", "xdstp://a/t/x?a=1&b=2"),
            ("xdstp://a/t/x?a=1&a=2", "xdstp://a/t/x?a=2"),
            ("xdstp://a/t/x?", "xdstp://a/t/x"),
            ("xdstp://a/t/x?flag", "xdstp://a/t/x?flag="),
            ("xdstp://a/t/dir/x%7ey", "xdstp://a/t/dir/x~y"),
            ("xdstp://a/t/x y%2f", "xdstp://a/t/x%20y%2F"),
            ("xdstp://a/t/x?k%3d=v%26w", "xdstp://a/t/x?k%3D=v%26w"),
            ("xdstp:///t/x", "xdstp:///t/x"),
            ("xdstp:t/x", "xdstp:///t/x"),
        ] {
            assert_eq!(spelled(written), expected, "{written}");
            assert_eq!(spelled(expected), expected, "spelling is stable");
        }
    }

    #[test]
    fn a47_what_an_escape_sets_apart_stays_apart() {
        assert_ne!(XdstpName::parse("xdstp://a/t/x%2Fy"), XdstpName::parse("xdstp://a/t/x/y"));
        assert_ne!(XdstpName::parse("xdstp://a/t/x?k=1%26l=2"), XdstpName::parse("xdstp://a/t/x?k=1&l=2"));
    }

    #[test]
    fn a47_the_authority_is_decoded_and_may_be_empty() {
        assert_eq!(XdstpName::parse("xdstp://a%20b/t/x").unwrap().authority(), "a b");
        assert_eq!(XdstpName::parse("xdstp:///t/x").unwrap().authority(), "");
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        for (name, why) in [
            ("xdstp://a", "xdstp://authority/type/id"),
            ("xdstp://a/t", "xdstp://authority/type/id"),
            ("xdstp://a/t/", "xdstp://authority/type/id"),
            ("xdstp://a//x", "xdstp://authority/type/id"),
            ("xdstp://a/t/%zz", "percent-encoded"),
            ("xdstp://a%f/t/x", "percent-encoded"),
            ("xdstp://a/t/x?k=%", "percent-encoded"),
            ("xdstp://a/t/dir/*", "collection"),
            ("xdstp://a/t/*", "collection"),
            ("xdstp://a/t/x#alt=y", "directives"),
            ("x", "xdstp:"),
        ] {
            let error = XdstpName::parse(name).unwrap_err();
            assert!(error.contains(why), "{name}: {error}");
        }
    }

    #[test]
    fn rule_6_the_type_in_a_name_is_the_resources() {
        assert_eq!(fault("t", "xdstp://a/t/x"), None);
        assert_eq!(fault("t", "plain"), None);
        assert!(fault("t", "xdstp://a/u/x").is_some_and(|why| why.contains("`u`")));
        assert!(fault("t", "xdstp://a").is_some());
    }
}
