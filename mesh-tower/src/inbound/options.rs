//! How a server treats connections: limits against floods, how long draining takes, and whom to tell.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::config::{InboundTls, NoTls};
use super::slot::{ServingChange, ServingState};
use super::{InboundFilters, ServerLoad};
use crate::filter::Callouts;
use crate::observe::Telemetry;

/// Whom to tell when an address begins or ceases to serve.
pub type OnServingChange = Arc<dyn Fn(&ServingChange) + Send + Sync>;

/// How a server treats connections.
#[derive(Clone)]
#[non_exhaustive]
pub struct InboundOptions {
    /// Limits against clients that ask for too much.
    pub limits: InboundLimits,
    /// How long connections of a Listener that changed may live on: 10 minutes by default, as in the other
    /// implementations of gRFC A36.
    pub drain_grace: Duration,
    /// Told of each change between serving and not serving, on the configuration thread; it must not block. By default a
    /// log line.
    pub on_change: OnServingChange,
    /// The HTTP filters that can be applied; fault injection, CORS and RBAC by default.
    pub filters: InboundFilters,
    /// Upgrades that are let through though no `upgrade_configs` of the Listener allows them, by the name that stands in the
    /// `upgrade` header, or in `:protocol`. None by default: as in Envoy, the Listener must say so. For an application that
    /// serves `websocket` under a control plane that has no word on it.
    pub upgrades: Vec<Box<str>>,
    /// Lets nobody in where no policy says who may come in: where a filter chain has no enforced RBAC whose action is
    /// ALLOW, requests are answered as by one that allows nothing (403 or PERMISSION_DENIED). False by default, as in
    /// gRPC and Envoy. For servers under istiod, whose gRPC mode leaves out an AuthorizationPolicy that allows nothing;
    /// without it such a Listener is warned of. A Listener of a server that is transport-only is not served with it, as
    /// nobody could answer so.
    pub default_deny: bool,
    /// What is said of this server's load with each response (gRFC A51), to callers that balance by it. None by default: nothing
    /// is, and requests carry no [`LoadRecorder`](super::LoadRecorder).
    pub load_reports: Option<ServerLoad>,
    /// Where TLS comes from. By default there is none, and chains that demand it close their connections.
    pub(crate) tls: Arc<dyn InboundTls>,
    /// Where facts about requests go; nowhere by default.
    pub(crate) telemetry: Option<Telemetry>,
}

/// Limits against clients that ask for too much. What is over a limit waits or is closed; nothing grows without bound.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InboundLimits {
    /// Connections at the same time; further ones wait in the kernel's backlog. None by default: the limit of open files
    /// is one already, and a smaller number would surprise.
    pub max_connections: Option<usize>,
    /// Connections before their first request, in their TLS handshake or after it: 1,024 at the same time by default; further
    /// ones wait in the kernel's backlog. When all places are taken the oldest connection is closed that has had its place
    /// for a quarter of `handshake_timeout`, so that whoever says nothing keeps nobody out.
    pub max_handshakes: usize,
    /// How long the TLS handshake may take, and after it the first 24 bytes: 10 s by default.
    pub handshake_timeout: Duration,
    /// How long the head of a request may take, however it trickles: 30 s by default.
    pub header_timeout: Duration,
    /// Values of headers in one request, and of its trailers: 100 by default, as Envoy. In HTTP/2 the pseudo-headers count, and
    /// so does each part of a cookie. `max_headers_count` of the Listener counts in its place.
    pub max_headers: usize,
    /// Bytes of a request's head: 60 KiB by default, as Envoy. In HTTP/1 as it stands on the wire; in HTTP/2, and in trailers,
    /// of names and values. `max_request_headers_kb` of the Listener counts in its place.
    pub max_header_bytes: u32,
    /// Bytes of a request's body: None by default, as in Envoy and gRPC. Nothing of the mesh holds a body: it passes frame by
    /// frame, as fast as the application takes it, and an application that collects one has a limit of its own (axum: 2 MB,
    /// tonic: 4 MB a message). A request whose `content-length` is over it is answered with 413; a body that turns out to be
    /// longer fails where it is read.
    pub max_body_bytes: Option<u64>,
    /// How long a request's body may say nothing while the application or a filter waits for it: 5 min by default, as Envoy's
    /// `stream_idle_timeout`; None is no limit. Then reading it fails. It is not asked of gRPC, whose streams may be silent for as
    /// long as their deadline lets them.
    pub body_timeout: Option<Duration>,
    /// HTTP/2 streams of one connection at the same time: 1,024 by default, as Envoy; fewer where the Listener's
    /// `max_concurrent_streams` says so.
    pub max_concurrent_streams: u32,
    /// HTTP/2: how many requests a client may reset before they are answered, at a stretch: 1,000 by default. A tenth of
    /// them comes back each second, and one with each answer. Over it the connection is closed (CVE-2023-44487; Envoy's 500
    /// counts half of all requests).
    pub max_resets: u32,
    /// HTTP/2: how many frames may say nothing, at a stretch: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, CONTINUATION, DATA
    /// without data, and unknown ones. 1,000 by default, as Envoy lets wait for an answer. A tenth of them comes back
    /// each second, and ten with each frame of an answer. Over it the connection is closed (CVE-2019-9511 to 9518).
    pub max_control_frames: u32,
    /// HTTP/2: how many bytes of answers one connection holds that its client has not taken: 256 KiB by default. Over it the
    /// bodies of its answers are not asked for more until the client takes some. Envoy's connections hold 1 MiB; a thousand
    /// clients that ask for much and take nothing must not cost a gigabyte.
    pub max_send_buffer: usize,
    /// How long a client may take nothing of what it is sent, while its window lets us send: 60 s by default. Then the
    /// connection is closed.
    pub write_timeout: Duration,
    /// HTTP/2: how long a connection is silent before it is asked whether it lives: 2 h by default, as gRPC.
    pub keepalive_interval: Duration,
    /// HTTP/2: how long the answer may take: 20 s by default, as gRPC.
    pub keepalive_timeout: Duration,
}

impl Default for InboundLimits {
    fn default() -> Self {
        Self {
            max_connections: None,
            max_handshakes: 1024,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            max_headers: 100,
            max_header_bytes: 60 * 1024,
            max_body_bytes: None,
            body_timeout: Some(Duration::from_secs(5 * 60)),
            max_concurrent_streams: 1024,
            max_resets: 1000,
            max_control_frames: 1000,
            max_send_buffer: 256 * 1024,
            write_timeout: Duration::from_secs(60),
            keepalive_interval: Duration::from_secs(2 * 60 * 60),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

impl Default for InboundOptions {
    fn default() -> Self {
        Self {
            limits: InboundLimits::default(),
            drain_grace: Duration::from_secs(10 * 60),
            on_change: Arc::new(log_change),
            filters: InboundFilters::of_server(),
            upgrades: Vec::new(),
            default_deny: false,
            load_reports: None,
            tls: Arc::new(NoTls),
            telemetry: None,
        }
    }
}

impl InboundOptions {
    /// With TLS from here.
    pub(crate) fn with_tls(mut self, tls: Arc<dyn InboundTls>) -> Self {
        self.tls = tls;
        self
    }

    /// With filters that can ask other servers.
    pub(crate) fn with_callouts(mut self, callouts: &Callouts) -> Self {
        self.filters = self.filters.with_callouts(callouts);
        self
    }

    /// With facts told to this telemetry.
    pub(crate) fn with_telemetry(mut self, telemetry: Telemetry) -> Self {
        self.telemetry = Some(telemetry);
        self
    }
}

impl fmt::Debug for InboundOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundOptions")
            .field("limits", &self.limits)
            .field("drain_grace", &self.drain_grace)
            .field("filters", &self.filters)
            .field("upgrades", &self.upgrades)
            .field("default_deny", &self.default_deny)
            .field("load_reports", &self.load_reports)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

fn log_change(change: &ServingChange) {
    let address = change.address;
    match &change.state {
        ServingState::Serving { version } => {
            tracing::info!(target: "mesh", "{address} is serving under configuration {version}");
        }
        ServingState::NotServing(error) => tracing::warn!(target: "mesh", "{address} is not serving: {error}"),
    }
}
