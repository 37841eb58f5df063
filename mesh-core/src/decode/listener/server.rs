//! A server's Listener (gRFC A36): rules 29 to 36.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use pb::filter::ConfigType;
use pb::listener_filter::ConfigType as ListenerFilterConfig;
use prost::Message as _;

use super::chain::{chain_match, check_unique};
use crate::decode::at::At;
use crate::decode::envelope::{bare, decode, expect};
use crate::decode::value::{duration, ip_and_port};
use crate::decode::{Decoder, Side};
use crate::model::{FilterChain, HttpConnection, Inspection, ServerListener};

impl Decoder {
    /// Decodes the server half of a Listener.
    pub(super) fn server(&self, value: &pb::Listener, at: &At<'_>) -> Option<ServerListener> {
        check_listener(value, at);
        // Rule 31.
        let address = ip_and_port(value.address.as_ref(), &at.field("address"));
        let mut chains = Vec::new();
        for (index, chain) in value.filter_chains.iter().enumerate() {
            // Rule 33: also those that can never match.
            chains.extend(self.filter_chain(chain, &value.name, &at.item("filter_chains", index)));
        }
        if chains.len() == value.filter_chains.len() {
            check_unique(&chains, at);
        }
        let default_chain = value.default_filter_chain.as_ref();
        let default_chain =
            default_chain.and_then(|chain| self.filter_chain(chain, &value.name, &at.field("default_filter_chain")));
        // Rule 32.
        if value.filter_chains.is_empty() && value.default_filter_chain.is_none() {
            at.field("filter_chains").fault("is empty, and there is no default_filter_chain");
        }
        Some(ServerListener {
            address: address?,
            chains: chains.into_iter().map(Arc::new).collect(),
            default_chain: default_chain.map(Arc::new),
            inspection: inspection(value, at),
        })
    }

    fn filter_chain(&self, value: &pb::FilterChain, owner: &str, at: &At<'_>) -> Option<FilterChain> {
        if value.use_proxy_proto.is_some_and(|value| value.value) {
            at.field("use_proxy_proto").fault("is true, which is not supported");
        }
        let matches = value.filter_chain_match.as_ref();
        let matches = matches.map(|value| chain_match(value, &at.field("filter_chain_match"))).unwrap_or_default();
        let socket = value.transport_socket.as_ref();
        let tls = socket.and_then(|socket| self.downstream_tls(socket, owner, &at.field("transport_socket")));
        let http = self.network_filters(&value.filters, at);
        Some(FilterChain {
            name: value.name.as_str().into(),
            matches,
            tls: tls.map(Arc::new),
            http: Arc::new(http?),
            encoded: Some(value.encode_to_vec().into()),
        })
    }

    /// Rules 34 to 36.
    fn network_filters(&self, values: &[pb::Filter], at: &At<'_>) -> Option<HttpConnection> {
        let mut seen = BTreeSet::new();
        let mut managers = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let at = at.item("filters", index);
            if value.name.is_empty() {
                at.field("name").fault("is empty");
            } else if !seen.insert(&value.name) {
                at.field("name").fault(format!("is `{}`, which another filter has", value.name));
            }
            let Some(ConfigType::TypedConfig(any)) = &value.config_type else {
                at.field("typed_config").fault("is missing");
                continue;
            };
            let at = at.field("typed_config");
            if let Some(manager) = expect::<HttpConnectionManager>(any, &at) {
                managers.push(self.connection(&manager, Side::Server, &at));
            }
        }
        if values.len() != 1 {
            at.field("filters").fault("must be one HttpConnectionManager");
        }
        managers.pop().flatten()
    }
}

/// Rule 29: filters that only look at the first bytes are done; another may decide who gets in.
fn inspection(value: &pb::Listener, at: &At<'_>) -> Option<Inspection> {
    const TLS: &str = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
    const HTTP: &str = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
    let default = Inspection { tls: false, http: false, timeout: DEFAULT_TIMEOUT, max_client_hello: MOST_HELLO };
    let mut inspection = (!value.listener_filters.is_empty()).then_some(default)?;
    for (index, filter) in value.listener_filters.iter().enumerate() {
        let at = at.item("listener_filters", index);
        if filter.filter_disabled.is_some() {
            at.field("filter_disabled").fault("is not supported");
        }
        let at = at.field("typed_config");
        let Some(ListenerFilterConfig::TypedConfig(any)) = &filter.config_type else {
            at.fault("is missing");
            continue;
        };
        match bare(&any.type_url) {
            TLS => {
                inspection.tls = true;
                let most = decode::<TlsInspector>(&any.value, &at).and_then(|filter| filter.max_client_hello_size);
                if let Some(most) = most.and_then(|most| usize::try_from(most.value).ok()) {
                    inspection.max_client_hello = most.min(MOST_HELLO);
                }
            }
            HTTP => inspection.http = true,
            other => at.fault(format!("is a `{other}`, which is not known here and may decide who gets in")),
        }
    }
    let timeout = value.listener_filters_timeout.as_ref();
    inspection.timeout = duration(timeout, &at.field("listener_filters_timeout")).unwrap_or(DEFAULT_TIMEOUT);
    for (index, chain) in value.filter_chains.iter().enumerate() {
        let names = chain.filter_chain_match.iter().flat_map(|matches| &matches.server_names);
        for name in names.filter(|name| name.strip_prefix("*.").unwrap_or(name).contains('*')) {
            at.item("filter_chains", index)
                .field("filter_chain_match")
                .field("server_names")
                .fault(format!("has `{name}`: a star may only stand for the first labels"));
        }
    }
    Some(inspection)
}

/// Envoy's default of `listener_filters_timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest ClientHello: what fits into one record, and Envoy's default.
const MOST_HELLO: usize = 16 * 1024;

/// What would change which connections are taken, and from whom: rules 29 and 30.
fn check_listener(value: &pb::Listener, at: &At<'_>) {
    if value.use_original_dst.is_some_and(|value| value.value) {
        at.field("use_original_dst").fault("must not be true");
    }
    let refused = [
        ("fcds_config", value.fcds_config.is_some()),
        ("filter_chain_matcher", value.filter_chain_matcher.is_some()),
        ("udp_listener_config", value.udp_listener_config.is_some()),
    ];
    for (name, _) in refused.into_iter().filter(|(_, present)| *present) {
        at.field(name).fault("is not supported");
    }
}
