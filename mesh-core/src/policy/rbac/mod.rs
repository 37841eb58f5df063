//! Is this request allowed? gRFC A41; where gRPC has no word, Envoy's RBAC filter.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::identity::PeerIdentity;
use crate::model::{Metadata, MetadataMatch, MetadataSource, StringMatch};
use crate::model::{Permission, Principal, RbacAction, RbacPolicy, RbacRules};
use crate::route::{Binary, RequestFacts};

/// What authorization asks of a request and the connection it came on.
#[derive(Debug, Clone, Copy)]
pub struct RbacFacts<'a> {
    /// The request, as routing sees it: authorization must not read it another way.
    pub request: RequestFacts<'a>,
    /// Whether the connection is under TLS.
    pub tls: bool,
    /// Who the client is, if it has shown a certificate.
    pub peer: Option<&'a PeerIdentity>,
    /// The server name of its TLS handshake.
    pub server_name: Option<&'a str>,
    /// The address at the other end of the connection.
    pub source: IpAddr,
    /// The address of the client, as far as headers that tell of it are believed (`policy::origin`).
    pub client: IpAddr,
    /// The address that the client connected to.
    pub destination: SocketAddr,
    /// What filters found out of the request.
    pub metadata: &'a Metadata,
    /// What the route says of itself.
    pub route_metadata: &'a Metadata,
}

/// What a set of rules says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RbacVerdict<'r> {
    /// Whether it may pass.
    pub allowed: bool,
    /// The name of the first policy that matched, if one did.
    pub policy: Option<&'r str>,
}

impl RbacVerdict<'_> {
    /// The verdict as a line of the audit log, in JSON (gRFC A59's standard output logger): `filter` is the RBAC filter's name,
    /// `method` the path of the request, `principal` who sent it.
    pub fn audit_line(&self, filter: &str, method: &str, principal: Option<&str>) -> String {
        let event = serde_json::json!({
            "rpc_method": method,
            "principal": principal.unwrap_or_default(),
            "policy_name": filter,
            "matched_rule": self.policy.unwrap_or_default(),
            "authorized": self.allowed,
        });
        serde_json::json!({"grpc_audit_log": event}).to_string()
    }
}

impl RbacRules {
    /// What these rules say to a request.
    pub fn judge(&self, facts: &RbacFacts<'_>) -> RbacVerdict<'_> {
        let policy = self.policies.iter().find(|policy| policy.is_match(facts));
        let allowed = match self.action {
            RbacAction::Allow => policy.is_some(),
            RbacAction::Deny => policy.is_none(),
            RbacAction::Log => true,
        };
        RbacVerdict { allowed, policy: policy.map(|policy| &*policy.name) }
    }
}

impl RbacPolicy {
    fn is_match(&self, facts: &RbacFacts<'_>) -> bool {
        self.permissions.iter().any(|permission| permission.is_match(facts))
            && self.principals.iter().any(|principal| principal.is_match(facts))
    }
}

impl Permission {
    /// Whether this is what is done. It is as deep as the decoder lets a message be.
    pub fn is_match(&self, facts: &RbacFacts<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::And(all) => all.iter().all(|one| one.is_match(facts)),
            Self::Or(any) => any.iter().any(|one| one.is_match(facts)),
            Self::Not(one) => !one.is_match(facts),
            Self::Header(header) => header.is_match(&facts.request, Binary::Visible),
            Self::UrlPath(path) => facts.is_path(path),
            Self::UriTemplate(template) => template.regex.is_full_match(facts.request.path_only().as_bytes()),
            Self::DestinationIp(range) => holds(range, facts.destination.ip()),
            Self::DestinationPort(port) => facts.destination.port() == *port,
            Self::DestinationPortRange { start, end } => (*start..*end).contains(&facts.destination.port().into()),
            Self::ServerName(name) => name.is_match(facts.server_name.unwrap_or_default().as_bytes()),
            Self::Metadata(matcher) => facts.is_metadata(matcher),
        }
    }
}

impl Principal {
    /// Whether this is who does it. It is as deep as the decoder lets a message be.
    pub fn is_match(&self, facts: &RbacFacts<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::And(all) => all.iter().all(|one| one.is_match(facts)),
            Self::Or(any) => any.iter().any(|one| one.is_match(facts)),
            Self::Not(one) => !one.is_match(facts),
            Self::Authenticated(name) => facts.tls && name.as_ref().is_none_or(|name| is_named(facts.peer, name)),
            Self::Verified(name) => facts
                .peer
                .is_some_and(|peer| name.as_ref().is_none_or(|name| peer.sans().match_any(std::slice::from_ref(name)))),
            Self::DirectRemoteIp(range) => holds(range, facts.source),
            // What a header says is taken by its word: only a socket clothes IPv4 addresses.
            Self::RemoteIp(range) if facts.client == facts.source => holds(range, facts.client),
            Self::RemoteIp(range) => range.contains(&facts.client),
            Self::Header(header) => header.is_match(&facts.request, Binary::Visible),
            Self::UrlPath(path) => facts.is_path(path),
            Self::Metadata(matcher) => facts.is_metadata(matcher),
        }
    }
}

impl RbacFacts<'_> {
    fn is_path(&self, path: &StringMatch) -> bool {
        path.is_match(self.request.path_only().as_bytes())
    }

    fn is_metadata(&self, matcher: &MetadataMatch) -> bool {
        matcher.is_match(match matcher.source {
            MetadataSource::Dynamic => self.metadata,
            MetadataSource::Route => self.route_metadata,
        })
    }
}

/// The kinds of names are asked in turn, and only the first kind that the certificate has counts (gRFC A41).
fn is_named(peer: Option<&PeerIdentity>, wanted: &StringMatch) -> bool {
    let Some(peer) = peer else { return wanted.is_match(b"") };
    let sans = peer.sans();
    let names = if sans.uris.is_empty() { &sans.dns } else { &sans.uris };
    if names.is_empty() {
        return wanted.is_match(peer.subject().as_bytes());
    }
    names.iter().any(|name| wanted.is_match(name.as_bytes()))
}

/// Numerically; an IPv4 address in IPv6's clothes is the IPv4 address.
fn holds(range: &IpNet, address: IpAddr) -> bool {
    range.contains(&address.to_canonical())
}

#[cfg(test)]
mod tests;
