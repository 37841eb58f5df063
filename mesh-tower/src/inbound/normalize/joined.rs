//! Headers of which a request has one: their values are joined, as in Envoy, before anybody looks. A policy that matches value
//! by value would take `authorization: good` beside another one for a good one.

use bytes::BytesMut;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION,
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, ORIGIN, PRAGMA, REFERER,
    USER_AGENT, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Those that Envoy 1.40 joins, and that others here do not care for.
const JOINED: [HeaderName; 24] = [
    ACCEPT,
    ACCEPT_ENCODING,
    ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD,
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    ORIGIN,
    PRAGMA,
    REFERER,
    USER_AGENT,
    VIA,
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("x-client-trace-id"),
    HeaderName::from_static("x-envoy-attempt-count"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-original-path"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
];

/// Joins them.
pub(super) fn normalize(headers: &mut HeaderMap) {
    // Nearly every request has no header twice.
    if headers.len() == headers.keys_len() {
        return;
    }
    for name in JOINED {
        let mut values = headers.get_all(&name).iter();
        let Some((first, second)) = values.next().zip(values.next()) else { continue };
        let mut joined = BytesMut::from(first.as_bytes());
        for value in std::iter::once(second).chain(values) {
            joined.extend_from_slice(b",");
            joined.extend_from_slice(value.as_bytes());
        }
        // Values with commas between are one.
        if let Ok(joined) = HeaderValue::from_maybe_shared(joined.freeze()) {
            headers.insert(name, joined);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[(&'static str, &'static [u8])]) -> Vec<(String, Vec<u8>)> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        normalize(&mut headers);
        headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn two_of_what_a_request_has_one_of_are_another_one() {
        let joined = of(&[("authorization", b"a"), ("x-a", b"1"), ("authorization", b"b\xff"), ("authorization", b"")]);
        assert_eq!(joined, [("authorization".to_owned(), b"a,b\xff,".to_vec()), ("x-a".to_owned(), b"1".to_vec())]);
    }

    #[test]
    fn lists_stay_as_they_are() {
        let lines: &[(&str, &[u8])] = &[("x-a", b"1"), ("x-a", b"2"), ("cookie", b"a=1"), ("cookie", b"b=2")];
        assert_eq!(of(lines).len(), 4);
    }
}
