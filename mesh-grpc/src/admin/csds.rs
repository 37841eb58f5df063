//! The client status service: what the mesh's xDS clients know (gRFC A40, with the states of A88 and the scopes of A71).

use std::time::SystemTime;

use bytes::Bytes;
use envoy_types::pb::envoy::admin::v3::{ClientResourceStatus, UpdateFailureState};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use envoy_types::pb::envoy::service::status::v3::{ClientConfig, ClientStatusRequest, ClientStatusResponse};
use envoy_types::pb::google::protobuf::{Any, Timestamp};
use mesh_core::resource::TYPE_URL_PREFIX;
use mesh_core::status::{ClientStatus, ConfigStatus, ResourceStatus, State};
use mesh_tower::Mesh;
use prost::Message;
use tokio::sync::Semaphore;
use tonic::Status;

use super::raw::Methods;
use crate::status::status_of;

/// So many dumps are made at the same time: each may be as large as the whole configuration.
const AT_ONCE: usize = 2;

/// `envoy.service.status.v3.ClientStatusDiscoveryService`.
pub(super) struct Csds {
    mesh: Mesh,
    turns: Semaphore,
}

impl Csds {
    pub(super) fn new(mesh: Mesh) -> Self {
        Self { mesh, turns: Semaphore::new(AT_ONCE) }
    }
}

impl Methods for Csds {
    const NAME: &'static str = "envoy.service.status.v3.ClientStatusDiscoveryService";
    const METHODS: &'static [&'static str] = &["FetchClientStatus", "StreamClientStatus"];

    async fn answer(&self, _method: &'static str, request: Bytes) -> Result<Bytes, Status> {
        let request = ClientStatusRequest::decode(request)
            .map_err(|error| Status::invalid_argument(format!("the request cannot be decoded: {error}")))?;
        // gRFC A40: it is the node of this process or none.
        if !request.node_matchers.is_empty() {
            return Err(Status::invalid_argument("node_matchers are not supported: leave them out"));
        }
        // Nobody closes it.
        let _turn = self.turns.acquire().await.map_err(|_| Status::unavailable("the admin service has ended"))?;
        let status = self.mesh.config_status().await.map_err(status_of)?;
        let contents = !request.exclude_resource_contents;
        let encoded = tokio::task::spawn_blocking(move || response(&status, contents).map(|all| all.encode_to_vec()));
        Ok(encoded.await.map_err(|error| Status::internal(error.to_string()))??.into())
    }
}

fn response(status: &ConfigStatus, contents: bool) -> Result<ClientStatusResponse, Status> {
    let config = status.clients.iter().map(|client| config(status, client, contents)).collect::<Result<_, _>>()?;
    Ok(ClientStatusResponse { config })
}

fn config(status: &ConfigStatus, client: &ClientStatus, contents: bool) -> Result<ClientConfig, Status> {
    let node = Node::decode(client.node.clone())
        .map_err(|error| Status::internal(format!("the node cannot be decoded: {error}")))?;
    let resources = client.resources.iter().map(|resource| generic(status, resource, contents));
    Ok(ClientConfig {
        node: Some(node),
        generic_xds_configs: resources.collect(),
        client_scope: client.scope.to_string(),
        ..ClientConfig::default()
    })
}

fn generic(status: &ConfigStatus, resource: &ResourceStatus, contents: bool) -> GenericXdsConfig {
    let type_url = format!("{TYPE_URL_PREFIX}{}", resource.key.type_url);
    let any = |bytes: &Bytes| Any { type_url: type_url.clone(), value: bytes.to_vec() };
    let wall = |instant| timestamp(status.wall_time(instant));
    // That no server can be reached is no failed update of what is in use. That a set was emptied is none to the server either,
    // but as long as it is not in use, it is what is to be known.
    let failure = resource.failure.as_ref().filter(|_| resource.state != State::Acked || resource.withdrawn);
    GenericXdsConfig {
        name: resource.key.name.to_string(),
        version_info: resource.version.clone().unwrap_or_default(),
        xds_config: resource.bytes.as_ref().filter(|_| contents).map(any),
        last_updated: resource.updated.map(wall),
        client_status: client_status(resource.state).into(),
        error_state: failure.map(|failure| UpdateFailureState {
            failed_configuration: failure.bytes.as_ref().filter(|_| contents).map(any),
            last_update_attempt: Some(wall(resource.since)),
            details: failure.error.to_string(),
            version_info: failure.version.clone(),
        }),
        type_url: type_url.clone(),
        ..GenericXdsConfig::default()
    }
}

fn client_status(state: State) -> ClientResourceStatus {
    match state {
        State::Requested => ClientResourceStatus::Requested,
        State::DoesNotExist => ClientResourceStatus::DoesNotExist,
        State::Acked => ClientResourceStatus::Acked,
        State::Nacked => ClientResourceStatus::Nacked,
        State::ReceivedError => ClientResourceStatus::ReceivedError,
        State::Timeout => ClientResourceStatus::Timeout,
        _ => ClientResourceStatus::Unknown,
    }
}

/// Times before 1970 have no sense here.
fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // 999,999,999 at most, and centuries.
    let (seconds, nanos) = (i64::try_from(since.as_secs()), i32::try_from(since.subsec_nanos()));
    Timestamp { seconds: seconds.unwrap_or(i64::MAX), nanos: nanos.unwrap_or_default() }
}
