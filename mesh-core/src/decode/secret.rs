//! SDS: which secrets a resource may name, and what is in one (rules 46 and 121).
//!
//! A resource names a secret and the server that has it. The server must be one that the bootstrap, the environment or the
//! application named: a control plane that could choose it could have this process show any certificate, trust any root, and
//! speak to any socket of the machine. Its credentials are those that were configured for it, whatever the resource says.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use pb::secret::Type;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::at::At;
use super::decoder::{Decoder, resource};
use super::{DecodeResource, Decoded, Fault, tls, tls_checks};
use crate::identity::{Demands, PairCheck, Roots, Secret};
use crate::model::{CertificateRef, CrlSource, Name};
use crate::resource::SECRET;

/// The longest name of a secret: names come from the control plane, and go on to the server.
const LONGEST_NAME: usize = 2048;
/// The most certificates in a chain or a bundle.
const MOST_CERTIFICATES: usize = 1000;

/// The SDS servers that resources may name, each with the instance name of its certificate provider.
#[derive(Debug, Clone, Default)]
pub struct SecretServers {
    by_cluster: BTreeMap<String, Name>,
    by_target: BTreeMap<String, Name>,
}

impl SecretServers {
    /// None: every resource with a secret of SDS is refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the provider `instance`, which resources name as the cluster `cluster` (`envoy_grpc.cluster_name`): an Envoy has
    /// it in its own bootstrap. Istio calls it `sds-grpc`.
    #[must_use]
    pub fn with_cluster(mut self, cluster: impl Into<String>, instance: impl Into<Name>) -> Self {
        self.by_cluster.insert(cluster.into(), instance.into());
        self
    }

    /// With the provider `instance`, which resources name by its URI (`google_grpc.target_uri`).
    #[must_use]
    pub fn with_target(mut self, uri: impl Into<String>, instance: impl Into<Name>) -> Self {
        self.by_target.insert(uri.into(), instance.into());
        self
    }

    /// Whether resources may name this URI.
    pub fn has_target(&self, uri: &str) -> bool {
        self.by_target.contains_key(uri)
    }

    fn find(&self, service: &core::GrpcService, at: &At<'_>) -> Option<Name> {
        use core::grpc_service::TargetSpecifier::{EnvoyGrpc, GoogleGrpc};
        let (found, field, name) = match &service.target_specifier {
            Some(EnvoyGrpc(envoy)) => {
                (self.by_cluster.get(&envoy.cluster_name), "envoy_grpc.cluster_name", &envoy.cluster_name)
            }
            Some(GoogleGrpc(google)) => {
                (self.by_target.get(&google.target_uri), "google_grpc.target_uri", &google.target_uri)
            }
            None => {
                at.fault("has neither envoy_grpc nor google_grpc");
                return None;
            }
        };
        if found.is_none() {
            at.field(field).fault(format!(
                "is `{}`, which is no SDS server of the bootstrap's certificate_providers or allowed_grpc_services",
                name.chars().take(256).collect::<String>()
            ));
        }
        found.cloned()
    }
}

impl Decoder {
    /// The secret that `config` names.
    pub(super) fn secret(&self, config: &pb::SdsSecretConfig, at: &At<'_>) -> Option<CertificateRef> {
        if config.name.is_empty() || config.name.len() > LONGEST_NAME {
            at.field("name").fault(format!("must have 1 to {LONGEST_NAME} bytes"));
            return None;
        }
        let at = at.field("sds_config");
        let Some(source) = &config.sds_config else {
            at.fault("is missing: a bootstrap of gRPC has no secrets of its own");
            return None;
        };
        let instance = self.secret_server(source, &at)?;
        Some(CertificateRef { instance, certificate: config.name.as_str().into() })
    }

    fn secret_server(&self, source: &core::ConfigSource, at: &At<'_>) -> Option<Name> {
        use core::config_source::ConfigSourceSpecifier::{Ads, ApiConfigSource, Path, PathConfigSource, Self_};
        let api = match &source.config_source_specifier {
            Some(ApiConfigSource(api)) => api,
            Some(Ads(_) | Self_(_)) => {
                at.fault(
                    "must be api_config_source: keys come from a secret discovery service, never with configuration",
                );
                return None;
            }
            Some(Path(_) | PathConfigSource(_)) => {
                at.fault(
                    "must be api_config_source: which files hold keys is for a file_watcher of the bootstrap to say",
                );
                return None;
            }
            None => {
                at.fault("must have api_config_source");
                return None;
            }
        };
        let at = at.field("api_config_source");
        let grpc = [core::api_config_source::ApiType::Grpc, core::api_config_source::ApiType::DeltaGrpc];
        if !grpc.map(i32::from).contains(&api.api_type) {
            at.field("api_type").fault("must be GRPC or DELTA_GRPC");
        }
        if api.transport_api_version == i32::from(core::ApiVersion::V2) {
            at.field("transport_api_version").fault("must be V3");
        }
        let [service] = api.grpc_services.as_slice() else {
            at.field("grpc_services").fault(format!("has {} servers, and must have one", api.grpc_services.len()));
            return None;
        };
        self.secrets.find(service, &at.item("grpc_services", 0))
    }
}

/// Decodes secrets.
pub struct SecretDecoder(PairCheck);

impl SecretDecoder {
    /// A decoder that takes a certificate and a key if `pair` says that they belong together.
    pub fn new(pair: PairCheck) -> Self {
        Self(pair)
    }

    fn secret(&self, secret: &pb::Secret, at: &At<'_>) -> Option<Secret> {
        match &secret.r#type {
            Some(Type::TlsCertificate(certificate)) => self.certificate(certificate, &at.field("tls_certificate")),
            Some(Type::ValidationContext(context)) => validation(context, &at.field("validation_context")),
            Some(Type::SessionTicketKeys(_)) => refused(&at.field("session_ticket_keys")),
            Some(Type::GenericSecret(_)) => refused(&at.field("generic_secret")),
            None => {
                at.fault("has neither tls_certificate nor validation_context");
                None
            }
        }
    }

    fn certificate(&self, certificate: &pb::TlsCertificate, at: &At<'_>) -> Option<Secret> {
        let refused = [
            ("pkcs12", certificate.pkcs12.is_some()),
            ("password", certificate.password.is_some()),
            ("private_key_provider", certificate.private_key_provider.is_some()),
        ];
        for (name, _) in refused.into_iter().filter(|(_, present)| *present) {
            at.field(name).fault("is not supported; the key comes as PEM without a password");
        }
        // What is stapled proves more and allows nothing: without it nothing is let in.
        let chain = certificates(certificate.certificate_chain.as_ref(), &at.field("certificate_chain"));
        let key_at = at.field("private_key");
        let key = inline(certificate.private_key.as_ref(), &key_at)?;
        let key = match PrivateKeyDer::from_pem_slice(key) {
            Ok(key) => key,
            Err(_) => {
                // Not even the error: it may quote.
                key_at.fault("is no private key in PEM");
                return None;
            }
        };
        let chain = chain?;
        if !(self.0)(&chain, &key) {
            key_at.fault("does not belong to the certificate, or is of a kind that cannot be used");
            return None;
        }
        Some(Secret::Certificate { chain, key })
    }
}

impl DecodeResource for SecretDecoder {
    fn decode(&self, type_url: &str, bytes: &[u8]) -> Decoded {
        if type_url != SECRET {
            return Decoded::Err {
                name: None,
                faults: vec![Fault::new("", format!("is a `{type_url}`, and no secret"))],
            };
        }
        resource(bytes, |secret: &pb::Secret| &secret.name, |secret, at| self.secret(&secret, at))
    }
}

fn refused(at: &At<'_>) -> Option<Secret> {
    at.fault("is not supported here: TLS needs tls_certificate or validation_context");
    None
}

fn validation(context: &pb::CertificateValidationContext, at: &At<'_>) -> Option<Secret> {
    if context.custom_validator_config.is_some() {
        at.field("custom_validator_config")
            .fault("is not supported in a secret; say it in the default_validation_context of the resource");
    }
    if context.ca_certificate_provider_instance.is_some() || context.system_root_certs.is_some() {
        at.fault("names roots of another origin; a secret holds trusted_ca");
    }
    // What would trust more is for the operator to say, and nobody names a secret insecure.
    let checks = tls_checks::checks(context, false, at);
    if matches!(checks.crl, Some(CrlSource::File(_))) {
        at.field("crl").fault("must be inline_bytes or inline_string");
    }
    let demands = Demands { sans: tls::sans(context, at), checks };
    let roots = certificates(context.trusted_ca.as_ref(), &at.field("trusted_ca")).map(Roots::Any)?;
    Some(Secret::Validation { roots, demands })
}

fn certificates(source: Option<&core::DataSource>, at: &At<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let pem = inline(source, at)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(MOST_CERTIFICATES + 1).collect();
    match all {
        Ok(all) if all.is_empty() => at.fault("has no certificate in PEM"),
        Ok(all) if all.len() > MOST_CERTIFICATES => at.fault(format!("has over {MOST_CERTIFICATES} certificates")),
        Ok(all) => match all.iter().position(|one| crate::identity::Validity::of(one).is_none()) {
            None => return Some(all),
            Some(index) => at.fault(format!("has something at place {index} that is no certificate")),
        },
        Err(error) => at.fault(format!("is not valid PEM: {error}")),
    }
    None
}

/// A server's secret cannot have us read files or variables: it has what it gives.
fn inline<'a>(source: Option<&'a core::DataSource>, at: &At<'_>) -> Option<&'a [u8]> {
    use core::data_source::Specifier::{InlineBytes, InlineString};
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(InlineBytes(bytes)) => Some(bytes),
        Some(InlineString(text)) => Some(text.as_bytes()),
        Some(_) => {
            at.fault("must be inline_bytes or inline_string");
            None
        }
        None => {
            at.fault("is missing");
            None
        }
    }
}

impl std::fmt::Debug for SecretDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretDecoder").finish_non_exhaustive()
    }
}

impl Decoder {
    /// Resources may name secrets of these servers.
    #[must_use]
    pub fn with_secret_servers(mut self, servers: SecretServers) -> Self {
        self.secrets = Arc::new(servers);
        self
    }
}
