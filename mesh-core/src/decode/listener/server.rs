//! A server's Listener (gRFC A36): rules 29 to 36.

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use pb::filter::ConfigType;

use super::chain::{chain_match, check_unique};
use crate::decode::at::At;
use crate::decode::envelope::expect;
use crate::decode::value::ip_and_port;
use crate::decode::{Decoder, Side};
use crate::model::{FilterChain, HttpConnection, ServerListener};

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
        Some(FilterChain { name: value.name.as_str().into(), matches, tls: tls.map(Arc::new), http: Arc::new(http?) })
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

/// What would change which connections are taken, and from whom: rules 29 and 30.
fn check_listener(value: &pb::Listener, at: &At<'_>) {
    if !value.listener_filters.is_empty() {
        at.field("listener_filters").fault("must be empty");
    }
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
