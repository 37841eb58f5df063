//! HTTP filters as configuration: what a Listener lists and what its routes override (gRFC A39).

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Name;

/// The decoded configuration of one HTTP filter. Whoever registered the filter's type knows how to downcast it.
pub trait FilterConfig: Any + Send + Sync + fmt::Debug {}

impl<T: Any + Send + Sync + fmt::Debug> FilterConfig for T {}

/// One entry of `HttpConnectionManager.http_filters`.
#[derive(Debug, Clone)]
pub struct HttpFilter {
    /// The instance's name, unique in its list; overrides refer to it.
    pub name: Name,
    /// The type of its configuration, without `type.googleapis.com/`.
    pub type_url: Name,
    /// The decoded configuration.
    pub config: Arc<dyn FilterConfig>,
    /// Off unless an override turns it on (`HttpFilter.disabled`).
    pub disabled: bool,
}

/// `typed_per_filter_config` of one level, by the filter instance's name.
pub type FilterOverrides = BTreeMap<Name, FilterOverride>;

/// What one level says about one filter instance.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FilterOverride {
    /// Use this configuration in place of the Listener's.
    Config {
        /// The type of the override, without `type.googleapis.com/`.
        type_url: Name,
        /// The decoded override.
        config: Arc<dyn FilterConfig>,
    },
    /// `FilterConfig.disabled`.
    Disabled,
}
