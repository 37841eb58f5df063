//! Resources from one YAML file: what takes a control plane's place where there is none yet.
//!
//! Its documents are of standard kinds: `Service` and `EndpointSlice` as in Kubernetes; `HTTPRoute`, `GRPCRoute` and
//! `BackendTLSPolicy` of the Gateway API v1, with Services as their parents (GAMMA); xDS resources as proto-JSON with
//! `@type`, for what those kinds can't say; and one with `certificate_providers:`, spelled as in gRPC's bootstrap. They
//! become the resources that a control plane would send, and go through the same decode.
//!
//! ```
//! let yaml = "\
//! {kind: Service, metadata: {name: greeter}, spec: {ports: [{port: 50051, appProtocol: grpc}]}}
//! ---
//! {kind: Service, metadata: {name: greeter-v1}, spec: {ports: [{port: 50051, appProtocol: grpc}]}}
//! ---
//! {kind: Service, metadata: {name: greeter-v2}, spec: {ports: [{port: 50051, appProtocol: grpc}]}}
//! ---
//! {kind: EndpointSlice, metadata: {name: v1, labels: {kubernetes.io/service-name: greeter-v1}}, endpoints: [{addresses: [127.0.0.1]}]}
//! ---
//! {kind: EndpointSlice, metadata: {name: v2, labels: {kubernetes.io/service-name: greeter-v2}}, endpoints: [{addresses: [127.0.0.2]}]}
//! ---
//! kind: GRPCRoute
//! metadata: {name: greeter}
//! spec:
//!   parentRefs: [{kind: Service, name: greeter}]
//!   rules: [{backendRefs: [{name: greeter-v1, port: 50051, weight: 90}, {name: greeter-v2, port: 50051, weight: 10}]}]
//! ";
//! assert_eq!(yaml.lines().count(), 15);
//! let config = mesh_core::source::file::load(yaml, "mesh.yaml")?;
//! let names: Vec<&str> = config.resources.iter().map(|resource| &*resource.key.name).collect();
//! assert!(names.contains(&"greeter:50051") && names.contains(&"outbound|50051||greeter-v1.default.svc.cluster.local"));
//!
//! let error = mesh_core::source::file::load(&yaml.replace("weight: 10", "weight: -1"), "mesh.yaml").unwrap_err();
//! assert!(error.to_string().contains("mesh.yaml:15: GRPCRoute default/greeter: spec.rules[0].backendRefs[1].weight"));
//! # Ok::<(), mesh_core::error::Error>(())
//! ```
//!
//! **Names.** A client target is `host:port`. A Service `reviews` in the namespace `shop` is `reviews.shop`,
//! `reviews.shop.svc` and `reviews.shop.svc.cluster.local`; in the namespace `default`, where the clients are, it is also
//! `reviews`. Without a port, as in `xds:///reviews`, a name means port 80, or the only port there is. `apiVersion` may be
//! left out.
//!
//! **What is not said.** A Service without EndpointSlice has no endpoints. A slice without `ports` means the Service's
//! `targetPort`s. A Service without routes is its own backend; once it has routes, a request that none of them matches is
//! answered 404. A backend that does not exist answers 500 for its share. There is no timeout and no retry unless a route
//! asks for it.
//!
//! **TLS.** In a `BackendTLSPolicy` a `ConfigMap` in `caCertificateRefs` names a certificate provider instance with the
//! roots, and the option `mesh/identity` names the one whose certificate is shown. Without `subjectAltNames` the server's
//! certificate must be for `hostname`.
//!
//! **Servers.** Each address in an EndpointSlice is one on which a server may listen: it gets a Listener named
//! `grpc/server?xds.resource.listening_address=IP:PORT` that takes every request. It is plaintext if no `BackendTLSPolicy` is
//! for the Service. If one is, and names an identity and roots, it is mutual TLS: the server shows the certificate of
//! `mesh/identity`, and takes only clients with one under the same roots: STRICT. With the option `mesh/mode: PERMISSIVE` it
//! takes plaintext on the same port, too, from whoever sends it, and nobody is who such a client is. A policy without identity does not say which
//! certificate a server has, so no Listener is made; nor is one where Services at the same address do not agree. A server there
//! is not serving until the file has a Listener of that name, which always goes first.
//!
//! **What is refused.** A field that would change traffic and cannot be honoured, an unknown kind, a reference to a Service
//! that is not in the file: the whole file, with file, line and reason. An xDS resource of the same type and name as one
//! that another document makes takes its place.

mod compile;
mod json;
mod object;
mod route;
mod server;
mod service;
#[cfg(test)]
mod tests;
mod tls;
mod watch;
mod yaml;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::ads::{Driver, Engine, ResourceTypes, Settings};
use crate::bootstrap::{CertificateProvider, Node, ServerConfig};
use crate::decode::{DecodeResource, Decoder, Dialect, Registry};
use crate::error::Error;
use crate::model::Name;
use crate::source::responder::EncodedResource;
use crate::source::{Feed, LocalTransport, Setup, Source};
use compile::Loaded;

pub use json::resource_from_json;
pub use watch::FileWatch;

/// What a file says.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FileConfig {
    /// Every resource, in no particular order; no two have the same type and name.
    pub resources: Vec<EncodedResource>,
    /// Where certificates come from, by instance name.
    pub certificate_providers: BTreeMap<Name, CertificateProvider>,
}

/// Turns a file's `text` into resources. `origin` is its path: it is in errors, and relative paths of certificates start at
/// its folder.
///
/// What the resources mean is not looked at; that is the decoder's work, which [`FileSource::open`] has done.
///
/// # Errors
///
/// [`Code::BAD_FILE`](crate::error::Code::BAD_FILE), with file, line and reason.
pub fn load(text: &str, origin: &str) -> Result<FileConfig, Error> {
    Loaded::read(text, origin).map(Loaded::into_config)
}

/// A watched file as the source of configuration.
///
/// It is read when it is opened and again when it changes. A change that is not good is told in
/// [`Event::FileRefused`](crate::event::Event::FileRefused), once for each reason, and the last good file stays in force.
#[derive(Debug)]
pub struct FileSource {
    watch: FileWatch,
    settings: Settings,
}

impl FileSource {
    /// Reads the file at `path`, and decodes all that is in it with the standard extensions.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_FILE`](crate::error::Code::BAD_FILE), with file, line and reason.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path, Arc::new(Registry::standard()))
    }

    /// As [`open`](Self::open), with the extensions of `registry`.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, registry: Arc<Registry>) -> Result<Self, Error> {
        let decoder = move |providers: &BTreeMap<Name, CertificateProvider>| {
            let decoder = Decoder::new(registry, providers.keys().cloned());
            Arc::new(decoder.with_dialect(Dialect::Envoy)) as Arc<dyn DecodeResource>
        };
        Ok(Self { watch: FileWatch::open_with(path.as_ref(), Some(Box::new(decoder)))?, settings: Settings::default() })
    }

    /// With these settings of the client above it.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Where certificates come from, by instance name. They are read once: a change of them in the file is refused, and
    /// needs a restart.
    pub fn certificate_providers(&self) -> &BTreeMap<Name, CertificateProvider> {
        self.watch.certificate_providers()
    }
}

impl Source for FileSource {
    fn start(self: Box<Self>, setup: Setup) -> Result<Box<dyn Feed>, Error> {
        let transport = Arc::new(LocalTransport::new(self.watch.reader()));
        let servers = vec![ServerConfig::insecure(self.watch.name())];
        let types = ResourceTypes::standard(&setup.decoder);
        let engine = Engine::new(servers, &Node::default(), types, self.settings, setup.seed);
        // It ends with the configuration thread's runtime.
        tokio::spawn(self.watch.run(setup.events.clone()));
        Ok(Box::new(Driver::new(engine, transport, setup.events)))
    }

    fn dialect(&self) -> Dialect {
        Dialect::Envoy
    }
}
