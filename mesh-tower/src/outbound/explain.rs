//! Why a request would go where it goes: the decision of the very code that decides, with its reasons.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use mesh_core::balance::{Pick, PickInput};
use mesh_core::error::Error;
use mesh_core::model::{Action, Forward, HttpFilter, Metadata, Name, RetryPolicy, UnsupportedEffect};
use mesh_core::policy::deadline::{grpc_timeout, http_timeouts, parse_grpc_timeout};
use mesh_core::route::facts::is_grpc;
use mesh_core::route::hash::request_hash;
use mesh_core::route::redirect::location;
use mesh_core::route::rewrite::rewrite_path;
use mesh_core::route::{Decision, Explanation, RequestFacts};
use mesh_core::snapshot::Children;

use crate::filter::DynamicMetadata;

use super::cluster::{ClusterHandle, LaneView, note};
use super::view::TargetView;

/// What would become of a request, and why. Its text is made to be read.
#[derive(Debug)]
#[non_exhaustive]
pub struct Explained {
    /// The request: method and URI.
    pub request: String,
    /// The target's Listener.
    pub target: Name,
    /// The route table's name; may be empty.
    pub table: Name,
    /// The number of the configuration.
    pub config_version: u64,
    /// All the chance there was: the same number decides the same.
    pub dice: u64,
    /// Virtual host, every route tried, and the decision.
    pub routing: Explanation,
    /// What the policies in force say, one line each.
    pub policies: Vec<String>,
    /// The cluster, if the request is forwarded.
    pub cluster: Option<ExplainedCluster>,
}

/// Where a request would be sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct ExplainedCluster {
    /// The cluster's name.
    pub name: Name,
    /// Why it takes no requests, if it does not.
    pub error: Option<Error>,
    /// Its endpoints, in order.
    pub candidates: Vec<ExplainedEndpoint>,
    /// Which of them the balancing policy picks with these dice; None if nobody has sent it a request yet, as endpoints are
    /// connected to on first use, or if none can be picked.
    pub picked: Option<SocketAddr>,
    /// Requests in flight.
    pub active: u32,
    /// How many may be.
    pub max_requests: u32,
}

/// An endpoint that a request could be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExplainedEndpoint {
    /// Its address.
    pub address: SocketAddr,
    /// Its priority: 0 is tried first.
    pub priority: u32,
    /// Its locality, as gRPC writes it.
    pub locality: String,
    /// Its weight among its locality's endpoints.
    pub weight: u32,
    /// What is known of it: `ready`, `failed`, `connecting`, `not in use`, or what the control plane says of its health.
    pub state: String,
}

/// Explains `request` under `view`. `authority` chooses the virtual host.
pub(crate) fn explain(view: &TargetView, authority: &str, request: &Request<()>, dice: u64) -> Explained {
    let facts = facts_of(authority, request);
    let routing = view.index().explain(authority, &facts, dice);
    let mut policies = Vec::new();
    let mut cluster = None;
    if let Ok(decision) = &routing.decision {
        policies = lines(view, decision, &facts);
        cluster = decision.cluster.as_ref().map(|chosen| of_cluster(view, &chosen.name, decision, &facts, dice));
    }
    Explained {
        request: format!("{} {}", request.method(), request.uri()),
        target: view.snapshot.target.clone(),
        table: view.table().name.clone(),
        config_version: view.version(),
        dice,
        routing,
        policies,
        cluster,
    }
}

fn facts_of<'a>(authority: &'a str, request: &'a Request<()>) -> RequestFacts<'a> {
    let said = super::authority_of(request.uri(), request.headers());
    RequestFacts {
        method: request.method(),
        scheme: request.uri().scheme_str().unwrap_or("http"),
        authority: if said.is_empty() { authority } else { said },
        path: request.uri().path_and_query().map_or("/", |path| path.as_str()),
        headers: request.headers(),
        is_grpc: is_grpc(request.headers()),
        tls: None,
        source_ip: None,
        is_internal: false,
        channel_id: 0,
        metadata: request.extensions().get::<DynamicMetadata>().map(|found| &found.0),
    }
}

/// What the policies say, in the order in which a request meets them.
fn lines(view: &TargetView, decision: &Decision, facts: &RequestFacts<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let levels =
        [&view.http().unsupported, &view.table().unsupported, &decision.host.unsupported, &decision.route.unsupported];
    for field in levels.into_iter().flatten() {
        lines.push(match field.effect {
            UnsupportedEffect::FailsRequests => format!("REFUSED: {} is not supported", field.field),
            _ => format!("left out: {}", field.field),
        });
    }
    match &decision.route.action {
        Action::Forward(forward) => forwarding(view, decision, forward, facts, &mut lines),
        Action::Redirect(redirect) => {
            let to = location(redirect, &decision.route.matches, facts);
            lines.push(format!("redirect: {} to {}", redirect.status.as_u16(), String::from_utf8_lossy(&to)));
        }
        Action::Direct(direct) => lines.push(format!("direct response: {}", direct.status.as_u16())),
        Action::RequireTls => lines.push("redirect: 301 to https (require_tls)".to_owned()),
        Action::NonForwarding => lines.push("non_forwarding_action: for servers only".to_owned()),
        Action::Unknown(what) => lines.push(format!("REFUSED: action {what} is not known")),
        _ => {}
    }
    lines
}

fn forwarding(
    view: &TargetView,
    decision: &Decision,
    forward: &Forward,
    facts: &RequestFacts<'_>,
    lines: &mut Vec<String>,
) {
    let names = |filters: &[HttpFilter]| filters.iter().map(|filter| &*filter.name).collect::<Vec<_>>().join(", ");
    if !view.http().filters.is_empty() {
        lines.push(format!("filters: {}", names(&view.http().filters)));
    }
    lines.push(limits(view, forward, facts));
    let retry = forward.retry.as_ref().or(decision.host.retry.as_ref());
    lines.push(retry.map_or_else(|| "retries: no policy".to_owned(), |policy| retries(policy)));
    if let Some(hedge) = forward.hedge.as_ref().or(decision.host.hedge.as_ref()) {
        lines.push(format!(
            "hedging: {} requests at once, {} on a per-try timeout",
            hedge.initial_requests,
            if hedge.on_per_try_timeout { "another one" } else { "none" }
        ));
    }
    if let Some(policy) = forward.internal_redirect.as_ref().filter(|_| !facts.is_grpc) {
        lines.push(format!("redirects: {policy}"));
    }
    if let Some(rewrite) = &forward.path_rewrite {
        match rewrite_path(rewrite, &decision.route.matches, facts.path) {
            Ok(path) => lines.extend(path.map(|path| format!("path: becomes {path}"))),
            Err(error) => lines.push(format!("REFUSED: {error}")),
        }
    }
    if let Some(rewrite) = &forward.host_rewrite {
        lines.push(format!("host: {rewrite}"));
    }
    if let Some(hash) = request_hash(&forward.hash, facts).value {
        lines.push(format!("hash: {hash:#018x}"));
    }
    if let Some(metadata) = decision.metadata_match() {
        lines.push(format!("subset: {}", said(metadata)));
    }
    for mirror in &forward.mirrors {
        lines.push(format!("mirror: {mirror}"));
    }
}

/// The metadata that endpoints are to have.
pub(crate) fn said(metadata: &Metadata) -> String {
    metadata.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}

fn limits(view: &TargetView, forward: &Forward, facts: &RequestFacts<'_>) -> String {
    let most = view.http().max_stream_duration;
    let say = |limit: Option<Duration>| limit.map_or_else(|| "none".to_owned(), |limit| format!("{limit:?}"));
    if facts.is_grpc {
        let asked = facts.headers.get("grpc-timeout").and_then(|value| parse_grpc_timeout(value.as_bytes()));
        return format!("deadline: {}", say(grpc_timeout(asked, &forward.max_stream_duration, most)));
    }
    let limits = http_timeouts(forward, most);
    format!("timeout: {}, stream: {}, idle: {}", say(limits.route), say(limits.stream), say(limits.idle))
}

fn retries(policy: &RetryPolicy) -> String {
    let per_try = policy.per_try_timeout.map(|limit| format!(", {limit:?} each")).unwrap_or_default();
    let (base, max) = (policy.backoff.base, policy.backoff.max);
    format!("retries: {} at most on {}{per_try}, after {base:?} to {max:?}", policy.num_retries, policy.on)
}

fn of_cluster(
    view: &TargetView,
    name: &Name,
    decision: &Decision,
    facts: &RequestFacts<'_>,
    dice: u64,
) -> ExplainedCluster {
    let none = |error| ExplainedCluster {
        name: name.clone(),
        error,
        candidates: Vec::new(),
        picked: None,
        active: 0,
        max_requests: 0,
    };
    match view.cluster(name) {
        None => none(None),
        Some(Err(error)) => none(Some(error)),
        Some(Ok(cluster)) => {
            let hash = match &decision.route.action {
                Action::Forward(forward) => request_hash(&forward.hash, facts).value,
                _ => None,
            };
            let input = PickInput {
                hash,
                tried: &[],
                override_host: None,
                metadata: decision.metadata_match().map(|metadata| &**metadata),
                random: dice,
            };
            of_handle(&cluster, facts.is_grpc, &input)
        }
    }
}

fn of_handle(cluster: &Arc<ClusterHandle>, grpc: bool, input: &PickInput<'_>) -> ExplainedCluster {
    let leaf = cluster.leaf(grpc, grpc);
    let state = leaf.state();
    let config = state.config();
    let lane = state.lane(grpc, grpc).load();
    let mut candidates = Vec::new();
    if let Children::Endpoints { endpoints, .. } = &config.children {
        for locality in &endpoints.localities {
            candidates.extend(locality.endpoints.iter().map(|endpoint| ExplainedEndpoint {
                address: endpoint.address,
                priority: locality.priority,
                locality: locality.locality.to_string(),
                weight: endpoint.weight,
                state: if endpoint.health.takes_requests() {
                    state_of(&lane, endpoint.address).to_owned()
                } else {
                    format!("{:?}", endpoint.health).to_lowercase()
                },
            }));
        }
    }
    let picked = match lane.pick(input) {
        Pick::Candidate(index) => lane.candidates.get(index).map(|candidate| candidate.endpoint.address),
        _ => None,
    };
    ExplainedCluster {
        name: leaf.name().clone(),
        error: note(&config).cloned(),
        candidates,
        picked,
        active: state.breaker().active(),
        max_requests: config.cluster.circuit_breakers.max_requests,
    }
}

fn state_of(lane: &LaneView, address: SocketAddr) -> &'static str {
    let mut candidates = lane.candidates.iter();
    match candidates.find(|candidate| candidate.endpoint.address == address) {
        Some(candidate) if candidate.state.is_ready() => "ready",
        Some(candidate) if candidate.state.is_failed() => "failed",
        Some(_) => "connecting",
        None => "not in use",
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.request)?;
        let (target, table) = (&self.target, &self.table);
        writeln!(f, "  target `{target}`, route table `{table}`, configuration {}", self.config_version)?;
        match &self.routing.host {
            Some(host) => writeln!(f, "  virtual host `{}`", host.name)?,
            None => writeln!(f, "  no virtual host")?,
        }
        for tried in &self.routing.tried {
            let verdict = tried.mismatch.as_deref().unwrap_or("TAKEN");
            writeln!(f, "  route {} `{}`: {verdict}", tried.position, tried.route)?;
        }
        match &self.routing.decision {
            Err(why) => writeln!(f, "  no decision: {why}")?,
            Ok(decision) => {
                if let Some((name, pick)) =
                    decision.cluster.as_ref().and_then(|chosen| Some((&chosen.name, chosen.weighted?)))
                {
                    let (drawn, total, index) = (pick.drawn, pick.total, pick.index);
                    writeln!(f, "  dice {drawn} of {total}: weighted cluster {index}, `{name}`")?;
                }
            }
        }
        for policy in &self.policies {
            writeln!(f, "  {policy}")?;
        }
        self.cluster.as_ref().map_or(Ok(()), |cluster| cluster.fmt(f))
    }
}

impl fmt::Display for ExplainedCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  cluster `{}`: {} of {} requests in flight", self.name, self.active, self.max_requests)?;
        if let Some(error) = &self.error {
            writeln!(f, "    {error}")?;
        }
        for candidate in &self.candidates {
            let ExplainedEndpoint { address, priority, locality, weight, state } = candidate;
            let picked = if self.picked == Some(*address) { ", PICKED" } else { "" };
            writeln!(f, "    {address} priority {priority} {locality} weight {weight}: {state}{picked}")?;
        }
        Ok(())
    }
}
