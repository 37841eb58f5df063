//! Listeners: for a client, how its requests are treated; for a server, what it accepts and under which rules.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::filter::HttpFilter;
use super::route::RouteTable;
use super::tls::DownstreamTls;
use super::{Name, Unsupported};

/// An address range.
pub type Cidr = IpNet;

/// A range in the one form that is compared: host bits cleared, and IPv4 if it lies within the IPv4-mapped addresses.
pub fn canonical(range: Cidr) -> Cidr {
    const MAPPED: u8 = 96;
    if let IpNet::V6(six) = range
        && let Some(four) = six.addr().to_ipv4_mapped()
        && let Some(length) = six.prefix_len().checked_sub(MAPPED)
        && let Ok(four) = Ipv4Net::new(four, length)
    {
        return IpNet::V4(four.trunc());
    }
    range.trunc()
}

/// `config.listener.v3.Listener`.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The resource's name.
    pub name: Name,
    /// Which side it is for.
    pub kind: ListenerKind,
    /// `per_connection_buffer_limit_bytes`, which bounds what is kept of a request for another attempt. None: it has no
    /// word, or zero.
    pub buffer_limit: Option<u32>,
}

impl Listener {
    /// Every `HttpConnectionManager` in it.
    pub fn connections(&self) -> Vec<&Arc<HttpConnection>> {
        match &self.kind {
            ListenerKind::Client(http) => vec![http],
            ListenerKind::Server(server) => {
                server.chains.iter().chain(&server.default_chain).map(|chain| &chain.http).collect()
            }
        }
    }
}

/// Which side a [`Listener`] is for.
#[derive(Debug, Clone)]
pub enum ListenerKind {
    /// It has an `api_listener` (gRFC A27).
    Client(Arc<HttpConnection>),
    /// It has an address and filter chains (gRFC A36).
    Server(Arc<ServerListener>),
}

/// `HttpConnectionManager`: where routes come from, and the filters.
#[derive(Debug, Clone)]
pub struct HttpConnection {
    /// Where the routes come from.
    pub routes: RouteSource,
    /// The filters in order, the router (the last) left out.
    pub filters: Vec<HttpFilter>,
    /// `common_http_protocol_options.max_stream_duration` (gRFC A31); zero is no limit.
    pub max_stream_duration: Option<Duration>,
    /// `normalize_path`. Where a server's Listener does not say, true by gRPC's rules, as Istio's sidecars do (BASE),
    /// and false by Envoy's.
    pub normalize_path: bool,
    /// `merge_slashes`.
    pub merge_slashes: bool,
    /// `path_with_escaped_slashes_action`.
    pub escaped_slashes: EscapedSlashes,
    /// `strip_any_host_port`.
    pub strip_any_host_port: bool,
    /// `strip_matching_host_port`.
    pub strip_matching_host_port: bool,
    /// `strip_trailing_host_dot`.
    pub strip_trailing_host_dot: bool,
    /// Whose word counts about where a request comes from.
    pub origin: OriginTrust,
    /// `common_http_protocol_options.headers_with_underscores_action`.
    pub underscores: Underscores,
    /// What the head of a request may be, and how many there may be.
    pub head: HeadRules,
    /// `upgrade_configs`: the types of upgrades that are let through, of those that are enabled. None by default, as in Envoy:
    /// what comes after an upgrade is no request, and nobody's policy sees it.
    pub upgrades: Vec<Box<str>>,
    /// What becomes of `x-forwarded-client-cert`.
    pub client_cert: ForwardClientCert,
    /// What it asks for and does not get.
    pub unsupported: Vec<Unsupported>,
}

/// What the head of a request may be, and how many there may be at a time. None: as the server likes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeadRules {
    /// `common_http_protocol_options.max_headers_count`. Every value counts, and in HTTP/2 the pseudo-headers do.
    pub max_headers: Option<u32>,
    /// `max_request_headers_kb`, in bytes: in HTTP/1 the head as it stands on the wire, in HTTP/2 its names and values.
    pub max_bytes: Option<u32>,
    /// `http2_protocol_options.max_concurrent_streams`: HTTP/2 streams of one connection at the same time. It lowers
    /// the server's own limit and never raises it.
    pub max_streams: Option<u32>,
    /// `http_protocol_options.allow_custom_methods`: HTTP/1 requests may have methods that are in no registry. Not by default,
    /// as in Envoy.
    pub custom_methods: bool,
}

/// What a connection manager makes of a request's claims about its origin (`x-forwarded-for`, `x-envoy-*`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginTrust {
    /// `use_remote_address`: the connection's address is the client's, and is written down in `x-forwarded-for`. Without it
    /// nobody counts as internal: Envoy would believe a lone `x-forwarded-for`, which anybody can write.
    pub use_remote_address: bool,
    /// `xff_num_trusted_hops`: how many proxies before this server are believed, from the nearest, about where a request comes
    /// from. 0 by default, as in Envoy; gRPC knows no other value.
    pub trusted_hops: u32,
    /// Whether the client is who the last address in `x-forwarded-for` names, where neither of the two says whom to
    /// believe. False by default, as in gRPC (A41), whose clients are at the other end of the connection: anybody can
    /// write that header. True for resources that are judged by Envoy's rules, since it is one of them.
    pub believes_header: bool,
    /// `skip_xff_append`: leave `x-forwarded-for` as it is.
    pub skip_xff_append: bool,
    /// `internal_address_config.cidr_ranges`: who is internal, and may steer retries and timeouts by headers. Nobody by
    /// default, as in Envoy.
    pub internal: Vec<Cidr>,
}

impl OriginTrust {
    /// Whether a request is internal: it comes straight (`forwarded` is whether it has an `x-forwarded-for`) from one of the
    /// internal addresses.
    pub fn is_internal(&self, client: IpAddr, forwarded: bool) -> bool {
        self.use_remote_address && !forwarded && self.internal.iter().any(|range| range.contains(&client))
    }
}

/// `forward_client_cert_details` and `set_current_client_cert_details`: what the application is told of clients in
/// `x-forwarded-client-cert`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ForwardClientCert {
    /// What becomes of what the client said, and of who it is.
    pub mode: ForwardClientCertMode,
    /// What is told beside the server's own URI and the hash of the client's certificate.
    pub details: ClientCertDetails,
}

/// `HttpConnectionManager.ForwardClientCertDetails`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardClientCertMode {
    /// Take the header out.
    #[default]
    Sanitize,
    /// Leave the header of a client that has shown a certificate.
    ForwardOnly,
    /// Add to the header of a client that has shown a certificate.
    AppendForward,
    /// Replace the header by what the client's certificate says.
    SanitizeSet,
    /// Leave the header, whoever sends it.
    AlwaysForwardOnly,
}

/// `HttpConnectionManager.SetCurrentClientCertDetails`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// Its certificate, as percent-encoded PEM.
    pub cert: bool,
    /// Its whole chain, the same.
    pub chain: bool,
    /// Its subject.
    pub subject: bool,
    /// Its URIs.
    pub uri: bool,
    /// Its DNS names.
    pub dns: bool,
}

/// `HttpProtocolOptions.headers_with_underscores_action`: servers that turn `-` into `_` (CGI, WSGI) cannot tell the two
/// apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Underscores {
    /// Pass them on.
    #[default]
    Allow,
    /// Answer 400.
    Reject,
    /// Take the headers out.
    Drop,
}

/// `HttpConnectionManager.path_with_escaped_slashes_action`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Leave `%2F` and `%5C` as they are.
    #[default]
    Keep,
    /// Answer 400.
    Reject,
    /// Answer 307 to the unescaped path.
    UnescapeAndRedirect,
    /// Go on with the unescaped path.
    UnescapeAndForward,
}

/// Where the routes of an [`HttpConnection`] come from.
#[derive(Debug, Clone)]
pub enum RouteSource {
    /// From a RouteConfiguration of this name.
    Rds(Name),
    /// From the Listener itself.
    Inline(Arc<RouteTable>),
}

/// The server half of a [`Listener`].
#[derive(Debug, Clone)]
pub struct ServerListener {
    /// `address`: what the server must be listening on. Port 0 stands for any.
    pub address: SocketAddr,
    /// The chains, in order.
    pub chains: Vec<Arc<FilterChain>>,
    /// Used when no chain matches; without one, the connection is closed.
    pub default_chain: Option<Arc<FilterChain>>,
    /// What is looked at in the first bytes of a connection before its chain is chosen; None: nothing, and chains that ask for
    /// it never match (gRFC A36).
    pub inspection: Option<Inspection>,
}

/// `listener_filters`: Envoy's `tls_inspector` and `http_inspector`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// Whether TLS is told from plaintext, and what a ClientHello says is known.
    pub tls: bool,
    /// Whether HTTP's versions are told from each other in plaintext.
    pub http: bool,
    /// `listener_filters_timeout`: how long a client has for its first bytes, 15 s by default; zero is no limit of its own. The
    /// server's limit for handshakes holds in any case. Then the connection is closed, whatever
    /// `continue_on_listener_filters_timeout` says: every client here has to speak first.
    pub timeout: Duration,
    /// `max_client_hello_size`: 16 KiB by default, and at most.
    pub max_client_hello: usize,
}

/// `config.listener.v3.FilterChain`.
#[derive(Debug, Clone)]
pub struct FilterChain {
    /// Its name; may be empty.
    pub name: Name,
    /// Which connections it takes.
    pub matches: ChainMatch,
    /// TLS; None is plaintext.
    pub tls: Option<Arc<DownstreamTls>>,
    /// What happens to its requests.
    pub http: Arc<HttpConnection>,
    /// The message that it was decoded from. None: it was made otherwise, and is the same as no other.
    pub encoded: Option<Arc<[u8]>>,
}

impl FilterChain {
    /// Whether `other` says the same, byte by byte, so that a connection under one is as good as under the other.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.encoded.is_some() && self.encoded == other.encoded
    }
}

/// `config.listener.v3.FilterChainMatch`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainMatch {
    /// `destination_port`: set, the chain never matches (gRFC A36).
    pub destination_port: Option<u16>,
    /// `prefix_ranges`: the address the client connected to; empty is any.
    pub destination: Vec<Cidr>,
    /// `source_type`.
    pub source_type: SourceType,
    /// `source_prefix_ranges`: the client's address; empty is any.
    pub source: Vec<Cidr>,
    /// `source_ports`; empty is any.
    pub source_ports: Vec<u16>,
    /// `server_names`.
    pub server_names: Vec<String>,
    /// `transport_protocol`: empty, `raw_buffer` or `tls`.
    pub transport_protocol: String,
    /// `application_protocols`.
    pub application_protocols: Vec<String>,
}

/// `FilterChainMatch.ConnectionSourceType`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceType {
    /// Any source.
    #[default]
    Any,
    /// The client is on this machine.
    SameIpOrLoopback,
    /// The client is elsewhere.
    External,
}
