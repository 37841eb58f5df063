//! Cluster specifier plugins: rules 73 to 76. None is known here, so that a route that uses one fails its requests.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::route::v3 as pb;
use pb::route::Action;
use pb::route_action::ClusterSpecifier;

use crate::decode::at::At;
use crate::decode::envelope::bare;

/// Refuses plugins that must be known, and routes that name one that is not declared.
pub(super) fn check(value: &pb::RouteConfiguration, at: &At<'_>) {
    let mut declared = BTreeSet::new();
    for (index, plugin) in value.cluster_specifier_plugins.iter().enumerate() {
        let at = at.item("cluster_specifier_plugins", index);
        declared.insert(declaration(plugin, &declared, &at));
    }
    for (host_index, host) in value.virtual_hosts.iter().enumerate() {
        let at = at.item("virtual_hosts", host_index);
        for (index, route) in host.routes.iter().enumerate() {
            let at = at.item("routes", index);
            let at = at.field("route");
            // Rule 73.
            if let Some(name) = used(route).filter(|name| !declared.contains(name)) {
                at.field("cluster_specifier_plugin").fault(format!("is `{name}`, which the table does not declare"));
            }
        }
    }
}

/// The name of a plugin.
fn declaration<'a>(value: &'a pb::ClusterSpecifierPlugin, before: &BTreeSet<&str>, at: &At<'_>) -> &'a str {
    let at = at.field("extension");
    let Some(extension) = &value.extension else {
        at.fault("is missing");
        return "";
    };
    // Rule 74.
    if before.contains(extension.name.as_str()) {
        at.field("name").fault(format!("is `{}`, which another plugin has", extension.name));
    }
    // Rule 75; none being known, there is no configuration that could be wrong (rule 76).
    if !value.is_optional {
        let kind = extension.typed_config.as_ref().map_or("", |any| bare(&any.type_url));
        at.field("typed_config")
            .fault(format!("is a `{kind}`, which is not known here, and the plugin is not optional"));
    }
    &extension.name
}

/// The plugin that a route asks for its cluster.
fn used(route: &pb::Route) -> Option<&str> {
    match &route.action {
        Some(Action::Route(action)) => match &action.cluster_specifier {
            Some(ClusterSpecifier::ClusterSpecifierPlugin(name)) => Some(name),
            _ => None,
        },
        _ => None,
    }
}
