//! Where a request comes from, as its headers may and may not say: Envoy's sanitizing of `x-forwarded-*` and `x-envoy-*`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue, request};
use mesh_core::error::Error;
use mesh_core::model::{HttpConnection, OriginTrust, Underscores};
use mesh_core::policy::steering;

use super::bad;
use super::own_address::own_address;
use crate::outbound::InternalCaller;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");

/// What an external request may say nothing of, beside the steering headers.
const NOT_FROM_OUTSIDE: [HeaderName; 3] = [
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-original-url"),
];

/// What it may say nothing of at the edge, where it cannot come from another proxy of ours.
const NOT_AT_THE_EDGE: [HeaderName; 5] = [
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
    HeaderName::from_static("x-envoy-original-path"),
    HeaderName::from_static("x-envoy-original-host"),
];

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    /// The other end of the connection.
    pub(super) peer: IpAddr,
    /// The client, as far as headers that tell of it are believed.
    pub(super) client: IpAddr,
    /// Whether the connection is under TLS.
    pub(super) secure: bool,
}

/// Leaves of a request's headers what its client may say.
pub(super) fn normalize(request: &mut request::Parts, http: &HttpConnection, from: Origin) -> Result<(), Error> {
    underscores(&mut request.headers, http.underscores)?;
    // A mark that somebody else has put there proves nothing.
    request.extensions.remove::<InternalCaller>();
    let headers = &mut request.headers;
    let claims = headers.keys().any(|name| name.as_str().starts_with("x-"));
    if !claims && !http.origin.use_remote_address {
        return Ok(());
    }
    headers.remove(INTERNAL);
    join(headers, None);
    if http.origin.is_internal(from.peer, headers.contains_key(FORWARDED_FOR)) {
        headers.insert(INTERNAL, HeaderValue::from_static("true"));
        request.extensions.insert(InternalCaller);
    } else {
        sanitize(headers, &http.origin, from.client);
    }
    if http.origin.use_remote_address {
        let scheme = HeaderValue::from_static(if from.secure { "https" } else { "http" });
        request.headers.insert(FORWARDED_PROTO, scheme);
        if !http.origin.skip_xff_append {
            join(&mut request.headers, Some(address_of(from.peer)));
        }
    }
    Ok(())
}

/// An external request steers nothing, and at the edge it tells no story.
fn sanitize(headers: &mut HeaderMap, origin: &OriginTrust, client: IpAddr) {
    steering::strip(headers);
    NOT_FROM_OUTSIDE.iter().for_each(|name| drop(headers.remove(name)));
    if origin.use_remote_address {
        NOT_AT_THE_EDGE.iter().for_each(|name| drop(headers.remove(name)));
        if let Ok(address) = HeaderValue::try_from(client.to_string()) {
            headers.insert(EXTERNAL_ADDRESS, address);
        }
    }
}

/// Brings the addresses of all hops into one header, and adds `last` to them. Several headers are one list, and whoever reads
/// only the first would believe what a client wrote before the proxies did.
fn join(headers: &mut HeaderMap, last: Option<IpAddr>) {
    let mut said = headers.get_all(FORWARDED_FOR).iter();
    if last.is_none() && (said.next().is_none() || said.next().is_none()) {
        return;
    }
    let mut all: Vec<Vec<u8>> = headers.get_all(FORWARDED_FOR).iter().map(|value| value.as_bytes().to_vec()).collect();
    all.retain(|value| !value.is_empty());
    all.extend(last.map(|last| last.to_string().into_bytes()));
    // Values of headers, commas and an address are the value of a header.
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b","[..])) {
        headers.insert(FORWARDED_FOR, joined);
    }
}

/// What is written down of a client. One on this machine, by its loopback address, is this machine: the next hop is to be told
/// an address that means something there, too.
fn address_of(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST) => own_address(),
        other => other,
    }
}

fn underscores(headers: &mut HeaderMap, action: Underscores) -> Result<(), Error> {
    if action == Underscores::Allow {
        return Ok(());
    }
    let found: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    match action {
        Underscores::Reject if !found.is_empty() => Err(bad("a header's name has an underscore")),
        _ => {
            found.iter().for_each(|name| while headers.remove(name).is_some() {});
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::testing::http_connection;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

    fn run(http: &HttpConnection, headers: &[(&'static str, &'static str)]) -> Result<request::Parts, Error> {
        let mut builder = http::Request::builder();
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let (mut parts, ()) = builder.body(()).unwrap().into_parts();
        normalize(&mut parts, http, Origin { peer: CLIENT, client: CLIENT, secure: false }).map(|()| parts)
    }

    fn lines(http: &HttpConnection, headers: &[(&'static str, &'static str)]) -> Vec<String> {
        let parts = run(http, headers).unwrap();
        let mut lines: Vec<_> =
            parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    fn edge(internal: &[&str]) -> HttpConnection {
        let internal = internal.iter().map(|range| range.parse().unwrap()).collect();
        HttpConnection {
            origin: OriginTrust { use_remote_address: true, internal, ..OriginTrust::default() },
            ..http_connection()
        }
    }

    const CLAIMS: &[(&str, &str)] = &[
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-internal", "true"),
        ("x-envoy-original-path", "/evil"),
        ("x-mine", "1"),
    ];

    #[test]
    fn inside_the_mesh_nobody_steers_and_nobody_speaks_for_tls() {
        assert_eq!(lines(&http_connection(), CLAIMS), ["x-envoy-original-path: /evil", "x-mine: 1"]);
    }

    #[test]
    fn at_the_edge_a_stranger_tells_no_story() {
        let want =
            ["x-envoy-external-address: 10.1.2.3", "x-forwarded-for: 10.1.2.3", "x-forwarded-proto: http", "x-mine: 1"];
        assert_eq!(lines(&edge(&[]), CLAIMS), want);
        assert_eq!(lines(&edge(&["192.168.0.0/16"]), CLAIMS), want);
    }

    #[test]
    fn an_internal_caller_is_marked_and_may_steer() {
        let parts = run(&edge(&["10.0.0.0/8"]), CLAIMS).unwrap();
        assert!(parts.extensions.get::<InternalCaller>().is_some());
        assert_eq!(parts.headers["x-envoy-internal"], "true");
        assert_eq!(parts.headers["x-envoy-retry-on"], "5xx");
        // Whoever passes a request on is not who asked.
        let parts =
            run(&edge(&["10.0.0.0/8"]), &[("x-forwarded-for", "10.9.9.9"), ("x-envoy-retry-on", "5xx")]).unwrap();
        assert!(parts.extensions.get::<InternalCaller>().is_none());
        assert!(!parts.headers.contains_key("x-envoy-retry-on"));
        assert_eq!(parts.headers["x-forwarded-for"], "10.9.9.9,10.1.2.3");
    }

    #[test]
    fn names_with_underscores_are_refused_or_dropped_as_asked() {
        let with = |underscores| HttpConnection { underscores, ..http_connection() };
        let headers = &[("x_under", "1"), ("x-ok", "2")];
        assert_eq!(lines(&with(Underscores::Allow), headers).len(), 2);
        assert_eq!(lines(&with(Underscores::Drop), headers), ["x-ok: 2"]);
        assert!(run(&with(Underscores::Reject), headers).is_err());
        assert!(run(&with(Underscores::Reject), &headers[1..]).is_ok());
    }

    #[test]
    fn several_headers_of_hops_are_one_list() {
        let two = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", ""), ("x-forwarded-for", "2.2.2.2, 3.3.3.3")];
        assert_eq!(lines(&http_connection(), &two), ["x-forwarded-for: 1.1.1.1,2.2.2.2, 3.3.3.3"]);
        let forwarded = run(&edge(&[]), &two).unwrap().headers["x-forwarded-for"].clone();
        assert_eq!(forwarded, "1.1.1.1,2.2.2.2, 3.3.3.3,10.1.2.3");
    }

    #[test]
    fn a_client_on_this_machine_is_written_down_as_this_machine() {
        for client in ["127.0.0.1", "::1"] {
            assert_eq!(address_of(client.parse().unwrap()), own_address());
        }
        for client in ["127.0.0.2", "10.1.1.1", "2001:db8::1"] {
            assert_eq!(address_of(client.parse().unwrap()).to_string(), client);
        }
    }
}
