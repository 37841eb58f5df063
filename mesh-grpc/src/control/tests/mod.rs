//! Over real sockets, against tonic's own client, so that no two mistakes of ours agree.

mod client;
mod dialogue;
mod failing;
mod our_client;
mod certificates;
mod load;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use mesh_core::resource::{CLUSTER, LISTENER};
use mesh_core::source::responder::EncodedResource;
use prost::Message;

use super::ControlPlane;

/// A Listener of this name. `note` makes its contents differ.
fn listener(name: &str, note: &str) -> EncodedResource {
    let message = Listener { name: name.to_owned(), stat_prefix: note.to_owned(), ..Listener::default() };
    EncodedResource::named_by_first_field(LISTENER, message.encode_to_vec()).unwrap()
}

fn cluster(name: &str, note: &str) -> EncodedResource {
    let message = Cluster { name: name.to_owned(), alt_stat_name: note.to_owned(), ..Cluster::default() };
    EncodedResource::named_by_first_field(CLUSTER, message.encode_to_vec()).unwrap()
}

async fn serving(resources: impl IntoIterator<Item = EncodedResource>) -> ControlPlane {
    ControlPlane::builder().resources(resources).listen("127.0.0.1:0").await.unwrap()
}
