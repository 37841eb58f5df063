//! What a backend says about its load, read where it lies: `xds.data.orca.v3.OrcaLoadReport` (gRFC A51).
//!
//! A report comes with a response, so it is read without an allocation: numbers in one pass, named values as they are asked
//! for. Only fields that the message has are looked at; anything else is skipped, as protobuf wants it.

use super::wire::{Value, field};

/// A backend's load, borrowed from the bytes of an `OrcaLoadReport`.
///
/// Values are as the backend gave them; [`read`](Self::read) refuses what is not a finite number or is below zero, by the rules
/// of the message.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LoadReport<'a> {
    /// `cpu_utilization`: a share of the CPU, over 1 where it bursts; 0 is unset.
    pub cpu_utilization: f64,
    /// `mem_utilization`: a share of the memory, up to 1; 0 is unset.
    pub mem_utilization: f64,
    /// `application_utilization`: as the application measures itself; 0 is unset.
    pub application_utilization: f64,
    /// `rps_fractional`: requests per second; 0 is unset.
    pub requests_per_second: f64,
    /// `eps`: errors per second; 0 is unset.
    pub errors_per_second: f64,
    bytes: &'a [u8],
}

/// Which of a report's maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Map {
    RequestCost = 4,
    Utilization = 5,
    Named = 8,
}

impl<'a> LoadReport<'a> {
    /// Reads a report. None: the bytes are no `OrcaLoadReport`, or a value breaks its rules.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut report = Self { bytes, ..Self::default() };
        let mut rest = bytes;
        while !rest.is_empty() {
            let (field, value) = field(&mut rest)?;
            match (field, value) {
                (1, Value::Fixed64(bits)) => report.cpu_utilization = amount(bits)?,
                (2, Value::Fixed64(bits)) => report.mem_utilization = amount(bits).filter(|share| *share <= 1.0)?,
                (6, Value::Fixed64(bits)) => report.requests_per_second = amount(bits)?,
                (7, Value::Fixed64(bits)) => report.errors_per_second = amount(bits)?,
                (9, Value::Fixed64(bits)) => report.application_utilization = amount(bits)?,
                (4 | 5 | 8, Value::Bytes(entry)) => {
                    let (_, value) = named(entry)?;
                    let allowed = if field == 5 { 0.0..=1.0 } else { f64::MIN..=f64::MAX };
                    // What is not a number is in no range.
                    allowed.contains(&value).then_some(())?;
                }
                // `rps`, which is deprecated for `rps_fractional`.
                (3, Value::Varint(_)) => {}
                // A field of ours that is something else.
                (1..=9, _) => return None,
                _ => {}
            }
        }
        Some(report)
    }

    /// `request_cost`: what the request cost, by name.
    pub fn request_cost(&self) -> NamedValues<'a> {
        NamedValues { rest: self.bytes, map: Map::RequestCost }
    }

    /// `utilization`: shares of resources of the application's own, by name.
    pub fn utilization(&self) -> NamedValues<'a> {
        NamedValues { rest: self.bytes, map: Map::Utilization }
    }

    /// `named_metrics`: anything, by name.
    pub fn named_metrics(&self) -> NamedValues<'a> {
        NamedValues { rest: self.bytes, map: Map::Named }
    }

    /// The metric that an xDS resource names: `cpu_utilization`, `mem_utilization`, `application_utilization`, or
    /// `named_metrics.NAME`, `utilization.NAME`, `request_cost.NAME` (gRFC A114). None if the report has no such value.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let set = |value: f64| (value != 0.0).then_some(value);
        match name {
            "cpu_utilization" => set(self.cpu_utilization),
            "mem_utilization" => set(self.mem_utilization),
            "application_utilization" => set(self.application_utilization),
            _ => {
                let (map, key) = name.split_once('.')?;
                let mut values = match map {
                    "named_metrics" => self.named_metrics(),
                    "utilization" => self.utilization(),
                    "request_cost" => self.request_cost(),
                    _ => return None,
                };
                values.find(|(name, _)| *name == key).map(|(_, value)| value)
            }
        }
    }
}

/// The values of one of a report's maps, in the order in which they were sent.
#[derive(Debug, Clone)]
pub struct NamedValues<'a> {
    rest: &'a [u8],
    map: Map,
}

impl<'a> Iterator for NamedValues<'a> {
    type Item = (&'a str, f64);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            // `read` went through all of it.
            if let (number, Value::Bytes(entry)) = field(&mut self.rest)?
                && number == self.map as u64
            {
                return named(entry);
            }
        }
        None
    }
}

/// A number that the message allows: finite and not below zero.
fn amount(bits: u64) -> Option<f64> {
    Some(f64::from_bits(bits)).filter(|value| value.is_finite() && *value >= 0.0)
}

/// An entry of a map: its name and its value, which are empty and 0 if they are not there.
fn named(mut entry: &[u8]) -> Option<(&str, f64)> {
    let (mut name, mut value) = ("", 0.0);
    while !entry.is_empty() {
        match field(&mut entry)? {
            (1, Value::Bytes(text)) => name = std::str::from_utf8(text).ok()?,
            (2, Value::Fixed64(bits)) => value = f64::from_bits(bits),
            (1 | 2, _) => return None,
            _ => {}
        }
    }
    Some((name, value))
}
