//! The CORS filter: empty in the Listener, with its policy in overrides.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as pb;

use crate::decode::at::Findings;
use crate::decode::envelope::proto;
use crate::decode::route::cors_filter_policy;
use crate::decode::{ExtensionValue, Fault, HttpFilterType, Side};
use crate::model::FilterConfig;

/// `extensions.filters.http.cors.v3.Cors`; its overrides are [`Cors`](crate::model::Cors), from a `CorsPolicy`.
#[derive(Debug, Clone, Copy, Default)]
pub struct CorsFilter;

impl CorsFilter {
    /// The type of its configuration.
    pub const TYPE_URL: &'static str = "envoy.extensions.filters.http.cors.v3.Cors";
}

impl HttpFilterType for CorsFilter {
    fn type_url(&self) -> &'static str {
        Self::TYPE_URL
    }

    fn override_type_url(&self) -> Option<&str> {
        Some("envoy.extensions.filters.http.cors.v3.CorsPolicy")
    }

    fn supports(&self, _side: Side) -> bool {
        true
    }

    fn decode(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        proto::<pb::Cors>(value)?;
        Ok(Arc::new(()))
    }

    fn decode_override(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        let value = proto::<pb::CorsPolicy>(value)?;
        let findings = Findings::default();
        let policy = cors_filter_policy(&value, &findings.root());
        let faults = findings.into_faults();
        if faults.is_empty() { Ok(Arc::new(policy)) } else { Err(faults) }
    }
}
