//! The one error of the mesh: what went wrong, at which stage of the path, whose fault it is, and what to do next.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// Why a request, or a call of this library's API, failed.
///
/// It is opaque and one pointer wide. Ask it with [`kind`](Self::kind), [`stage`](Self::stage), [`fault`](Self::fault),
/// [`code`](Self::code) and [`config_version`](Self::config_version). Its text names the resource, the server and the next
/// step; the text may change, the [code](Code) does not.
///
/// ```
/// use mesh_core::error::{Code, Error, Stage};
///
/// let error = Error::new(Code::NO_ROUTE, "no route of virtual host `reviews` matches GET /admin");
/// assert_eq!(error.code().to_string(), "MESH-202");
/// assert_eq!(error.stage(), Stage::Route);
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    code: Code,
    message: String,
    next_step: Option<String>,
    config_version: Option<u64>,
    retries: u32,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of failure it is: what a caller may want to branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Something cannot be reached or has nothing to offer now; it may work later.
    Unavailable,
    /// The time was up.
    Timeout,
    /// The configuration asks for something impossible, unknown or refused.
    Config,
    /// TLS or identity was asked for and could not be had.
    Security,
    /// The library was used in a way that cannot work.
    Usage,
    /// A policy of the mesh refused the request.
    Refused,
    /// Our own fault.
    Internal,
}

/// Where on its path the request, or the configuration, was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Reading the bootstrap or the configuration file.
    Bootstrap,
    /// Receiving and validating configuration.
    Configure,
    /// Finding the target of a request.
    Resolve,
    /// Choosing its route.
    Route,
    /// Its deadline.
    Deadline,
    /// Its filters.
    Filter,
    /// Trying again.
    Retry,
    /// Choosing an endpoint.
    Pick,
    /// Connecting to it.
    Connect,
    /// TLS with it.
    Secure,
    /// The exchange itself.
    Wire,
    /// Accepting a connection.
    Accept,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Blame {
    /// The application that calls this library.
    Application,
    /// The control plane, or the file in its place.
    ControlPlane,
    /// The server that was called.
    Upstream,
    /// The client that called.
    Downstream,
    /// The network.
    Network,
    /// This library.
    Mesh,
}

/// A stable code: `MESH-` and three digits. The first digit is the stage's group.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    number: u16,
    kind: Kind,
    stage: Stage,
    blame: Blame,
    next_step: &'static str,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal, $kind:ident, $stage:ident, $blame:ident, $next:literal;)*) => {
        impl Code {
            $($(#[doc = $doc])* pub const $name: Self = Self {
                number: $number, kind: Kind::$kind, stage: Stage::$stage, blame: Blame::$blame, next_step: $next,
            };)*

            /// Every code there is, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// One sentence on what it means: the catalogue's text.
            pub fn meaning(self) -> &'static str {
                match self.number {
                    $($number => concat!($($doc),*).trim_ascii(),)*
                    _ => "",
                }
            }
        }
    };
}

codes! {
    /// No bootstrap and no configuration file was found.
    NO_BOOTSTRAP = 101, Usage, Bootstrap, Application,
        "set GRPC_XDS_BOOTSTRAP to a gRPC xDS bootstrap file, or MESH_CONFIG to a YAML file of routes";
    /// The bootstrap could not be read or is not valid.
    BAD_BOOTSTRAP = 102, Config, Bootstrap, Application, "correct the bootstrap at the field that is named";
    /// The configuration file could not be read or is not valid.
    BAD_FILE = 103, Config, Bootstrap, Application, "correct the file at the line that is named";
    /// The mesh was built outside a Tokio runtime.
    NO_RUNTIME = 104, Usage, Bootstrap, Application, "call it from inside a Tokio runtime";
    /// Two sources of configuration were given at once.
    TWO_SOURCES = 105, Usage, Bootstrap, Application, "unset MESH_CONFIG or the bootstrap, whichever is not meant";
    /// The mesh was shut down.
    SHUT_DOWN = 106, Usage, Resolve, Application, "keep the Mesh until the last request is done";
    /// What the admin services were given to tell of is no descriptor set.
    BAD_DESCRIPTORS = 107, Usage, Bootstrap, Application, "give the FileDescriptorSet that prost-build or protox wrote";
    /// No control plane could be reached, and nothing is cached.
    NO_CONTROL_PLANE = 110, Unavailable, Configure, ControlPlane, "check that the xDS server runs and that its address is right";
    /// The control plane did not say anything about the resource in time.
    RESOURCE_TIMEOUT = 111, Unavailable, Configure, ControlPlane, "check that the control plane serves this resource to this node";
    /// The resource does not exist.
    RESOURCE_NOT_FOUND = 112, Unavailable, Configure, ControlPlane, "add the resource to the control plane, or correct the name";
    /// The resource was refused: it is not valid, or asks for something that cannot be honoured.
    RESOURCE_REFUSED = 113, Config, Configure, ControlPlane, "correct the resource at the field that is named";
    /// The Listener is not one for clients.
    NOT_A_CLIENT_LISTENER = 114, Config, Configure, ControlPlane, "give the Listener an api_listener";
    /// The control plane reports an error with the resource.
    RESOURCE_REPORTED = 115, Unavailable, Configure, ControlPlane, "see what the control plane says, in the text";
    /// DNS gives no address for a host.
    UNRESOLVED = 116, Unavailable, Configure, Network, "check the name, and that DNS knows it from this machine";
    /// The target is not one the mesh understands.
    BAD_TARGET = 201, Usage, Resolve, Application, "use xds:///name, or a request with a host";
    /// No route matches the request.
    NO_ROUTE = 202, Config, Route, ControlPlane, "add a route that matches, or a catch-all";
    /// No virtual host serves the authority.
    NO_VIRTUAL_HOST = 203, Config, Route, ControlPlane, "add the authority to a virtual host's domains";
    /// The route's action cannot be done.
    UNSUPPORTED_ROUTE = 204, Config, Route, ControlPlane, "remove the field that is named, or send this traffic through a proxy";
    /// The route's cluster does not exist.
    NO_CLUSTER = 205, Config, Route, ControlPlane, "add the cluster, or correct the route";
    /// The host is not in the mesh.
    UNKNOWN_HOST = 206, Refused, Resolve, Application, "add the host to the mesh, or let it pass: MeshBuilder::unknown_hosts(UnknownHosts::PassThrough)";
    /// Too many targets are in use.
    TOO_MANY_TARGETS = 207, Refused, Resolve, Application, "raise the limit of live targets, or stop using authorities from outside";
    /// The deadline of the request was over.
    DEADLINE = 301, Timeout, Deadline, Upstream, "raise the timeout of the route, or find what is slow";
    /// An attempt took longer than its share.
    ATTEMPT_TIMEOUT = 302, Timeout, Deadline, Upstream, "raise per_try_timeout, or find what is slow";
    /// A filter refused the request.
    FILTERED = 311, Refused, Filter, ControlPlane, "read the filter's configuration";
    /// A filter failed.
    FILTER_FAILED = 312, Internal, Filter, Application, "read the panic in the log";
    /// The server's authorization policy does not allow the request.
    ACCESS_DENIED = 313, Refused, Filter, Downstream, "call as an identity that the policy allows; the server's log names the policy";
    /// The cluster has no endpoints.
    NO_ENDPOINTS = 401, Unavailable, Pick, ControlPlane, "check that the service has running servers";
    /// No endpoint of the cluster can be connected to.
    NO_CONNECTION = 402, Unavailable, Connect, Network, "check that the servers run and can be reached";
    /// The cluster's limit of concurrent requests is reached.
    OVERLOADED = 403, Refused, Pick, Upstream, "raise max_requests of the cluster, or add servers";
    /// The control plane has requests of this category dropped.
    DROPPED = 404, Refused, Pick, ControlPlane, "the control plane sheds load on purpose";
    /// Waited for a connection until the deadline.
    CONNECTION_TIMEOUT = 405, Timeout, Connect, Network, "check that the servers can be reached";
    /// TLS is asked for and its material is missing.
    NO_CERTIFICATE = 501, Security, Secure, Application, "check the certificate provider of the bootstrap that is named";
    /// The TLS handshake failed.
    HANDSHAKE = 502, Security, Secure, Upstream, "compare the identity and roots of both sides";
    /// The peer is not who it must be.
    WRONG_IDENTITY = 503, Security, Secure, Upstream, "check the server's certificate, or the SANs of the cluster";
    /// TLS is asked for where it cannot be proven.
    UNPROVABLE_TLS = 504, Security, Secure, Application, "use mesh.client or MeshBuilder::connector, which own the connection";
    /// The connection broke during the exchange.
    BROKEN = 601, Unavailable, Wire, Network, "retry if the request is idempotent";
    /// The server answered with something that is not HTTP.
    PROTOCOL = 602, Internal, Wire, Upstream, "check which protocol the port speaks";
    /// The request's body failed.
    BODY = 603, Usage, Wire, Application, "see the source of this error";
    /// The request is not valid HTTP for the mesh.
    BAD_REQUEST = 604, Usage, Wire, Application, "correct the request";
    /// The server is not serving: it has no valid configuration.
    NOT_SERVING = 701, Unavailable, Accept, ControlPlane, "see the log line that says why";
    /// A half of the server was used without the other.
    HALF_SERVER = 702, Usage, Accept, Application, "use the listener and the layer that split() gave together";
    /// The address cannot be listened on.
    BIND = 703, Usage, Accept, Application, "choose an address that is free and is this machine's";
    /// The client's request is not acceptable.
    BAD_CLIENT = 704, Refused, Accept, Downstream, "correct the client";
    /// No filter chain takes the connection.
    NO_FILTER_CHAIN = 705, Refused, Accept, ControlPlane, "add a filter chain that matches, or a default one";
    /// The application's handler failed or panicked.
    HANDLER_FAILED = 706, Internal, Wire, Application, "read the error in the log of the server";
    /// A defect of this library.
    INTERNAL = 901, Internal, Wire, Mesh, "please report it with this text";
}

impl Code {
    /// Its number, without `MESH-`.
    pub const fn number(self) -> u16 {
        self.number
    }

    /// What usually helps.
    pub const fn next_step(self) -> &'static str {
        self.next_step
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MESH-{}", self.number)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// An error of this code. `message` says what happened and names the resource and the server.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            code,
            message: message.into(),
            next_step: None,
            config_version: None,
            retries: 0,
            source: None,
        }))
    }

    /// With the error that caused it.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.change(|inner| inner.source = Some(source.into()))
    }

    /// With the number of the configuration in use.
    #[must_use]
    pub fn with_config_version(self, version: u64) -> Self {
        self.change(|inner| inner.config_version = Some(version))
    }

    /// With how many attempts the retry policy had asked for beside the first.
    #[must_use]
    pub fn with_retries(self, retries: u32) -> Self {
        if retries == self.0.retries { self } else { self.change(|inner| inner.retries = retries) }
    }

    /// With a next step that says more than the code's.
    #[must_use]
    pub fn with_next_step(self, step: impl Into<String>) -> Self {
        self.change(|inner| inner.next_step = Some(step.into()))
    }

    fn change(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::try_unwrap(self.0).unwrap_or_else(|shared| Inner {
            code: shared.code,
            message: shared.message.clone(),
            next_step: shared.next_step.clone(),
            config_version: shared.config_version,
            retries: shared.retries,
            source: None,
        });
        change(&mut inner);
        Self(Arc::new(inner))
    }

    /// Its stable code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        self.0.code.kind
    }

    /// Where on the path it happened.
    pub fn stage(&self) -> Stage {
        self.0.code.stage
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Blame {
        self.0.code.blame
    }

    /// The number of the configuration the request was under; None when there was none.
    pub fn config_version(&self) -> Option<u64> {
        self.0.config_version
    }

    /// How many attempts the retry policy had asked for beside the first, when the request failed in the end. An attempt
    /// whose request never left is replaced without being counted.
    pub fn retries(&self) -> u32 {
        self.0.retries
    }

    /// What happened, without code and next step.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What usually helps.
    pub fn next_step(&self) -> &str {
        self.0.next_step.as_deref().unwrap_or(self.0.code.next_step)
    }

    /// Whether the time was up.
    pub fn is_timeout(&self) -> bool {
        self.kind() == Kind::Timeout
    }

    /// Whether something was not there that may be there later.
    pub fn is_unavailable(&self) -> bool {
        self.kind() == Kind::Unavailable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.message)?;
        let retries = match self.0.retries {
            0 => None,
            1 => Some("after 1 retry".to_owned()),
            many => Some(format!("after {many} retries")),
        };
        match (self.0.config_version, retries) {
            (Some(version), Some(retries)) => write!(f, " (configuration {version}, {retries})")?,
            (Some(version), None) => write!(f, " (configuration {version})")?,
            (None, Some(retries)) => write!(f, " ({retries})")?,
            (None, None) => {}
        }
        write!(f, "; {}", self.next_step())
    }
}

/// As [`Display`](fmt::Display), with the causes: `main` prints an error so that it returns, and it is read by people. `{:#?}`
/// is for programmers.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f
                .debug_struct("Error")
                .field("code", &self.0.code)
                .field("message", &self.0.message)
                .field("config_version", &self.0.config_version)
                .field("retries", &self.0.retries)
                .field("source", &self.0.source)
                .finish();
        }
        fmt::Display::fmt(self, f)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n  caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_ascending_and_explained() {
        for pair in Code::ALL.windows(2) {
            assert!(pair[0].number < pair[1].number, "{} before {}", pair[0], pair[1]);
        }
        for code in Code::ALL {
            assert!(!code.meaning().is_empty() && !code.next_step().is_empty(), "{code}");
        }
    }

    #[test]
    fn the_text_names_code_version_and_next_step() {
        let error = Error::new(Code::NO_ENDPOINTS, "cluster `a` has no endpoints").with_config_version(7);
        assert_eq!(
            error.to_string(),
            "MESH-401: cluster `a` has no endpoints (configuration 7); check that the service has running servers"
        );
        assert_eq!(
            error.with_retries(2).to_string(),
            "MESH-401: cluster `a` has no endpoints (configuration 7, after 2 retries); check that the service has running servers"
        );
        let once = Error::new(Code::BAD_REQUEST, "no").with_retries(1);
        assert_eq!(
            (once.to_string(), once.retries()),
            ("MESH-604: no (after 1 retry); correct the request".to_owned(), 1)
        );
        assert_eq!(std::mem::size_of::<Error>(), std::mem::size_of::<usize>());
    }

    #[test]
    fn what_main_prints_says_what_to_do() {
        let cause = std::io::Error::other("no such file");
        let error = Error::new(Code::BAD_FILE, "mesh.yaml cannot be read").with_source(cause);
        let printed = format!("{error:?}");
        assert_eq!(printed, format!("{error}\n  caused by: no such file"));
        assert!(printed.contains(Code::BAD_FILE.next_step()));
        assert!(format!("{error:#?}").starts_with("Error {"));
    }
}
