//! What is counted of configuration: what control planes say and whether it is taken, resources that they took away while they
//! were in use, and what becomes of certificates.

use mesh_core::event::{Event, EventSink, Material};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};

use super::Telemetry;

/// Counts withdrawals, by what becomes of them.
pub(super) struct Withdrawals(Counter<u64>);

impl Withdrawals {
    pub(super) fn new(meter: &Meter) -> Self {
        Self(meter.u64_counter("mesh.xds.withdrawals").with_unit("{resource}").build())
    }

    fn add(&self, type_url: &str, state: &'static str) {
        let attributes =
            [KeyValue::new("mesh.xds.resource_type", short(type_url)), KeyValue::new("mesh.xds.state", state)];
        self.0.add(1, &attributes);
    }
}

/// Counts the control planes' responses by what becomes of them, and streams that failed (gRFC A78's
/// `resource_updates_valid`, `resource_updates_invalid` and `server_failure`, by response).
pub(super) struct ControlPlanes {
    responses: Counter<u64>,
    failures: Counter<u64>,
}

impl ControlPlanes {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            responses: meter.u64_counter("mesh.xds.responses").with_unit("{response}").build(),
            failures: meter.u64_counter("mesh.xds.server_failures").with_unit("{failure}").build(),
        }
    }

    fn add(&self, server: &str, type_url: &str, state: &'static str) {
        let attributes = [
            KeyValue::new("mesh.xds.resource_type", short(type_url)),
            KeyValue::new("mesh.xds.server", server.to_owned()),
            KeyValue::new("mesh.xds.state", state),
        ];
        self.responses.add(1, &attributes);
    }

    fn lost(&self, server: &str) {
        self.failures.add(1, &[KeyValue::new("mesh.xds.server", server.to_owned())]);
    }
}

/// Resource types come from a table of ours, never from a stranger, so that the series are few; servers come from the bootstrap.
fn short(type_url: &str) -> String {
    type_url.rsplit('.').next().unwrap_or(type_url).to_owned()
}

/// Counts what becomes of certificates. Alarms are set on `expiring`.
pub(super) struct Certificates(Counter<u64>);

impl Certificates {
    pub(super) fn new(meter: &Meter) -> Self {
        Self(meter.u64_counter("mesh.certificates").with_unit("{certificate}").build())
    }

    /// A provider's instance name comes from the bootstrap; a secret's name behind it may be anyone's and is left out, so that
    /// the series are few.
    fn add(&self, certificate: &str, material: Material, state: &'static str) {
        let provider = certificate.split('/').next().unwrap_or_default().to_owned();
        let attributes = [
            KeyValue::new("mesh.certificate.material", material.as_str()),
            KeyValue::new("mesh.certificate.provider", provider),
            KeyValue::new("mesh.certificate.state", state),
        ];
        self.0.add(1, &attributes);
    }
}

impl EventSink for Telemetry {
    fn event(&self, event: &Event) {
        let (withdrawals, certificates, planes) = (&self.0.withdrawals, &self.0.certificates, &self.0.control_planes);
        match event {
            Event::Accepted { server, type_url, .. } => planes.add(server, type_url, "accepted"),
            Event::Rejected { server, type_url, .. } => planes.add(server, type_url, "rejected"),
            Event::ConnectivityLost { server, .. } => planes.lost(server),
            Event::Withdrawn { type_url, how, .. } => withdrawals.add(type_url, how.as_str()),
            Event::Restored { type_url, .. } => withdrawals.add(type_url, "restored"),
            Event::Lapsed { type_url, .. } => withdrawals.add(type_url, "lapsed"),
            Event::CertificateTaken { certificate, material, .. } => certificates.add(certificate, *material, "taken"),
            Event::CertificateExpiring { certificate, material, .. } => {
                certificates.add(certificate, *material, "expiring");
            }
            Event::CertificateExpired { certificate, material, .. } => {
                certificates.add(certificate, *material, "expired");
            }
            _ => {}
        }
    }
}
