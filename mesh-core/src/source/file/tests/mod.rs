//! What a file becomes, asked of the decoded model. The cases of `routing` are those of the Gateway API's mesh conformance
//! and of its text.

mod errors;
mod kinds;
mod routing;
mod servers;
mod watching;

use std::sync::Arc;

use super::*;
use crate::decode::Decoded;
use crate::model::{Cluster, Endpoints, RouteTable};
use crate::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, ROUTE_CONFIGURATION};

/// Services `echo`, `v1` and `v2` with port 80.
const SERVICES: &str = "
{kind: Service, metadata: {name: echo}, spec: {ports: [{name: http, port: 80}]}}
---
{kind: Service, metadata: {name: v1}, spec: {ports: [{name: http, port: 80}]}}
---
{kind: Service, metadata: {name: v2}, spec: {ports: [{name: http, port: 80}]}}
---
";

/// A resource of `config`, decoded.
fn value<T: Send + Sync + 'static>(config: &FileConfig, type_url: &str, name: &str) -> Arc<T> {
    let found =
        config.resources.iter().find(|resource| *resource.key.type_url == *type_url && *resource.key.name == *name);
    let found = found.unwrap_or_else(|| panic!("no {type_url} `{name}`"));
    let decoder = Decoder::new(Arc::new(Registry::standard()), config.certificate_providers.keys().cloned());
    match decoder.decode(type_url, &found.bytes) {
        Decoded::Ok { value, .. } => value.downcast().unwrap(),
        Decoded::Err { faults, .. } => panic!("{name}: {faults:?}"),
    }
}

fn table(yaml: &str, name: &str) -> Arc<RouteTable> {
    value(&load(yaml, "mesh.yaml").unwrap(), ROUTE_CONFIGURATION, name)
}

fn cluster(config: &FileConfig, name: &str) -> Arc<Cluster> {
    value(config, CLUSTER, name)
}

fn endpoints(config: &FileConfig, name: &str) -> Arc<Endpoints> {
    value(config, CLUSTER_LOAD_ASSIGNMENT, name)
}
