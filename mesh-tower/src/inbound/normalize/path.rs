//! The request's path: refused when readers could disagree about it, rewritten where the Listener asks for that.

use std::fmt::Write;

use http::uri::PathAndQuery;
use http::{Method, Uri, Version, request};
use mesh_core::error::Error;
use mesh_core::model::HttpConnection;
use mesh_core::model::listener::EscapedSlashes;
use mesh_core::route::facts::is_grpc;

use super::{Refusal, bad};

/// Checks the path, then applies `path_with_escaped_slashes_action`, `normalize_path` and `merge_slashes`, in Envoy's order.
pub(super) fn normalize(request: &mut request::Parts, http: &HttpConnection) -> Result<(), Box<Refusal>> {
    let Some(path) = request.uri.path_and_query().filter(|path| !path.as_str().is_empty()) else {
        return if request.method == Method::CONNECT { Ok(()) } else { Err(bad("the request has no path").into()) };
    };
    if request.method == Method::CONNECT && request.version != Version::HTTP_2 {
        return Err(bad("CONNECT takes an authority, and no path").into());
    }
    check(path)?;
    let Some(Rewritten { path: rewritten, redirect }) = rewrite(path.path(), http)? else { return Ok(()) };
    let whole = match path.query() {
        Some(query) => format!("{rewritten}?{query}"),
        None => rewritten,
    };
    if redirect {
        // A gRPC client knows no redirects, and would take one for a broken server. What begins with two slashes is
        // another host to whoever follows it, a backslash for one of them included.
        let refused = is_grpc(&request.headers) || whole.starts_with("//") || whole.starts_with("/\\");
        return Err(if refused { bad("the path holds an escaped slash").into() } else { Refusal::redirect(&whole) });
    }
    let mut parts = std::mem::take(&mut request.uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(whole).map_err(|_| bad("the path is not valid"))?);
    request.uri = Uri::from_parts(parts).map_err(|_| bad("the path is not valid"))?;
    Ok(())
}

/// A path starts with a slash and holds visible ASCII; a fragment has no place in a request.
fn check(path: &PathAndQuery) -> Result<(), Error> {
    let text = path.as_str();
    if !text.starts_with('/') {
        return Err(bad("the path does not start with a slash"));
    }
    if text.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(bad("the path holds a fragment, a control character or a byte outside ASCII"));
    }
    Ok(())
}

/// A path as the Listener wants it.
struct Rewritten {
    path: String,
    /// The client is to ask for it itself.
    redirect: bool,
}

/// The path as the Listener wants it; None: as it is.
fn rewrite(path: &str, http: &HttpConnection) -> Result<Option<Rewritten>, Error> {
    let mut new = None;
    let mut redirect = false;
    if http.escaped_slashes != EscapedSlashes::Keep
        && let Some(unescaped) = unescape_slashes(path)
    {
        if http.escaped_slashes == EscapedSlashes::Reject {
            return Err(bad("the path holds an escaped slash"));
        }
        redirect = http.escaped_slashes == EscapedSlashes::UnescapeAndRedirect;
        new = Some(unescaped);
    }
    if http.normalize_path && !is_plain(new.as_deref().unwrap_or(path)) {
        if path.contains("%00") {
            return Err(bad("the path holds an escaped NUL, at which some readers stop"));
        }
        new = canonical(new.as_deref().unwrap_or(path)).or(new);
        new = resolve_dots(new.as_deref().unwrap_or(path)).or(new);
    }
    if http.merge_slashes {
        new = merge_slashes(new.as_deref().unwrap_or(path)).or(new);
    }
    Ok(new.map(|path| Rewritten { path, redirect }))
}

/// `%2F` and `%5C` as what they stand for; None when there are none.
fn unescape_slashes(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let slash = match rest.as_bytes().get(at + 1..at + 3) {
            Some(b"2f" | b"2F") => '/',
            Some(b"5c" | b"5C") => '\\',
            _ => {
                out.push_str(&rest[..=at]);
                rest = &rest[at + 1..];
                continue;
            }
        };
        out.push_str(&rest[..at]);
        out.push(slash);
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    (out != path).then_some(out)
}

/// Whether the path is surely as `normalize_path` leaves it, as nearly every path is: no dot begins a segment, and no
/// character has another spelling.
fn is_plain(path: &str) -> bool {
    let mut before = b'/';
    path.bytes().all(|byte| {
        let dot = byte == b'.' && before == b'/';
        before = byte;
        !dot && (byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~'))
    })
}

/// One spelling of each character (RFC 3986 6.2.2.2, as browsers do it): unreserved ones plain, those that have no place in a
/// path escaped. None: it is so already.
fn canonical(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(byte) = rest.bytes().next() {
        let (unescaped, length) = unescape(rest).map_or((byte, 1), |unescaped| (unescaped, 3));
        match (length, unescaped) {
            (3, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~') => out.push(char::from(unescaped)),
            (1, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}') => {
                let _ = write!(out, "%{byte:02X}");
            }
            _ => out.push_str(&rest[..length]),
        }
        rest = &rest[length..];
    }
    (out != path).then_some(out)
}

/// The byte that `text` begins with in escaped form.
fn unescape(text: &str) -> Option<u8> {
    let digit = |at: usize| char::from(*text.as_bytes().get(at)?).to_digit(16);
    let (high, low) = (digit(1)?, digit(2)?);
    text.starts_with('%').then(|| u8::try_from(high * 16 + low).ok()).flatten()
}

/// Removes `.` and `..` segments (RFC 3986 5.2.4), written plainly or escaped, with backslashes as slashes. Parameters
/// (`..;x`) hide no dots: servers that know parameters would find them.
fn resolve_dots(path: &str) -> Option<String> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path[1..].split(['/', '\\']).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match dots(segment) {
            Some(up) => {
                if up {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            None => kept.push(segment),
        }
    }
    let resolved = format!("/{}", kept.join("/"));
    (resolved != path).then_some(resolved)
}

/// Some(true) for `..`, Some(false) for `.`, whichever way they are escaped.
fn dots(segment: &str) -> Option<bool> {
    let mut rest = segment.split(';').next().unwrap_or(segment);
    let mut count = 0;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').or_else(|| rest.strip_prefix("%2e")).or_else(|| rest.strip_prefix("%2E"))?;
        count += 1;
    }
    match count {
        1 => Some(false),
        2 => Some(true),
        _ => None,
    }
}

/// A path of slashes alone keeps two, as in Envoy.
fn merge_slashes(path: &str) -> Option<String> {
    if !path.contains("//") {
        return None;
    }
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let end = if path.ends_with('/') { "/" } else { "" };
    Some(format!("/{}{end}", segments.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::testing::http_connection;

    fn run(uri: &str, http: &HttpConnection) -> Result<String, Box<Refusal>> {
        // What the `http` crate does not take does not get here.
        let request = http::Request::builder().uri(uri).body(()).map_err(|_| bad("not a URI"))?;
        let (mut parts, ()) = request.into_parts();
        normalize(&mut parts, http).map(|()| parts.uri.path_and_query().unwrap().to_string())
    }

    #[test]
    fn a_path_that_readers_could_disagree_about_is_refused() {
        let http = http_connection();
        for uri in ["*", "/caf\u{e9}", "http://a.test/\u{7f}"] {
            assert!(run(uri, &http).is_err(), "{uri}");
        }
        for uri in ["/", "/a?b=c", "/%00", "http://a.test/x"] {
            assert!(run(uri, &http).is_ok(), "{uri}");
        }
    }

    #[test]
    fn a_path_is_rewritten_only_as_asked() {
        let keep = http_connection();
        let dots = HttpConnection { normalize_path: true, ..keep.clone() };
        let merge = HttpConnection { merge_slashes: true, ..keep.clone() };
        let both = HttpConnection { normalize_path: true, merge_slashes: true, ..keep.clone() };
        let reject = HttpConnection { escaped_slashes: EscapedSlashes::Reject, ..keep.clone() };
        let forward = HttpConnection {
            escaped_slashes: EscapedSlashes::UnescapeAndForward,
            normalize_path: true,
            ..keep.clone()
        };
        let rows = [
            (&keep, "/a/../b//c?d/../e", Some("/a/../b//c?d/../e")),
            (&dots, "/a/../b//c?d/../e", Some("/b//c?d/../e")),
            (&dots, "/a/./b/..", Some("/a/")),
            (&dots, "/../../a", Some("/a")),
            (&dots, "/a/%2e%2E/b", Some("/b")),
            (&dots, "/a/.../b", Some("/a/.../b")),
            (&dots, "/a/..;x=1/b", Some("/b")),
            (&dots, "/a;x/b", Some("/a;x/b")),
            (&dots, "/%61%2D%7e%20%2f%3f%", Some("/a-~%20%2f%3f%")),
            (&dots, "/%25%32%65%25%32%65/b", Some("/%252e%252e/b")),
            (&dots, "/a|\"^b", Some("/a%7C%22%5Eb")),
            (&dots, "/a/.", Some("/a/")),
            (&dots, "/", Some("/")),
            (&merge, "//a///b/", Some("/a/b/")),
            (&merge, "///", Some("//")),
            (&keep, "/a%00b", Some("/a%00b")),
            (&dots, "/a%00b", None),
            (&dots, "/a?%00", Some("/a?%00")),
            (&both, "/a//../b", Some("/a/b")),
            (&reject, "/a%2fb", None),
            (&reject, "/a%5Cb", None),
            (&reject, "/a%20b", Some("/a%20b")),
            (&forward, "/a%2F..%2fb", Some("/b")),
            (&forward, "/a%5c..%5cb", Some("/b")),
        ];
        for (http, uri, want) in rows {
            assert_eq!(run(uri, http).ok().as_deref(), want, "{uri}");
        }
    }

    #[test]
    fn what_is_plain_needs_no_second_look() {
        for plain in ["/", "/a/b.c", "/pkg.Service/Method", "/a//b/", "/~u/a-b_c...", "/a.."] {
            assert!(is_plain(plain) && canonical(plain).is_none() && resolve_dots(plain).is_none(), "{plain}");
        }
        for other in ["/.", "/a/..", "/a/.b", "/%61", "/a\\b", "/a;b", "/a|b", "/a/%2e"] {
            assert!(!is_plain(other), "{other}");
        }
    }

    #[test]
    fn nobody_is_sent_to_another_host() {
        for (uri, merge_slashes) in [
            ("/%2fevil.com", false),
            ("/%5cevil.com", false),
            ("//evil.com/%2f", false),
            ("/.%2f%2fevil.com", false),
            ("/%2f", true),
        ] {
            for normalize_path in [true, false] {
                let http = HttpConnection {
                    escaped_slashes: EscapedSlashes::UnescapeAndRedirect,
                    normalize_path,
                    merge_slashes,
                    ..http_connection()
                };
                let answered = match run(uri, &http) {
                    Ok(path) => panic!("{uri} passes as {path}"),
                    Err(refusal) => refusal.reply,
                };
                match answered.headers.get("location") {
                    None => assert_eq!(answered.status, 400, "{uri}"),
                    Some(to) => assert!(to.as_bytes()[0] == b'/' && to.as_bytes()[1] == b'.', "{uri}: {to:?}"),
                }
            }
        }
    }

    #[test]
    fn a_client_is_sent_to_the_path_without_escaped_slashes() {
        let http = HttpConnection {
            escaped_slashes: EscapedSlashes::UnescapeAndRedirect,
            normalize_path: true,
            merge_slashes: true,
            ..http_connection()
        };
        let answer = |uri: &str, kind: &str| {
            let request = http::Request::builder().uri(uri).header("content-type", kind).body(()).unwrap();
            normalize(&mut request.into_parts().0, &http).map_err(|refusal| {
                let to = refusal.reply.headers.get("location").map(|to| to.to_str().unwrap().to_owned());
                (refusal.reply.status.as_u16(), to)
            })
        };
        let to = |path: &str| Err((307, Some(path.to_owned())));
        assert_eq!(answer("/a%2F..%5cb?q=%2f", "text/plain"), to("/b?q=%2f"));
        assert_eq!(answer("/a%2fb", "application/grpc-web"), to("/a/b"));
        assert_eq!(answer("/a%2fb", "application/grpc"), Err((400, None)), "a gRPC client knows no redirects");
        assert_eq!(answer("/a/../b", "text/plain"), Ok(()), "for what is not escaped nobody is sent away");
    }

    #[test]
    fn connect_has_no_path_in_http1() {
        let run = |version| {
            let request = http::Request::connect("/x").version(version).body(()).unwrap();
            normalize(&mut request.into_parts().0, &http_connection()).is_ok()
        };
        assert!(!run(Version::HTTP_11) && run(Version::HTTP_2));
    }
}
