//! `Listener`, for a client or for a server: rules 8 to 51.

mod chain;
mod connection;
mod server;

use std::sync::Arc;

use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;

use super::at::At;
use super::envelope::expect;
use super::{Decoder, Side};
use crate::model::{Listener, ListenerKind};

impl Decoder {
    /// Decodes a Listener. One with an `api_listener` is for a client, whatever else is in it: istiod sends an address
    /// with those too.
    pub(super) fn listener(&self, value: &pb::Listener, at: &At<'_>) -> Option<Listener> {
        let kind = match &value.api_listener {
            Some(api) => self.client(api, at).map(ListenerKind::Client),
            None => self.server(value, at).map(|server| ListenerKind::Server(Arc::new(server))),
        };
        let buffer_limit = value.per_connection_buffer_limit_bytes.map(|limit| limit.value).filter(|bytes| *bytes != 0);
        Some(Listener { name: value.name.as_str().into(), kind: kind?, buffer_limit })
    }

    fn client(&self, api: &pb::ApiListener, at: &At<'_>) -> Option<Arc<crate::model::HttpConnection>> {
        let at = at.field("api_listener");
        let at = at.field("api_listener");
        // Rule 8.
        let Some(any) = &api.api_listener else {
            at.fault("is missing");
            return None;
        };
        let manager: HttpConnectionManager = expect(any, &at)?;
        self.connection(&manager, Side::Client, &at).map(Arc::new)
    }
}
