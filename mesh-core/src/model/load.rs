//! What a cluster wants reported of its load.

use super::Name;

/// What a cluster wants reported to the control plane it came from (`Cluster.lrs_server` is `self`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadPolicy {
    /// `eds_cluster_config.service_name` as it was said; empty if it was not.
    pub service_name: Name,
    /// `lrs_report_endpoint_metrics`: which values of the endpoints' own reports are passed on. None if it is empty
    /// (gRFC A85).
    pub metrics: Vec<EndpointMetric>,
}

/// A value of an endpoint's report that is passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointMetric {
    /// `cpu_utilization`.
    Cpu,
    /// `mem_utilization`.
    Memory,
    /// `application_utilization`.
    Application,
    /// `named_metrics.NAME`.
    Named(Name),
    /// `named_metrics.*`.
    AllNamed,
}
