//! The admin port as tools read it, over real sockets.

mod channelz;

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::admin::v3::ClientResourceStatus;
use envoy_types::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient as CsdsClient;
use envoy_types::pb::envoy::service::status::v3::{ClientConfig, ClientStatusRequest};
use envoy_types::pb::envoy::r#type::matcher::v3::NodeMatcher;
use mesh_core::ads::Settings;
use mesh_core::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, TYPE_URL_PREFIX};
use mesh_core::source::file::resource_from_json;
use mesh_core::source::responder::EncodedResource;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::Code as GrpcCode;
use tonic::transport::Channel;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::Admin;
use crate::control::ControlPlane;
use crate::{Bootstrap, Code, Error, HttpClient, MemorySource, Mesh};

const PATIENCE: Duration = Duration::from_secs(20);

/// A mesh with its admin port, and a client that wants `greeter`.
struct Rig {
    mesh: Mesh,
    _client: HttpClient,
    address: SocketAddr,
    served: JoinHandle<Result<(), Error>>,
    channel: Channel,
}

impl Rig {
    async fn new(mesh: Mesh, change: impl FnOnce(Admin) -> Admin) -> Self {
        let client = mesh.client("xds:///greeter").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(change(Admin::new(&mesh)).serve_on(listener));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { mesh, _client: client, address, served, channel }
    }

    async fn of(control: &ControlPlane) -> Self {
        let bootstrap = Bootstrap::from_json(&control.bootstrap("ours").to_json()).unwrap();
        let mut settings = Settings::default();
        settings.resource_timeout = Duration::from_millis(300);
        let mesh = Mesh::builder().bootstrap(bootstrap).xds(settings).build().unwrap();
        Self::new(mesh, |admin| admin).await
    }

    async fn fetch(&self, request: ClientStatusRequest) -> Result<ClientConfig, tonic::Status> {
        let response = CsdsClient::new(self.channel.clone()).fetch_client_status(request).await?.into_inner();
        let [config] = <[ClientConfig; 1]>::try_from(response.config).unwrap();
        Ok(config)
    }

    /// The resource, once it is as wanted.
    async fn until(&self, type_url: &str, name: &str, wanted: ClientResourceStatus) -> GenericXdsConfig {
        let asked = async {
            loop {
                let config = self.fetch(ClientStatusRequest::default()).await.unwrap();
                let mut found = config.generic_xds_configs.into_iter();
                let is_it = |one: &GenericXdsConfig| one.type_url.ends_with(type_url) && one.name == name;
                match found.find(is_it).filter(|one| one.client_status() == wanted) {
                    Some(found) => return found,
                    None => sleep(Duration::from_millis(5)).await,
                }
            }
        };
        timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{name} never is {wanted:?}"))
    }
}

fn listener(cluster: &str) -> EncodedResource {
    let any = |name: &str, fields: serde_json::Value| {
        let mut fields = fields;
        fields["@type"] = format!("{TYPE_URL_PREFIX}envoy.extensions.filters.{name}").into();
        fields
    };
    let route = json!({ "match": { "prefix": "" }, "route": { "cluster": cluster } });
    let manager = any(
        "network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
            "http_filters": [{ "name": "router", "typed_config": any("http.router.v3.Router", json!({})) }],
        }),
    );
    resource(json!({ "@type": LISTENER, "name": "greeter", "api_listener": { "api_listener": manager } }))
}

fn cluster(name: &str) -> EncodedResource {
    let eds = json!({ "eds_config": { "ads": {} } });
    resource(json!({ "@type": CLUSTER, "name": name, "type": "EDS", "eds_cluster_config": eds }))
}

fn resource(mut json: serde_json::Value) -> EncodedResource {
    json["@type"] = format!("{TYPE_URL_PREFIX}{}", json["@type"].as_str().unwrap()).into();
    resource_from_json(&json).unwrap()
}

async fn serving(resources: Vec<EncodedResource>) -> ControlPlane {
    ControlPlane::builder().resources(resources).without_resource_errors().listen("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn a40_every_state_is_read_with_the_bytes_that_came_and_those_that_failed() {
    let control = serving(vec![listener("there"), cluster("there")]).await;
    let rig = Rig::of(&control).await;
    let acked = rig.until(LISTENER, "greeter", ClientResourceStatus::Acked).await;
    let any = acked.xds_config.clone().unwrap();
    assert_eq!((any.type_url, any.value), (acked.type_url.clone(), listener("there").bytes.to_vec()));
    assert_eq!(acked.type_url, format!("{TYPE_URL_PREFIX}{LISTENER}"));
    assert!(!acked.version_info.is_empty() && acked.error_state.is_none());
    assert!(acked.last_updated.unwrap().seconds > 1_700_000_000, "{acked:?}");

    // What EDS asks for is not there.
    let missing = rig.until("ClusterLoadAssignment", "there", ClientResourceStatus::DoesNotExist).await;
    assert!(missing.xds_config.is_none() && missing.version_info.is_empty() && missing.last_updated.is_none());
    assert!(missing.error_state.unwrap().details.contains("MESH-"), "why is said");

    control.faults().spoil("there");
    let nacked = rig.until(CLUSTER, "there", ClientResourceStatus::Nacked).await;
    let failed = nacked.error_state.unwrap();
    let (in_use, refused) = (nacked.xds_config.unwrap(), failed.failed_configuration.unwrap());
    assert_eq!(in_use.value, cluster("there").bytes.to_vec(), "what is in use is shown");
    assert_ne!(refused.value, in_use.value);
    assert_ne!(failed.version_info, nacked.version_info, "the version that failed is not the one in use");
    let (tried, taken) = (failed.last_update_attempt.unwrap(), nacked.last_updated.unwrap());
    assert!((tried.seconds, tried.nanos) >= (taken.seconds, taken.nanos));
    assert!(failed.details.contains("there"), "{}", failed.details);

    let config = rig.fetch(ClientStatusRequest::default()).await.unwrap();
    let node = config.node.unwrap();
    assert_eq!((&*node.id, &*config.client_scope), ("ours", "process"));
    assert!(!node.user_agent_name.is_empty() && !node.client_features.is_empty(), "as the control plane was told");
}

/// A set of one endpoint, or of none.
fn endpoints(name: &str, is_empty: bool) -> EncodedResource {
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 1 } });
    let locality = json!({
        "locality": { "region": "r" }, "load_balancing_weight": 1,
        "lb_endpoints": [{ "endpoint": { "address": address } }],
    });
    let localities = if is_empty { json!([]) } else { json!([locality]) };
    resource(json!({ "@type": CLUSTER_LOAD_ASSIGNMENT, "cluster_name": name, "endpoints": localities }))
}

#[tokio::test]
async fn a40_an_emptied_set_is_shown_with_the_reason_while_the_one_before_is_used() {
    let all = |is_empty| vec![listener("there"), cluster("there"), endpoints("there", is_empty)];
    let control = serving(all(false)).await;
    let rig = Rig::of(&control).await;
    let before = rig.until(CLUSTER_LOAD_ASSIGNMENT, "there", ClientResourceStatus::Acked).await;
    assert!(before.error_state.is_none());
    control.set(all(true));
    let emptied = async {
        loop {
            let shown = rig.until(CLUSTER_LOAD_ASSIGNMENT, "there", ClientResourceStatus::Acked).await;
            match shown.error_state.clone() {
                Some(failure) => return (shown, failure),
                None => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let (shown, failure) = timeout(PATIENCE, emptied).await.expect("it is shown");
    assert_eq!((&shown.version_info, &shown.xds_config), (&before.version_info, &before.xds_config));
    assert_eq!(shown.last_updated, before.last_updated, "what is used came when it did");
    assert!(failure.details.contains("was emptied"), "{}", failure.details);
    assert!(!failure.version_info.is_empty() && failure.version_info != shown.version_info);
}

#[tokio::test]
async fn a40_node_matchers_are_refused_and_contents_can_be_left_out() {
    let control = serving(vec![listener("there"), cluster("there")]).await;
    let rig = Rig::of(&control).await;
    rig.until(LISTENER, "greeter", ClientResourceStatus::Acked).await;
    let matching =
        ClientStatusRequest { node_matchers: vec![NodeMatcher::default()], ..ClientStatusRequest::default() };
    let refused = rig.fetch(matching.clone()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("node_matchers")), (GrpcCode::InvalidArgument, true));
    let mut streaming = CsdsClient::new(rig.channel.clone());
    let asked = tokio_stream::iter([ClientStatusRequest::default(), matching]);
    let mut stream = streaming.stream_client_status(asked).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().config.len(), 1);
    assert_eq!(stream.message().await.unwrap_err().code(), GrpcCode::InvalidArgument);

    let without = ClientStatusRequest { exclude_resource_contents: true, ..ClientStatusRequest::default() };
    let config = rig.fetch(without).await.unwrap();
    assert!(config.generic_xds_configs.iter().any(|one| one.client_status() == ClientResourceStatus::Acked));
    assert!(config.generic_xds_configs.iter().all(|one| one.xds_config.is_none()));
}

#[tokio::test]
async fn a40_each_message_of_a_stream_is_answered_with_the_state_of_its_time() {
    let control = serving(vec![]).await;
    let rig = Rig::of(&control).await;
    let (ask, asked) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(asked);
    let mut client = CsdsClient::new(rig.channel.clone());
    ask.send(ClientStatusRequest::default()).await.unwrap();
    let mut answers = client.stream_client_status(requests).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert!(first.config[0].generic_xds_configs.iter().all(|one| one.client_status() != ClientResourceStatus::Acked));
    control.set([listener("there")]);
    rig.until(LISTENER, "greeter", ClientResourceStatus::Acked).await;
    ask.send(ClientStatusRequest::default()).await.unwrap();
    let second = answers.message().await.unwrap().unwrap();
    assert!(second.config[0].generic_xds_configs.iter().any(|one| one.client_status() == ClientResourceStatus::Acked));
    drop(ask);
    assert!(answers.message().await.unwrap().is_none());
}

/// What reflection says to one question.
async fn reflect(rig: &Rig, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut client = ServerReflectionClient::new(rig.channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap().message_response.unwrap()
}

#[tokio::test]
async fn a38_csds_health_and_reflection_are_on_one_port() {
    let control = serving(vec![listener("there")]).await;
    let rig = Rig::of(&control).await;
    let MessageResponse::ListServicesResponse(all) = reflect(&rig, MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list of services")
    };
    let names: Vec<&str> = all.service.iter().map(|service| &*service.name).collect();
    for name in [
        "envoy.service.status.v3.ClientStatusDiscoveryService",
        "grpc.channelz.v1.Channelz",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
        let symbol = reflect(&rig, MessageRequest::FileContainingSymbol(name.to_owned())).await;
        let MessageResponse::FileDescriptorResponse(files) = symbol else { panic!("{name}: {symbol:?}") };
        assert!(!files.file_descriptor_proto.is_empty());
    }
}

#[tokio::test]
async fn health_is_what_the_application_says() {
    let mesh = Mesh::builder().source(MemorySource::new([])).build().unwrap();
    let mut reporter = None;
    let rig = Rig::new(mesh, |admin| {
        reporter = Some(admin.health());
        admin
    })
    .await;
    let reporter = reporter.unwrap();
    let mut client = HealthClient::new(rig.channel.clone());
    let mut check = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        client.check(request).await.map(|response| response.into_inner().status().as_str_name())
    };
    assert_eq!(check("").await.unwrap(), "SERVING");
    assert_eq!(check("greeter").await.unwrap_err().code(), GrpcCode::NotFound);
    reporter.set_service_status("greeter", ServingStatus::NotServing).await;
    assert_eq!(check("greeter").await.unwrap(), "NOT_SERVING");
}

#[tokio::test]
async fn a_source_in_this_process_is_shown_as_a_control_plane_is() {
    let source = MemorySource::new([listener("there"), cluster("there")]);
    let rig = Rig::new(Mesh::builder().source(source).build().unwrap(), |admin| admin).await;
    rig.until(LISTENER, "greeter", ClientResourceStatus::Acked).await;
    rig.until(CLUSTER, "there", ClientResourceStatus::Acked).await;
}

#[tokio::test]
async fn it_ends_with_the_mesh() {
    let mesh = Mesh::builder().source(MemorySource::new([])).build().unwrap();
    let rig = Rig::new(mesh, |admin| admin).await;
    drop(rig.channel);
    rig.mesh.shutdown(Duration::from_secs(1)).await;
    assert!(timeout(PATIENCE, rig.served).await.expect("it ends").unwrap().is_ok());
    assert!(tokio::net::TcpStream::connect(rig.address).await.is_err(), "the port is free again");
}

#[tokio::test]
async fn what_would_show_the_configuration_to_others_or_is_no_descriptor_is_refused() {
    let mesh = Mesh::builder().source(MemorySource::new([])).build().unwrap();
    let everywhere = || TcpListener::bind("0.0.0.0:0");
    let refused = Admin::new(&mesh).serve_on(everywhere().await.unwrap()).await.unwrap_err();
    assert_eq!(refused.code(), Code::BIND);
    assert!(refused.to_string().contains("allow_remote"), "{refused}");
    let allowed = Admin::new(&mesh).allow_remote().serve_on(everywhere().await.unwrap());
    assert!(timeout(Duration::from_millis(50), allowed).await.is_err(), "it serves");
    let error = Admin::new(&mesh).describe(*b"not a descriptor set").into_routes().map(drop).unwrap_err();
    assert_eq!(error.code(), Code::BAD_DESCRIPTORS);
}
