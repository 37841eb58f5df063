//! The router: the end of every filter list.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;

use crate::decode::envelope::proto;
use crate::decode::{ExtensionValue, Fault, HttpFilterType, Side};
use crate::model::FilterConfig;

/// `extensions.filters.http.router.v3.Router`. Its fields are not read (rule 25).
#[derive(Debug, Clone, Copy, Default)]
pub struct RouterFilter;

impl HttpFilterType for RouterFilter {
    fn type_url(&self) -> &'static str {
        "envoy.extensions.filters.http.router.v3.Router"
    }

    fn supports(&self, _side: Side) -> bool {
        true
    }

    fn is_terminal(&self) -> bool {
        true
    }

    fn decode(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        proto::<Router>(value)?;
        Ok(Arc::new(()))
    }
}
