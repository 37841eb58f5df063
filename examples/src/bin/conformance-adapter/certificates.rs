//! Certificates that a case holds itself, as certificate providers: that is where this library takes them from.

use std::sync::Arc;

use mesh_core::identity::StaticSource;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::config::Refusal;

/// A provider, by the name that the configuration then has for it.
pub(crate) type Provider = (String, Arc<StaticSource>);

/// Moves inline certificates, keys and roots out of every TLS context in `config`.
pub(crate) fn take(config: &mut Value, providers: &mut Vec<Provider>) -> Result<(), Refusal> {
    match config {
        Value::Object(fields) => {
            if let Some(context) = fields.get_mut("common_tls_context") {
                take_identity(context, providers)?;
                take_roots(context, providers)?;
            }
            fields.values_mut().try_for_each(|field| take(field, providers))
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| take(item, providers)),
        _ => Ok(()),
    }
}

fn take_identity(context: &mut Value, providers: &mut Vec<Provider>) -> Result<(), Refusal> {
    let Some(certificates) = context.as_object_mut().and_then(|fields| fields.remove("tls_certificates")) else {
        return Ok(());
    };
    let [certificate] = certificates.as_array().map_or(&[][..], Vec::as_slice) else {
        return Err(Refusal::Unsupported("tls_certificates: one certificate for each context".to_owned()));
    };
    let source = StaticSource::new();
    let chain = chain(inline(certificate, "/certificate_chain")?)?;
    let key = PrivateKeyDer::from_pem_slice(inline(certificate, "/private_key")?.as_bytes());
    source.set_identity(chain, key.map_err(|error| Refusal::Rejected(format!("private_key: {error}")))?);
    context["tls_certificate_provider_instance"] = provide(source, providers);
    Ok(())
}

fn take_roots(context: &mut Value, providers: &mut Vec<Provider>) -> Result<(), Refusal> {
    let validation = context.get_mut("validation_context").and_then(Value::as_object_mut);
    let Some(validation) = validation.filter(|validation| validation.contains_key("trusted_ca")) else {
        return Ok(());
    };
    let roots = validation.remove("trusted_ca").unwrap_or_default();
    // As a resource that holds its own roots means it: any PKI, and no identities of the mesh.
    let source = StaticSource::foreign();
    source.set_trust(chain(inline(&roots, "")?)?);
    validation.insert("ca_certificate_provider_instance".to_owned(), provide(source, providers));
    Ok(())
}

fn provide(source: StaticSource, providers: &mut Vec<Provider>) -> Value {
    let name = format!("inline-{}", providers.len());
    let instance = json!({"instance_name": name});
    providers.push((name, Arc::new(source)));
    instance
}

fn inline<'a>(value: &'a Value, path: &str) -> Result<&'a str, Refusal> {
    let text = value.pointer(&format!("{path}/inline_string")).and_then(Value::as_str);
    text.ok_or_else(|| Refusal::Unsupported(format!("{path}: certificates that are not inline")))
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = certificates.map_err(|error| Refusal::Rejected(format!("certificate: {error}")))?;
    if certificates.is_empty() {
        return Err(Refusal::Rejected("certificate: there is none in the PEM".to_owned()));
    }
    Ok(certificates)
}
