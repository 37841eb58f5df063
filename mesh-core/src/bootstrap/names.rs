//! How a target, or a listening address, becomes the name of a Listener resource (gRFC A47, `spec` section 2.10).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::error::{Code, Error};
use crate::model::Name;
use crate::resource::percent::{decode, encode_authority, encode_path};

/// The scheme of a target in the mesh.
const SCHEME: &str = "xds:";
/// What a name template holds in the place of the name.
const PLACEHOLDER: &str = "%s";
/// The server template of [`ListenerNames::local`].
const LOCAL_SERVER_TEMPLATE: &str = "grpc/server?xds.resource.listening_address=%s";

/// The templates of Listener names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerNames {
    client_default: String,
    server: Option<String>,
    authorities: BTreeMap<String, String>,
}

impl Default for ListenerNames {
    /// A target is its Listener's name, and there is no template for servers: gRPC's defaults.
    fn default() -> Self {
        Self { client_default: PLACEHOLDER.to_owned(), server: None, authorities: BTreeMap::new() }
    }
}

impl ListenerNames {
    /// The names for a source that needs no bootstrap: a target is its Listener's name, and a server's Listener is called
    /// `grpc/server?xds.resource.listening_address=IP:port`, as in the bootstraps of most control planes.
    pub fn local() -> Self {
        Self { server: Some(LOCAL_SERVER_TEMPLATE.to_owned()), ..Self::default() }
    }

    /// Sets `client_default_listener_resource_name_template`.
    pub fn set_client_default(&mut self, template: &str) {
        template.clone_into(&mut self.client_default);
    }

    /// Sets `server_listener_resource_name_template`.
    pub fn set_server(&mut self, template: &str) {
        self.server = Some(template.to_owned());
    }

    /// Adds an authority with its `client_listener_resource_name_template`.
    pub fn set_authority(&mut self, authority: &str, template: &str) {
        self.authorities.insert(authority.to_owned(), template.to_owned());
    }

    /// Adds an authority with the default template, `xdstp://<authority>/envoy.config.listener.v3.Listener/%s`.
    pub fn add_authority(&mut self, authority: &str) {
        let template =
            format!("xdstp://{}/envoy.config.listener.v3.Listener/{PLACEHOLDER}", encode_authority(authority));
        self.set_authority(authority, &template);
    }

    /// The Listener of a client's target: `xds:///name`, `xds:name`, `xds://authority/name`, or just `name`.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_TARGET`] if the target has no name, another scheme, or an authority that the bootstrap does not have.
    pub fn for_target(&self, target: &str) -> Result<Name, Error> {
        self.for_parsed(&XdsTarget::parse(target)?)
    }

    /// As [`for_target`](Self::for_target), for a target that was read already.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_TARGET`] for an authority that the bootstrap does not have.
    pub fn for_parsed(&self, target: &XdsTarget) -> Result<Name, Error> {
        let Some(authority) = &target.authority else {
            return Ok(fill(&self.client_default, &target.name).into());
        };
        let template = self.authorities.get(authority).ok_or_else(|| {
            let message = format!("the bootstrap has no authority `{authority}`, which target `{target}` names");
            Error::new(Code::BAD_TARGET, message).with_next_step("add it to `authorities` of the bootstrap")
        })?;
        Ok(template.replace(PLACEHOLDER, &encode_path(&target.name)).into())
    }

    /// The one Listener of all targets, if the template names none in particular: then a target need not have a name.
    pub fn for_any(&self) -> Option<Name> {
        (!self.client_default.contains(PLACEHOLDER)).then(|| self.client_default.as_str().into())
    }

    /// The Listener of a server that listens on `address`.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_BOOTSTRAP`] if there is no `server_listener_resource_name_template`.
    pub fn for_server(&self, address: SocketAddr) -> Result<Name, Error> {
        let template = self.server.as_ref().ok_or_else(|| {
            let message = "server_listener_resource_name_template is missing from the bootstrap, and a server needs it";
            Error::new(Code::BAD_BOOTSTRAP, message)
        })?;
        Ok(fill(template, &address.to_string()).into())
    }
}

/// Puts `name` into `template`, encoded if the result is an `xdstp:` name.
fn fill(template: &str, name: &str) -> String {
    if template.starts_with("xdstp:") {
        template.replace(PLACEHOLDER, &encode_path(name))
    } else {
        template.replace(PLACEHOLDER, name)
    }
}

/// A client's target, read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct XdsTarget {
    /// The authority of its URI, which selects a part of the bootstrap; mostly None.
    pub authority: Option<String>,
    /// The service's name: the path without its leading `/`, percent-decoded.
    pub name: String,
}

impl XdsTarget {
    /// Reads `xds:///name`, `xds:name`, `xds://authority/name`, or just `name`.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_TARGET`] if there is no name or the scheme is another one.
    pub fn parse(target: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::new(Code::BAD_TARGET, format!("target `{target}` {why}"));
        let Some(rest) = strip_scheme(target) else {
            return match target {
                "" => Err(bad("is empty")),
                other if other.contains("://") => Err(bad("has a scheme other than xds")),
                other => Ok(Self { authority: None, name: other.to_owned() }),
            };
        };
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
            None => ("", rest),
        };
        let path = path.strip_prefix('/').unwrap_or(path);
        let name = decode(path).ok_or_else(|| bad("is not validly percent-encoded"))?;
        if name.is_empty() {
            return Err(bad("names no service"));
        }
        let authority = decode(authority).ok_or_else(|| bad("is not validly percent-encoded"))?;
        Ok(Self { authority: (!authority.is_empty()).then_some(authority), name })
    }

    /// What requests to it have as their authority: its name, with `/` percent-encoded.
    pub fn data_plane_authority(&self) -> String {
        self.name.replace('/', "%2F")
    }
}

impl std::fmt::Display for XdsTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "xds://{}/{}", self.authority.as_deref().unwrap_or_default(), self.name)
    }
}

fn strip_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> ListenerNames {
        let mut names = ListenerNames::default();
        names.add_authority("xds.example.com");
        names.set_authority("custom", "xdstp://custom/envoy.config.listener.v3.Listener/a/%s?id=%s");
        names
    }

    fn target(names: &ListenerNames, target: &str) -> String {
        names.for_target(target).unwrap().to_string()
    }

    #[test]
    fn a47_a_target_is_its_listeners_name_by_default() {
        for spelling in ["xds:///greeter:50051", "xds:greeter:50051", "XDS:///greeter:50051", "greeter:50051"] {
            assert_eq!(target(&names(), spelling), "greeter:50051");
        }
    }

    #[test]
    fn a47_every_placeholder_is_filled_and_only_xdstp_names_are_encoded() {
        let mut names = names();
        names.set_client_default("old/%s/%s");
        assert_eq!(target(&names, "xds:///a%20b/c"), "old/a b/c/a b/c");
        names.set_client_default("xdstp://auth/envoy.config.listener.v3.Listener/%s");
        assert_eq!(
            target(&names, "xds:///a%20b/c[1]"),
            "xdstp://auth/envoy.config.listener.v3.Listener/a%20b/c%5B1%5D"
        );
    }

    #[test]
    fn a47_an_authority_has_a_template_of_its_own() {
        let name = target(&names(), "xds://xds.example.com/server.example.com");
        assert_eq!(name, "xdstp://xds.example.com/envoy.config.listener.v3.Listener/server.example.com");
        let name = target(&names(), "xds://custom/x?y");
        assert_eq!(name, "xdstp://custom/envoy.config.listener.v3.Listener/a/x%3Fy?id=x%3Fy");
    }

    #[test]
    fn a47_an_unknown_authority_is_an_error_that_names_it() {
        let error = names().for_target("xds://elsewhere/x").unwrap_err();
        assert_eq!(error.code(), Code::BAD_TARGET);
        assert!(error.message().contains("`elsewhere`"), "{error}");
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for bad in [
            "",
            "xds:",
            "xds:///",
            "xds://authority",
            "xds://authority/",
            "dns:///x",
            "http://x",
            "xds:///%zz",
            "xds:///%f",
        ] {
            assert_eq!(XdsTarget::parse(bad).map_err(|e| e.code()), Err(Code::BAD_TARGET), "{bad}");
        }
    }

    #[test]
    fn a47_the_data_plane_authority_encodes_slashes() {
        assert_eq!(XdsTarget::parse("xds:///a/b:1").unwrap().data_plane_authority(), "a%2Fb:1");
    }

    #[test]
    fn a36_a_servers_listener_comes_from_its_template() {
        let mut names = names();
        let address = "[::1]:8080".parse().unwrap();
        assert_eq!(names.for_server(address).unwrap_err().code(), Code::BAD_BOOTSTRAP);
        names.set_server("xds.istio.io/grpc/lds/inbound/%s");
        assert_eq!(&*names.for_server(address).unwrap(), "xds.istio.io/grpc/lds/inbound/[::1]:8080");
        names.set_server("xdstp://auth/envoy.config.listener.v3.Listener/%s");
        assert_eq!(
            &*names.for_server(address).unwrap(),
            "xdstp://auth/envoy.config.listener.v3.Listener/%5B::1%5D:8080"
        );
    }
}
