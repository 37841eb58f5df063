//! `BackendTLSPolicy`: TLS toward a Service.

use serde_json::{Map, Value, json};

use super::object::{Meta, ServiceName};
use crate::bootstrap::json::Object;
use crate::decode::Fault;

/// The option that says which certificate provider instance has the certificate to show; without it, none is shown.
const IDENTITY: &str = "mesh/identity";

/// The option that says whether a server takes plaintext, too: `STRICT`, the default, or `PERMISSIVE`, Istio's words.
const MODE: &str = "mesh/mode";

/// A BackendTLSPolicy.
#[derive(Debug)]
pub(super) struct TlsPolicy {
    pub(super) meta: Meta,
    pub(super) targets: Vec<Target>,
    hostname: String,
    sans: Vec<San>,
    roots: Roots,
    identity: Option<String>,
    permissive: bool,
}

/// A Service, or one of its ports by name.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) service: ServiceName,
    pub(super) section: Option<String>,
}

#[derive(Debug)]
struct San {
    kind: &'static str,
    value: String,
}

#[derive(Debug)]
enum Roots {
    System,
    /// A certificate provider instance.
    Provider(String),
}

impl TlsPolicy {
    pub(super) fn read(document: &Object<'_>) -> Result<Self, Fault> {
        let meta = Meta::of(document)?;
        let namespace = meta.namespace.clone();
        let spec = document.object("spec", |spec| {
            spec.only(&["targetRefs", "validation", "options"])?;
            let targets = spec.objects("targetRefs", |target| Target::read(target, &namespace))?.unwrap_or_default();
            if targets.is_empty() {
                return Err(spec.fault("targetRefs", "is empty"));
            }
            let validation = spec.object("validation", validation)?;
            let (hostname, sans, roots) = validation.ok_or_else(|| spec.fault("validation", "is missing"))?;
            let (identity, permissive) = options(spec)?;
            Ok(Self { meta: meta.clone(), targets, hostname, sans, roots, identity, permissive })
        })?;
        spec.ok_or_else(|| document.fault("spec", "is missing"))
    }

    /// Whether it is about the port of this name.
    pub(super) fn targets(&self, service: &ServiceName, port: &str) -> Option<Specificity> {
        let about = self.targets.iter().filter(|target| target.service == *service);
        about
            .filter_map(|target| match &target.section {
                None => Some(Specificity::Service),
                Some(section) => (section == port).then_some(Specificity::Port),
            })
            .max()
    }

    /// The certificate provider instances of the identity and of the roots, if it names both: what a server on the other
    /// side needs too.
    pub(super) fn mutual(&self) -> Option<(&str, &str)> {
        match (&self.identity, &self.roots) {
            (Some(identity), Roots::Provider(roots)) => Some((identity, roots)),
            _ => None,
        }
    }

    /// Whether a server on the other side takes plaintext, too. Clients never send it.
    pub(super) fn is_permissive(&self) -> bool {
        self.permissive
    }

    /// The transport socket it asks for.
    ///
    /// The SANs are there twice: gRPC reads only the list without types, and Envoy only the typed one if both are there.
    pub(super) fn socket(&self) -> Value {
        let mut validation = Map::new();
        match &self.roots {
            Roots::System => validation.insert("system_root_certs".into(), json!({})),
            Roots::Provider(name) => {
                validation.insert("ca_certificate_provider_instance".into(), json!({"instance_name": name}))
            }
        };
        let typed = |san: &San| json!({"san_type": san.kind, "matcher": {"exact": san.value}});
        let plain = |san: &San| json!({"exact": san.value});
        validation.insert("match_typed_subject_alt_names".into(), self.sans.iter().map(typed).collect());
        validation.insert("match_subject_alt_names".into(), self.sans.iter().map(plain).collect());
        let mut common = json!({"validation_context": validation});
        if let Some(name) = &self.identity {
            common["tls_certificate_provider_instance"] = json!({"instance_name": name});
        }
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": self.hostname,
                "common_tls_context": common,
            },
        })
    }
}

/// A policy for a port beats one for its whole Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Specificity {
    Service,
    Port,
}

impl Target {
    fn read(target: &Object<'_>, namespace: &str) -> Result<Self, Fault> {
        target.only(&["group", "kind", "name", "sectionName"])?;
        Ok(Self {
            service: ServiceName::referred(target, namespace)?,
            section: target.string("sectionName")?.map(str::to_owned),
        })
    }
}

fn validation(validation: &Object<'_>) -> Result<(String, Vec<San>, Roots), Fault> {
    validation.only(&["hostname", "subjectAltNames", "caCertificateRefs", "wellKnownCACertificates"])?;
    let hostname = validation.required("hostname")?.to_owned();
    let mut sans = validation.objects("subjectAltNames", san)?.unwrap_or_default();
    if sans.is_empty() {
        // Whose certificate it must be is never left open.
        sans.push(San { kind: "DNS", value: hostname.clone() });
    }
    Ok((hostname, sans, roots(validation)?))
}

fn san(san: &Object<'_>) -> Result<San, Fault> {
    san.only(&["type", "hostname", "uri"])?;
    let (kind, value) = match san.required("type")? {
        "Hostname" => ("DNS", san.required("hostname")?),
        "URI" => ("URI", san.required("uri")?),
        other => return Err(san.fault("type", format!("is `{other}`, and must be Hostname or URI"))),
    };
    if value.contains('*') {
        return Err(san.fault("type", "has a name with `*`, which is not supported: give whole names"));
    }
    Ok(San { kind, value: value.to_owned() })
}

fn roots(validation: &Object<'_>) -> Result<Roots, Fault> {
    let references = validation.objects("caCertificateRefs", |reference| {
        reference.only(&["group", "kind", "name"])?;
        let group = reference.string("group")?.unwrap_or_default();
        if !group.is_empty() || reference.string("kind")? != Some("ConfigMap") {
            let rule = "must be ConfigMap (of the empty group): its name is that of a certificate provider";
            return Err(reference.fault("kind", rule));
        }
        reference.required("name").map(str::to_owned)
    })?;
    let mut references = references.unwrap_or_default();
    match (validation.string("wellKnownCACertificates")?, references.len()) {
        (Some("System"), 0) => Ok(Roots::System),
        (None, 1) => Ok(Roots::Provider(references.remove(0))),
        (Some("System"), _) => {
            Err(validation.fault("caCertificateRefs", "is given together with wellKnownCACertificates"))
        }
        (Some(other), _) => {
            Err(validation.fault("wellKnownCACertificates", format!("is `{other}`, and can only be System")))
        }
        (None, count) => {
            Err(validation.fault("caCertificateRefs", format!("has {count} entries, and must have exactly one")))
        }
    }
}

fn options(spec: &Object<'_>) -> Result<(Option<String>, bool), Fault> {
    let options = spec.object("options", |options| {
        options.only(&[IDENTITY, MODE])?;
        let permissive = match options.string(MODE)? {
            None | Some("STRICT") => false,
            Some("PERMISSIVE") => true,
            Some(other) => return Err(options.fault(MODE, format!("is `{other}`, and must be STRICT or PERMISSIVE"))),
        };
        Ok((Some(options.required(IDENTITY)?.to_owned()), permissive))
    })?;
    Ok(options.unwrap_or_default())
}
