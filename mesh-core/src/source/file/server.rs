//! Listeners for the servers that run at a file's endpoints: what a control plane makes for each of its workloads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::tls::TlsPolicy;
use crate::bootstrap::ListenerNames;

/// What the Services of the file say of the servers at each address, and the document that a Listener of it is from.
#[derive(Debug, Default)]
pub(super) struct Servers(BTreeMap<SocketAddr, (BTreeSet<Security>, usize)>);

/// How clients are told to connect, and so how a server has to listen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Security {
    Plaintext,
    /// TLS on both sides: certificate provider instances.
    Mutual {
        identity: String,
        roots: String,
        /// Plaintext is taken, too.
        permissive: bool,
    },
    /// TLS whose certificate on the server's side the file does not know.
    Unknown,
}

impl Servers {
    /// A Service whose port has this policy runs at `address`.
    pub(super) fn add(&mut self, address: SocketAddr, policy: Option<&TlsPolicy>, document: usize) {
        let security = policy.map_or(Security::Plaintext, |policy| match policy.mutual() {
            Some((identity, roots)) => Security::Mutual {
                identity: identity.to_owned(),
                roots: roots.to_owned(),
                permissive: policy.is_permissive(),
            },
            None => Security::Unknown,
        });
        self.0.entry(address).or_insert_with(|| (BTreeSet::new(), document)).0.insert(security);
    }

    /// The Listeners, each with its document. An address whose Services do not agree gets none, so that nothing is served
    /// with less security than one of them asks for.
    pub(super) fn listeners(&self) -> impl Iterator<Item = (Value, usize)> {
        self.0.iter().filter_map(|(address, (said, document))| {
            let mut said = said.iter();
            match (said.next()?, said.next()) {
                (Security::Plaintext, None) => Some((listener(*address, None, false), *document)),
                (Security::Mutual { identity, roots, permissive }, None) => {
                    Some((listener(*address, Some(mutual(identity, roots)), *permissive), *document))
                }
                _ => None,
            }
        })
    }
}

/// A Listener whose server takes every request, and WebSockets, as gateways do, with one spelling of each path. If it
/// is permissive the first bytes tell TLS from plaintext.
fn listener(address: SocketAddr, socket: Option<Value>, permissive: bool) -> Value {
    let name = ListenerNames::local().for_server(address).expect("the local names have a template for servers");
    let route = json!({"match": {"prefix": ""}, "non_forwarding_action": {}});
    let mut chain = json!({
        "filters": [{
            "name": "http",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name.to_string(),
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
                "upgrade_configs": [{"upgrade_type": "websocket"}],
                "normalize_path": true,
                // More than any `x-forwarded-for` names: where a client is, it doesn't say itself.
                "xff_num_trusted_hops": u32::MAX,
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
            },
        }],
    });
    let plain = permissive.then(|| chain.clone());
    if let Some(socket) = socket {
        chain["transport_socket"] = socket;
    }
    let mut listener = json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name.to_string(),
        "address": {"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}},
    });
    if let Some(mut plain) = plain {
        plain["filter_chain_match"] = json!({"transport_protocol": "raw_buffer"});
        chain["filter_chain_match"] = json!({"transport_protocol": "tls"});
        listener["listener_filters"] = json!([{
            "name": "envoy.filters.listener.tls_inspector",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
        }]);
        listener["filter_chains"] = json!([chain, plain]);
    } else {
        listener["filter_chains"] = json!([chain]);
    }
    listener
}

/// TLS that shows `identity`, and lets in who shows a certificate under `roots`.
fn mutual(identity: &str, roots: &str) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": {
                "tls_certificate_provider_instance": {"instance_name": identity},
                "validation_context": {"ca_certificate_provider_instance": {"instance_name": roots}},
            },
        },
    })
}
