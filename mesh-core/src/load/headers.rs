//! A load report in a response's head or trailers: gRPC's form, and the others that Envoy takes.

use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName};
use serde::Deserialize;

use super::{Load, LoadReport};

/// Where gRPC puts a report (gRFC A51): base64 of an `OrcaLoadReport`.
pub const LOAD_REPORT: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");
/// Where Envoy looks for one too: `BIN`, `JSON` or `TEXT`, a space, and the report in that form.
const WITH_FORM: HeaderName = HeaderName::from_static("endpoint-load-metrics");
/// Reports up to this size are read without an allocation.
const SMALL: usize = 1024;
/// gRPC sends base64 without padding and takes it with and without (its wire format's rule for `-bin`).
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl LoadReport<'_> {
    /// Tells `then` the report that is in these headers. False: there is none, or none that can be read.
    ///
    /// A report that cannot be read is no report: a backend's mistake in what it says about itself fails no request.
    pub fn of(headers: &HeaderMap, then: impl FnOnce(&LoadReport<'_>)) -> bool {
        if let Some(value) = only(headers, &LOAD_REPORT) {
            return decode(value, then);
        }
        let Some(value) = only(headers, &WITH_FORM) else { return false };
        if let Some(value) = value.strip_prefix(b"BIN ") {
            return decode(value, then);
        }
        let load = std::str::from_utf8(value).ok().and_then(|text| match text.split_once(' ') {
            Some(("JSON", json)) => from_json(json),
            Some(("TEXT", text)) => from_text(text),
            _ => None,
        });
        load.is_some_and(|load| read(&load.encode(), then))
    }
}

/// The value of a header that is there once: which of several would be meant cannot be known.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none()).map(http::HeaderValue::as_bytes)
}

fn decode(value: &[u8], then: impl FnOnce(&LoadReport<'_>)) -> bool {
    let mut small = [0; SMALL];
    if base64::decoded_len_estimate(value.len()) <= SMALL {
        return BASE64.decode_slice(value, &mut small).is_ok_and(|length| read(&small[..length], then));
    }
    BASE64.decode(value).is_ok_and(|bytes| read(&bytes, then))
}

fn read(bytes: &[u8], then: impl FnOnce(&LoadReport<'_>)) -> bool {
    LoadReport::read(bytes).as_ref().map(then).is_some()
}

/// The message as JSON, which may spell its fields either way.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Json {
    #[serde(alias = "cpuUtilization")]
    cpu_utilization: f64,
    #[serde(alias = "memUtilization")]
    mem_utilization: f64,
    #[serde(alias = "applicationUtilization")]
    application_utilization: f64,
    #[serde(alias = "rpsFractional")]
    rps_fractional: f64,
    eps: f64,
    #[serde(alias = "requestCost")]
    request_cost: BTreeMap<String, f64>,
    utilization: BTreeMap<String, f64>,
    #[serde(alias = "namedMetrics")]
    named_metrics: BTreeMap<String, f64>,
}

fn from_json(text: &str) -> Option<Load> {
    let json: Json = serde_json::from_str(text).ok()?;
    Some(Load {
        cpu_utilization: json.cpu_utilization,
        mem_utilization: json.mem_utilization,
        application_utilization: json.application_utilization,
        requests_per_second: json.rps_fractional,
        errors_per_second: json.eps,
        request_cost: json.request_cost,
        utilization: json.utilization,
        named_metrics: json.named_metrics,
    })
}

/// `cpu_utilization=0.3,named_metrics.queue=5`. A name that is not known spoils the report, as in Envoy.
fn from_text(text: &str) -> Option<Load> {
    let mut load = Load::default();
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim(), value.trim().parse().ok()?);
        match name {
            "cpu_utilization" => load.cpu_utilization = value,
            "mem_utilization" => load.mem_utilization = value,
            "application_utilization" => load.application_utilization = value,
            "rps_fractional" => load.requests_per_second = value,
            "eps" => load.errors_per_second = value,
            _ => {
                let (map, key) = name.split_once('.').filter(|(_, key)| !key.is_empty())?;
                let map = match map {
                    "named_metrics" => &mut load.named_metrics,
                    "utilization" => &mut load.utilization,
                    "request_cost" => &mut load.request_cost,
                    _ => return None,
                };
                map.insert(key.to_owned(), value);
            }
        }
    }
    Some(load)
}
