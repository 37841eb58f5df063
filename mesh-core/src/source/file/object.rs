//! What all Kubernetes objects have: a kind, a name, a namespace; and how they name each other.

use crate::bootstrap::json::Object;
use crate::decode::Fault;

/// The namespace of an object that does not say, and of the clients: short names are relative to it.
pub(super) const NAMESPACE: &str = "default";

/// Sorts behind every time stamp: an object that does not say when it was created is no older than one that does.
const NEVER: &str = "~";

/// An object's `metadata`, as far as it has a meaning here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Meta {
    /// `creationTimestamp`: RFC 3339 in UTC, whose texts are in the order of the times.
    pub(super) created: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Meta {
    pub(super) fn of(document: &Object<'_>) -> Result<Self, Fault> {
        let meta = document.object("metadata", |meta| {
            Ok(Self {
                created: meta.string("creationTimestamp")?.unwrap_or(NEVER).to_owned(),
                namespace: label(meta, "namespace", "-")?.unwrap_or(NAMESPACE).to_owned(),
                name: label(meta, "name", "-.")?.ok_or_else(|| meta.fault("name", "is missing"))?.to_owned(),
            })
        })?;
        meta.ok_or_else(|| document.fault("metadata", "is missing"))
    }
}

/// Which Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServiceName {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ServiceName {
    /// The name of the Service that a document is.
    pub(super) fn of(document: &Object<'_>) -> Result<Self, Fault> {
        let Meta { namespace, name, .. } = Meta::of(document)?;
        if name.contains('.') {
            return Err(document.fault("metadata.name", format!("is `{name}`, and a Service's name has no dots")));
        }
        Ok(Self { namespace, name })
    }

    /// Reads a reference to a Service: `group`, `kind`, `name` and, where it may be another, `namespace`.
    pub(super) fn referred(reference: &Object<'_>, namespace: &str) -> Result<Self, Fault> {
        let group = reference.string("group")?.unwrap_or_default();
        let kind = reference.string("kind")?.unwrap_or("Service");
        if !group.is_empty() || kind != "Service" {
            let rule = format!("is `{kind}` of the group `{group}`; only a Service (of the empty group) can be here");
            return Err(reference.fault("kind", rule));
        }
        Ok(Self {
            namespace: label(reference, "namespace", "-")?.unwrap_or(namespace).to_owned(),
            name: label(reference, "name", "-")?.ok_or_else(|| reference.fault("name", "is missing"))?.to_owned(),
        })
    }

    /// Its full host name.
    pub(super) fn host(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.name, self.namespace)
    }

    /// Every host name that clients in [`NAMESPACE`] know it by.
    pub(super) fn hosts(&self) -> Vec<String> {
        let Self { namespace, name } = self;
        let mut hosts = vec![format!("{name}.{namespace}"), format!("{name}.{namespace}.svc"), self.host()];
        if namespace == NAMESPACE {
            hosts.push(name.clone());
        }
        hosts
    }

    /// The name of the cluster of its port, spelled as istiod does.
    pub(super) fn cluster(&self, port: u16) -> String {
        format!("outbound|{port}||{}", self.host())
    }

    /// The name of the route configuration of its port.
    pub(super) fn routes(&self, port: u16) -> String {
        format!("{}:{port}", self.host())
    }
}

/// A name of small letters, digits and `marks`. Services and namespaces have no dots, so that no two of them make one host.
fn label<'a>(object: &Object<'a>, field: &str, marks: &str) -> Result<Option<&'a str>, Fault> {
    let Some(text) = object.string(field)? else { return Ok(None) };
    let good = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || marks.contains(letter);
    if text.is_empty() || text.len() > 253 || !text.chars().all(good) {
        let rule = format!("is {text:?}, and must be 1 to 253 small letters, digits and {marks:?}");
        return Err(object.fault(field, rule));
    }
    Ok(Some(text))
}

/// A port.
pub(super) fn port(object: &Object<'_>, field: &str) -> Result<Option<u16>, Fault> {
    // In range, so it fits.
    Ok(object.number(field, 1..=65_535)?.and_then(|port| u16::try_from(port).ok()))
}

/// Refuses a value that would change traffic and cannot be honoured.
pub(super) fn must_be(object: &Object<'_>, field: &str, allowed: &[&str]) -> Result<(), Fault> {
    match object.string(field)? {
        Some(text) if !allowed.contains(&text) => {
            Err(object.fault(field, format!("is `{text}`, which is not supported; it can be {}", allowed.join(" or "))))
        }
        _ => Ok(()),
    }
}
