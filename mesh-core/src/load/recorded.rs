//! A load report of our own: what a server says about itself.

use std::collections::BTreeMap;

use base64::Engine;
use http::HeaderValue;

use super::LoadReport;
use super::headers::BASE64;
use super::wire::put_varint;

/// The load that a server reports, with a response or on a stream of its own (gRFC A51): `xds.data.orca.v3.OrcaLoadReport`.
///
/// Zero means unset, and is not sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Load {
    /// `cpu_utilization`: a share of the CPU; over 1 where it bursts.
    pub cpu_utilization: f64,
    /// `mem_utilization`: a share of the memory, up to 1.
    pub mem_utilization: f64,
    /// `application_utilization`: as the application measures itself; it beats the CPU's where both are there (gRFC A58).
    pub application_utilization: f64,
    /// `rps_fractional`: requests per second.
    pub requests_per_second: f64,
    /// `eps`: errors per second.
    pub errors_per_second: f64,
    /// `request_cost`: what the request cost, by name.
    pub request_cost: BTreeMap<String, f64>,
    /// `utilization`: shares of resources of the application's own, up to 1, by name.
    pub utilization: BTreeMap<String, f64>,
    /// `named_metrics`: anything, by name.
    pub named_metrics: BTreeMap<String, f64>,
}

impl Load {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// With what `over` says in the place of what this says: a request's values beat its server's.
    #[must_use]
    pub fn overlaid(mut self, over: &Self) -> Self {
        let numbers = [
            (&mut self.cpu_utilization, over.cpu_utilization),
            (&mut self.mem_utilization, over.mem_utilization),
            (&mut self.application_utilization, over.application_utilization),
            (&mut self.requests_per_second, over.requests_per_second),
            (&mut self.errors_per_second, over.errors_per_second),
        ];
        for (under, over) in numbers {
            if over != 0.0 {
                *under = over;
            }
        }
        self.request_cost.extend(over.request_cost.clone());
        self.utilization.extend(over.utilization.clone());
        self.named_metrics.extend(over.named_metrics.clone());
        self
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_number(&mut bytes, 1, self.cpu_utilization);
        put_number(&mut bytes, 2, self.mem_utilization);
        put_map(&mut bytes, 4, &self.request_cost);
        put_map(&mut bytes, 5, &self.utilization);
        put_number(&mut bytes, 6, self.requests_per_second);
        put_number(&mut bytes, 7, self.errors_per_second);
        put_map(&mut bytes, 8, &self.named_metrics);
        put_number(&mut bytes, 9, self.application_utilization);
        bytes
    }

    /// The value of [`LOAD_REPORT`](super::LOAD_REPORT).
    pub fn to_header(&self) -> HeaderValue {
        HeaderValue::try_from(BASE64.encode(self.encode())).expect("base64 is a header value")
    }
}

impl From<&LoadReport<'_>> for Load {
    fn from(report: &LoadReport<'_>) -> Self {
        let owned = |(name, value): (&str, f64)| (name.to_owned(), value);
        Self {
            cpu_utilization: report.cpu_utilization,
            mem_utilization: report.mem_utilization,
            application_utilization: report.application_utilization,
            requests_per_second: report.requests_per_second,
            errors_per_second: report.errors_per_second,
            request_cost: report.request_cost().map(owned).collect(),
            utilization: report.utilization().map(owned).collect(),
            named_metrics: report.named_metrics().map(owned).collect(),
        }
    }
}

/// A `double`, unless it is the default.
fn put_number(bytes: &mut Vec<u8>, field: u8, value: f64) {
    if value != 0.0 {
        bytes.push(field << 3 | 1);
        bytes.extend(value.to_le_bytes());
    }
}

fn put_map(bytes: &mut Vec<u8>, field: u8, map: &BTreeMap<String, f64>) {
    for (name, value) in map {
        let mut entry = vec![1 << 3 | 2];
        put_varint(&mut entry, name.len() as u64);
        entry.extend(name.as_bytes());
        entry.push(2 << 3 | 1);
        entry.extend(value.to_le_bytes());
        bytes.push(field << 3 | 2);
        put_varint(bytes, entry.len() as u64);
        bytes.extend(entry);
    }
}
