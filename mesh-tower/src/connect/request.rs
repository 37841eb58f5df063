//! A request in the form its protocol wants: HTTP/1.1 names the host in a header, HTTP/2 in the URI.

use http::header::HOST;
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Uri, Version};

/// For HTTP/1.1: the path alone in the request line, the authority in `host` unless there is one. CONNECT stays as it is.
pub(super) fn to_http1<B>(request: &mut Request<B>) {
    *request.version_mut() = Version::HTTP_11;
    if let Some(host) = request.uri().authority().filter(|_| !request.headers().contains_key(HOST)).and_then(host_of) {
        request.headers_mut().insert(HOST, host);
    }
    if request.method() != Method::CONNECT {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    }
}

/// The authority without what may stand before an `@`: passwords do not belong in `host`.
fn host_of(authority: &Authority) -> Option<HeaderValue> {
    let text = authority.as_str();
    let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
    HeaderValue::from_str(host).ok()
}

/// For HTTP/2: scheme and authority in the URI, no `host`. CONNECT needs no scheme.
pub(super) fn to_http2<B>(request: &mut Request<B>, is_tls: bool) {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(HOST);
    let uri = request.uri();
    if request.method() == Method::CONNECT || (uri.scheme().is_some() && uri.authority().is_some()) {
        return;
    }
    let mut parts = Parts::default();
    parts.scheme = Some(uri.scheme().cloned().unwrap_or(if is_tls { Scheme::HTTPS } else { Scheme::HTTP }));
    parts.authority = uri.authority().cloned().or_else(|| Authority::try_from(host?.as_bytes()).ok());
    parts.path_and_query = Some(uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    // Without an authority it stays relative, which hyper refuses with its own reason.
    if let Ok(absolute) = Uri::from_parts(parts) {
        *request.uri_mut() = absolute;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, uri: &str) -> Request<()> {
        Request::builder().method(method).uri(uri).body(()).unwrap()
    }

    #[test]
    fn http1_has_the_path_in_its_line_and_the_host_in_a_header() {
        for (uri, line, host) in [
            ("http://user:pass@a.example:81/x?y=1", "/x?y=1", Some("a.example:81")),
            ("https://a.example", "/", Some("a.example")),
            ("/x", "/x", None),
            ("*", "*", None),
        ] {
            let mut request = request(Method::OPTIONS, uri);
            to_http1(&mut request);
            assert_eq!(request.uri().to_string(), line);
            assert_eq!(request.headers().get(HOST).map(|host| host.to_str().unwrap()), host, "{uri}");
            assert_eq!(request.version(), Version::HTTP_11);
        }
    }

    #[test]
    fn a_host_that_was_set_stays() {
        let mut request = request(Method::GET, "http://a.example/");
        request.headers_mut().insert(HOST, HeaderValue::from_static("b.example"));
        to_http1(&mut request);
        assert_eq!(request.headers()[HOST], "b.example");
    }

    #[test]
    fn connect_keeps_its_authority() {
        let mut connect = request(Method::CONNECT, "a.example:443");
        to_http1(&mut connect);
        assert_eq!(
            (connect.uri().to_string(), &connect.headers()[HOST]),
            ("a.example:443".to_owned(), &HeaderValue::from_static("a.example:443"))
        );
        to_http2(&mut connect, true);
        assert_eq!((connect.uri().to_string(), connect.headers().len()), ("a.example:443".to_owned(), 0));
    }

    #[test]
    fn a_request_that_comes_back_from_http1_can_leave_by_http2() {
        let mut request = request(Method::GET, "https://a.example/x");
        to_http1(&mut request);
        to_http2(&mut request, true);
        assert_eq!(request.uri(), "https://a.example/x");
        assert!(!request.headers().contains_key(HOST));
        assert_eq!(request.version(), Version::HTTP_2);
    }
}
