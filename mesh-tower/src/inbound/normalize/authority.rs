//! The request's authority: exactly one, whichever way the client said it (gRFC A41).

use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Uri, Version, request};
use mesh_core::error::Error;
use mesh_core::model::HttpConnection;

use super::bad;

/// The authority of a normalised request.
pub(crate) fn authority_of(request: &request::Parts) -> &[u8] {
    match request.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => request.headers.get(HOST).map_or(&[], HeaderValue::as_bytes),
    }
}

/// gRFC A41: without `:authority`, `host` takes its place; with it, `host` goes; several are refused.
///
/// In HTTP/1 the request keeps a `host` header, as applications expect it there.
pub(super) fn normalize(request: &mut request::Parts, http: &HttpConnection, port: u16) -> Result<(), Error> {
    if request.headers.get_all(HOST).iter().nth(1).is_some() {
        return Err(bad("the request has several host headers"));
    }
    let said = match (request.uri.authority(), request.headers.get(HOST)) {
        (Some(authority), _) => authority.clone(),
        // Said, and empty: only a virtual host for everything takes it.
        (None, Some(host)) if host.is_empty() => return Ok(()),
        (None, Some(host)) => {
            Authority::try_from(host.as_bytes()).map_err(|_| bad("the host header is not an authority"))?
        }
        (None, None) => return Err(bad("the request has neither :authority nor host")),
    };
    if request.uri.path_and_query().is_some() && request.method != Method::CONNECT {
        check_scheme(request)?;
    }
    if said.as_str().contains('@') {
        return Err(bad("the authority holds user information"));
    }
    let authority = strip(&said, http, port)?;
    if request.version == Version::HTTP_2 {
        request.headers.remove(HOST);
        return set_authority(request, authority);
    }
    let host = HeaderValue::try_from(authority.as_str()).map_err(|_| bad("the host header is not an authority"))?;
    request.headers.insert(HOST, host);
    if request.uri.authority().is_some() { set_authority(request, authority) } else { Ok(()) }
}

/// A request to another scheme is for another kind of server. In HTTP/2 no reader takes it for a part of the path.
fn check_scheme(request: &request::Parts) -> Result<(), Error> {
    match (request.version, request.uri.scheme()) {
        (Version::HTTP_2, Some(scheme)) if scheme.as_str().is_empty() => Err(bad("the request's :scheme is empty")),
        (Version::HTTP_2, _) => Ok(()),
        (_, Some(scheme)) if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS => {
            Err(bad("the request's target has a scheme that is neither http nor https"))
        }
        _ => Ok(()),
    }
}

fn set_authority(request: &mut request::Parts, authority: Authority) -> Result<(), Error> {
    if request.uri.authority() == Some(&authority) {
        return Ok(());
    }
    let mut parts = std::mem::take(&mut request.uri).into_parts();
    parts.authority = Some(authority);
    // A URI with an authority and a path must have a scheme.
    if parts.path_and_query.is_some() && parts.scheme.is_none() {
        parts.scheme = Some(Scheme::HTTP);
    }
    request.uri = Uri::from_parts(parts).map_err(|_| bad("the authority and the path do not make a URI"))?;
    Ok(())
}

/// Envoy's `strip_any_host_port`, `strip_matching_host_port` and `strip_trailing_host_dot`.
fn strip(authority: &Authority, http: &HttpConnection, port: u16) -> Result<Authority, Error> {
    let text = authority.as_str();
    let (mut host, mut rest) = split_port(text);
    if let Some(said) = rest
        && let Ok(said) = said.parse::<u32>()
        && (http.strip_any_host_port || http.strip_matching_host_port && said == u32::from(port))
    {
        rest = None;
    }
    if http.strip_trailing_host_dot {
        host = host.strip_suffix('.').unwrap_or(host);
    }
    let kept = host.len() + rest.map_or(0, |port| port.len() + 1);
    if kept == text.len() {
        return Ok(authority.clone());
    }
    let stripped = rest.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    Authority::try_from(stripped).map_err(|_| bad("the authority is nothing but a port or a dot"))
}

/// `host:port`, `[::1]:port`, or no port.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::testing::http_connection;

    fn run(version: Version, uri: &str, hosts: &[&str], http: &HttpConnection) -> Result<request::Parts, String> {
        let mut builder = http::Request::builder().version(version).uri(uri);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        let (mut parts, ()) = builder.body(()).unwrap().into_parts();
        match normalize(&mut parts, http, 8080) {
            Ok(()) => Ok(parts),
            Err(error) => Err(error.message().to_owned()),
        }
    }

    #[test]
    fn there_is_exactly_one_authority() {
        let http = http_connection();
        let rows: &[(Version, &str, &[&str], Option<&str>)] = &[
            (Version::HTTP_2, "http://a.test/x", &[], Some("a.test")),
            (Version::HTTP_2, "http://a.test/x", &["b.test"], Some("a.test")),
            (Version::HTTP_2, "/x", &["b.test:81"], Some("b.test:81")),
            (Version::HTTP_2, "/x", &[], None),
            (Version::HTTP_2, "/x", &["b.test", "b.test"], None),
            (Version::HTTP_2, "http://a.test/x", &["b.test", "c.test"], None),
            (Version::HTTP_11, "/x", &["b.test"], Some("b.test")),
            (Version::HTTP_11, "http://a.test/x", &["b.test"], Some("a.test")),
            (Version::HTTP_11, "ftp://a.test/x", &["a.test"], None),
            (Version::HTTP_11, "/x", &[], None),
            (Version::HTTP_11, "/x", &["b.test", "c.test"], None),
            (Version::HTTP_11, "/x", &["b.test, c.test"], None),
            (Version::HTTP_11, "/x", &["user@b.test"], None),
            (Version::HTTP_11, "/x", &["b.test/y"], None),
            (Version::HTTP_11, "/x", &[""], Some("")),
        ];
        for (version, uri, hosts, want) in rows {
            let got = run(*version, uri, hosts, &http);
            match want {
                Some(want) => {
                    let parts = got.unwrap();
                    assert_eq!(authority_of(&parts), want.as_bytes(), "{version:?} {uri} {hosts:?}");
                    assert_eq!(parts.uri.path(), "/x");
                    let host = parts.headers.get(HOST).map(|host| host.to_str().unwrap());
                    assert_eq!(host, (*version == Version::HTTP_11).then_some(*want), "{version:?} {uri} {hosts:?}");
                }
                None => assert!(got.is_err(), "{version:?} {uri} {hosts:?}"),
            }
        }
    }

    #[test]
    fn ports_and_dots_are_stripped_as_asked() {
        let keep = http_connection();
        let any = HttpConnection { strip_any_host_port: true, ..keep.clone() };
        let matching = HttpConnection { strip_matching_host_port: true, ..keep.clone() };
        let dot = HttpConnection { strip_trailing_host_dot: true, ..keep.clone() };
        let rows = [
            (&keep, "a.test.:99", "a.test.:99"),
            (&any, "a.test:99", "a.test"),
            (&any, "[::1]:99", "[::1]"),
            (&any, "[::1]", "[::1]"),
            // What is no port is not stripped, as in Envoy: it stays in sight.
            (&any, "a.test:", "a.test:"),
            (&matching, "a.test:99", "a.test:99"),
            (&matching, "a.test:8080", "a.test"),
            (&dot, "a.test.:99", "a.test:99"),
            (&dot, "a.test.", "a.test"),
        ];
        for (http, host, want) in rows {
            let parts = run(Version::HTTP_11, "/x", &[host], http).unwrap();
            assert_eq!(authority_of(&parts), want.as_bytes(), "{host}");
        }
    }
}
