//! RBAC (gRFC A41): lets a request through, or answers that it is not allowed. The decision is mesh-core's.

mod audit;
mod external;
mod unsaid;

use std::sync::{Arc, LazyLock};

use http::{HeaderValue, StatusCode, request};
use mesh_core::decode::RbacFilter as Decoding;
use mesh_core::error::{Code, Error};
use mesh_core::identity::PeerIdentity;
use mesh_core::model::{FilterConfig, HttpFilter, Metadata, Name, Rbac, RbacRules};
use mesh_core::policy::rbac::{RbacFacts, RbacVerdict};

pub use external::ExtAuthzFilterType;

use super::RequestFacts;
use super::identify::PeerInfo;
use crate::filter::{DynamicMetadata, Filter, FilterFacts, FilterType, Verdict, config_of};
use crate::reply::{ERROR_HEADER, Reply};
pub(crate) use audit::written;
pub(crate) use unsaid::{doubt, is_allowing, nobody};

/// What Envoy says to the client. Which policy denied it is for the server's log.
const MESSAGE: &str = "RBAC: access denied";

static NO_METADATA: LazyLock<Metadata> = LazyLock::new(Metadata::new);

/// The RBAC filter.
#[derive(Debug, Clone, Copy, Default)]
pub struct RbacFilterType;

impl FilterType<RequestFacts> for RbacFilterType {
    fn type_url(&self) -> &str {
        Decoding::TYPE_URL
    }

    fn build(
        &self,
        filter: &HttpFilter,
        overrides: &[Arc<dyn FilterConfig>],
    ) -> Result<Arc<dyn Filter<RequestFacts>>, Error> {
        // The most specific replaces the others whole (gRFC A41).
        let rbac = config_of::<Rbac>(overrides.last().unwrap_or(&filter.config), Decoding::TYPE_URL)?;
        Ok(Arc::new(Authorization { name: filter.name.clone(), rbac }))
    }
}

/// The filter of one route.
#[derive(Debug)]
struct Authorization {
    name: Name,
    rbac: Rbac,
}

impl Filter<RequestFacts> for Authorization {
    fn on_request(&self, request: &mut request::Parts, facts: &RequestFacts) -> Verdict {
        let Rbac { rules, shadow } = &self.rbac;
        let asked = asked(request, facts);
        if let Some(verdict) = shadow.as_ref().map(|rules| rules.judge(&asked)).filter(|verdict| !verdict.allowed) {
            tell("would be denied by the shadow rules", request, &facts.peer, &verdict);
        }
        let Some(rules) = rules else { return Verdict::Continue };
        let verdict = rules.judge(&asked);
        self.audit(rules, request, &facts.peer, &verdict);
        if verdict.allowed {
            return Verdict::Continue;
        }
        tell("denied", request, &facts.peer, &verdict);
        Verdict::Reply(Box::new(denial()))
    }
}

fn asked<'a>(request: &'a request::Parts, facts: &'a RequestFacts) -> RbacFacts<'a> {
    let peer = &facts.peer;
    RbacFacts {
        request: facts.request(request),
        tls: peer.is_tls(),
        peer: peer.identity(),
        server_name: peer.inspected_name(),
        source: peer.remote_addr().ip(),
        client: facts.client,
        destination: peer.local_addr(),
        metadata: request.extensions.get::<DynamicMetadata>().map_or(&*NO_METADATA, |found| &found.0),
        route_metadata: &facts.route.metadata,
    }
}

fn denial() -> Reply {
    let mut reply = Reply::new(StatusCode::FORBIDDEN, MESSAGE);
    if let Ok(code) = HeaderValue::try_from(Code::ACCESS_DENIED.to_string()) {
        reply.headers.insert(ERROR_HEADER, code);
    }
    reply
}

/// Whoever denies much must not fill the log: it is for debugging, and the audit log is for the record.
fn tell(what: &str, request: &request::Parts, peer: &PeerInfo, verdict: &RbacVerdict<'_>) {
    let policy = verdict.policy.unwrap_or("none");
    let (method, path) = (&request.method, request.uri.path());
    tracing::debug!(target: "mesh", "{}: {method} {path} of {peer:?} is {what} (policy that matched: {policy})", Code::ACCESS_DENIED);
}

impl Authorization {
    /// gRFC A59: a line of JSON on standard output, written by a thread of its own.
    fn audit(&self, rules: &RbacRules, request: &request::Parts, peer: &PeerInfo, verdict: &RbacVerdict<'_>) {
        let wanted = if verdict.allowed { rules.audit.admissions } else { rules.audit.denials };
        if wanted {
            let principal = peer.identity().and_then(PeerIdentity::spiffe_id).map(ToString::to_string);
            let line = verdict.audit_line(&self.name, request.uri.path(), principal.as_deref());
            audit::log().write(line);
        }
    }
}

#[cfg(test)]
mod tests;
