//! A Rust file as far as tidiness looks at it: its code without comments, strings and tests, and its functions.

/// A file of the workspace.
pub(crate) struct File {
    /// Relative to the workspace, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// Without comments and the insides of literals; lines are where they were. Test items are left out too.
    pub(crate) code: String,
}

/// A function that has a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Where it begins, from 1.
    pub(crate) line: usize,
    /// Its lines that hold code.
    pub(crate) length: usize,
}

/// A test function.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) name: String,
    /// Where its attribute is, from 1.
    pub(crate) line: usize,
    /// The text of the comment over it.
    pub(crate) doc: String,
}

impl File {
    /// The file at `path` with this text.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { without_tests(&code_only(text)) } else { String::new() };
        Self { path: path.replace('\\', "/"), text: text.to_owned(), code }
    }

    /// Whether the whole file is test code.
    pub(crate) fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or(&self.path);
        self.path.split('/').any(|part| part == "tests" || part == "testing")
            || ["tests.rs", "testing.rs", "test_util.rs", "end_to_end.rs"].contains(&name)
    }

    /// Lines with code on them.
    pub(crate) fn lines_of_code(&self) -> usize {
        self.code.lines().filter(|line| !line.trim().is_empty()).count()
    }

    /// Every line of code in which `word` stands as a whole word, from 1.
    pub(crate) fn lines_naming(&self, word: &str) -> Vec<usize> {
        let naming = |line: &str| words(line).any(|found| found == word);
        self.code.lines().enumerate().filter(|(_, line)| naming(line)).map(|(at, _)| at + 1).collect()
    }

    /// The test functions that run, in order.
    pub(crate) fn tests(&self) -> Vec<Test> {
        let code = code_only(&self.text);
        let (code, text): (Vec<&str>, Vec<&str>) = (code.lines().collect(), self.text.lines().collect());
        let is_mark = |line: &str| {
            let inside = line.trim().strip_prefix("#[").unwrap_or_default();
            inside.starts_with("test]") || inside.starts_with("tokio::test")
        };
        let mut tests = Vec::new();
        for at in (0..code.len()).filter(|at| is_mark(code[*at])) {
            let head = code[at..].iter().take_while(|line| line.contains("#[") || line.trim().is_empty()).count();
            let name = code.get(at + head).and_then(|line| function_name(line));
            let is_ignored = code[at..at + head].iter().any(|line| line.contains("#[ignore"));
            let above = text[..at].iter().rev().map(|line| line.trim());
            let above = above.take_while(|line| line.starts_with("///") || line.starts_with("#["));
            let doc: Vec<&str> = above.filter_map(|line| line.strip_prefix("///")).collect();
            let doc = doc.into_iter().rev().collect::<Vec<_>>().join("\n");
            tests.extend(name.filter(|_| !is_ignored).map(|name| Test { name, line: at + 1, doc }));
        }
        tests
    }

    /// The functions, in order. A function in a function counts on its own and in the outer one.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let before = self.code[..at].chars().next_back();
            let name: String = self.code[at + 3..].chars().take_while(|c| is_word(*c)).collect();
            if before.is_some_and(is_word) || name.is_empty() {
                continue;
            }
            if let Some(end) = body_end(&self.code[at..]) {
                let line = self.code[..at].matches('\n').count() + 1;
                let length = self.code[at..at + end].lines().filter(|line| !line.trim().is_empty()).count();
                functions.push(Function { name, line, length });
            }
        }
        functions
    }
}

/// The name of the function that begins in this line of code.
fn function_name(line: &str) -> Option<String> {
    let (before, after) = line.split_once("fn ")?;
    let name: String = after.chars().take_while(|c| is_word(*c)).collect();
    (!before.ends_with(is_word) && !name.is_empty()).then_some(name)
}

/// The words of a line of code.
pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !is_word(c)).filter(|word| !word.is_empty())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where the item that `code` begins with ends, if it has a body; none if a `;` comes first.
fn body_end(code: &str) -> Option<usize> {
    let (mut brackets, mut braces) = (0i32, 0i32);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if brackets == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 && brackets == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Blanks each item under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut rest = code;
    let mut kept = String::with_capacity(code.len());
    while let Some(at) = rest.find(MARK) {
        kept.push_str(&rest[..at]);
        let item = &rest[at + MARK.len()..];
        let end = body_end(item).or_else(|| item.find(';').map(|end| end + 1)).unwrap_or(item.len());
        kept.extend(rest[at..at + MARK.len() + end].chars().map(blank));
        rest = &item[end..];
    }
    kept.push_str(rest);
    kept
}

fn blank(c: char) -> char {
    if c == '\n' { '\n' } else { ' ' }
}

/// Blanks comments and the insides of literals, so that what is left is code.
fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at).unwrap_or(at);
        if end == at {
            code.push(chars[at]);
            at += 1;
        } else {
            code.extend(chars[at..end].iter().copied().map(blank));
            at = end;
        }
    }
    code
}

/// Where the comment, string or character that begins at `at` ends; none if nothing of the kind does.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => Some(find(chars, at, |c| c == '\n')),
        '/' if next == Some('*') => Some(block_comment_end(chars, at)),
        '"' => Some(quoted_end(chars, at, '"')),
        // A lifetime has no closing quote where a character has one.
        '\'' if next == Some('\\') || chars.get(at + 2) == Some(&'\'') => Some(quoted_end(chars, at, '\'')),
        'r' if at == 0 || !is_word(chars[at - 1]) || chars[at - 1] == 'b' => raw_string_end(chars, at),
        _ => None,
    }
}

fn find(chars: &[char], from: usize, is: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|c| is(*c)).map_or(chars.len(), |offset| from + offset)
}

fn block_comment_end(chars: &[char], from: usize) -> usize {
    let (mut depth, mut at) = (0usize, from);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) if depth == 1 => return at + 2,
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], from: usize, quote: char) -> usize {
    let mut at = from + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn raw_string_end(chars: &[char], from: usize) -> Option<usize> {
    let open = find(chars, from + 1, |c| c != '#');
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let hashes = open - from - 1;
    let closes =
        |at: usize| chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    Some((open + 1..chars.len()).find(|at| closes(*at)).map_or(chars.len(), |at| at + 1 + hashes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        File::new("mesh-core/src/a.rs", text).code
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        for text in [
            "// tower",
            "/// tower",
            "/* tower /* tower */ tower */",
            "\"tower \\\" tower\"",
            "r#\"tower \" tower\"#",
            "br\"tower\"",
            "\"\\\\\" // tower",
        ] {
            let left = code(text);
            assert!(!left.contains("tower"), "{text} leaves {left}");
        }
        assert_eq!(code("a('\"', tower, '\\'', 'x')").matches("tower").count(), 1);
        assert!(code("fn a<'a>(x: &'a str) { tower }").contains("tower"));
        assert!(code("for r in x { tower }").contains("tower"));
    }

    #[test]
    fn tests_are_not_code_and_lines_stay_where_they_were() {
        let text = "a\n#[cfg(test)]\nmod tests {\n  tower!{ }\n}\n#[cfg(test)]\nmod more;\nhere";
        let file = File::new("mesh-core/src/a.rs", text);
        assert_eq!(file.lines_naming("tower"), []);
        assert_eq!(file.lines_naming("here"), [8]);
        assert_eq!(file.lines_of_code(), 2);
    }

    #[test]
    fn words_are_whole() {
        let file = File::new("a.rs", "use tower_service::Service;\nuse tower::Layer;");
        assert_eq!(file.lines_naming("tower"), [2]);
    }

    #[test]
    fn functions_are_measured_by_their_lines_of_code() {
        let text =
            "trait T {\n fn none(&self);\n fn f(a: [u8; 2]) -> u8 {\n\n  // why\n  a[0]\n }\n}\ntype P = fn(u8);";
        let f = Function { name: "f".to_owned(), line: 3, length: 3 };
        assert_eq!(File::new("a.rs", text).functions(), [f]);
    }
}
