//! What is counted of configuration: resources that the control plane took away while they were in use.

use mesh_core::event::{Event, EventSink};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};

use super::Telemetry;

/// Counts withdrawals, by what becomes of them.
pub(super) struct Withdrawals(Counter<u64>);

impl Withdrawals {
    pub(super) fn new(meter: &Meter) -> Self {
        Self(meter.u64_counter("mesh.xds.withdrawals").with_unit("{resource}").build())
    }

    /// Resource types come from a table of ours, never from a stranger, so that the series are few.
    fn add(&self, type_url: &str, state: &'static str) {
        let short = type_url.rsplit('.').next().unwrap_or(type_url).to_owned();
        self.0.add(1, &[KeyValue::new("mesh.xds.resource_type", short), KeyValue::new("mesh.xds.state", state)]);
    }
}

impl EventSink for Telemetry {
    fn event(&self, event: &Event) {
        let withdrawals = &self.0.withdrawals;
        match event {
            Event::Withdrawn { type_url, how, .. } => withdrawals.add(type_url, how.as_str()),
            Event::Restored { type_url, .. } => withdrawals.add(type_url, "restored"),
            Event::Lapsed { type_url, .. } => withdrawals.add(type_url, "lapsed"),
            _ => {}
        }
    }
}
