//! HTTP filters: rules 16 to 27, their overrides (85, 86), and the types every registry begins with.

mod cors;
mod ext_authz;
mod fault;
mod header_mutation;
mod jwt_authn;
mod local_rate_limit;
mod rbac;
mod router;

pub use cors::CorsFilter;
pub use ext_authz::ExtAuthzFilter;
pub use fault::FaultFilter;
pub use header_mutation::HeaderMutationFilter;
pub use jwt_authn::{JwtAuthnFilter, JwtOverride};
pub use local_rate_limit::LocalRateLimitFilter;
pub use rbac::RbacFilter;
pub use router::RouterFilter;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use envoy_types::pb::envoy::config::route::v3::FilterConfig;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::google::protobuf::Any;
use hcm::http_filter::ConfigType;
use prost::Name as _;

use super::at::At;
use super::envelope::{Extension, bare, decode};
use super::{Decoder, Side};
use crate::model::{FilterOverride, FilterOverrides, HttpFilter};

impl Decoder {
    /// The filters of a connection manager, the router left out.
    pub(super) fn http_filters(&self, values: &[hcm::HttpFilter], side: Side, at: &At<'_>) -> Vec<HttpFilter> {
        let before = at.fault_count();
        let mut seen = BTreeSet::new();
        let mut filters = Vec::new();
        let mut terminal = None;
        for (index, value) in values.iter().enumerate() {
            let here = at.item("http_filters", index);
            if value.name.is_empty() {
                // Rule 17.
                here.field("name").fault("is empty");
            } else if !seen.insert(&value.name) {
                // Rule 18. In Envoy an override by that name is for both.
                here.field("name").grpc_fault(format!("is `{}`, which another filter has", value.name));
            }
            let Some(filter) = self.http_filter(value, side, &here) else { continue };
            if let Some(first) = terminal.replace(index) {
                // Rule 24.
                at.item("http_filters", first).fault("ends the list and is not its last filter");
            }
            if !filter.terminal {
                terminal = None;
                filters.push((index, filter.value));
            }
        }
        // Rules 16 and 25; where a filter has a fault, what is missing is no news.
        if terminal.is_none() && at.fault_count() == before {
            at.field("http_filters").fault("must end with the router");
        }
        filters.into_iter().map(|(_, filter)| filter).collect()
    }

    fn http_filter(&self, value: &hcm::HttpFilter, side: Side, at: &At<'_>) -> Option<Listed> {
        let any = match &value.config_type {
            Some(ConfigType::TypedConfig(any)) => any,
            // Rule 19.
            Some(ConfigType::ConfigDiscovery(_)) => {
                at.field("config_discovery").fault("is not supported; give typed_config");
                return None;
            }
            None => {
                at.field("typed_config").fault("is missing");
                return None;
            }
        };
        let here = at.field("typed_config");
        let extension = Extension::open(any, &here)?;
        let type_url = &*extension.type_url;
        let Some(filter) = self.registry.filter(type_url) else {
            // Rules 20 and 23.
            if self.registry.filter_override(type_url).is_some() {
                here.fault(format!("is a `{type_url}`, which is for overrides only"));
            } else if value.is_optional {
                here.left_out();
            } else {
                here.fault(format!("is a `{type_url}` (filter `{}`), which is not known here", value.name));
            }
            return None;
        };
        if !filter.supports(side) {
            // Rule 21.
            if value.is_optional {
                here.left_out();
            } else {
                here.fault(format!("is a `{type_url}` (filter `{}`), which {} cannot use", value.name, whom(side)));
            }
            return None;
        }
        // Rule 22: optional does not excuse a configuration that is wrong.
        let config = filter.decode(extension.value()).map_err(|faults| here.faults(faults)).ok()?;
        let http = HttpFilter {
            name: value.name.as_str().into(),
            type_url: type_url.into(),
            config,
            disabled: value.disabled,
        };
        if filter.is_terminal() && value.disabled {
            at.field("disabled").fault("is set on the filter that ends the list");
        }
        Some(Listed { value: http, terminal: filter.is_terminal() })
    }

    /// `typed_per_filter_config` of one level: rule 85.
    pub(super) fn overrides(&self, values: &HashMap<String, Any>, at: &At<'_>) -> FilterOverrides {
        // In the order of their names, so that the faults come in the same order every time.
        let values: BTreeMap<&String, &Any> = values.iter().collect();
        let mut overrides = FilterOverrides::new();
        for (name, any) in values {
            let at = at.key("typed_per_filter_config", name);
            if name.is_empty() {
                at.grpc_fault("has an empty key");
            }
            if let Some(over) = self.override_of(any, &at) {
                overrides.insert(name.as_str().into(), over);
            }
        }
        overrides
    }

    fn override_of(&self, any: &Any, at: &At<'_>) -> Option<FilterOverride> {
        if bare(&any.type_url) != FilterConfig::full_name() {
            return self.filter_override(any, false, at);
        }
        let wrapper: FilterConfig = decode(&any.value, at)?;
        if wrapper.disabled {
            return Some(FilterOverride::Disabled);
        }
        let Some(any) = &wrapper.config else {
            at.field("config").fault("is missing");
            return None;
        };
        self.filter_override(any, wrapper.is_optional, &at.field("config"))
    }

    fn filter_override(&self, any: &Any, optional: bool, at: &At<'_>) -> Option<FilterOverride> {
        let extension = Extension::open(any, at)?;
        let type_url = &*extension.type_url;
        let Some(filter) = self.registry.filter_override(type_url) else {
            if self.registry.filter(type_url).is_some() {
                at.fault(format!("is a `{type_url}`, which is for the Listener's filter list only"));
            } else if optional {
                at.left_out();
            } else {
                at.fault(format!("is a `{type_url}`, which is not known here"));
            }
            return None;
        };
        let config = filter.decode_override(extension.value()).map_err(|faults| at.faults(faults)).ok()?;
        Some(FilterOverride::Config { type_url: type_url.into(), config })
    }
}

struct Listed {
    value: HttpFilter,
    terminal: bool,
}

fn whom(side: Side) -> &'static str {
    match side {
        Side::Client => "a client",
        Side::Server => "a server",
    }
}
