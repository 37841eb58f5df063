//! `HTTPRoute` and `GRPCRoute` with Services as parents (GAMMA): which requests to a Service go where.

mod action;
mod filter;
mod matches;
mod order;
mod time;

use serde_json::Value;

use super::object::{Meta, ServiceName, port};
use super::service::Service;
use crate::bootstrap::json::Object;
use crate::decode::Fault;
use action::Action;
use matches::Match;

pub(super) use action::to_own_cluster;

/// Which kind of route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Grpc,
}

/// An HTTPRoute or a GRPCRoute.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) protocol: Protocol,
    pub(super) meta: Meta,
    pub(super) parents: Vec<Parent>,
    rules: Vec<Rule>,
}

/// A Service whose requests a route is for.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) service: ServiceName,
    /// None: all its ports.
    port: Option<u16>,
    /// The name of a port; None: any.
    section: Option<String>,
}

#[derive(Debug)]
struct Rule {
    name: Option<String>,
    matches: Vec<Match>,
    action: Action,
}

/// One route of the table: requests that match `matched`, by the rule `rule` of the route `route`.
#[derive(Debug)]
struct Entry<'a> {
    route: &'a Route,
    rule: usize,
    matched: &'a Match,
}

/// What a route's meaning depends on besides itself.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// The port that the request is to.
    pub(super) port: u16,
    /// Whether a Service is there and has this port.
    pub(super) has_port: &'a dyn Fn(&ServiceName, u16) -> bool,
}

impl Route {
    pub(super) fn read(document: &Object<'_>, protocol: Protocol) -> Result<Self, Fault> {
        let meta = Meta::of(document)?;
        let spec = document.object("spec", |spec| {
            if spec.array("hostnames")?.is_some_and(|names| !names.is_empty()) {
                let rule = "has no meaning where the parent is a Service: all requests to the Service are meant";
                return Err(spec.fault("hostnames", rule));
            }
            spec.only(&["parentRefs", "hostnames", "rules"])?;
            let parents = spec.objects("parentRefs", |parent| Parent::read(parent, &meta))?.unwrap_or_default();
            if parents.is_empty() {
                return Err(spec.fault("parentRefs", "is empty; name the Service whose requests are meant"));
            }
            let rules = spec.objects("rules", |rule| Rule::read(rule, protocol, &meta))?;
            // One rule for every request, without a backend, is what the API says an absent list is; no one means it.
            let rules = rules.filter(|rules| !rules.is_empty()).ok_or_else(|| spec.fault("rules", "is empty"))?;
            Ok((parents, rules))
        })?;
        let (parents, rules) = spec.ok_or_else(|| document.fault("spec", "is missing"))?;
        Ok(Self { protocol, meta, parents, rules })
    }

    /// Whether it is for requests to this port of this Service.
    pub(super) fn is_for(&self, service: &Service, number: u16, name: &str) -> bool {
        self.parents.iter().any(|parent| {
            parent.service == service.name
                && parent.port.is_none_or(|port| port == number)
                && parent.section.as_ref().is_none_or(|section| section == name)
        })
    }
}

impl Parent {
    fn read(parent: &Object<'_>, meta: &Meta) -> Result<Self, Fault> {
        parent.only(&["group", "kind", "name", "namespace", "port", "sectionName"])?;
        // The API's default is a Gateway, which there is none of here.
        if parent.string("kind")? != Some("Service") {
            return Err(parent.fault("kind", "must be Service: there is no Gateway here"));
        }
        let service = ServiceName::referred(parent, &meta.namespace)?;
        if service.namespace != meta.namespace {
            let rule = format!(
                "is `{}`, and the route is in `{}`: routes for the clients of one namespace are not supported, so a route \
                 must be in its Service's namespace",
                service.namespace, meta.namespace
            );
            return Err(parent.fault("namespace", rule));
        }
        let section = parent.string("sectionName")?.map(str::to_owned);
        Ok(Self { service, port: port(parent, "port")?, section })
    }

    /// The port it names that `service` does not have.
    pub(super) fn missing_port(&self, service: &Service) -> Option<String> {
        let fits = service.ports.iter().any(|port| {
            self.port.is_none_or(|number| number == port.number)
                && self.section.as_ref().is_none_or(|section| *section == port.name)
        });
        let named = self.port.map(|port| port.to_string()).or_else(|| self.section.clone());
        named.filter(|_| !fits)
    }
}

impl Rule {
    fn read(rule: &Object<'_>, protocol: Protocol, meta: &Meta) -> Result<Self, Fault> {
        let fields: &[&str] = match protocol {
            Protocol::Http => &["name", "matches", "filters", "backendRefs", "timeouts", "retry"],
            Protocol::Grpc => &["name", "matches", "filters", "backendRefs"],
        };
        rule.only(fields)?;
        let matches = rule.objects("matches", |value| Match::read(value, protocol))?.unwrap_or_default();
        let matches = if matches.is_empty() { vec![Match::all(protocol)] } else { matches };
        let action = Action::read(rule, protocol, meta)?;
        action.check(rule, &matches)?;
        Ok(Self { name: rule.string("name")?.map(str::to_owned), matches, action })
    }
}

/// A route table's routes, in the order in which they are tried, each with the index of its route in `routes`.
pub(super) fn table(routes: &[&Route], here: Surroundings<'_>) -> Vec<(Value, usize)> {
    let mut entries = Vec::new();
    for route in routes {
        for (rule, of) in route.rules.iter().enumerate() {
            entries.extend(of.matches.iter().map(|matched| Entry { route, rule, matched }));
        }
    }
    order::sort(&mut entries);
    let index = |entry: &Entry<'_>| routes.iter().position(|route| std::ptr::eq(*route, entry.route)).unwrap_or(0);
    entries.iter().map(|entry| (entry.route(here), index(entry))).collect()
}

impl Entry<'_> {
    fn route(&self, here: Surroundings<'_>) -> Value {
        let Some(rule) = self.route.rules.get(self.rule) else { return Value::Null };
        let meta = &self.route.meta;
        let rule_name = rule.name.clone().unwrap_or_else(|| self.rule.to_string());
        let mut route = rule.action.route(self.matched, here);
        route["name"] = format!("{}.{}.{rule_name}", meta.namespace, meta.name).into();
        route["match"] = self.matched.json();
        route
    }
}
