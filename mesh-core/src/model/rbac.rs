//! Who may do what: `extensions.filters.http.rbac.v3.RBAC` (gRFC A41).

use ipnet::IpNet;

use super::matcher::UriTemplate;
use super::{HeaderMatch, MetadataMatch, Name, SanMatch, StringMatch};

/// The configuration of one RBAC filter, for a Listener or one of its routes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rbac {
    /// What is enforced; None lets everything through.
    pub rules: Option<RbacRules>,
    /// What would be enforced (`shadow_rules`): its verdict is told and has no effect.
    pub shadow: Option<RbacRules>,
}

/// `config.rbac.v3.RBAC`.
#[derive(Debug, Clone, PartialEq)]
pub struct RbacRules {
    /// What becomes of a request that a policy matches.
    pub action: RbacAction,
    /// The policies, in the order of their names: the first that matches is the one that is told.
    pub policies: Vec<RbacPolicy>,
    /// Which verdicts are written to the audit log (gRFC A59).
    pub audit: Audit,
}

/// `config.rbac.v3.RBAC.Action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RbacAction {
    /// A request that no policy matches is denied; with no policies, every request.
    Allow,
    /// A request that a policy matches is denied.
    Deny,
    /// No request is denied.
    Log,
}

/// `config.rbac.v3.RBAC.AuditLoggingOptions`, with the one logger there is: standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Audit {
    /// Denials are written.
    pub denials: bool,
    /// Admissions are written.
    pub admissions: bool,
}

/// `config.rbac.v3.Policy`: it matches what any of its permissions and any of its principals match.
#[derive(Debug, Clone, PartialEq)]
pub struct RbacPolicy {
    /// Its key in the map.
    pub name: Name,
    /// What is done.
    pub permissions: Vec<Permission>,
    /// Who does it.
    pub principals: Vec<Principal>,
}

/// `config.rbac.v3.Permission`: what is done.
#[derive(Debug, Clone, PartialEq)]
pub enum Permission {
    /// Anything.
    Any,
    /// All of these.
    And(Vec<Permission>),
    /// Any of these.
    Or(Vec<Permission>),
    /// Not this.
    Not(Box<Permission>),
    /// A header, or a pseudo-header.
    Header(HeaderMatch),
    /// The path without its query.
    UrlPath(StringMatch),
    /// The path without its query, by template.
    UriTemplate(UriTemplate),
    /// The address that the client connected to.
    DestinationIp(IpNet),
    /// The port that the client connected to.
    DestinationPort(u16),
    /// The port that the client connected to: `start..end`.
    DestinationPortRange {
        /// The first port inside.
        start: i32,
        /// The first port past the end.
        end: i32,
    },
    /// The server name that the client asked for in its TLS handshake; "" if it did not.
    ServerName(StringMatch),
    /// What filters before this one found out, or the route says.
    Metadata(MetadataMatch),
}

/// `config.rbac.v3.Principal`: who does it.
#[derive(Debug, Clone, PartialEq)]
pub enum Principal {
    /// Anyone.
    Any,
    /// All of these.
    And(Vec<Principal>),
    /// Any of these.
    Or(Vec<Principal>),
    /// Not this.
    Not(Box<Principal>),
    /// A name that TLS proves: any URI of the certificate; if it has none, any DNS name; if it has neither, its subject; ""
    /// if there is no certificate. None: whoever is under TLS.
    Authenticated(Option<StringMatch>),
    /// A certificate that was verified, and one of its names; None: any (`mtls_authenticated.v3.Config`).
    Verified(Option<SanMatch>),
    /// The address at the other end of the connection (`direct_remote_ip`, `source_ip`).
    DirectRemoteIp(IpNet),
    /// The address of the client, as far as it is believed ([`OriginTrust`](super::OriginTrust)).
    RemoteIp(IpNet),
    /// A header, or a pseudo-header.
    Header(HeaderMatch),
    /// The path without its query.
    UrlPath(StringMatch),
    /// What filters before this one found out, or the route says.
    Metadata(MetadataMatch),
}
