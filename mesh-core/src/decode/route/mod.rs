//! `RouteConfiguration`: rules 52 to 90, and Envoy's where gRPC lacks the feature.

mod action;
mod cors;
mod direct;
mod forward;
mod hash;
mod internal_redirect;
mod matches;
mod mirror;
mod mutation;
mod plugin;
mod rate_limit;
mod redirect;
mod retry;
mod rewrite;
mod timeout;
mod vhost;
mod weighted;

pub(super) use cors::filter_policy as cors_filter_policy;
pub(super) use matches::{route_match, uri_template};
pub(super) use mutation::{
    append as header_append, append_action, check_format, mutable_name, of_filter as header_mutations,
};
pub(super) use rate_limit::{rules as limit_rules, stage as limit_stage};

use envoy_types::pb::envoy::config::route::v3 as pb;
use http::HeaderName;

use super::Decoder;
use super::at::At;
use super::value::{header_name, wanted_header};
use crate::model::RouteTable;

/// Envoy's default for bodies of direct responses.
const DIRECT_BODY: u32 = 4096;

impl Decoder {
    /// Decodes a route table, named or part of a Listener (rule 14). The whole table is checked, not only what a target
    /// will use.
    pub(super) fn route_table(&self, value: pb::RouteConfiguration, at: &At<'_>) -> RouteTable {
        let mark = at.mark();
        note_unsupported(&value, at);
        plugin::check(&value, at);
        let max_body = value.max_direct_response_body_size_bytes.map_or(DIRECT_BODY, |bytes| bytes.value);
        let table = RouteTable {
            name: value.name.into(),
            headers: mutation::mutations(
                &value.request_headers_to_add,
                &value.request_headers_to_remove,
                &value.response_headers_to_add,
                &value.response_headers_to_remove,
                at,
            ),
            internal_only_headers: value
                .internal_only_headers
                .iter()
                .enumerate()
                .filter_map(|(index, name)| wanted_header(name, &at.item("internal_only_headers", index)))
                .collect(),
            most_specific_mutations_win: value.most_specific_header_mutations_wins,
            max_direct_response_body: max_body,
            ignore_port_in_host: value.ignore_port_in_host_matching,
            vhost_header: vhost_header(&value.vhost_header, &at.field("vhost_header")),
            mirrors: mirror::mirrors(&value.request_mirror_policies, at),
            overrides: self.overrides(&value.typed_per_filter_config, at),
            virtual_hosts: vhost::virtual_hosts(self, value.virtual_hosts, max_body, at),
            unsupported: Vec::new(),
        };
        RouteTable { unsupported: at.notes_since(mark), ..table }
    }
}

/// The authority by another name is the authority.
fn vhost_header(name: &str, at: &At<'_>) -> Option<HeaderName> {
    if matches!(name, "" | ":authority") || name.eq_ignore_ascii_case("host") {
        return None;
    }
    header_name(name, at)
}

fn note_unsupported(value: &pb::RouteConfiguration, at: &At<'_>) {
    at.all_fail_requests(&[
        ("vhds", value.vhds.is_some()),
        ("ignore_path_parameters_in_path_matching", value.ignore_path_parameters_in_path_matching),
        ("route_specifiers", !value.route_specifiers.is_empty()),
    ]);
}
