//! Endpoints that the application calls itself: over one service of its own, or over one that it makes for each.
//!
//! Neither can prove TLS: what the application speaks is not ours to see. An endpoint that demands it is never called.

mod erased;
mod made;
mod one;
mod refused;

pub(crate) use self::made::MadeEndpoints;
pub(crate) use self::one::ServiceEndpoints;

use std::net::SocketAddr;

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri};
use mesh_core::model::Name;

use super::EndpointPlan;
use super::way::peer_name;

/// The endpoint that the mesh picked for a request: in the request's extensions, and what a maker of services is called with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PickedEndpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// Its host name, if the control plane gives it one; may be empty.
    pub hostname: Name,
    /// The cluster it is one of.
    pub cluster: Name,
}

/// Where requests to one endpoint go, and how they are told.
#[derive(Debug)]
struct Place {
    picked: PickedEndpoint,
    /// The endpoint in texts.
    peer: String,
    /// `ip:port`, if it must be the URI's authority.
    authority: Option<Authority>,
}

impl Place {
    fn new(plan: &EndpointPlan) -> Self {
        let endpoint = &plan.endpoint;
        let picked = PickedEndpoint {
            address: endpoint.address,
            hostname: endpoint.hostname.clone(),
            cluster: plan.cluster.clone(),
        };
        Self { picked, peer: peer_name(plan), authority: None }
    }

    /// With the address in the URI, for services that connect to what it says.
    fn in_uri(mut self) -> Self {
        self.authority = Authority::try_from(self.picked.address.to_string()).ok();
        self
    }

    /// Addresses `request`. The authority that was asked for stays, as `host`.
    fn address<B>(&self, request: &mut Request<B>) {
        request.extensions_mut().insert(self.picked.clone());
        let Some(authority) = &self.authority else { return };
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        if let Some(asked) = parts.authority.replace(authority.clone())
            && let Ok(host) = HeaderValue::from_str(asked.as_str())
        {
            request.headers_mut().insert(HOST, host);
        }
        parts.scheme.get_or_insert(Scheme::HTTP);
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path are there");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        let picked = PickedEndpoint { address: "[::1]:80".parse().unwrap(), hostname: "h".into(), cluster: "c".into() };
        Place { picked, peer: String::new(), authority: None }
    }

    #[test]
    fn the_address_is_in_the_uri_and_the_authority_in_the_host() {
        let place = place().in_uri();
        for (uri, addressed, host) in [
            ("https://a.example:1/x?y", "https://[::1]:80/x?y", Some("a.example:1")),
            ("/x", "http://[::1]:80/x", None),
            ("https://a.example", "https://[::1]:80/", Some("a.example")),
        ] {
            let mut request = Request::get(uri).body(()).unwrap();
            place.address(&mut request);
            assert_eq!(request.uri(), addressed);
            assert_eq!(request.headers().get(HOST).map(|host| host.to_str().unwrap()), host);
            assert_eq!(request.extensions().get(), Some(&place.picked));
        }
    }

    #[test]
    fn a_service_of_its_own_sees_the_uri_as_it_was() {
        let mut request = Request::get("https://a.example/").body(()).unwrap();
        place().address(&mut request);
        assert_eq!(request.uri(), "https://a.example/");
        assert_eq!(request.extensions().get(), Some(&place().picked));
    }
}
