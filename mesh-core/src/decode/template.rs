//! URI templates (`extensions.path.match.uri_template.v3` and its rewriter): from text to an expression.
//!
//! `*` is one segment, `**` any number of characters and last of its kind, `{name}` one named segment, `{name=pattern}` a
//! named pattern of literals, `*` and `**`.

use super::at::At;
use super::expressions;
use crate::model::matcher::UriTemplate;

/// Envoy's bound for variables in one template.
const MOST_VARIABLES: usize = 5;
/// Envoy's bound for a variable's name.
const LONGEST_NAME: usize = 16;
/// One segment's characters: RFC 3986's `pchar` without `*`.
const SEGMENT: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]+";
/// Any characters of a path.
const ANYTHING: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=/]*";

/// Reads a template that matches.
pub(super) fn matcher(text: &str, at: &At<'_>) -> Option<UriTemplate> {
    match Parser::default().template(text) {
        Ok(pattern) => match expressions::compile(&pattern) {
            Ok(regex) => Some(UriTemplate { text: text.to_owned(), regex }),
            Err(error) => {
                at.fault(format!("cannot be used: {error}"));
                None
            }
        },
        Err(rule) => {
            at.fault(rule);
            None
        }
    }
}

/// Checks a template that rewrites: every variable must be one that `from` captures.
pub(super) fn check_rewrite(text: &str, from: &UriTemplate, at: &At<'_>) {
    let known: Vec<&str> = from.regex.search().capture_names().flatten().collect();
    match variables(text) {
        Err(rule) => at.fault(rule),
        Ok(used) => {
            for name in used.into_iter().filter(|name| !known.contains(name)) {
                at.fault(format!("uses `{{{name}}}`, which the route's path_template does not capture"));
            }
        }
    }
}

/// The variables that a rewriting template uses.
fn variables(text: &str) -> Result<Vec<&str>, String> {
    if !text.starts_with('/') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must begin with `/` and have printable ASCII only".to_owned());
    }
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}', '*']) {
        let Some(inside) = rest[open..].strip_prefix('{') else {
            return Err("can have literals and `{variable}` only".to_owned());
        };
        let Some((name, after)) = inside.split_once('}') else {
            return Err("has a `{` without `}`".to_owned());
        };
        check_name(name)?;
        found.push(name);
        rest = after;
    }
    Ok(found)
}

fn check_name(name: &str) -> Result<(), String> {
    let good = name.len() <= LONGEST_NAME
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if good {
        return Ok(());
    }
    Err(format!(
        "names a variable `{name}`: it must begin with a letter, go on with letters, digits and `_`, and have at most {LONGEST_NAME}"
    ))
}

/// Builds the expression of a template, remembering what may not come twice.
#[derive(Default)]
struct Parser {
    names: Vec<String>,
    has_text_glob: bool,
}

impl Parser {
    fn template(&mut self, text: &str) -> Result<String, String> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("must have printable ASCII only".to_owned());
        }
        let Some(mut rest) = text.strip_prefix('/') else {
            return Err("must begin with `/`".to_owned());
        };
        let mut pattern = String::from("/");
        while !rest.is_empty() {
            rest = self.segment(rest, &mut pattern)?;
            if rest.is_empty() {
                break;
            }
            if let Some(after) = rest.strip_prefix('/') {
                pattern.push('/');
                rest = after;
            } else {
                // What follows an operator or a variable directly is a suffix, and ends the template.
                pattern.push_str(&literal(rest)?);
                rest = "";
            }
        }
        Ok(pattern)
    }

    /// Reads one segment; gives back what follows it.
    fn segment<'a>(&mut self, text: &'a str, pattern: &mut String) -> Result<&'a str, String> {
        if text.starts_with('*') {
            return self.operator(text, pattern);
        }
        if let Some(inside) = text.strip_prefix('{') {
            let Some((variable, after)) = inside.split_once('}') else {
                return Err("has a `{` without `}`".to_owned());
            };
            self.variable(variable, pattern)?;
            return Ok(after);
        }
        let (segment, after) = text.split_at(text.find('/').unwrap_or(text.len()));
        pattern.push_str(&literal(segment)?);
        Ok(after)
    }

    fn operator<'a>(&mut self, text: &'a str, pattern: &mut String) -> Result<&'a str, String> {
        if self.has_text_glob {
            return Err("has a `*` or a variable after `**`".to_owned());
        }
        if let Some(after) = text.strip_prefix("**") {
            self.has_text_glob = true;
            pattern.push_str(ANYTHING);
            return Ok(after);
        }
        pattern.push_str(SEGMENT);
        Ok(&text[1..])
    }

    fn variable(&mut self, text: &str, pattern: &mut String) -> Result<(), String> {
        let (name, inner) = text.split_once('=').unwrap_or((text, "*"));
        check_name(name)?;
        if self.names.iter().any(|known| known == name) {
            return Err(format!("has the variable `{name}` twice"));
        }
        if self.names.len() == MOST_VARIABLES {
            return Err(format!("has more than {MOST_VARIABLES} variables"));
        }
        self.names.push(name.to_owned());
        pattern.push_str(&format!("(?P<{name}>"));
        for (index, part) in inner.split('/').enumerate() {
            if index > 0 {
                pattern.push('/');
            }
            if !part.starts_with('*') {
                pattern.push_str(&literal(part)?);
            } else if !self.operator(part, pattern)?.is_empty() {
                return Err(format!("has a `*` beside other characters in the variable `{name}`"));
            }
        }
        pattern.push(')');
        Ok(())
    }
}

/// Characters that stand for themselves; at least one.
fn literal(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte);
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err(format!("has `{text}` where a literal must be"));
    }
    Ok(regex::escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::at::Findings;

    fn parse(text: &str) -> Result<UriTemplate, String> {
        let findings = Findings::default();
        let template = matcher(text, &findings.root());
        template.ok_or_else(|| findings.into_faults().remove(0).rule)
    }

    fn matches(template: &str, path: &str) -> bool {
        parse(template).expect("the template is good").regex.is_full_match(path.as_bytes())
    }

    #[test]
    fn globs_and_variables_match_as_envoy_says() {
        for (template, path, expected) in [
            ("/api/*", "/api/v1", true),
            ("/api/*", "/api/", false),
            ("/api/*", "/api/v1/x", false),
            ("/api/**", "/api/", true),
            ("/api/**", "/api/v1/x", true),
            ("/api/**", "/api", false),
            ("/lit", "/lit", true),
            ("/lit", "/lit/", false),
            ("/lit/", "/lit/", true),
            ("/", "/", true),
            ("/m/*/end", "/m/a/end", true),
            ("/m/*/end", "/m/a/b/end", false),
            ("/a/**/b", "/a/x/y/b", true),
            ("/media/**.m4s", "/media/a/b.m4s", true),
            ("/media/**.m4s", "/media/a/bXm4s", false),
            ("/v/{n=*}/{rest=**}", "/v/1/a/b", true),
            ("/{x=a/*/c}", "/a/b/c", true),
            ("/{x=a/*/c}", "/a/b/d", false),
        ] {
            assert_eq!(matches(template, path), expected, "{template} on {path}");
        }
    }

    #[test]
    fn variables_are_named_groups() {
        let template = parse("/u/{id}/p/{post}").expect("the template is good");
        let groups = template.regex.search().captures(b"/u/7/p/hello").expect("it matches");
        assert_eq!(groups.name("id").expect("captured").as_bytes(), b"7");
        assert_eq!(groups.name("post").expect("captured").as_bytes(), b"hello");
    }

    #[test]
    fn bad_templates_are_refused() {
        for (template, part) in [
            ("a", "begin with"),
            ("", "begin with"),
            ("/a b", "printable"),
            ("/a/{b", "without"),
            ("/{}", "names a variable"),
            ("/{1a}", "names a variable"),
            ("/{aaaaaaaaaaaaaaaaa}", "names a variable"),
            ("/{a}/{a}", "twice"),
            ("/{a}/{b}/{c}/{d}/{e}/{f}", "more than 5"),
            ("/**/*", "after `**`"),
            ("/**/{a}", "after `**`"),
            ("/***", "literal"),
            ("/a*", "literal"),
            ("/*{a}", "literal"),
            ("/a//b", "literal"),
            ("/{a=}", "literal"),
            ("/{a=*b}", "beside"),
            ("/{a=/b}", "literal"),
            ("/a?b", "literal"),
        ] {
            let rule = parse(template).expect_err(template);
            assert!(rule.contains(part), "{template}: {rule}");
        }
    }

    #[test]
    fn a_rewrite_uses_captured_variables_only() {
        let from = parse("/u/{id}/{rest=**}").expect("the template is good");
        let faults = |to: &str| {
            let findings = Findings::default();
            check_rewrite(to, &from, &findings.root());
            findings.into_faults().len()
        };
        assert_eq!(faults("/{rest}/of/{id}"), 0);
        assert_eq!(faults("/plain"), 0);
        for bad in ["/{other}", "/{id", "/id}", "{id}", "/a/*", "/{id=*}"] {
            assert_eq!(faults(bad), 1, "{bad}");
        }
    }
}
