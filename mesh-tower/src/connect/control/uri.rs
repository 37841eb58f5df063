//! `server_uri`: where a control plane is, as a gRPC target.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use mesh_core::ads::TransportError;

/// A `server_uri`, taken apart. Whether TLS is spoken is not the URI's matter but the credentials'.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerUri {
    pub(super) place: Place,
    /// `:authority` of the calls.
    pub(super) authority: String,
    /// The name that the server's certificate must have.
    pub(super) host: String,
}

/// Where to connect to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// By DNS, or an address that is written as a host.
    Host(String, u16),
    /// The first of these that takes the connection.
    Addresses(Vec<SocketAddr>),
    Unix(PathBuf),
}

/// gRPC's default, whatever the credentials are.
const DEFAULT_PORT: u16 = 443;

impl FromStr for ServerUri {
    type Err = TransportError;

    fn from_str(uri: &str) -> Result<Self, TransportError> {
        let parsed = match uri.split_once(':') {
            Some(("unix", rest)) => unix(rest),
            Some(("dns" | "passthrough", rest)) => without_authority(rest).and_then(|rest| host(rest, DEFAULT_PORT)),
            Some(("ipv4", rest)) => addresses(rest, SocketAddr::is_ipv4),
            Some(("ipv6", rest)) => addresses(rest, SocketAddr::is_ipv6),
            Some(("https", rest)) => web(rest, 443),
            Some(("http", rest)) => web(rest, 80),
            Some((scheme, rest)) if rest.starts_with("//") || scheme == "unix-abstract" => {
                Err(format!("the scheme `{scheme}` is not supported"))
            }
            _ => host(uri, DEFAULT_PORT),
        };
        parsed.map_err(|why| {
            TransportError::new(format!("server_uri `{uri}`: {why}; give host:port, dns:, ipv4:, ipv6: or unix:"))
        })
    }
}

fn unix(rest: &str) -> Result<ServerUri, String> {
    // `unix://` comes with an absolute path only: what stands before the third slash is an authority.
    let path = match rest.strip_prefix("//") {
        Some(path) if !path.starts_with('/') => return Err("unix:// needs an absolute path".to_owned()),
        Some(path) => path,
        None => rest,
    };
    if path.is_empty() {
        return Err("the path is missing".to_owned());
    }
    let name = "localhost".to_owned();
    Ok(ServerUri { place: Place::Unix(path.into()), authority: name.clone(), host: name })
}

/// What follows `//authority/`, which for `dns` names a DNS server of one's own.
fn without_authority(rest: &str) -> Result<&str, String> {
    match rest.strip_prefix("//") {
        None => Ok(rest),
        Some(rest) => match rest.split_once('/') {
            Some(("", name)) => Ok(name),
            _ => Err("an authority between // and / is not supported".to_owned()),
        },
    }
}

fn web(rest: &str, port: u16) -> Result<ServerUri, String> {
    let rest = rest.strip_prefix("//").ok_or("// is missing after the scheme")?;
    host(rest.strip_suffix('/').unwrap_or(rest), port)
}

fn host(text: &str, default_port: u16) -> Result<ServerUri, String> {
    let (host, port) = split_port(text)?;
    let port = port.unwrap_or(default_port);
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(good) {
        return Err(format!("`{host}` is no host name"));
    }
    Ok(ServerUri { place: Place::Host(host.to_owned(), port), authority: text.to_owned(), host: host.to_owned() })
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let number = |port: &str| port.parse().map_err(|_| format!("`{port}` is no port"));
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("`]` is missing")?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("`{host}` is no IPv6 address"))?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(number(port)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(format!("`{rest}` behind the address is no port")),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Err("an IPv6 address stands in brackets".to_owned()),
        Some((host, port)) => Ok((host, Some(number(port)?))),
        None => Ok((text, None)),
    }
}

fn addresses(rest: &str, family: fn(&SocketAddr) -> bool) -> Result<ServerUri, String> {
    let rest = without_authority(rest)?;
    let parsed: Result<Vec<_>, _> = rest.split(',').map(address).collect();
    let parsed = parsed?;
    if let Some(other) = parsed.iter().find(|address| !family(address)) {
        return Err(format!("`{other}` is of the other family"));
    }
    let first = parsed.first().ok_or("the address is missing")?;
    Ok(ServerUri { authority: first.to_string(), host: first.ip().to_string(), place: Place::Addresses(parsed) })
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let (host, port) = split_port(text)?;
    let ip: IpAddr = host.parse().map_err(|_| format!("`{host}` is no IP address"))?;
    Ok(SocketAddr::new(ip, port.unwrap_or(DEFAULT_PORT)))
}

#[cfg(test)]
mod tests {
    use super::{Place, ServerUri};

    fn parse(uri: &str) -> Result<ServerUri, String> {
        uri.parse::<ServerUri>().map_err(|error| error.reason)
    }

    #[test]
    fn every_form_of_a_target_is_understood() {
        let host = |host: &str, port| Place::Host(host.to_owned(), port);
        let list = |text: &str| Place::Addresses(text.split(' ').map(|one| one.parse().unwrap()).collect());
        let rows = [
            ("istiod.istio-system.svc:15010", host("istiod.istio-system.svc", 15010), "istiod.istio-system.svc:15010"),
            ("dns:a.test:1", host("a.test", 1), "a.test:1"),
            ("dns:///a.test:1", host("a.test", 1), "a.test:1"),
            ("dns:///a.test", host("a.test", 443), "a.test"),
            ("https://a.test", host("a.test", 443), "a.test"),
            ("http://a.test:8080/", host("a.test", 8080), "a.test:8080"),
            ("http://a.test", host("a.test", 80), "a.test"),
            ("127.0.0.1:18000", host("127.0.0.1", 18000), "127.0.0.1:18000"),
            ("[::1]:18000", host("::1", 18000), "[::1]:18000"),
            ("ipv4:127.0.0.1:5,127.0.0.2:6", list("127.0.0.1:5 127.0.0.2:6"), "127.0.0.1:5"),
            ("ipv6:[::1]:5", list("[::1]:5"), "[::1]:5"),
            ("ipv6:///[::1]:5", list("[::1]:5"), "[::1]:5"),
            ("unix:xds.sock", Place::Unix("xds.sock".into()), "localhost"),
            ("unix:/etc/istio/XDS", Place::Unix("/etc/istio/XDS".into()), "localhost"),
            ("unix:///etc/istio/XDS", Place::Unix("/etc/istio/XDS".into()), "localhost"),
        ];
        for (uri, place, authority) in rows {
            let parsed = parse(uri).unwrap();
            assert_eq!((parsed.place, parsed.authority.as_str()), (place, authority), "{uri}");
        }
        assert_eq!(parse("[::1]:1").unwrap().host, "::1");
        assert_eq!(parse("dns:///a.test:1").unwrap().host, "a.test");
    }

    #[test]
    fn what_is_not_one_is_refused_with_the_reason() {
        let rows = [
            ("", "no host name"),
            ("a.test:x", "`x` is no port"),
            ("a.test:70000", "no port"),
            ("::1:80", "in brackets"),
            ("[::1:80", "`]` is missing"),
            ("[a.test]:80", "no IPv6 address"),
            ("dns://8.8.8.8/a.test:1", "an authority"),
            ("unix://relative", "absolute path"),
            ("unix:", "path is missing"),
            ("unix-abstract:name", "not supported"),
            ("xds:///a", "`xds` is not supported"),
            ("ipv4:a.test:1", "no IP address"),
            ("ipv4:[::1]:1", "other family"),
            ("user@a.test:1", "no host name"),
            ("a.test/path", "no host name"),
        ];
        for (uri, why) in rows {
            let error = parse(uri).unwrap_err();
            assert!(error.contains(why) && error.contains(&format!("`{uri}`")), "{uri}: {error}");
        }
    }
}
