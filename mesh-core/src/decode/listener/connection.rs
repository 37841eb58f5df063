//! `HttpConnectionManager`: rules 9 to 16, and what of Envoy's own fields the model holds.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use pb::http_connection_manager::{RouteSpecifier, StripPortMode};

use super::chain::ranges;
use crate::decode::at::At;
use crate::decode::envelope::check_source;
use crate::decode::value::duration;
use crate::decode::{Decoder, Dialect, Side};
use crate::model::listener::EscapedSlashes;
use crate::model::{
    ClientCertDetails, ForwardClientCert, ForwardClientCertMode, HeadRules, HttpConnection, OriginTrust, RouteSource,
    Underscores,
};

impl Decoder {
    /// Decodes a connection manager for one side.
    pub(super) fn connection(
        &self,
        value: &pb::HttpConnectionManager,
        side: Side,
        at: &At<'_>,
    ) -> Option<HttpConnection> {
        check_trust(value, at);
        // The routes of the table take their own notes first.
        let routes = self.routes(value.route_specifier.as_ref(), at);
        let mark = at.mark();
        note_unsupported(value, side, at);
        let filters = self.http_filters(&value.http_filters, side, at);
        let strip_any_host_port = match value.strip_port_mode {
            Some(StripPortMode::StripAnyHostPort(strip)) => strip,
            None => false,
        };
        let options = value.common_http_protocol_options.as_ref();
        let options_at = at.field("common_http_protocol_options");
        let connection = HttpConnection {
            routes: routes?,
            filters,
            // Rule 15.
            max_stream_duration: duration(
                options.and_then(|options| options.max_stream_duration.as_ref()),
                &options_at.field("max_stream_duration"),
            ),
            normalize_path: value.normalize_path.map_or_else(|| normalizes(side), |said| said.value),
            merge_slashes: value.merge_slashes,
            escaped_slashes: escaped_slashes(value.path_with_escaped_slashes_action, at),
            strip_any_host_port,
            strip_matching_host_port: value.strip_matching_host_port,
            strip_trailing_host_dot: value.strip_trailing_host_dot,
            origin: origin(value, at),
            underscores: underscores(value, &options_at),
            head: head(value, at),
            upgrades: upgrades(value, side, at),
            client_cert: client_cert(value, at),
            unsupported: Vec::new(),
        };
        Some(HttpConnection { unsupported: at.notes_since(mark), ..connection })
    }

    /// Rules 11 to 14.
    fn routes(&self, value: Option<&RouteSpecifier>, at: &At<'_>) -> Option<RouteSource> {
        match value {
            Some(RouteSpecifier::Rds(rds)) => {
                let at = at.field("rds");
                check_source(rds.config_source.as_ref(), &at.field("config_source"));
                if rds.route_config_name.is_empty() {
                    at.field("route_config_name").fault("is empty");
                }
                Some(RouteSource::Rds(rds.route_config_name.as_str().into()))
            }
            Some(RouteSpecifier::RouteConfig(table)) => {
                let table = self.route_table(table.clone(), &at.field("route_config"));
                Some(RouteSource::Inline(Arc::new(table)))
            }
            Some(RouteSpecifier::ScopedRoutes(_)) => {
                at.field("scoped_routes").fault("is not supported; give rds or route_config");
                None
            }
            None => {
                at.fault("has neither rds nor route_config");
                None
            }
        }
    }
}

/// Whether paths are normalised where nobody says so. istiod's gRPC mode never does, whose sidecars all do: a policy
/// for `/public/` must not let `/public/../admin` in. Envoy's own default is to leave them. A client's paths are its
/// application's.
fn normalizes(side: Side) -> bool {
    side == Side::Server && !Dialect::is_envoy()
}

/// What decides whom to believe about a request's origin: rule 10. Rule 9 (`xff_num_trusted_hops`) is one of what gRPC can't.
fn check_trust(value: &pb::HttpConnectionManager, at: &At<'_>) {
    if !value.original_ip_detection_extensions.is_empty() {
        at.field("original_ip_detection_extensions").fault("must be empty: the peer's address is the connection's");
    }
    if value.forward_client_cert_matcher.is_some() {
        at.field("forward_client_cert_matcher").fault("is not supported");
    }
}

fn note_unsupported(value: &pb::HttpConnectionManager, side: Side, at: &At<'_>) {
    let underscores =
        value.common_http_protocol_options.as_ref().is_some_and(|options| options.headers_with_underscores_action != 0);
    at.all_fail_requests(&[
        // Whoever asks for such headers to be refused or dropped must not have them passed on. Servers do as they are asked.
        ("common_http_protocol_options.headers_with_underscores_action", side == Side::Client && underscores),
        ("local_reply_config", value.local_reply_config.is_some()),
        ("early_header_mutation_extensions", !value.early_header_mutation_extensions.is_empty()),
        ("path_normalization_options", value.path_normalization_options.is_some()),
    ]);
    at.all_left_out(&[
        ("access_log", !value.access_log.is_empty()),
        ("request_timeout", is_set(value.request_timeout.as_ref())),
        ("stream_idle_timeout", is_set(value.stream_idle_timeout.as_ref())),
        ("request_headers_timeout", is_set(value.request_headers_timeout.as_ref())),
    ]);
    if side == Side::Server
        && let Some(options) = &value.common_http_protocol_options
    {
        // How long a server's connections and streams live is its own to say: `InboundLimits`.
        at.field("common_http_protocol_options").all_left_out(&[
            ("idle_timeout", is_set(options.idle_timeout.as_ref())),
            ("max_connection_duration", is_set(options.max_connection_duration.as_ref())),
            ("max_requests_per_connection", options.max_requests_per_connection.is_some_and(|most| most.value != 0)),
            ("max_stream_duration", is_set(options.max_stream_duration.as_ref())),
        ]);
    }
}

fn origin(value: &pb::HttpConnectionManager, at: &At<'_>) -> OriginTrust {
    let internal = value.internal_address_config.as_ref();
    OriginTrust {
        use_remote_address: value.use_remote_address.is_some_and(|value| value.value),
        trusted_hops: value.xff_num_trusted_hops,
        believes_header: Dialect::is_envoy(),
        skip_xff_append: value.skip_xff_append,
        internal: internal.map_or_else(Vec::new, |config| {
            ranges(&config.cidr_ranges, "cidr_ranges", &at.field("internal_address_config"))
        }),
    }
}

/// The most that Envoy takes for `max_request_headers_kb`.
const MOST_KIB: u32 = 8192;

fn head(value: &pb::HttpConnectionManager, at: &At<'_>) -> HeadRules {
    let kib = value.max_request_headers_kb.as_ref().map(|kib| kib.value);
    if kib.is_some_and(|kib| kib == 0 || kib > MOST_KIB) {
        at.field("max_request_headers_kb").fault(format!("must be from 1 to {MOST_KIB}"));
    }
    let options = value.common_http_protocol_options.as_ref();
    let max_headers = options.and_then(|options| options.max_headers_count.as_ref()).map(|count| count.value);
    if max_headers == Some(0) {
        at.field("common_http_protocol_options").field("max_headers_count").fault("must be at least 1");
    }
    let http2 = value.http2_protocol_options.as_ref();
    let max_streams = http2.and_then(|options| options.max_concurrent_streams).map(|streams| streams.value);
    if max_streams == Some(0) {
        at.field("http2_protocol_options").field("max_concurrent_streams").fault("must be at least 1");
    }
    HeadRules {
        max_headers,
        max_streams,
        max_bytes: kib.map(|kib| kib.min(MOST_KIB) * 1024),
        custom_methods: value.http_protocol_options.as_ref().is_some_and(|options| options.allow_custom_methods),
    }
}

/// A client's requests are its application's own: what they ask to upgrade to is nobody else's business.
fn upgrades(value: &pb::HttpConnectionManager, side: Side, at: &At<'_>) -> Vec<Box<str>> {
    let mut types = Vec::new();
    for (index, config) in value.upgrade_configs.iter().enumerate().filter(|_| side == Side::Server) {
        if config.enabled.as_ref().is_some_and(|enabled| !enabled.value) {
            continue;
        }
        if !config.filters.is_empty() {
            // They are in place of the filters of other requests, authorization among them.
            at.item("upgrade_configs", index).field("filters").fault("are not supported");
        }
        types.push(config.upgrade_type.as_str().into());
    }
    types
}

fn client_cert(value: &pb::HttpConnectionManager, at: &At<'_>) -> ForwardClientCert {
    let mode = match value.forward_client_cert_details {
        0 => ForwardClientCertMode::Sanitize,
        1 => ForwardClientCertMode::ForwardOnly,
        2 => ForwardClientCertMode::AppendForward,
        3 => ForwardClientCertMode::SanitizeSet,
        4 => ForwardClientCertMode::AlwaysForwardOnly,
        other => {
            at.field("forward_client_cert_details").fault(format!("is {other}, which is not known"));
            ForwardClientCertMode::Sanitize
        }
    };
    let details = value.set_current_client_cert_details.as_ref();
    let details = details.map_or_else(ClientCertDetails::default, |details| ClientCertDetails {
        cert: details.cert,
        chain: details.chain,
        subject: details.subject.is_some_and(|subject| subject.value),
        uri: details.uri,
        dns: details.dns,
    });
    ForwardClientCert { mode, details }
}

fn underscores(value: &pb::HttpConnectionManager, at: &At<'_>) -> Underscores {
    match value.common_http_protocol_options.as_ref().map_or(0, |options| options.headers_with_underscores_action) {
        0 => Underscores::Allow,
        1 => Underscores::Reject,
        2 => Underscores::Drop,
        other => {
            at.field("headers_with_underscores_action").fault(format!("is {other}, which is not known"));
            Underscores::Reject
        }
    }
}

fn is_set(value: Option<&envoy_types::pb::google::protobuf::Duration>) -> bool {
    value.is_some_and(|value| value.seconds != 0 || value.nanos != 0)
}

fn escaped_slashes(value: i32, at: &At<'_>) -> EscapedSlashes {
    match value {
        // 0 is "as the implementation likes", which is to keep them, as in Envoy.
        0 | 1 => EscapedSlashes::Keep,
        2 => EscapedSlashes::Reject,
        3 => EscapedSlashes::UnescapeAndRedirect,
        4 => EscapedSlashes::UnescapeAndForward,
        other => {
            at.field("path_with_escaped_slashes_action").fault(format!("is {other}, which is not known"));
            EscapedSlashes::Reject
        }
    }
}
