//! What a rule does with a request: `backendRefs`, `timeouts`, `retry`, with its filters.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::filter::{Filters, NewPath};
use super::matches::{Match, PathMatch};
use super::{Protocol, Surroundings, time};
use crate::bootstrap::json::Object;
use crate::decode::Fault;
use crate::source::file::object::{Meta, ServiceName, port};

/// How often a request is tried again where `retry` does not say: what istiod takes.
const ATTEMPTS: u32 = 2;

/// The largest weight, the API's own.
const MAX_WEIGHT: u32 = 1_000_000;

/// A rule's effect.
#[derive(Debug)]
pub(super) struct Action {
    filters: Filters,
    backends: Vec<Backend>,
    timeout: Option<Duration>,
    per_try: Option<Duration>,
    retry: Option<Retry>,
}

#[derive(Debug)]
struct Backend {
    service: ServiceName,
    port: u16,
    weight: u32,
    filters: Filters,
}

#[derive(Debug)]
struct Retry {
    codes: Vec<u32>,
    attempts: u32,
    backoff: Option<Duration>,
}

impl Action {
    pub(super) fn read(rule: &Object<'_>, protocol: Protocol, meta: &Meta) -> Result<Self, Fault> {
        let backends = rule.objects("backendRefs", |backend| Backend::read(backend, protocol, meta))?;
        let (timeout, per_try) = rule.object("timeouts", timeouts)?.unwrap_or_default();
        let action = Self {
            filters: Filters::read(rule, protocol, meta, false)?,
            backends: backends.unwrap_or_default(),
            timeout,
            per_try,
            retry: rule.object("retry", Retry::read)?,
        };
        if action.filters.redirect.is_some() && !action.backends.is_empty() {
            return Err(
                rule.fault("backendRefs", "is given together with a RequestRedirect, which leaves nothing for it")
            );
        }
        Ok(action)
    }

    /// A prefix can only be replaced where one is matched.
    pub(super) fn check(&self, rule: &Object<'_>, matches: &[Match]) -> Result<(), Fault> {
        let redirect = self.filters.redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
        let rewrite = self.filters.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
        let replaces = matches!(redirect.or(rewrite), Some(NewPath::Prefix(_)));
        if replaces && matches.iter().any(|matched| !matches!(matched.path, PathMatch::Prefix(_))) {
            let rule_text =
                "replaces a prefix (ReplacePrefixMatch), so that every match of the rule must be a PathPrefix";
            return Err(rule.fault("filters", rule_text));
        }
        Ok(())
    }

    /// It as an xDS route without name and match.
    pub(super) fn route(&self, matched: &Match, here: Surroundings<'_>) -> Value {
        let mut route = json!({});
        self.filters.put_headers(&mut route);
        if let Some(redirect) = &self.filters.redirect {
            route["redirect"] = redirect.json(matched, here.port);
            return route;
        }
        let Some(mut forward) = self.clusters(here) else {
            // No backend, or none that exists: the API asks for 500.
            route["direct_response"] = json!({"status": 500});
            return route;
        };
        self.put_times(&mut forward);
        self.filters.put_mirrors(here, &mut forward);
        let mut forward = Value::Object(forward);
        if let Some(rewrite) = &self.filters.rewrite {
            rewrite.put(matched, &mut forward);
        }
        route["route"] = forward;
        route
    }

    /// Where it forwards to; None: nowhere.
    ///
    /// Of several backends, one that does not exist keeps its share, and its requests fail: no cluster has its name, and the
    /// route says what that answers.
    fn clusters(&self, here: Surroundings<'_>) -> Option<Map<String, Value>> {
        let weighted: Vec<&Backend> = self.backends.iter().filter(|backend| backend.weight > 0).collect();
        if !weighted.iter().any(|backend| (here.has_port)(&backend.service, backend.port)) {
            return None;
        }
        let mut out = Map::new();
        match weighted.as_slice() {
            [only] if only.filters.is_empty() => {
                out.insert("cluster".into(), only.service.cluster(only.port).into());
            }
            all => {
                let clusters: Vec<Value> = all.iter().map(|backend| backend.json()).collect();
                out.insert("weighted_clusters".into(), json!({"clusters": clusters}));
            }
        }
        out.insert("cluster_not_found_response_code".into(), "INTERNAL_SERVER_ERROR".into());
        Some(out)
    }

    /// Envoy's default of 15 s is not the API's, which is none.
    ///
    /// The timeout is there twice: gRPC knows only `max_stream_duration`.
    fn put_times(&self, out: &mut Map<String, Value>) {
        let per_try = self.per_try.filter(|per_try| !per_try.is_zero());
        let total = self.timeout.filter(|timeout| !timeout.is_zero());
        // Without a second try, the first one's time is all there is.
        let alone = if self.retry.is_none() { per_try } else { None };
        let total = alone.or(total);
        out.insert("timeout".into(), time::json(total.unwrap_or_default()).into());
        if let Some(total) = total {
            out.insert("max_stream_duration".into(), json!({"max_stream_duration": time::json(total)}));
        }
        if let Some(retry) = &self.retry {
            out.insert("retry_policy".into(), retry.json(per_try));
        }
    }
}

/// `timeouts.request` and `timeouts.backendRequest`.
fn timeouts(timeouts: &Object<'_>) -> Result<(Option<Duration>, Option<Duration>), Fault> {
    timeouts.only(&["request", "backendRequest"])?;
    let (request, backend) = (time::read(timeouts, "request")?, time::read(timeouts, "backendRequest")?);
    let limit = request.filter(|request| !request.is_zero());
    if limit.is_some_and(|limit| backend.is_some_and(|backend| backend > limit)) {
        return Err(timeouts.fault("backendRequest", "is more than request, which it is a part of"));
    }
    Ok((request, backend))
}

impl Backend {
    fn read(backend: &Object<'_>, protocol: Protocol, meta: &Meta) -> Result<Self, Fault> {
        backend.only(&["group", "kind", "name", "namespace", "port", "weight", "filters"])?;
        Ok(Self {
            service: ServiceName::referred(backend, &meta.namespace)?,
            port: port(backend, "port")?.ok_or_else(|| backend.fault("port", "is missing"))?,
            weight: backend.number("weight", 0..=MAX_WEIGHT)?.unwrap_or(1),
            filters: Filters::read(backend, protocol, meta, true)?,
        })
    }

    fn json(&self) -> Value {
        let mut out = json!({"name": self.service.cluster(self.port), "weight": self.weight});
        self.filters.put_headers(&mut out);
        out
    }
}

impl Retry {
    fn read(retry: &Object<'_>) -> Result<Self, Fault> {
        retry.only(&["codes", "attempts", "backoff"])?;
        let mut codes = Vec::new();
        for code in retry.array("codes")?.unwrap_or_default() {
            let code = code.as_u64().and_then(|code| u32::try_from(code).ok()).filter(|code| (400..600).contains(code));
            codes.push(code.ok_or_else(|| retry.fault("codes", "must be statuses from 400 to 599"))?);
        }
        Ok(Self {
            codes,
            attempts: retry.number("attempts", 0..=100)?.unwrap_or(ATTEMPTS),
            backoff: time::read(retry, "backoff")?,
        })
    }

    /// What istiod makes of it, a request that surely or probably did nothing and those whose answer is in the list; and, as
    /// the API asks for wherever there is a `retry`, a connection that broke (`HTTPRouteRetryConnectionError`).
    fn json(&self, per_try: Option<Duration>) -> Value {
        let mut on = "connect-failure,refused-stream,reset,unavailable,cancelled".to_owned();
        if !self.codes.is_empty() {
            on.push_str(",retriable-status-codes");
        }
        let mut out = json!({
            "retry_on": on,
            "num_retries": self.attempts,
            "retriable_status_codes": self.codes,
            "retry_host_predicate": [{
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                },
            }],
            "host_selection_retry_max_attempts": 5,
        });
        if let Some(per_try) = per_try {
            out["per_try_timeout"] = time::json(per_try).into();
        }
        if let Some(backoff) = self.backoff {
            out["retry_back_off"] = json!({"base_interval": time::json(backoff.max(Duration::from_millis(1)))});
        }
        out
    }
}

/// The route of a Service that has no routes.
pub(in crate::source::file) fn to_own_cluster(service: &ServiceName, port: u16) -> Value {
    json!({
        "name": "default",
        "match": {"prefix": "/"},
        "route": {"cluster": service.cluster(port), "timeout": "0s"},
    })
}
