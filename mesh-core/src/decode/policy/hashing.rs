//! Ring hash and maglev: rules 110 to 112, and Envoy's for maglev.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::load_balancing_policies as pb;
use pb::ring_hash::v3::ring_hash::HashFunction as PbFunction;

use super::{PolicyScope, refuse};
use crate::balance::{HashFunction, MaglevConfig, PolicyConfig, RingHashConfig};
use crate::decode::envelope::proto;
use crate::decode::{Dialect, ExtensionValue, Fault};

/// gRPC's cap for both sizes (gRFC A42): each client of many has a ring, and skewed weights ask for millions of entries.
const LARGEST_IN_GRPC: u64 = 4096;

type Decoded = Result<Arc<dyn PolicyConfig>, Vec<Fault>>;

/// `RingHash`.
pub(super) fn ring_hash(value: ExtensionValue<'_>, scope: &PolicyScope<'_>) -> Decoded {
    let value = proto::<pb::ring_hash::v3::RingHash>(value)?;
    let common = value.consistent_hashing_lb_config.as_ref();
    note(scope, value.hash_balance_factor.is_some(), common);
    if value.locality_weighted_lb_config.is_some() {
        scope.left_out("locality_weighted_lb_config");
    }
    let function = match PbFunction::try_from(value.hash_function) {
        Ok(PbFunction::XxHash) => HashFunction::Xx,
        // gRPC can't.
        Ok(PbFunction::MurmurHash2) => HashFunction::Murmur2,
        // Rule 110: here, unlike in ring_hash_lb_config, the zero value is not XX_HASH.
        Ok(PbFunction::DefaultHash) => return refuse("hash_function", "is DEFAULT_HASH; say XX_HASH"),
        Err(_) => return refuse("hash_function", "is not known here"),
    };
    let config = ring(
        value.minimum_ring_size.map(|size| size.value),
        value.maximum_ring_size.map(|size| size.value),
        function,
        value.use_hostname_for_hashing || common.is_some_and(|common| common.use_hostname_for_hashing),
    )?;
    Ok(Arc::new(config))
}

/// Rules 111 and 112.
pub(super) fn ring(
    min: Option<u64>,
    max: Option<u64>,
    function: HashFunction,
    use_hostname: bool,
) -> Result<RingHashConfig, Vec<Fault>> {
    let default = RingHashConfig::default();
    let sizes = [("minimum_ring_size", min, default.min_size), ("maximum_ring_size", max, default.max_size)];
    let mut faults = Vec::new();
    for (field, size, _) in sizes {
        if size.is_some_and(|size| size == 0 || size > RingHashConfig::LARGEST) {
            faults.push(Fault::new(field, format!("must be from 1 to {}", RingHashConfig::LARGEST)));
        }
    }
    let [min_size, max_size] = sizes.map(|(_, size, default)| size.unwrap_or(default));
    if faults.is_empty() && min_size > max_size {
        faults.push(Fault::new("minimum_ring_size", "is more than maximum_ring_size"));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let cap = if Dialect::is_envoy() { RingHashConfig::LARGEST } else { LARGEST_IN_GRPC };
    Ok(RingHashConfig { min_size: min_size.min(cap), max_size: max_size.min(cap), function, use_hostname })
}

/// `Maglev`.
pub(super) fn maglev(value: ExtensionValue<'_>, scope: &PolicyScope<'_>) -> Decoded {
    let value = proto::<pb::maglev::v3::Maglev>(value)?;
    let common = value.consistent_hashing_lb_config.as_ref();
    note(scope, false, common);
    if value.locality_weighted_lb_config.is_some() {
        scope.left_out("locality_weighted_lb_config");
    }
    let use_hostname = common.is_some_and(|common| common.use_hostname_for_hashing);
    Ok(Arc::new(table(value.table_size.map(|size| size.value), use_hostname)?))
}

/// The algorithm needs a prime; Envoy bounds it.
pub(super) fn table(size: Option<u64>, use_hostname: bool) -> Result<MaglevConfig, Vec<Fault>> {
    let table_size = size.unwrap_or(MaglevConfig::default().table_size);
    if table_size > MaglevConfig::LARGEST || !is_prime(table_size) {
        return refuse("table_size", "must be a prime, at most 5000011");
    }
    Ok(MaglevConfig { table_size, use_hostname })
}

fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

fn note(scope: &PolicyScope<'_>, balance: bool, common: Option<&pb::common::v3::ConsistentHashingLbConfig>) {
    if balance || common.is_some_and(|common| common.hash_balance_factor.is_some()) {
        scope.left_out("hash_balance_factor");
    }
    if common.is_some_and(|common| !common.hash_policy.is_empty()) {
        scope.left_out("consistent_hashing_lb_config.hash_policy");
    }
}
