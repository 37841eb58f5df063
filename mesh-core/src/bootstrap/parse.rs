//! From the bootstrap's JSON to its meaning.

use std::time::Duration;

use serde_json::Value;

use super::certificates::certificate_providers;
use super::json::{Fault, Object, Path};
use super::{
    Authority, Bootstrap, CallCredentials, ChannelCredentials, GrpcService, IdentityFiles, ListenerNames, Node,
    ServerConfig, ServerFeatures, TlsFiles,
};
use crate::model::Locality;
use crate::resource::percent::encode_authority;

/// How often files are read again unless the bootstrap says otherwise: gRPC's default.
const DEFAULT_REFRESH: Duration = Duration::from_secs(600);

pub(super) fn bootstrap(text: &str) -> Result<Bootstrap, Fault> {
    let json: Value = serde_json::from_str(text).map_err(|error| Fault::new("", format!("is not JSON: {error}")))?;
    let root = Object::new(&json, Path::Root)?;
    let servers = servers(&root)?.ok_or_else(|| root.fault("xds_servers", "is missing"))?;
    if servers.is_empty() {
        return Err(root.fault("xds_servers", "must have at least one server"));
    }
    let certificate_providers = certificate_providers(&root)?;
    let mut listener_names = listener_names(&root)?;
    let authorities = root.entries("authorities", |name, authority| {
        if let Some(template) = authority_template(name, authority)? {
            listener_names.set_authority(name, template);
        } else {
            listener_names.add_authority(name);
        }
        Ok((name.to_owned(), self::authority(authority)?))
    })?;
    let services = root.entries("allowed_grpc_services", |uri, service| {
        let service =
            GrpcService { credentials: channel_credentials(service)?, call_credentials: call_credentials(service)? };
        Ok((uri.to_owned(), service))
    })?;
    Ok(Bootstrap {
        servers,
        node: root.object("node", node)?.unwrap_or_default(),
        certificate_providers,
        listener_names,
        authorities: authorities.into_iter().collect(),
        allowed_grpc_services: services.into_iter().collect(),
    })
}

fn servers(parent: &Object<'_>) -> Result<Option<Vec<ServerConfig>>, Fault> {
    parent.objects("xds_servers", server)
}

pub(super) fn server(server: &Object<'_>) -> Result<ServerConfig, Fault> {
    Ok(ServerConfig {
        uri: server.required("server_uri")?.into(),
        credentials: channel_credentials(server)?,
        call_credentials: call_credentials(server)?,
        features: features(server)?,
        initial_metadata: Vec::new(),
    })
}

/// The first that we support. Entries after it are not looked at, as in gRPC.
fn channel_credentials(server: &Object<'_>) -> Result<ChannelCredentials, Fault> {
    let mut chosen = None;
    let mut seen = Vec::new();
    let offered = server.objects("channel_creds", |entry| {
        if chosen.is_none() {
            let kind = entry.required("type")?;
            seen.push(kind.to_owned());
            chosen = match kind {
                "insecure" => Some(ChannelCredentials::Insecure),
                "tls" => Some(ChannelCredentials::Tls(entry.object("config", tls_files)?.unwrap_or_default())),
                _ => None,
            };
        }
        Ok(())
    })?;
    if offered.is_none() {
        return Err(server.fault("channel_creds", "is missing"));
    }
    chosen.ok_or_else(|| match seen.as_slice() {
        [] => server.fault("channel_creds", "must not be empty"),
        seen => {
            server.fault("channel_creds", format!("must have `insecure` or `tls`, and has only {}", seen.join(", ")))
        }
    })
}

impl Default for TlsFiles {
    /// The system's roots and no certificate of our own.
    fn default() -> Self {
        Self {
            ca_certificate_file: None,
            identity: None,
            spiffe_trust_bundle_map_file: None,
            refresh_interval: DEFAULT_REFRESH,
        }
    }
}

fn tls_files(config: &Object<'_>) -> Result<TlsFiles, Fault> {
    Ok(TlsFiles {
        ca_certificate_file: config.file("ca_certificate_file")?,
        identity: identity_files(config)?,
        spiffe_trust_bundle_map_file: config.file("spiffe_trust_bundle_map_file")?,
        refresh_interval: refresh_interval(config)?,
    })
}

pub(super) fn identity_files(config: &Object<'_>) -> Result<Option<IdentityFiles>, Fault> {
    match (config.file("certificate_file")?, config.file("private_key_file")?) {
        (Some(certificate_file), Some(private_key_file)) => {
            Ok(Some(IdentityFiles { certificate_file, private_key_file }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(config.fault("private_key_file", "is missing, and certificate_file is given")),
        (None, Some(_)) => Err(config.fault("certificate_file", "is missing, and private_key_file is given")),
    }
}

pub(super) fn refresh_interval(config: &Object<'_>) -> Result<Duration, Fault> {
    match config.duration("refresh_interval")? {
        Some(Duration::ZERO) => Err(config.fault("refresh_interval", "must be greater than zero")),
        other => Ok(other.unwrap_or(DEFAULT_REFRESH)),
    }
}

/// All that we support.
fn call_credentials(server: &Object<'_>) -> Result<Vec<CallCredentials>, Fault> {
    let offered = server.objects("call_creds", |entry| {
        if entry.string("type")? != Some("jwt_token_file") {
            return Ok(None);
        }
        let file = entry.object("config", |config| config.required("jwt_token_file").map(Into::into))?;
        let file = file.ok_or_else(|| entry.fault("config.jwt_token_file", "is missing"))?;
        Ok(Some(CallCredentials::JwtTokenFile(file)))
    })?;
    Ok(offered.unwrap_or_default().into_iter().flatten().collect())
}

/// Any JSON value may be in the list; those we do not know mean nothing to us.
fn features(server: &Object<'_>) -> Result<ServerFeatures, Fault> {
    let mut features = ServerFeatures::default();
    for value in server.array("server_features")?.unwrap_or_default() {
        match value.as_str() {
            Some("ignore_resource_deletion") => features.ignore_resource_deletion = true,
            Some("trusted_xds_server") => features.trusted_xds_server = true,
            Some("fail_on_data_errors") => features.fail_on_data_errors = true,
            Some("resource_timer_is_transient_error") => features.resource_timer_is_transient_error = true,
            Some("delta_grpc") => features.delta_grpc = true,
            _ => {}
        }
    }
    Ok(features)
}

fn node(node: &Object<'_>) -> Result<Node, Fault> {
    let text = |object: &Object<'_>, name| object.string(name).map(|text| text.unwrap_or_default().to_owned());
    let locality = node.object("locality", |locality| {
        Ok(Locality {
            region: text(locality, "region")?.into(),
            zone: text(locality, "zone")?.into(),
            sub_zone: text(locality, "sub_zone")?.into(),
        })
    })?;
    Ok(Node {
        id: text(node, "id")?,
        cluster: text(node, "cluster")?,
        locality,
        metadata: node.object("metadata", |metadata| Ok(metadata.map().clone()))?.unwrap_or_default(),
    })
}

fn listener_names(root: &Object<'_>) -> Result<ListenerNames, Fault> {
    let client = root.string("client_default_listener_resource_name_template")?;
    let server = root.string("server_listener_resource_name_template")?;
    let mut names = ListenerNames::default();
    if let Some(template) = client.filter(|template| !template.is_empty()) {
        names.set_client_default(template);
    }
    if let Some(template) = server.filter(|template| !template.is_empty()) {
        names.set_server(template);
    }
    Ok(names)
}

fn authority_template<'a>(name: &str, authority: &Object<'a>) -> Result<Option<&'a str>, Fault> {
    const FIELD: &str = "client_listener_resource_name_template";
    let template = authority.string(FIELD)?.filter(|template| !template.is_empty());
    let prefix = format!("xdstp://{}/", encode_authority(name));
    match template {
        Some(template) if !template.starts_with(&prefix) && !template.starts_with(&format!("xdstp://{name}/")) => {
            Err(authority.fault(FIELD, format!("must start with `{prefix}`")))
        }
        other => Ok(other),
    }
}

fn authority(authority: &Object<'_>) -> Result<Authority, Fault> {
    Ok(Authority {
        servers: servers(authority)?.unwrap_or_default(),
        fallback_on_reachability_only: authority.bool("fallback_on_reachability_only")?,
    })
}
