//! Balancing policies (gRFC A52): rules 105 to 115.

mod built_in;
mod hashing;
mod legacy;
mod subset;
mod weighted;

pub(super) use built_in::built_in;

use std::fmt;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::LoadBalancingPolicy;
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3 as common;
use prost::Message;

use super::at::At;
use super::envelope::Extension;
use super::value::percent;
use super::{Decoder, Fault};
use crate::balance::PolicyConfig;

/// Rule 108.
const DEEPEST: u32 = 16;

impl Decoder {
    /// The policy that a `LoadBalancingPolicy` means: the first of its list that is known. Rules 105 to 108.
    pub(super) fn policy(&self, value: &LoadBalancingPolicy, depth: u32, at: &At<'_>) -> Option<Arc<dyn PolicyConfig>> {
        if depth > DEEPEST {
            at.fault(format!("is nested more than {DEEPEST} deep"));
            return None;
        }
        let mut unknown = Vec::new();
        for (index, policy) in value.policies.iter().enumerate() {
            let at = at.item("policies", index);
            let Some(config) = &policy.typed_extension_config else { continue };
            let Some(any) = &config.typed_config else { continue };
            let at = at.field("typed_extension_config");
            let at = at.field("typed_config");
            let extension = Extension::open(any, &at)?;
            let Some(known) = self.registry.policy(&extension.type_url) else {
                unknown.push(extension.type_url.into_owned());
                continue;
            };
            // Rule 106: what is known and wrong is not excused by what follows.
            let before = at.fault_count();
            let scope = PolicyScope { decoder: self, at, depth };
            return match known.decode(extension.value(), &scope) {
                Ok(policy) => Some(policy),
                Err(faults) => {
                    at.faults(faults);
                    if at.fault_count() == before {
                        at.fault("cannot be used");
                    }
                    None
                }
            };
        }
        at.field("policies").fault(if unknown.is_empty() {
            "has no policy".to_owned()
        } else {
            format!("has no policy that is known here, only {}", unknown.join(", "))
        });
        None
    }
}

/// Where a policy is decoded: what its type may ask for while it reads its configuration.
pub struct PolicyScope<'a> {
    decoder: &'a Decoder,
    at: At<'a>,
    depth: u32,
}

impl PolicyScope<'_> {
    /// Decodes `bytes`, a `LoadBalancingPolicy` message in the field `field`. None: it is refused, and its faults are
    /// noted; return no others.
    pub fn nested(&self, field: &str, bytes: &[u8]) -> Option<Arc<dyn PolicyConfig>> {
        let at = self.at.field(field);
        let value = LoadBalancingPolicy::decode(bytes).map_err(|error| at.fault(format!("cannot be decoded: {error}")));
        self.decoder.policy(&value.ok()?, self.depth + 1, &at)
    }

    /// Says that `field` is not implemented and is left out.
    pub fn left_out(&self, field: &str) {
        self.at.field(field).left_out();
    }
}

impl fmt::Debug for PolicyScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyScope").field("at", &self.at.to_string()).field("depth", &self.depth).finish()
    }
}

/// Refuses through `faults` what a field says wrong, with its path.
fn refuse<T>(path: &str, rule: &str) -> Result<T, Vec<Fault>> {
    Err(vec![Fault::new(path, rule)])
}

/// Slow start is not implemented: an endpoint gets its whole share at once.
fn check_slow_start(value: Option<&common::SlowStartConfig>, at: &At<'_>) {
    if let Some(value) = value {
        let at = at.field("slow_start_config");
        if let Some(share) = &value.min_weight_percent {
            percent(share, &at.field("min_weight_percent"));
        }
        at.left_out();
    }
}
