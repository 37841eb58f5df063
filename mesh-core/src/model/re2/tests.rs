//! What RE2 and Envoy say of expressions, and what is said here.

use super::{program_size, translate};
use crate::model::ByteRegex;

fn is_match(pattern: &str, text: &[u8]) -> bool {
    ByteRegex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).is_full_match(text)
}

#[test]
fn what_the_two_syntaxes_read_differently_is_read_as_re2_does() {
    for (pattern, yes, no) in [
        // No operators between sets, and no sets inside of sets.
        ("[a&&b]", "&", "c"),
        ("[[a]]", "[]", "a"),
        ("[+--c]+", "+,-c", "]"),
        ("[w~~x]", "~", "y"),
        ("[]a]+", "]a", "["),
        ("[^]a]", "b", "]"),
        ("[\\d-z]+", "1-z", "a"),
        ("[a-]+", "a-", "b"),
        ("[[:alpha:]_]+", "a_", "1"),
        ("[[:^alpha:]]", "1", "a"),
        ("[[:a]+", "[:a", "b"),
        ("\\Qa.b|\\E", "a.b|", "axb|"),
        ("\\Qa.", "a.", "ab"),
        ("\\07\\101\\x41\\x{42}", "\u{7}AAB", "AAB"),
        ("a{,3}", "a{,3}", "aaa"),
        ("a{x}b}", "a{x}b}", "ab"),
        ("{", "{", ""),
        ("[\\s]", " ", "\u{b}"),
        ("[^\\S]", "\t", "\u{b}"),
        ("\\s", "\n", "\u{b}"),
        ("\\S", "\u{b}", " "),
        ("(?i)[^a]", "b", "A"),
        ("(?i)[A-C]x", "bX", "dx"),
        ("(?P<n>a)(?P<n>b)(?<1>c)", "abc", "ab"),
        ("(?i-s:a).", "Ab", "A\n"),
        ("(?U)a+?", "aaa", ""),
        ("\\-\\_\\/\\#", "-_/#", "-"),
        ("a*?", "aaa", "b"),
        ("#&~ -x", "#&~ -x", "x"),
    ] {
        assert!(is_match(pattern, yes.as_bytes()), "{pattern} on {yes:?}");
        assert!(!is_match(pattern, no.as_bytes()), "{pattern} on {no:?}");
    }
}

#[test]
fn a_character_is_a_byte() {
    assert!(is_match("admin.", b"admin\xff") && !is_match("admin.", b"admin\xc3\xa9"), "CVE-2026-73552");
    assert!(is_match("é", "é".as_bytes()));
    assert!(is_match("[é]+", b"\xa9\xc3") && !is_match("[é]", "é".as_bytes()));
    assert!(is_match("\\C", b"\n") && is_match("\\C", b"\xff"));
    assert!(is_match("\\p{L}+", b"az\xe9\xb5") && !is_match("\\pL", b"1") && !is_match("\\p{L}", "α".as_bytes()));
    assert!(is_match("\\PL", b"1") && is_match("\\P{^Lu}", b"A") && is_match("[\\p{^Lu}x]", b"a"));
    assert!(is_match("\\p{Latin}", b"a") && is_match("\\p{Any}", b"\0"));
    // No Greek letter is below 256: nothing matches, and what may be left out is.
    assert!(!is_match("\\p{Greek}+", "α".as_bytes()) && is_match("x\\p{Greek}*", b"x"));
    assert!(is_match("[^\\p{Greek}]", b"x"));
}

/// Envoy 1.40 was asked about each.
#[test]
fn what_re2_refuses_is_refused() {
    for pattern in [
        "a**",
        "a++",
        "x*??",
        "a{2}{3}",
        "a*{2}",
        "a{1001}",
        "a{1,1001}",
        "a{3,1}",
        "[z-a]",
        "[[:foo:]]",
        "(?x)a",
        "(?R)",
        "(?u)a",
        "(?#c)a",
        "(?=a)",
        "(?<!a)",
        "(?>a)",
        "(?P=n)",
        "(?P<n-a>a)",
        "(?P<>a)",
        "(?-)a",
        "(?i",
        "\\8",
        "\\1",
        "\\k<n>",
        "\\u0041",
        "\\x{110000}",
        "\\x{fff}",
        "\\x4",
        "\\xzz",
        "\\777",
        "\\p{Foo}",
        "\\p{greek}",
        "\\p{Alphabetic}",
        "\\p{",
        "\\p",
        "\\Z",
        "\\e",
        "\\cA",
        "\\h",
        "\\R",
        "\\K",
        "\\G",
        "\\",
        "[a",
        "[",
        "[a-\\d]",
        "[a--c]",
        "[\\b]",
        "[\\Qa\\E]",
        "(?:a",
        "a)",
        "*a",
        "a|*",
    ] {
        assert!(ByteRegex::new(pattern).is_err(), "{pattern}");
    }
}

/// What Envoy 1.40 says of each: "RE2 program size of N", with `re2.max_program_size.error_level` at 0.
const SIZES: &[(&str, u64)] = &[
    (r"a", 5),
    (r"abc", 7),
    (r"a|b", 5),
    (r"ab|cd", 8),
    (r"[a-z]+", 6),
    (r"a*", 5),
    (r"a+", 6),
    (r"a?", 6),
    (r"(a)", 7),
    (r".", 6),
    (r"\d+", 6),
    (r"a{2,5}", 12),
    (r"a{2,}", 7),
    (r"(abc|abd)", 9),
    (r"(?i)abc", 7),
    (r"^a$", 4),
    (r"\bfoo\b", 9),
    (r"/a(/.*)?", 12),
    (r"[^/]+", 7),
    (r"/users/[0-9]+/posts", 19),
    (r"(a|b)*c", 8),
    (r"\p{Greek}+", 1),
    (r"\p{L}", 11),
    (r"abc(def)?ghi", 16),
    (r"(ab){10}", 44),
    (r"(a|ab)(c|bcd)", 15),
    (r"(foo|bar|baz)", 13),
    (r"(GET|POST)", 13),
    (r"^/api/v[0-9]+/.*$", 9),
    (r"(a*)*", 11),
    (r"é", 6),
    (r"(a*|b*)*", 16),
    (r"(a?){10}", 44),
    (r"((a|b)?c*)+", 12),
    (r"(|a|b)", 8),
    (r"()*", 10),
    (r"a*", 5),
    (r"(?:a*b*c*)*", 13),
    (r"(?:a?b?c?){5}", 34),
    (r"(?i)[a-f]+x", 7),
    (r"[^\x00-\x1f]*", 5),
    (r"(?:foo|foobar|foobaz)+", 13),
    (r"(?:a|b|)*x?", 12),
    (r"\Qa.b\E*", 7),
    (r"(?:(?:a*)+)?", 5),
    (r"(?:^|/)x(?:$|/)", 9),
    (r"[\d_-]+@[\w.]+", 14),
    (r"(?:ab|ac|ad)?(?:x|)*", 13),
    (r"(?s).*", 6),
    (r"(?:a{0,3}b{1,4}){2,3}", 44),
    (r"(?:(?:((?:[^x]|b))(?:(b)|(?:a|[^x]|abc|(?:))|b[^x]|(?:xy)*))*?|((b(?:$|\b|a))))", 34),
    (r"(?:(((?:(?:xy)?){2,}))|(?:(?:(?:(?:))+|xy|\w))?|((?:^)+)|(?:abc||a*|a*))", 32),
    (r"(((?:((?:xy|b|abc|(?:)))|[^x]|(?:\d)+)))", 23),
    (r"(?:(?:.|(?:[^x])+|[^x])(?:$|\w)(?:a*|abc|a*)|(((?:b|abd|abd)(?:[^x]|\d))))", 37),
    (r"b(.xy)$(?:ab|b?x||b?x)", 21),
    (r"(?:((b)(?:)(a))|((\da)(?:$)?(?:\b|xy|b|.))|\b|((?:[a-c]){0,2}))", 32),
    (r"(?:(?:(?:(?:)^){2,}[^x]){2,}){1,3}", 40),
    (r"(?:(?:(?:b|abd)|((\d))|(?:[^x]){2})){0,2}", 32),
    (r"(?:(?:(?:)|(?:(\w[a-c])|((\d))))|(?:b|a*)|(?:(?:(\b))+|xy|((?:a)*)|b.))", 34),
    (r"b(?:(?:)a|$[a-c]|(abc)|(?:b|b|ab|b))(\dbxy)(?:\b)+", 26),
    (r".(?:([a-c])){2,}(((?:(?:)|a))).", 21),
    (r"(?:b|abc$|(?:(?:(?:b|.)|(?:.|b)|b|[^x])(?:a*|ab|b?x|b?x|b)){2,}|.)", 47),
    (r"(?:(?:(((?:)))(?:(.)){0,2})*|(?:\b|(?:a|a|abc|.)\b^|((?:b)*))a)", 35),
    (r"(?:ab|abc)(?:(?:(?:a*|abc|ab|))*|(?:ab|abc|ab|ab))", 24),
    (r"((?:(?:((?:b?x|a*|))|([^x])\b)|(?:b?x|ab|abd|b)(?:)))", 28),
    (r"(?:[^x]|(?:((?:[a-c]xy)*?)|(((?:b|a*|ab|ab|ab)))|$))", 23),
    (r"(?:((a))|^|((?:(?:.|(.))|((?:^)*)))|\d)", 26),
    (r"(?:[a-c]|(?:$)*|(((?:b^|([^x])|\w|(?:))))|(abc))", 29),
    (r"(?:(?:(^)|b|((?:|ab||ab)))){1,3}", 39),
    (r"(?:((?:(?:$|\d|^|\d)[a-c]^)+)){2,}", 23),
    (r"(?:(?:(b)|[^x]|b(?:ab|abd|ab)|[a-c])(?:[^x]){0,2}){0,2}", 40),
    (r"(((?:(abc)|(xy)|(?:xy|\w|\w|$))))\w", 27),
    (r"(((?:(?:))*?))(?:(?:(?:(?:[a-c]|\w|.)|(\b))){1,3}|(((?:|abd))))", 33),
    (r"(?:($)|(?:[a-c]|((?:a*|abc))\d|\d|\b([a-c]))|(((((?:)))))|(\d))", 33),
    (r"abc(?:(a)|(\w)|(?:ab|b|abd)|.^)(\d)(\b)", 30),
];

#[test]
fn a_program_is_no_smaller_than_re2s_and_not_much_larger() {
    for (pattern, size) in SIZES {
        let ours = program_size(&translate(pattern).expect("it is one"));
        assert!(ours >= *size, "{pattern}: {ours}, and RE2 has {size}");
        assert!(ours <= 3 * size + 8, "{pattern}: {ours}, and RE2 has {size}");
    }
}

/// Envoy: 4,117, 1,004 and 1,000.
#[test]
fn large_programs_are_told_from_small_ones() {
    let words: Vec<String> = (0..1000).map(|index| format!("abc{index}def")).collect();
    let size = |pattern: &str| program_size(&translate(pattern).expect("it is one"));
    assert_eq!(size(&format!("({})", words.join("|"))), 4117);
    assert_eq!(size("a{1000}"), 1004);
    assert_eq!(size("a{996}"), 1000);
    assert!(size("((a{30}){30}){30}") > 27_000);
}
