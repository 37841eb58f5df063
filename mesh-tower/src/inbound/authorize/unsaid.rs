//! Where no policy says who may come in: istiod's gRPC mode leaves out a policy that allows nothing, and then a
//! Listener that lets nobody in looks like one that lets everybody in.

use std::any::Any;
use std::sync::Arc;

use mesh_core::decode::RbacFilter as Decoding;
use mesh_core::model::{Audit, FilterConfig, FilterOverride, FilterOverrides, HttpFilter, Rbac, RbacAction, RbacRules};
use mesh_core::snapshot::ServerSnapshot;

use super::Authorization;
use crate::filter::{Filter, FilterChain};
use crate::inbound::{InboundOptions, RequestFacts};

/// What istiod calls the Listeners of its gRPC servers.
const ISTIO: &str = "xds.istio.io/grpc/lds/inbound/";

/// Whether `filters` have an RBAC that lets in only whom a policy allows. `levels` are the overrides of one route: they
/// can add one, and where they take one away, that is the control plane's own word.
pub(crate) fn is_allowing(filters: &[HttpFilter], levels: &[&FilterOverrides]) -> bool {
    filters.iter().filter(|filter| is_rbac(filter)).any(|filter| {
        let over = levels.iter().rev().find_map(|level| level.get(&filter.name));
        let own = !filter.disabled && allows(&filter.config);
        own || matches!(over, Some(FilterOverride::Config { config, .. }) if allows(config))
    })
}

fn is_rbac(filter: &HttpFilter) -> bool {
    &*filter.type_url == Decoding::TYPE_URL
}

fn allows(config: &Arc<dyn FilterConfig>) -> bool {
    let config: &dyn Any = &**config;
    let rules = config.downcast_ref::<Rbac>().and_then(|rbac| rbac.rules.as_ref());
    rules.is_some_and(|rules| rules.action == RbacAction::Allow)
}

/// Filters that let nobody in: an RBAC that allows nothing.
pub(crate) fn nobody() -> FilterChain<RequestFacts> {
    let rules = RbacRules { action: RbacAction::Allow, policies: Vec::new(), audit: Audit::default() };
    let rbac = Rbac { rules: Some(rules), shadow: None };
    let filter: Arc<dyn Filter<RequestFacts>> = Arc::new(Authorization { name: "default_deny".into(), rbac });
    Arc::new([filter])
}

/// What the operator of a Listener must know who can't tell whether a policy is missing.
pub(crate) fn doubt(snapshot: &ServerSnapshot, options: &InboundOptions) -> Option<String> {
    let target = &snapshot.target;
    let silent = || snapshot.listener.connections().iter().any(|http| !http.filters.iter().any(is_rbac));
    (!options.default_deny && target.starts_with(ISTIO) && silent()).then(|| {
        format!(
            "Listener `{target}` has no authorization policy, so that every client is let in. istiod's gRPC mode says \
             the same where an AuthorizationPolicy allows nothing: InboundOptions::default_deny lets nobody in then"
        )
    })
}
