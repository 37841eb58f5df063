//! From what a caller names to a target of the mesh.

use crate::bootstrap::{ListenerNames, XdsTarget};
use crate::error::{Code, Error};
use crate::model::Name;

/// The longest authority that is taken: a DNS name of 253 bytes and a port.
const MAX_AUTHORITY: usize = 260;

/// A target: whom a request is for, before any configuration is known.
///
/// ```
/// use mesh_core::bootstrap::ListenerNames;
/// use mesh_core::target::Target;
///
/// let names = ListenerNames::local();
/// assert_eq!(&*Target::parse("xds:///greeter:50051")?.listener_name(&names)?, "greeter:50051");
/// // A request's authority always has a port: istiod's Listeners are named so.
/// assert_eq!(&*Target::from_authority("Reviews", false)?.listener_name(&names)?, "reviews:80");
/// # Ok::<(), mesh_core::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(XdsTarget);

impl Target {
    /// Parses `xds:///name`, `xds://authority/name`, or the plain `host:port` of an HTTP request.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_TARGET`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.starts_with("xds:") {
            return XdsTarget::parse(text).map(Self);
        }
        match text.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => {
                Self::from_authority(rest.split('/').next().unwrap_or(rest), scheme == "https")
            }
            Some((scheme, _)) => Err(Error::new(
                Code::BAD_TARGET,
                format!("target `{text}` has the scheme `{scheme}`, which the mesh does not know"),
            )),
            None => Self::from_authority(text, false),
        }
    }

    /// The target of an HTTP request: its authority in lower case, with a port (80, or 443 for https, where it has none).
    ///
    /// # Errors
    ///
    /// [`Code::BAD_TARGET`] if it is no authority: authorities may come from strangers.
    pub fn from_authority(authority: &str, https: bool) -> Result<Self, Error> {
        let bad = |why: &str| {
            let shown: String = authority.chars().take(MAX_AUTHORITY).collect();
            Error::new(Code::BAD_TARGET, format!("authority {shown:?} {why}"))
        };
        if authority.is_empty() || authority.len() > MAX_AUTHORITY {
            return Err(bad("is empty or too long"));
        }
        // User information would let one host pass for another.
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        if !authority.bytes().all(known) {
            return Err(bad("has characters that no host has"));
        }
        let parsed: http::uri::Authority = authority.parse().map_err(|_| bad("is not host:port"))?;
        let port = parsed.port_u16().unwrap_or(if https { 443 } else { 80 });
        let after_host = authority.strip_prefix(parsed.host()).unwrap_or_default();
        // An empty port is none (RFC 3986 3.2.3).
        if !matches!(after_host, "" | ":") && parsed.port_u16().is_none() {
            return Err(bad("has a port that is not a number"));
        }
        let host = parsed.host().trim_end_matches('.').to_ascii_lowercase();
        if host.is_empty() {
            return Err(bad("has no host"));
        }
        Ok(Self(XdsTarget { authority: None, name: format!("{host}:{port}") }))
    }

    /// The name of its Listener.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_TARGET`] if its authority is not in the bootstrap.
    pub fn listener_name(&self, names: &ListenerNames) -> Result<Name, Error> {
        names.for_parsed(&self.0)
    }

    /// What virtual hosts are matched with when the target is fixed (gRFC A47's data-plane authority).
    pub fn authority(&self) -> String {
        self.0.data_plane_authority()
    }
}

/// What targets that are one cluster begin with: no Listener's name has a space where a bootstrap did not put one.
const CLUSTER: &str = "cluster ";

/// The target of requests that go to one cluster whatever they say, without a Listener or routes: questions of the mesh's
/// own, to an authorization server for one. It takes the place of a Listener's name.
pub fn of_cluster(cluster: &str) -> Name {
    format!("{CLUSTER}{cluster}").into()
}

/// The cluster of such a target; None: it is another.
pub fn cluster_of(target: &str) -> Option<&str> {
    target.strip_prefix(CLUSTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Result<String, Code> {
        Target::parse(text)
            .and_then(|target| target.listener_name(&ListenerNames::local()))
            .map(|name| name.to_string())
            .map_err(|error| error.code())
    }

    #[test]
    fn every_way_to_name_a_target() {
        for (text, expected) in [
            ("xds:///greeter:50051", "greeter:50051"),
            ("xds:greeter", "greeter"),
            ("reviews", "reviews:80"),
            ("Reviews.Default.svc.", "reviews.default.svc:80"),
            ("reviews:9080", "reviews:9080"),
            ("reviews:", "reviews:80"),
            ("http://reviews:9080/path", "reviews:9080"),
            ("https://reviews", "reviews:443"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(name(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn hostile_authorities_are_refused() {
        let long = "a".repeat(300);
        for text in
            ["", "a b", "user@host", "host:port", "host:99999", "dns:///x", ":80", "a\0b", &long, "xds://unknown/x"]
        {
            assert_eq!(name(text), Err(Code::BAD_TARGET), "{text:?}");
        }
    }
}
