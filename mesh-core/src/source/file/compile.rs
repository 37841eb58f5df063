//! From a file's documents to resources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::object::{Meta, ServiceName};
use super::route::{self, Protocol, Route, Surroundings};
use super::server::Servers;
use super::service::{self, EndpointSlice, Port, Service};
use super::tls::TlsPolicy;
use super::yaml::{self, Document, Located};
use super::{FileConfig, json::resource};
use crate::bootstrap::certificates::certificate_providers;
use crate::bootstrap::json::{Object, Path as At};
use crate::bootstrap::{CertificateProvider, FileWatcherConfig};
use crate::decode::{DecodeResource, Decoded, Fault};
use crate::error::{Code, Error};
use crate::model::Name;
use crate::resource::ResourceKey;
use crate::source::responder::EncodedResource;

/// The kinds there are, each with its `apiVersion`.
const KINDS: [(&str, &str); 5] = [
    ("Service", "v1"),
    ("EndpointSlice", "discovery.k8s.io/v1"),
    ("HTTPRoute", "gateway.networking.k8s.io/v1"),
    ("GRPCRoute", "gateway.networking.k8s.io/v1"),
    ("BackendTLSPolicy", "gateway.networking.k8s.io/v1"),
];

/// A file that was read, with the way back from each resource to its lines.
#[derive(Debug)]
pub(super) struct Loaded {
    origin: String,
    documents: Vec<Document>,
    resources: BTreeMap<ResourceKey, (EncodedResource, Made)>,
    pub(super) certificate_providers: BTreeMap<Name, CertificateProvider>,
}

/// What made a resource; numbers are those of documents.
#[derive(Debug)]
enum Made {
    /// The document is the resource.
    Written(usize),
    By(usize),
    /// A route table: the Service, and what made each route.
    Routes(usize, Vec<usize>),
}

impl Loaded {
    pub(super) fn read(text: &str, origin: &str) -> Result<Self, Error> {
        let mut loaded = Self {
            origin: origin.to_owned(),
            documents: Vec::new(),
            resources: BTreeMap::new(),
            certificate_providers: BTreeMap::new(),
        };
        match yaml::documents(text) {
            Ok(documents) => loaded.documents = documents,
            Err(located) => return Err(loaded.error(&located)),
        }
        // An editor may empty a file before it writes it.
        if loaded.documents.is_empty() {
            return Err(loaded.error(&Located { line: 0, message: "has no documents".to_owned() }));
        }
        let made = loaded.parts().and_then(|parts| loaded.make(&parts));
        made.map_err(|(document, fault)| loaded.fault(document, &fault))?;
        Ok(loaded)
    }

    pub(super) fn into_config(self) -> FileConfig {
        FileConfig {
            resources: self.resources.into_values().map(|(resource, _)| resource).collect(),
            certificate_providers: self.certificate_providers,
        }
    }

    /// Decodes every resource.
    pub(super) fn check(&self, decoder: &dyn DecodeResource) -> Result<(), Error> {
        for (key, (resource, made)) in &self.resources {
            let Decoded::Err { faults, .. } = decoder.decode(&key.type_url, &resource.bytes) else { continue };
            let Some(fault) = faults.first() else { continue };
            let (document, fault) = match made {
                Made::Written(document) => (*document, fault.clone()),
                Made::By(document) => (*document, Fault::new("", format!("its {key} is refused: {fault}"))),
                Made::Routes(service, routes) => {
                    let route = index(&fault.path, "virtual_hosts[0].routes[").and_then(|index| routes.get(index));
                    (*route.unwrap_or(service), Fault::new("", format!("its {key} is refused: {fault}")))
                }
            };
            return Err(self.fault(document, &fault));
        }
        Ok(())
    }

    fn fault(&self, document: usize, fault: &Fault) -> Error {
        let located = self.documents.get(document).map(|document| document.locate(fault));
        self.error(&located.unwrap_or_else(|| Located { line: 0, message: fault.to_string() }))
    }

    fn error(&self, located: &Located) -> Error {
        let Located { line, message } = located;
        let origin = &self.origin;
        let place = if *line == 0 { origin.clone() } else { format!("{origin}:{line}") };
        Error::new(Code::BAD_FILE, format!("{place}: {message}"))
    }

    /// Reads every document.
    fn parts(&mut self) -> Result<Parts, (usize, Fault)> {
        let mut parts = Parts::default();
        let folder = Path::new(&self.origin).parent().map(Path::to_owned).unwrap_or_default();
        for (index, document) in self.documents.iter().enumerate() {
            parts.add(index, &document.value, &folder).map_err(|fault| (index, fault))?;
        }
        parts.check()?;
        self.certificate_providers = std::mem::take(&mut parts.providers);
        Ok(parts)
    }

    /// Makes the resources.
    fn make(&mut self, parts: &Parts) -> Result<(), (usize, Fault)> {
        let has_port =
            |name: &ServiceName, port| parts.services.get(name).is_some_and(|(it, _)| it.port(port).is_some());
        let mut servers = Servers::default();
        for (service, document) in parts.services.values() {
            for port in &service.ports {
                let policy = parts.policy(&service.name, port)?;
                if port.tls && policy.is_none() {
                    let rule =
                        format!("port {} is https, and no BackendTLSPolicy says whom to trust there", port.number);
                    return Err((*document, Fault::new("spec.ports", rule)));
                }
                let socket = policy.map(|(policy, _)| policy.socket());
                let by = policy.map_or(*document, |(_, document)| document);
                self.put(&service::cluster(&service.name, port, socket), Made::By(by))?;
                let slices = parts.slices.get(&service.name).into_iter().flatten().map(|(slice, _)| slice);
                for address in slices.clone().flat_map(|slice| slice.addresses(port)) {
                    servers.add(address, policy.map(|(policy, _)| policy), by);
                }
                self.put(&service::endpoints(&service.name, port, slices), Made::By(*document))?;
                self.put_routes(parts, service, port, *document, &has_port)?;
            }
            self.put_listeners(service, *document)?;
        }
        for (listener, document) in servers.listeners() {
            self.put(&listener, Made::By(document))?;
        }
        for (document, key, resource) in &parts.written {
            self.resources.insert(key.clone(), (resource.clone(), Made::Written(*document)));
        }
        Ok(())
    }

    fn put_routes(
        &mut self,
        parts: &Parts,
        service: &Service,
        port: &Port,
        document: usize,
        has_port: &dyn Fn(&ServiceName, u16) -> bool,
    ) -> Result<(), (usize, Fault)> {
        let attached = parts.routes.iter().filter(|(route, _)| route.is_for(service, port.number, &port.name));
        let (routes, documents): (Vec<&Route>, Vec<usize>) = attached.map(|(route, index)| (route, *index)).unzip();
        if let Some(other) =
            routes.iter().position(|route| Some(route.protocol) != routes.first().map(|it| it.protocol))
        {
            let rule = format!("port {} of {} has both HTTPRoutes and GRPCRoutes", port.number, service.name.host());
            return Err((documents.get(other).copied().unwrap_or(document), Fault::new("spec.parentRefs", rule)));
        }
        let mut table = route::table(&routes, Surroundings { port: port.number, has_port });
        let made = table.iter().map(|(_, route)| documents.get(*route).copied().unwrap_or(document)).collect();
        if routes.is_empty() {
            table.push((route::to_own_cluster(&service.name, port.number), 0));
        }
        let name = service.name.routes(port.number);
        let routes: Vec<Value> = table.into_iter().map(|(route, _)| route).collect();
        let table = json!({
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": name,
            "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}],
        });
        self.put(&table, Made::Routes(document, made))
    }

    fn put_listeners(&mut self, service: &Service, document: usize) -> Result<(), (usize, Fault)> {
        for host in service.name.hosts() {
            for port in &service.ports {
                let name = format!("{host}:{}", port.number);
                let routes = service.name.routes(port.number);
                self.put(&service::listener(&name, &routes), Made::By(document))?;
            }
            if let Some(port) = service.default_port() {
                self.put(&service::listener(&host, &service.name.routes(port.number)), Made::By(document))?;
            }
        }
        Ok(())
    }

    fn put(&mut self, json: &Value, made: Made) -> Result<(), (usize, Fault)> {
        let (Made::Written(document) | Made::By(document) | Made::Routes(document, _)) = made;
        let resource = resource(json).map_err(|fault| (document, fault))?;
        self.resources.insert(resource.key.clone(), (resource, made));
        Ok(())
    }
}

/// The number that follows `before` in `path`.
fn index(path: &str, before: &str) -> Option<usize> {
    path.strip_prefix(before)?.split_once(']')?.0.parse().ok()
}

/// A file's documents by kind, each with its number.
#[derive(Debug, Default)]
struct Parts {
    services: BTreeMap<ServiceName, (Service, usize)>,
    slices: BTreeMap<ServiceName, Vec<(EndpointSlice, usize)>>,
    routes: Vec<(Route, usize)>,
    policies: Vec<(TlsPolicy, usize)>,
    written: Vec<(usize, ResourceKey, EncodedResource)>,
    providers: BTreeMap<Name, CertificateProvider>,
    /// What is there already: kind, namespace and name; or type and name.
    seen: BTreeMap<(String, String), usize>,
}

impl Parts {
    fn add(&mut self, index: usize, value: &Value, folder: &Path) -> Result<(), Fault> {
        let document = Object::new(value, At::Root)?;
        if document.get("@type").is_some() {
            let resource = resource(value)?;
            self.once(&resource.key.type_url, &resource.key.name, index)?;
            self.written.push((index, resource.key.clone(), resource));
            return Ok(());
        }
        let Some(kind) = document.string("kind")? else { return self.add_providers(&document, index, folder) };
        let Some((_, version)) = KINDS.iter().find(|(known, _)| *known == kind) else {
            let known: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
            let rule = format!("is `{kind}`; the kinds are {}, and xDS resources with `@type`", known.join(", "));
            return Err(document.fault("kind", rule));
        };
        if let Some(other) = document.string("apiVersion")?.filter(|given| given != version) {
            return Err(document.fault("apiVersion", format!("is `{other}`, and must be {version} for a {kind}")));
        }
        let meta = Meta::of(&document)?;
        self.once(kind, &format!("{}/{}", meta.namespace, meta.name), index)?;
        if kind != "EndpointSlice" {
            document.only(&["apiVersion", "kind", "metadata", "spec", "status"])?;
        }
        match kind {
            "Service" => {
                let service = Service::read(&document)?;
                self.services.insert(service.name.clone(), (service, index));
            }
            "EndpointSlice" => {
                let slice = EndpointSlice::read(&document)?;
                self.slices.entry(slice.service.clone()).or_default().push((slice, index));
            }
            "HTTPRoute" => self.routes.push((Route::read(&document, Protocol::Http)?, index)),
            "GRPCRoute" => self.routes.push((Route::read(&document, Protocol::Grpc)?, index)),
            _ => self.policies.push((TlsPolicy::read(&document)?, index)),
        }
        Ok(())
    }

    fn once(&mut self, kind: &str, name: &str, index: usize) -> Result<(), Fault> {
        match self.seen.insert((kind.to_owned(), name.to_owned()), index) {
            None => Ok(()),
            Some(first) => {
                Err(Fault::new("", format!("{kind} `{name}` is in the file twice; document {} has it too", first + 1)))
            }
        }
    }

    fn add_providers(&mut self, document: &Object<'_>, index: usize, folder: &Path) -> Result<(), Fault> {
        if document.get("certificate_providers").is_none() {
            return Err(document.fault("kind", "is missing, and so are `@type` and `certificate_providers`"));
        }
        document.only(&["certificate_providers"])?;
        self.once("certificate_providers", "", index)?;
        self.providers = certificate_providers(document)?;
        for provider in self.providers.values_mut() {
            if let CertificateProvider::FileWatcher(files) = provider {
                resolve(files, folder);
            }
        }
        Ok(())
    }

    /// Refuses what names something that is not there, or is there twice.
    fn check(&self) -> Result<(), (usize, Fault)> {
        let missing = |name: &ServiceName| format!("Service {}/{} is not in the file", name.namespace, name.name);
        for (name, slices) in &self.slices {
            if let (None, Some((_, index))) = (self.services.get(name), slices.first()) {
                return Err((*index, Fault::new("metadata.labels", missing(name))));
            }
        }
        for (route, index) in &self.routes {
            for (number, parent) in route.parents.iter().enumerate() {
                let at = format!("spec.parentRefs[{number}]");
                let Some((service, _)) = self.services.get(&parent.service) else {
                    return Err((*index, Fault::new(at, missing(&parent.service))));
                };
                if let Some(port) = parent.missing_port(service) {
                    return Err((*index, Fault::new(at, format!("the Service has no port `{port}`"))));
                }
            }
        }
        for (policy, index) in &self.policies {
            for (number, target) in policy.targets.iter().enumerate() {
                let at = format!("spec.targetRefs[{number}]");
                let Some((service, _)) = self.services.get(&target.service) else {
                    return Err((*index, Fault::new(at, missing(&target.service))));
                };
                let section = target.section.as_ref();
                if let Some(name) = section.filter(|name| !service.ports.iter().any(|port| port.name == **name)) {
                    return Err((*index, Fault::new(at, format!("the Service has no port of the name `{name}`"))));
                }
            }
        }
        Ok(())
    }

    /// The TLS policy for a port.
    fn policy(&self, service: &ServiceName, port: &Port) -> Result<Option<(&TlsPolicy, usize)>, (usize, Fault)> {
        let about = self.policies.iter().filter_map(|(policy, index)| {
            policy.targets(service, &port.name).map(|specificity| (specificity, policy, *index))
        });
        let mut best: Option<(_, &TlsPolicy, usize)> = None;
        for (specificity, policy, index) in about {
            if let Some((_, other, _)) = best.filter(|(other, ..)| *other == specificity) {
                let (name, port) = (&other.meta.name, port.number);
                let rule = format!("port {port} of {} has the policy `{name}` already", service.host());
                return Err((index, Fault::new("spec.targetRefs", rule)));
            }
            if best.as_ref().is_none_or(|(other, ..)| *other < specificity) {
                best = Some((specificity, policy, index));
            }
        }
        Ok(best.map(|(_, policy, index)| (policy, index)))
    }
}

/// Paths that are relative start at `folder`.
fn resolve(files: &mut FileWatcherConfig, folder: &Path) {
    let mut paths: Vec<&mut PathBuf> = Vec::new();
    if let Some(identity) = &mut files.identity {
        paths.extend([&mut identity.certificate_file, &mut identity.private_key_file]);
    }
    paths.extend(&mut files.ca_certificate_file);
    paths.extend(&mut files.spiffe_trust_bundle_map_file);
    for path in paths {
        *path = folder.join(&path);
    }
}
