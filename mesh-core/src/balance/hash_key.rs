//! What the consistent-hashing policies hash an endpoint by, and how much of the table it gets.

use std::collections::HashMap;
use std::sync::Arc;

use super::Candidate;
use crate::model::{Locality, lb_metadata};

/// The name an endpoint is hashed by: `hash_key` of its `envoy.lb` metadata (gRFC A76), else its hostname if that is
/// asked for and there, else its first address.
pub(crate) fn hash_key(candidate: &Candidate, use_hostname: bool) -> String {
    match lb_metadata(&candidate.endpoint.metadata, "hash_key").and_then(serde_json::Value::as_str) {
        Some(key) if !key.is_empty() => key.to_owned(),
        _ if use_hostname && !candidate.endpoint.hostname.is_empty() => candidate.endpoint.hostname.to_string(),
        _ => candidate.endpoint.address.to_string(),
    }
}

/// Each candidate's share of the whole: its weight inside its locality times its locality's weight (gRFC A113). The sum
/// is one.
pub(crate) fn shares(candidates: &[Arc<Candidate>]) -> Vec<f64> {
    let mut localities: HashMap<&Locality, (u64, u32)> = HashMap::new();
    for candidate in candidates {
        let entry = localities.entry(&candidate.locality).or_insert((0, candidate.locality_weight.max(1)));
        entry.0 += u64::from(candidate.endpoint.weight.max(1));
    }
    let all: u64 = localities.values().map(|(_, weight)| u64::from(*weight)).sum();
    candidates
        .iter()
        .map(|candidate| {
            let (sum, weight) = localities[&*candidate.locality];
            let inside = f64::from(candidate.endpoint.weight.max(1)) / sum as f64;
            inside * (f64::from(weight) / all as f64)
        })
        .collect()
}

/// What a table was computed from: if a rebuild has the same, the table can be kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TableKey {
    keys: Vec<String>,
    shares: Vec<f64>,
}

impl TableKey {
    /// The inputs of `candidates`.
    pub(crate) fn new(candidates: &[Arc<Candidate>], use_hostname: bool) -> Self {
        let keys = candidates.iter().map(|candidate| hash_key(candidate, use_hostname)).collect();
        Self { keys, shares: shares(candidates) }
    }

    /// Each candidate's name and share, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, f64)> {
        self.keys.iter().map(String::as_str).zip(self.shares.iter().copied())
    }

    /// The smallest share; one where there is nobody.
    pub(crate) fn smallest(&self) -> f64 {
        self.shares.iter().copied().fold(1.0, f64::min)
    }

    /// The largest share.
    pub(crate) fn largest(&self) -> f64 {
        self.shares.iter().copied().fold(0.0, f64::max)
    }
}
