//! What the loop needs of the graph: the seam that lets the thread be tested without one.

use std::time::Instant;

use crate::graph::{Graph, Want};
use crate::model::Name;
use crate::resource::ResourceEvent;
use crate::snapshot::Update;

/// Which resources depend on which; see [`Graph`].
pub(super) trait Dependencies {
    fn add_client(&mut self, target: &Name, now: Instant);
    fn remove_client(&mut self, target: &Name, now: Instant);
    fn add_server(&mut self, listener: &Name, now: Instant);
    fn remove_server(&mut self, listener: &Name, now: Instant);
    fn add_dynamic_cluster(&mut self, target: &Name, cluster: &Name, now: Instant);
    fn handle_event(&mut self, event: ResourceEvent, now: Instant);
    fn handle_time(&mut self, now: Instant);
    fn poll_wants(&mut self) -> Option<Want>;
    fn poll_update(&mut self) -> Option<Update>;
    fn poll_timeout(&self) -> Option<Instant>;
}

impl Dependencies for Graph {
    fn add_client(&mut self, target: &Name, now: Instant) {
        Graph::add_client(self, target, now);
    }
    fn remove_client(&mut self, target: &Name, now: Instant) {
        Graph::remove_client(self, target, now);
    }
    fn add_server(&mut self, listener: &Name, now: Instant) {
        Graph::add_server(self, listener, now);
    }
    fn remove_server(&mut self, listener: &Name, now: Instant) {
        Graph::remove_server(self, listener, now);
    }
    fn add_dynamic_cluster(&mut self, target: &Name, cluster: &Name, now: Instant) {
        Graph::add_dynamic_cluster(self, target, cluster, now);
    }
    fn handle_event(&mut self, event: ResourceEvent, now: Instant) {
        Graph::handle_event(self, event, now);
    }
    fn handle_time(&mut self, now: Instant) {
        Graph::handle_time(self, now);
    }
    fn poll_wants(&mut self) -> Option<Want> {
        Graph::poll_wants(self)
    }
    fn poll_update(&mut self) -> Option<Update> {
        Graph::poll_update(self)
    }
    fn poll_timeout(&self) -> Option<Instant> {
        Graph::poll_timeout(self)
    }
}
