//! Makes the descriptor sets that mesh-core reads proto-JSON with and that the admin services are described by:
//! `cargo run -p mesh-benches --bin descriptors`.
//!
//! The `.proto` files are those inside the `envoy-types` crate, so that the sets and the decoder know the same fields; what is
//! not in it is in `benches/proto`. Only what the messages in [`MESSAGES`] and [`ADMIN`] can reach is kept, without comments and
//! options; the outputs are committed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use protox::Compiler;
use protox::prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use protox::prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MessageOptions,
    ServiceDescriptorProto,
};

type Error = Box<dyn std::error::Error>;

/// A file, and the messages in it that can be an `@type`.
type Row = (&'static str, &'static [&'static str]);

/// What an `@type` may name. What these hold follows from them.
const MESSAGES: &[Row] = &[
    ("envoy/config/listener/v3/listener.proto", &["Listener"]),
    ("envoy/config/route/v3/route.proto", &["RouteConfiguration", "ScopedRouteConfiguration"]),
    ("envoy/config/route/v3/route_components.proto", &["FilterConfig"]),
    ("envoy/config/cluster/v3/cluster.proto", &["Cluster"]),
    ("envoy/config/endpoint/v3/endpoint.proto", &["ClusterLoadAssignment"]),
    ("envoy/service/discovery/v3/discovery.proto", &["DiscoveryRequest", "DiscoveryResponse"]),
    ("envoy/service/status/v3/csds.proto", &["ClientStatusRequest", "ClientStatusResponse"]),
    (
        "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
        &["HttpConnectionManager"],
    ),
    ("envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto", &["TcpProxy"]),
    ("envoy/extensions/filters/network/rbac/v3/rbac.proto", &["RBAC"]),
    ("envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto", &["TlsInspector"]),
    ("envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto", &["HttpInspector"]),
    ("envoy/extensions/filters/listener/original_dst/v3/original_dst.proto", &["OriginalDst"]),
    ("envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.proto", &["ProxyProtocol"]),
    ("envoy/extensions/filters/http/router/v3/router.proto", &["Router"]),
    ("envoy/extensions/filters/http/fault/v3/fault.proto", &["HTTPFault"]),
    ("envoy/extensions/filters/http/cors/v3/cors.proto", &["Cors", "CorsPolicy"]),
    ("envoy/extensions/filters/http/rbac/v3/rbac.proto", &["RBAC", "RBACPerRoute"]),
    ("envoy/extensions/filters/http/jwt_authn/v3/config.proto", &["JwtAuthentication", "PerRouteConfig"]),
    ("envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto", &["ExtAuthz", "ExtAuthzPerRoute"]),
    ("envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto", &["LocalRateLimit"]),
    ("envoy/extensions/filters/http/ratelimit/v3/rate_limit.proto", &["RateLimit", "RateLimitPerRoute"]),
    (
        "envoy/extensions/filters/http/header_mutation/v3/header_mutation.proto",
        &["HeaderMutation", "HeaderMutationPerRoute"],
    ),
    (
        "envoy/extensions/filters/http/stateful_session/v3/stateful_session.proto",
        &["StatefulSession", "StatefulSessionPerRoute"],
    ),
    ("envoy/extensions/filters/http/buffer/v3/buffer.proto", &["Buffer", "BufferPerRoute"]),
    ("envoy/extensions/filters/http/health_check/v3/health_check.proto", &["HealthCheck"]),
    ("envoy/extensions/filters/http/grpc_stats/v3/config.proto", &["FilterConfig"]),
    ("envoy/extensions/filters/http/grpc_web/v3/grpc_web.proto", &["GrpcWeb"]),
    ("envoy/extensions/filters/http/lua/v3/lua.proto", &["Lua", "LuaPerRoute"]),
    ("envoy/extensions/filters/http/set_metadata/v3/set_metadata.proto", &["Config"]),
    ("envoy/extensions/filters/http/set_filter_state/v3/set_filter_state.proto", &["Config"]),
    ("envoy/extensions/http/stateful_session/cookie/v3/cookie.proto", &["CookieBasedSessionState"]),
    ("envoy/extensions/http/stateful_session/header/v3/header.proto", &["HeaderBasedSessionState"]),
    ("envoy/extensions/http/original_ip_detection/xff/v3/xff.proto", &["XffConfig"]),
    ("envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.proto", &["RoundRobin"]),
    ("envoy/extensions/load_balancing_policies/least_request/v3/least_request.proto", &["LeastRequest"]),
    ("envoy/extensions/load_balancing_policies/random/v3/random.proto", &["Random"]),
    ("envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash.proto", &["RingHash"]),
    ("envoy/extensions/load_balancing_policies/maglev/v3/maglev.proto", &["Maglev"]),
    ("envoy/extensions/load_balancing_policies/pick_first/v3/pick_first.proto", &["PickFirst"]),
    ("envoy/extensions/load_balancing_policies/wrr_locality/v3/wrr_locality.proto", &["WrrLocality"]),
    ("envoy/extensions/load_balancing_policies/subset/v3/subset.proto", &["Subset"]),
    ("envoy/extensions/load_balancing_policies/random_subsetting/v3/random_subsetting.proto", &["RandomSubsetting"]),
    ("envoy/extensions/load_balancing_policies/override_host/v3/override_host.proto", &["OverrideHost"]),
    ("envoy/extensions/load_balancing_policies/cluster_provided/v3/cluster_provided.proto", &["ClusterProvided"]),
    (
        "envoy/extensions/load_balancing_policies/load_aware_locality/v3/load_aware_locality.proto",
        &["LoadAwareLocality"],
    ),
    (
        "envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3/client_side_weighted_round_robin.proto",
        &["ClientSideWeightedRoundRobin"],
    ),
    ("envoy/extensions/transport_sockets/tls/v3/tls.proto", &["UpstreamTlsContext", "DownstreamTlsContext"]),
    ("envoy/extensions/transport_sockets/tls/v3/secret.proto", &["Secret"]),
    ("envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto", &["SPIFFECertValidatorConfig"]),
    ("envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto", &["RawBuffer"]),
    (
        "envoy/extensions/transport_sockets/http_11_proxy/v3/upstream_http_11_connect.proto",
        &["Http11ProxyUpstreamTransport"],
    ),
    ("envoy/extensions/transport_sockets/internal_upstream/v3/internal_upstream.proto", &["InternalUpstreamTransport"]),
    (
        "envoy/extensions/transport_sockets/quic/v3/quic_transport.proto",
        &["QuicDownstreamTransport", "QuicUpstreamTransport"],
    ),
    ("envoy/extensions/upstreams/http/v3/http_protocol_options.proto", &["HttpProtocolOptions"]),
    ("envoy/extensions/clusters/aggregate/v3/cluster.proto", &["ClusterConfig"]),
    ("envoy/extensions/clusters/dns/v3/dns_cluster.proto", &["DnsCluster"]),
    ("envoy/extensions/path/match/uri_template/v3/uri_template_match.proto", &["UriTemplateMatchConfig"]),
    ("envoy/extensions/path/rewrite/uri_template/v3/uri_template_rewrite.proto", &["UriTemplateRewriteConfig"]),
    ("envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto", &["PreviousHostsPredicate"]),
    ("envoy/extensions/retry/host/omit_canary_hosts/v3/omit_canary_hosts.proto", &["OmitCanaryHostsPredicate"]),
    ("envoy/extensions/retry/host/omit_host_metadata/v3/omit_host_metadata_config.proto", &["OmitHostMetadataConfig"]),
    (
        "envoy/extensions/retry/priority/previous_priorities/v3/previous_priorities_config.proto",
        &["PreviousPrioritiesConfig"],
    ),
    (
        "envoy/extensions/internal_redirect/allow_listed_routes/v3/allow_listed_routes_config.proto",
        &["AllowListedRoutesConfig"],
    ),
    ("envoy/extensions/internal_redirect/previous_routes/v3/previous_routes_config.proto", &["PreviousRoutesConfig"]),
    (
        "envoy/extensions/internal_redirect/safe_cross_scheme/v3/safe_cross_scheme_config.proto",
        &["SafeCrossSchemeConfig"],
    ),
    ("envoy/extensions/access_loggers/file/v3/file.proto", &["FileAccessLog"]),
    ("envoy/extensions/access_loggers/stream/v3/stream.proto", &["StdoutAccessLog", "StderrAccessLog"]),
    ("envoy/extensions/access_loggers/grpc/v3/als.proto", &["HttpGrpcAccessLogConfig", "TcpGrpcAccessLogConfig"]),
    ("envoy/extensions/access_loggers/open_telemetry/v3/logs_service.proto", &["OpenTelemetryAccessLogConfig"]),
    ("envoy/extensions/rbac/audit_loggers/stream/v3/stream.proto", &["StdoutAuditLog"]),
    ("envoy/extensions/rbac/principals/mtls_authenticated/v3/mtls_authenticated.proto", &["Config"]),
    ("envoy/config/trace/v3/opentelemetry.proto", &["OpenTelemetryConfig"]),
    ("google/protobuf/any.proto", &["Any"]),
    ("google/protobuf/struct.proto", &["Struct", "Value"]),
    ("google/protobuf/empty.proto", &["Empty"]),
    (
        "google/protobuf/wrappers.proto",
        &[
            "BoolValue",
            "BytesValue",
            "DoubleValue",
            "FloatValue",
            "Int32Value",
            "Int64Value",
            "StringValue",
            "UInt32Value",
            "UInt64Value",
        ],
    ),
];

/// The messages of the admin services, which are in the same files.
const ADMIN: &[Row] = &[
    ("envoy/service/status/v3/csds.proto", &["ClientStatusRequest", "ClientStatusResponse"]),
    (
        "grpc/channelz/v1/channelz.proto",
        &[
            "GetTopChannelsRequest",
            "GetTopChannelsResponse",
            "GetServersRequest",
            "GetServersResponse",
            "GetServerRequest",
            "GetServerResponse",
            "GetServerSocketsRequest",
            "GetServerSocketsResponse",
            "GetChannelRequest",
            "GetChannelResponse",
            "GetSubchannelRequest",
            "GetSubchannelResponse",
            "GetSocketRequest",
            "GetSocketResponse",
        ],
    ),
];

/// `TypedStruct`, under its old and its new package: the crate has no file for it.
const TYPED_STRUCTS: [&str; 2] = ["udpa.type.v1", "xds.type.v3"];

/// Where the packages' roots are, inside the crate's `proto` folder.
const ROOTS: &[&str] = &[
    "data-plane-api",
    "xds",
    "googleapis",
    "protoc-gen-validate",
    "cel-spec/proto",
    "client_model",
    "opentelemetry-proto",
    "ratelimit",
];

fn main() -> Result<(), Error> {
    let protos = protos()?;
    let mut set = prune(compile(&protos, MESSAGES)?, MESSAGES, &[])?;
    set.file.extend(TYPED_STRUCTS.map(typed_struct));
    write("mesh-core/src/source/file", &set)?;
    let served: Vec<&str> = ADMIN.iter().map(|(path, _)| *path).collect();
    write("mesh-grpc/src/admin", &prune(compile(&protos, ADMIN)?, ADMIN, &served)?)
}

fn write(folder: &str, set: &FileDescriptorSet) -> Result<(), Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Ok(std::fs::write(root.join(folder).join("descriptors.bin"), set.encode_to_vec())?)
}

/// The folder of `.proto` files in the `envoy-types` crate, wherever Cargo keeps it.
fn protos() -> Result<PathBuf, Error> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(["metadata", "--format-version", "1", "--locked"]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let package = packages.find(|package| package["name"] == "envoy-types").ok_or("envoy-types is not a dependency")?;
    let manifest = package["manifest_path"].as_str().ok_or("envoy-types has no manifest")?;
    Ok(Path::new(manifest).with_file_name("proto"))
}

/// Compiles each file for itself: some use names that mean something else once another file's package is known.
fn compile(protos: &Path, rows: &[Row]) -> Result<FileDescriptorSet, Error> {
    let mut seen = BTreeSet::new();
    let mut set = FileDescriptorSet::default();
    for (path, _) in rows {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
        let roots = ROOTS.iter().map(|root| protos.join(root)).chain([own]);
        let mut compiler = Compiler::new(roots)?;
        compiler.include_imports(true).include_source_info(false).open_file(path)?;
        let files = compiler.file_descriptor_set().file;
        set.file.extend(files.into_iter().filter(|file| seen.insert(file.name().to_owned())));
    }
    Ok(set)
}

fn typed_struct(package: &str) -> FileDescriptorProto {
    let field = |name: &str, number| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        ..FieldDescriptorProto::default()
    };
    let type_url = FieldDescriptorProto { r#type: Some(Type::String.into()), ..field("type_url", 1) };
    let value = FieldDescriptorProto {
        r#type: Some(Type::Message.into()),
        type_name: Some(".google.protobuf.Struct".to_owned()),
        ..field("value", 2)
    };
    FileDescriptorProto {
        name: Some(format!("{}/typed_struct.proto", package.replace('.', "/"))),
        package: Some(package.to_owned()),
        dependency: vec!["google/protobuf/struct.proto".to_owned()],
        message_type: vec![DescriptorProto {
            name: Some("TypedStruct".to_owned()),
            field: vec![type_url, value],
            ..DescriptorProto::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

/// Keeps what `rows` reach, file by file in the order the compiler gave, which puts imports first, and the services of the files
/// `served`.
fn prune(set: FileDescriptorSet, rows: &[Row], served: &[&str]) -> Result<FileDescriptorSet, Error> {
    let kept = reachable(&set, rows)?;
    let homes = homes(&set);
    let mut files = Vec::new();
    for mut file in set.file {
        let name = file.name().to_owned();
        let package = file.package().to_owned();
        file.message_type.retain_mut(|message| keep_message(message, &package, &kept));
        file.enum_type.retain_mut(|value| keep_enum(value, &package, &kept));
        if file.message_type.is_empty() && file.enum_type.is_empty() {
            continue;
        }
        let imports = imports(&file, &homes);
        let service = if served.contains(&&*name) { services(file.service) } else { Vec::new() };
        files.push(FileDescriptorProto {
            name: file.name,
            package: file.package,
            dependency: imports.into_iter().filter(|import| *import != name).collect(),
            message_type: file.message_type,
            enum_type: file.enum_type,
            service,
            syntax: file.syntax,
            ..FileDescriptorProto::default()
        });
    }
    Ok(FileDescriptorSet { file: files })
}

/// The full names, each with a leading dot, of all that the wanted messages need: what their fields hold, and what they are
/// nested in.
fn reachable(set: &FileDescriptorSet, rows: &[Row]) -> Result<BTreeSet<String>, Error> {
    let mut needs = BTreeMap::new();
    for file in &set.file {
        for message in &file.message_type {
            collect(message, &format!(".{}", file.package()), &mut needs);
        }
    }
    let mut queue = Vec::new();
    for (path, names) in rows {
        let file = set.file.iter().find(|file| file.name() == *path).ok_or_else(|| format!("{path} is missing"))?;
        queue.extend(names.iter().map(|name| format!(".{}.{name}", file.package())));
    }
    if let Some(missing) = queue.iter().find(|name| !needs.contains_key(*name)) {
        return Err(format!("{missing} is not in the file it should be in").into());
    }
    let mut kept = BTreeSet::new();
    while let Some(name) = queue.pop() {
        if kept.insert(name.clone()) {
            queue.extend(needs.get(&name).into_iter().flatten().cloned());
            let outer = name.rsplit_once('.').map(|(outer, _)| outer.to_owned());
            queue.extend(outer.filter(|outer| needs.contains_key(outer)));
        }
    }
    Ok(kept)
}

fn collect(message: &DescriptorProto, scope: &str, needs: &mut BTreeMap<String, Vec<String>>) {
    let name = format!("{scope}.{}", message.name());
    needs.insert(name.clone(), message.field.iter().filter_map(|field| field.type_name.clone()).collect());
    for nested in &message.nested_type {
        collect(nested, &name, needs);
    }
}

fn keep_message(message: &mut DescriptorProto, scope: &str, kept: &BTreeSet<String>) -> bool {
    let name = format!("{scope}.{}", message.name());
    message.nested_type.retain_mut(|nested| keep_message(nested, &name, kept));
    message.enum_type.retain_mut(|value| keep_enum(value, &name, kept));
    message.field.iter_mut().for_each(strip);
    for oneof in &mut message.oneof_decl {
        oneof.options = None;
    }
    message.reserved_range.clear();
    message.reserved_name.clear();
    message.extension.clear();
    let map_entry = message.options.as_ref().and_then(|options| options.map_entry);
    message.options = map_entry.map(|entry| MessageOptions { map_entry: Some(entry), ..MessageOptions::default() });
    kept.contains(&format!(".{name}"))
}

fn keep_enum(value: &mut EnumDescriptorProto, scope: &str, kept: &BTreeSet<String>) -> bool {
    let aliases = value.options.as_ref().and_then(|options| options.allow_alias);
    value.options = None;
    if aliases.is_some() {
        value.options.get_or_insert_default().allow_alias = aliases;
    }
    value.value.iter_mut().for_each(|value| value.options = None);
    value.reserved_range.clear();
    value.reserved_name.clear();
    kept.contains(&format!(".{scope}.{}", value.name()))
}

fn services(mut services: Vec<ServiceDescriptorProto>) -> Vec<ServiceDescriptorProto> {
    for service in &mut services {
        service.options = None;
        service.method.iter_mut().for_each(|method| method.options = None);
    }
    services
}

/// The JSON name follows from the name.
fn strip(field: &mut FieldDescriptorProto) {
    field.options = None;
    field.json_name = None;
}

/// The file in which each type is.
fn homes(set: &FileDescriptorSet) -> BTreeMap<String, String> {
    let mut homes = BTreeMap::new();
    for file in &set.file {
        let scope = format!(".{}", file.package());
        for message in &file.message_type {
            place(message, &scope, file.name(), &mut homes);
        }
        for value in &file.enum_type {
            homes.insert(format!("{scope}.{}", value.name()), file.name().to_owned());
        }
    }
    homes
}

fn place(message: &DescriptorProto, scope: &str, file: &str, homes: &mut BTreeMap<String, String>) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        place(nested, &name, file, homes);
    }
    for value in &message.enum_type {
        homes.insert(format!("{name}.{}", value.name()), file.to_owned());
    }
    homes.insert(name, file.to_owned());
}

/// The files that what is left of `file` needs.
fn imports(file: &FileDescriptorProto, homes: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut queue: Vec<&DescriptorProto> = file.message_type.iter().collect();
    let mut imports = BTreeSet::new();
    while let Some(message) = queue.pop() {
        let types = message.field.iter().filter_map(|field| field.type_name.as_ref());
        imports.extend(types.filter_map(|name| homes.get(name)).cloned());
        queue.extend(&message.nested_type);
    }
    imports
}
