//! CORS: answers browsers' preflights, and says in responses which origins may read them.

use std::sync::Arc;

use http::{StatusCode, request};
use mesh_core::decode::CorsFilter as Decoding;
use mesh_core::error::Error;
use mesh_core::model::{Action, Cors, FilterConfig, HttpFilter};
use mesh_core::policy::cors::{CorsVerdict, cors, merged};

use super::{Filter, FilterFacts, FilterType, Verdict, config_of};
use crate::reply::Reply;

/// The CORS filter. It does nothing on routes without a policy.
#[derive(Debug, Clone, Copy, Default)]
pub struct CorsFilterType;

impl<F: FilterFacts> FilterType<F> for CorsFilterType {
    fn type_url(&self) -> &str {
        Decoding::TYPE_URL
    }

    fn build(&self, _filter: &HttpFilter, overrides: &[Arc<dyn FilterConfig>]) -> Result<Arc<dyn Filter<F>>, Error> {
        let levels = overrides.iter().map(|policy| config_of::<Cors>(policy, Decoding::TYPE_URL));
        let levels = levels.collect::<Result<Vec<Cors>, Error>>()?;
        Ok(Arc::new(CrossOrigin { policy: merged(levels.iter()) }))
    }
}

/// The filter of one route.
#[derive(Debug)]
struct CrossOrigin {
    policy: Option<Cors>,
}

impl<F: FilterFacts> Filter<F> for CrossOrigin {
    fn on_request(&self, request: &mut request::Parts, facts: &F) -> Verdict {
        let of_route = match &facts.route().action {
            Action::Forward(forward) => forward.cors.as_deref(),
            _ => None,
        };
        let Some(policy) = self.policy.as_ref().or(of_route) else { return Verdict::Continue };
        match cors(policy, &request.method, &request.headers, fastrand::u64(..)) {
            CorsVerdict::Pass => Verdict::Continue,
            CorsVerdict::Allow(headers) => Verdict::Watch(Box::new(move |response| {
                for (name, value) in &headers {
                    response.headers.insert(name, value.clone());
                }
            })),
            CorsVerdict::Preflight(headers) => {
                Verdict::Reply(Box::new(Reply { headers, ..Reply::new(StatusCode::OK, "") }))
            }
        }
    }
}
