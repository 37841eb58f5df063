//! Fault injection (gRFC A33): rule 88.

use std::sync::Arc;

use common::fault_delay::FaultDelaySecifier;
use common::fault_rate_limit::LimitType;
use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as pb;
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use http::StatusCode;
use pb::fault_abort::ErrorType;

use crate::decode::at::{At, Findings};
use crate::decode::envelope::proto;
use crate::decode::value::{fraction, positive_duration};
use crate::decode::{ExtensionValue, Fault, HttpFilterType, Side, matcher};
use crate::model::{
    FaultAbort, FaultDelay, FaultDelayAmount, FaultOutcome, FaultPolicy, FaultRateLimit, FilterConfig, Fraction,
};

/// `extensions.filters.http.fault.v3.HTTPFault`, for the Listener and for overrides; a
/// [`FaultPolicy`](crate::model::FaultPolicy).
#[derive(Debug, Clone, Copy, Default)]
pub struct FaultFilter;

impl FaultFilter {
    /// The type of its configuration.
    pub const TYPE_URL: &'static str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
}

impl HttpFilterType for FaultFilter {
    fn type_url(&self) -> &'static str {
        Self::TYPE_URL
    }

    fn supports(&self, _side: Side) -> bool {
        true
    }

    fn decode(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        let value = proto::<pb::HttpFault>(value)?;
        let findings = Findings::default();
        let policy = policy(value, &findings.root());
        let faults = findings.into_faults();
        if faults.is_empty() { Ok(Arc::new(policy)) } else { Err(faults) }
    }
}

fn policy(value: pb::HttpFault, at: &At<'_>) -> FaultPolicy {
    FaultPolicy {
        delay: value.delay.and_then(|value| delay(&value, &at.field("delay"))),
        abort: value.abort.and_then(|value| abort(&value, &at.field("abort"))),
        rate_limit: value.response_rate_limit.and_then(|value| rate_limit(&value, &at.field("response_rate_limit"))),
        upstream_cluster: (!value.upstream_cluster.is_empty()).then(|| value.upstream_cluster.into()),
        headers: matcher::headers(&value.headers, "headers", at),
        downstream_nodes: value.downstream_nodes,
        max_active: value.max_active_faults.map(|value| value.value),
    }
}

fn share(value: Option<&FractionalPercent>, at: &At<'_>) -> Fraction {
    value.map_or(Fraction { numerator: 0, denominator: 100 }, |value| fraction(value, &at.field("percentage")))
}

/// Envoy refuses a delay that says nothing; gRPC (rule 88) reads it as none. The stricter is no loss: nothing was asked.
fn delay(value: &common::FaultDelay, at: &At<'_>) -> Option<FaultDelay> {
    let amount = match &value.fault_delay_secifier {
        Some(FaultDelaySecifier::FixedDelay(delay)) => {
            FaultDelayAmount::Fixed(positive_duration(Some(delay), &at.field("fixed_delay"))?)
        }
        Some(FaultDelaySecifier::HeaderDelay(_)) => FaultDelayAmount::Header,
        None => {
            at.fault("does not say how long");
            return None;
        }
    };
    Some(FaultDelay { amount, share: share(value.percentage.as_ref(), at) })
}

fn abort(value: &pb::FaultAbort, at: &At<'_>) -> Option<FaultAbort> {
    let outcome = match &value.error_type {
        Some(ErrorType::HttpStatus(status)) => FaultOutcome::Http(http_status(*status, &at.field("http_status"))?),
        Some(ErrorType::GrpcStatus(code)) => FaultOutcome::Grpc(*code),
        Some(ErrorType::HeaderAbort(_)) => FaultOutcome::Header,
        None => {
            at.fault("does not say with what");
            return None;
        }
    };
    Some(FaultAbort { outcome, share: share(value.percentage.as_ref(), at) })
}

fn http_status(value: u32, at: &At<'_>) -> Option<StatusCode> {
    let code = u16::try_from(value).ok().filter(|code| (200..600).contains(code));
    let status = code.and_then(|code| StatusCode::from_u16(code).ok());
    if status.is_none() {
        at.fault("must be from 200 to 599");
    }
    status
}

fn rate_limit(value: &common::FaultRateLimit, at: &At<'_>) -> Option<FaultRateLimit> {
    let kib_per_second = match &value.limit_type {
        Some(LimitType::FixedLimit(limit)) => {
            if limit.limit_kbps == 0 {
                at.field("fixed_limit").field("limit_kbps").fault("must be at least 1");
            }
            Some(limit.limit_kbps)
        }
        Some(LimitType::HeaderLimit(_)) => None,
        None => {
            at.fault("does not say how much");
            return None;
        }
    };
    Some(FaultRateLimit { kib_per_second, share: share(value.percentage.as_ref(), at) })
}
