//! The rows of the document: every proposal that has to do with xDS, and what the protocol has beyond them.

/// One proposal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// What it belongs to; rows of one area stand together.
    pub(crate) area: &'static str,
    /// Its number, or a word that tests' names begin with.
    pub(crate) id: &'static str,
    /// What it asks for, in a few words.
    pub(crate) what: &'static str,
    /// What of it is missing and why; empty if nothing is. A row without a test must say it.
    pub(crate) missing: &'static str,
}

const fn row(area: &'static str, id: &'static str, what: &'static str, missing: &'static str) -> Row {
    Row { area, id, what, missing }
}

const CLIENT: &str = "The client and its control plane";
const ROUTES: &str = "Routes, retries and filters";
const BALANCING: &str = "Clusters and balancing";
const SECURITY: &str = "Security";
const SERVERS: &str = "Servers";
const TELEMETRY: &str = "Telemetry";

pub(crate) const ROWS: &[Row] = &[
    row(CLIENT, "A27", "ADS: Listeners, routes, clusters and endpoints by name over one stream", ""),
    row(CLIENT, "A30", "xDS v3", ""),
    row(CLIENT, "A38", "admin services on one port", ""),
    row(CLIENT, "A40", "CSDS: the client's own account of its resources", ""),
    row(CLIENT, "A46", "the good resources of a refused response are used", ""),
    row(CLIENT, "A47", "federation: `xdstp:` names and authorities", ""),
    row(CLIENT, "A53", "`ignore_resource_deletion`", ""),
    row(CLIENT, "A54", "which statuses a control plane may cause", ""),
    row(CLIENT, "A57", "timers, and failures of the stream", ""),
    row(CLIENT, "A64", "LRS: metrics of the application", ""),
    row(CLIENT, "A65", "mTLS to the control plane", ""),
    row(CLIENT, "A71", "fallback between servers", ""),
    row(CLIENT, "A74", "one configuration per target, without tears", ""),
    row(CLIENT, "A85", "LRS: which metrics go where", ""),
    row(CLIENT, "A88", "ambient and fatal errors, `fail_on_data_errors`, errors that a server reports (xRFC TP3)", ""),
    row(
        CLIENT,
        "A95",
        "endpoints as collections (LEDS); `fallback_on_reachability_only`",
        "the bootstrap's field is read; a locality with LEDS is refused",
    ),
    row(CLIENT, "A97", "JWT call credentials for the control plane", ""),
    row(
        CLIENT,
        "A102",
        "services that resources name by URI (not merged)",
        "`allowed_grpc_services` is read; nothing that would use it is there",
    ),
    row(CLIENT, "delta", "incremental ADS; no gRPC has it", ""),
    row(CLIENT, "ttl", "resources with a time to live and heartbeats; no gRPC has them", ""),
    row(CLIENT, "ondemand", "VHDS and ODCDS; no gRPC has them", "a route table with `vhds` fails its requests"),
    row(
        CLIENT,
        "rtds",
        "RTDS and dynamic parameters (xRFC TP2); no gRPC has them",
        "runtime keys are Envoy's own; defaults are used",
    ),
    row(ROUTES, "A6", "retries: backoff, pushback, throttling, transparent retries", ""),
    row(ROUTES, "A28", "routes by path, header and fraction; weighted clusters", ""),
    row(ROUTES, "caseless", "`RouteMatch.case_sensitive: false`", ""),
    row(ROUTES, "A31", "timeouts, and one decision per call", ""),
    row(ROUTES, "A33", "fault injection", ""),
    row(ROUTES, "A39", "HTTP filters and their overrides", "filters by ECDS are refused"),
    row(ROUTES, "A42", "hash policies and the ring hash", ""),
    row(ROUTES, "A44", "retry policies of routes", ""),
    row(ROUTES, "A55", "stateful session affinity", "the filter is not known, so that its Listener is refused"),
    row(ROUTES, "A60", "affinity among weighted clusters", "as A55"),
    row(ROUTES, "A63", "string matchers for headers", ""),
    row(
        ROUTES,
        "A81",
        "authority rewriting by a trusted control plane",
        "`auto_host_rewrite` holds for HTTP; for gRPC it is ignored, as without `trusted_xds_server`",
    ),
    row(ROUTES, "A83", "GCP authentication", "the filter is not known, so that its Listener is refused"),
    row(ROUTES, "A103", "composite filters", "the filter is not known, so that its Listener is refused"),
    row(
        ROUTES,
        "rls",
        "route lookup by a cluster specifier plugin (no gRFC)",
        "the plugin is not known: refused, or its routes' requests fail where it is optional",
    ),
    row(
        ROUTES,
        "extauthz",
        "external authorization (A92, not merged)",
        "on servers; clients refuse it. `google_grpc` (A102) is refused",
    ),
    row(
        ROUTES,
        "extproc",
        "external processing (A93, not merged)",
        "the filter is not known, so that its Listener is refused",
    ),
    row(
        ROUTES,
        "ratelimit",
        "local and global rate limits (A77, not merged)",
        "the filters are not known, so that their Listener is refused",
    ),
    row(ROUTES, "ecds", "filters that come as resources (no gRFC)", "a filter with `config_discovery` is refused"),
    row(BALANCING, "A32", "circuit breaking", "counted in each mesh of a process for itself"),
    row(BALANCING, "A37", "aggregate and logical DNS clusters", ""),
    row(BALANCING, "A48", "least request", ""),
    row(BALANCING, "A50", "outlier detection", "its settings are checked; nothing is ejected yet"),
    row(BALANCING, "A51", "ORCA load reports, with responses and out of band", ""),
    row(BALANCING, "A52", "`load_balancing_policy` and custom policies", ""),
    row(BALANCING, "A56", "priorities", "no failover timer: a priority that connects is waited for"),
    row(BALANCING, "A58", "client-side weighted round robin", ""),
    row(
        BALANCING,
        "A61",
        "endpoints with several addresses",
        "tried in order with a head start each; families are not interleaved",
    ),
    row(BALANCING, "A62", "pick first with shuffling", ""),
    row(
        BALANCING,
        "A68",
        "random subsetting; no gRPC has it over xDS",
        "the policy is not known: the next in the list is used, or the cluster is refused",
    ),
    row(BALANCING, "A75", "aggregates as priorities of clusters", "outlier detection as A50"),
    row(BALANCING, "A76", "hash keys of endpoints", "`request_hash_header` is no field of xDS"),
    row(BALANCING, "A86", "HTTP CONNECT proxies", "a cluster with `Http11ProxyUpstreamTransport` is refused"),
    row(BALANCING, "A105", "several connections to an endpoint", "`per_host_thresholds` is left out"),
    row(BALANCING, "A113", "a shuffle by weight", ""),
    row(BALANCING, "A114", "which ORCA metrics make weights", ""),
    row(BALANCING, "A115", "a priority that is removed is gone at once", ""),
    row(SECURITY, "A29", "TLS of clusters and servers from certificate providers", ""),
    row(
        SECURITY,
        "A69",
        "revocation lists",
        "they come by `crl` of a resource, which gRPC refuses, and not from a provider of the application",
    ),
    row(SECURITY, "A82", "the system's roots", ""),
    row(SECURITY, "A87", "SPIFFE bundle maps", ""),
    row(SECURITY, "A101", "SNI, and names that must match it", ""),
    row(
        SECURITY,
        "A107",
        "private keys elsewhere",
        "keys are in this process: from files, SDS and the Workload API, or made here",
    ),
    row(SECURITY, "sds", "certificates from a secret discovery service; no gRPC has it", ""),
    row(SECURITY, "spiffe", "certificates from the SPIFFE Workload API; no gRPC has it", ""),
    row(SECURITY, "istio", "certificates from Istio's CA; no gRPC has it", ""),
    row(SERVERS, "A36", "servers with Listeners", ""),
    row(SERVERS, "A41", "RBAC", ""),
    row(SERVERS, "A59", "audit logging", "loggers other than standard output"),
    row(SERVERS, "A90", "`Health/List`", "the application brings its own health service"),
    row(TELEMETRY, "A45", "retry statistics of OpenCensus", "superseded by A66, A72 and A96"),
    row(
        TELEMETRY,
        "A66",
        "gRPC's OpenTelemetry metrics",
        "OpenTelemetry's own conventions are followed, not gRPC's names",
    ),
    row(TELEMETRY, "A72", "tracing", ""),
    row(
        TELEMETRY,
        "A78",
        "metrics of WRR, pick first and the xDS client",
        "responses taken and refused, failures of servers and withdrawals are counted under names of ours, as A66; WRR and \
         pick first count nothing",
    ),
    row(TELEMETRY, "A79", "an architecture for other metrics", "an API of gRPC's libraries"),
    row(TELEMETRY, "A89", "the label `grpc.lb.backend_service`", "not there yet"),
    row(TELEMETRY, "A91", "metrics of outlier detection", "as A50"),
    row(TELEMETRY, "A94", "metrics of connections", "not there yet"),
    row(TELEMETRY, "A96", "metrics of retries", "not there yet"),
    row(TELEMETRY, "A108", "a label of the application's", "not there yet"),
    row(TELEMETRY, "A118", "metrics of TLS", "not there yet"),
];
