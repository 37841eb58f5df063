//! Fault injection (gRFC A33): delays and aborts a share of the requests.

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, request};
use mesh_core::decode::FaultFilter as Decoding;
use mesh_core::error::Error;
use mesh_core::model::{FaultPolicy, FilterConfig, HttpFilter};
use mesh_core::policy::fault::{Abort, Fault, fault};
use mesh_core::policy::limit::{Breaker, BreakerGuard};

use super::{Filter, FilterFacts, FilterType, Pace, Verdict, config_of};
use crate::reply::Reply;

/// What Envoy says to the client.
const MESSAGE: &str = "fault filter abort";

/// The fault filter. Its faults are counted together (`max_active_faults`), whatever Listener they are of.
#[derive(Debug, Default)]
pub struct FaultFilterType {
    active: Arc<Breaker>,
}

impl<F: FilterFacts> FilterType<F> for FaultFilterType {
    fn type_url(&self) -> &str {
        Decoding::TYPE_URL
    }

    fn build(&self, filter: &HttpFilter, overrides: &[Arc<dyn FilterConfig>]) -> Result<Arc<dyn Filter<F>>, Error> {
        // The most specific replaces the others whole (gRFC A33).
        let policy = config_of(overrides.last().unwrap_or(&filter.config), Decoding::TYPE_URL)?;
        Ok(Arc::new(FaultInjection { policy, active: self.active.clone() }))
    }
}

/// The filter of one route.
#[derive(Debug)]
struct FaultInjection {
    policy: FaultPolicy,
    active: Arc<Breaker>,
}

impl<F: FilterFacts> Filter<F> for FaultInjection {
    fn on_request(&self, request: &mut request::Parts, facts: &F) -> Verdict {
        let draws = std::array::from_fn(|_| fastrand::u64(..));
        let fault = fault(&self.policy, &facts.request(request), facts.cluster(), draws);
        if fault.is_none() {
            return Verdict::Continue;
        }
        match self.active.enter(self.policy.max_active.unwrap_or(u32::MAX)) {
            Some(active) => inject(fault, active),
            None => Verdict::Continue,
        }
    }
}

fn inject(fault: Fault, active: BreakerGuard) -> Verdict {
    match fault.delay {
        None => after(&fault, active),
        Some(delay) => Verdict::Wait(Box::pin(wait(delay, fault, active))),
    }
}

/// The request counts as faulted as long as it waits, and as its response is slow.
async fn wait(delay: Duration, fault: Fault, active: BreakerGuard) -> Verdict {
    tokio::time::sleep(delay).await;
    after(&fault, active)
}

fn after(fault: &Fault, active: BreakerGuard) -> Verdict {
    let reply = match fault.abort {
        Some(Abort::Http(status)) => Reply::new(status, MESSAGE),
        Some(Abort::Grpc(code)) => Reply { grpc_status: Some(code), ..Reply::new(StatusCode::OK, MESSAGE) },
        None => match fault.response_rate {
            None => return Verdict::Continue,
            Some(rate) => {
                let pace = Pace::new(rate, active);
                return Verdict::Watch(Box::new(move |response| drop(response.extensions.insert(pace))));
            }
        },
    };
    Verdict::Reply(Box::new(reply))
}
