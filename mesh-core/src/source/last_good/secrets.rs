//! Which resources hold what may not lie on a disk.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{TransportSocket, transport_socket::ConfigType};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, UpstreamTlsContext, downstream_tls_context::SessionTicketKeysType,
};
use prost::Message;

use crate::resource::{CLUSTER, LISTENER};

/// In every private key that is written as PEM, wherever an extension hides it.
const PRIVATE_KEY: &[u8] = b"PRIVATE KEY";
/// What the types of TLS contexts begin with.
const TLS_TYPES: &[u8] = b"envoy.extensions.transport_sockets.tls.v3.";

/// Whether a resource holds a private key, a session ticket key or another secret in a place that is known. What an extension
/// keeps in a form of its own cannot be known; the file's mode is what protects it.
pub(super) fn holds_secret(type_url: &str, bytes: &[u8]) -> bool {
    let has_key = bytes.windows(PRIVATE_KEY.len()).any(|window| window == PRIVATE_KEY);
    has_key
        || match type_url {
            CLUSTER => Cluster::decode(bytes).is_ok_and(|cluster| in_cluster(&cluster)),
            LISTENER => Listener::decode(bytes).is_ok_and(|listener| in_listener(&listener)),
            _ => false,
        }
}

fn in_cluster(cluster: &Cluster) -> bool {
    let matches = cluster.transport_socket_matches.iter().filter_map(|each| each.transport_socket.as_ref());
    cluster.transport_socket.iter().chain(matches).any(in_socket)
}

fn in_listener(listener: &Listener) -> bool {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains.filter_map(|chain| chain.transport_socket.as_ref()).any(in_socket)
}

/// A socket of another kind may wrap one of these in a way of its own: what cannot be read is taken for a secret.
fn in_socket(socket: &TransportSocket) -> bool {
    let Some(ConfigType::TypedConfig(any)) = &socket.config_type else { return false };
    match any.type_url.rsplit('.').next() {
        Some("UpstreamTlsContext") => UpstreamTlsContext::decode(&any.value[..])
            .map_or(true, |context| context.common_tls_context.is_some_and(|common| in_common(&common))),
        Some("DownstreamTlsContext") => DownstreamTlsContext::decode(&any.value[..]).map_or(true, |context| {
            matches!(context.session_ticket_keys_type, Some(SessionTicketKeysType::SessionTicketKeys(_)))
                || context.common_tls_context.is_some_and(|common| in_common(&common))
        }),
        _ => any.value.windows(TLS_TYPES.len()).any(|window| window == TLS_TYPES),
    }
}

fn in_common(common: &CommonTlsContext) -> bool {
    !common.tls_certificates.is_empty()
}
