//! OpenTelemetry as an application that counts everything and samples nothing installs it.

use std::fmt;
use std::time::Duration;

use opentelemetry::global;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics, ScopeMetrics, SumDataPoint};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

use crate::Error;

/// What is installed in this process.
pub struct Telemetry {
    meters: SdkMeterProvider,
    metrics: InMemoryMetricExporter,
}

impl Telemetry {
    /// Installs metrics that are read on demand, a tracer that samples no call, and W3C propagation: once for each process,
    /// before its first mesh.
    #[must_use]
    pub fn install() -> Self {
        let metrics = InMemoryMetricExporter::default();
        // Longer than any bench.
        let reader = PeriodicReader::builder(metrics.clone()).with_interval(Duration::from_secs(24 * 3600)).build();
        let meters = SdkMeterProvider::builder().with_reader(reader).build();
        global::set_meter_provider(meters.clone());
        global::set_tracer_provider(SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build());
        global::set_text_map_propagator(TraceContextPropagator::new());
        Self { meters, metrics }
    }

    /// What the counter `name` has counted, in all its series.
    ///
    /// # Errors
    ///
    /// The SDK's.
    pub fn counted(&self, name: &str) -> Result<u64, Error> {
        self.metrics.reset();
        self.meters.force_flush()?;
        let finished = self.metrics.get_finished_metrics()?;
        let metrics = finished.iter().flat_map(ResourceMetrics::scope_metrics).flat_map(ScopeMetrics::metrics);
        let counted = metrics.filter(|metric| metric.name() == name).map(|metric| match metric.data() {
            AggregatedMetrics::U64(MetricData::Sum(sum)) => sum.data_points().map(SumDataPoint::value).sum(),
            _ => 0,
        });
        Ok(counted.sum())
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}
