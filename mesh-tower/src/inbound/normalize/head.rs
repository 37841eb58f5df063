//! How large a request's head may be, and which methods there are: counted as Envoy counts.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode, Version, request};
use mesh_core::model::HttpConnection;

use super::{Refusal, bad};
use crate::inbound::InboundLimits;

/// The methods that Envoy's HTTP/1 codec knows.
const METHODS: [&str; 35] = [
    "ACL",
    "BIND",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "MSEARCH",
    "NOTIFY",
    "OPTIONS",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "TRACE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

/// What else there is in an HTTP/1 request line: two spaces, the version, and the end of the line.
const LINE_REST: usize = " ".len() + " HTTP/1.1\r\n".len();
/// What else there is in an HTTP/1 header's line.
const FIELD_REST: usize = ": ".len() + "\r\n".len();
/// The end of an HTTP/1 head.
const LAST_LINE: usize = "\r\n".len();

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Values of headers.
    pub(crate) headers: usize,
    /// Bytes.
    pub(crate) bytes: usize,
}

impl Limits {
    /// The Listener's word counts, and the server's where it has none.
    pub(crate) fn of(server: &InboundLimits, http: &HttpConnection) -> Self {
        let wide = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            headers: http.head.max_headers.map_or(server.max_headers, wide),
            bytes: wide(http.head.max_bytes.unwrap_or(server.max_header_bytes)),
        }
    }

    /// Whether trailers are too large: they count as the headers of HTTP/2 do.
    pub(crate) fn allow(self, trailers: &http::HeaderMap) -> bool {
        let bytes: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        trailers.len() <= self.headers && bytes <= self.bytes
    }
}

/// Refuses what is too large, and in HTTP/1 what is no method that is known. QUERY must say what its body is, or it is no query
/// that anybody could answer.
pub(super) fn check(request: &request::Parts, http: &HttpConnection, limits: Limits) -> Result<(), Box<Refusal>> {
    let (headers, bytes) = if request.version == Version::HTTP_2 { size_of_2(request) } else { size_of_1(request) };
    if headers > limits.headers {
        return Err(too_large(&format!("the request has {headers} headers, and {} are allowed", limits.headers)));
    }
    if bytes > limits.bytes {
        return Err(too_large(&format!("the request's head has {bytes} bytes, and {} are allowed", limits.bytes)));
    }
    if request.version != Version::HTTP_2 && !http.head.custom_methods && !is_known(&request.method) {
        return Err(bad("the method is not known; allow_custom_methods of the Listener would let it through").into());
    }
    if request.method.as_str() == "QUERY" && request.headers.get(CONTENT_TYPE).is_none_or(HeaderValue::is_empty) {
        return Err(bad("QUERY without a content-type").into());
    }
    Ok(())
}

fn too_large(why: &str) -> Box<Refusal> {
    Refusal::with_status(bad(why), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
}

fn is_known(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::POST) || METHODS.contains(&method.as_str())
}

/// The head as it stood on the wire, but for spaces that need not be there.
fn size_of_1(request: &request::Parts) -> (usize, usize) {
    let uri = &request.uri;
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let scheme = uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let line = request.method.as_str().len() + scheme + authority + path + LINE_REST;
    let fields: usize =
        request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_REST).sum();
    (request.headers.len(), line + fields + LAST_LINE)
}

/// Names and values, the pseudo-headers' too.
fn size_of_2(request: &request::Parts) -> (usize, usize) {
    let uri = &request.uri;
    let pseudo = [
        (":method", Some(request.method.as_str())),
        (":scheme", uri.scheme_str()),
        (":authority", uri.authority().map(http::uri::Authority::as_str)),
        (":path", uri.path_and_query().map(http::uri::PathAndQuery::as_str)),
    ];
    let pseudo = pseudo.into_iter().filter_map(|(name, value)| Some(name.len() + value?.len()));
    let fields = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    pseudo.chain(fields).fold((0, 0), |(count, bytes), field| (count + 1, bytes + field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::testing::http_connection;

    const LIMITS: Limits = Limits { headers: 5, bytes: 200 };

    fn request(version: Version, method: &str, fields: &[(&str, usize)]) -> request::Parts {
        let uri = if version == Version::HTTP_2 { "http://a.test/x" } else { "/x" };
        let mut builder = http::Request::builder().version(version).method(method).uri(uri);
        for (name, length) in fields {
            builder = builder.header(*name, "v".repeat(*length));
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn status(version: Version, fields: &[(&str, usize)]) -> u16 {
        match check(&request(version, "GET", fields), &http_connection(), LIMITS) {
            Ok(()) => 200,
            Err(refusal) => refusal.reply.status.as_u16(),
        }
    }

    #[test]
    fn http1_counts_the_head_as_it_stands_on_the_wire() {
        // `GET /x HTTP/1.1`, `host: v...`, and the empty line: 17 + 8 + n + 2.
        let most = 200 - 17 - 8 - 2;
        assert_eq!(status(Version::HTTP_11, &[("host", most)]), 200);
        assert_eq!(status(Version::HTTP_11, &[("host", most + 1)]), 431);
        let many = |count| vec![("x", 1); count];
        assert_eq!((status(Version::HTTP_11, &many(5)), status(Version::HTTP_11, &many(6))), (200, 431));
    }

    #[test]
    fn http2_counts_names_and_values_with_the_pseudo_headers_and_each_cookie_alone() {
        // `:method GET`, `:scheme http`, `:authority a.test`, `:path /x`.
        let most = 200 - (7 + 3) - (7 + 4) - (10 + 6) - (5 + 2) - "x".len();
        assert_eq!(status(Version::HTTP_2, &[("x", most)]), 200);
        assert_eq!(status(Version::HTTP_2, &[("x", most + 1)]), 431);
        assert_eq!(status(Version::HTTP_2, &[("cookie", 1)]), 200);
        assert_eq!(status(Version::HTTP_2, &[("cookie", 1), ("cookie", 1)]), 431, "four of six are pseudo-headers");
    }

    #[test]
    fn the_listener_may_say_other_limits_than_the_server() {
        let server = InboundLimits::default();
        assert_eq!(Limits::of(&server, &http_connection()), Limits { headers: 100, bytes: 61_440 });
        let mut http = http_connection();
        (http.head.max_headers, http.head.max_bytes) = (Some(200), Some(1024));
        assert_eq!(Limits::of(&server, &http), Limits { headers: 200, bytes: 1024 });
    }

    #[test]
    fn a_method_that_nobody_knows_needs_the_listeners_word() {
        let run = |version, method: &str, custom| {
            let mut http = http_connection();
            http.head.custom_methods = custom;
            check(&request(version, method, &[]), &http, LIMITS).is_ok()
        };
        for method in ["GET", "PATCH", "PROPFIND", "CONNECT"] {
            assert!(run(Version::HTTP_11, method, false), "{method}");
        }
        for method in ["FOO", "get", "GETS", "M-SEARCH"] {
            assert!(!run(Version::HTTP_11, method, false) && run(Version::HTTP_11, method, true), "{method}");
            assert!(run(Version::HTTP_2, method, false), "{method}: no reader of HTTP/2 takes it for another");
        }
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let query = |typed: &[(&str, usize)]| check(&request(version, "QUERY", typed), &http_connection(), LIMITS);
            assert!(query(&[]).is_err() && query(&[("content-type", 0)]).is_err());
            assert!(query(&[("content-type", 1)]).is_ok());
        }
    }

    #[test]
    fn trailers_are_counted_too() {
        let of = |count: usize, length: usize| {
            let value = http::HeaderValue::try_from("v".repeat(length)).unwrap();
            (0..count).map(|index| (format!("x-{index}").parse().unwrap(), value.clone())).collect()
        };
        assert!(LIMITS.allow(&of(5, 1)) && !LIMITS.allow(&of(6, 1)));
        assert!(LIMITS.allow(&of(1, 197)) && !LIMITS.allow(&of(1, 198)));
    }
}
