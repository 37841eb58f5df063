//! The seam for HTTP filters: order, overrides, waiting, answering, and refusing what is not there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode, request, response};
use mesh_core::error::{Code, Error};
use mesh_core::model::{Action, Domain, FilterConfig, FilterOverride, HttpFilter, Route, TlsRequirement};

use super::client::{BOTH, Client, call, get};
use super::{start, tell};
use crate::filter::{Filter, FilterType, Verdict};
use crate::inbound::testing::{Config, route, table, with_routes};
use crate::inbound::{InboundFilters, InboundOptions, RequestFacts, ServingState};
use crate::reply::Reply;

const TYPE: &str = "test.Stamp";

/// What a stamp does.
#[derive(Debug, Clone, PartialEq)]
enum Stamp {
    /// Appends its letter to a header of the request, and of the response.
    Mark(&'static str),
    /// The same, after a second.
    Slow(&'static str),
    /// Answers 403.
    Deny,
    /// Panics.
    Broken,
    /// Panics over the response.
    BrokenLater,
    /// Reads bodies.
    Reads,
}

fn append(headers: &mut http::HeaderMap, letter: &str) {
    let before = headers.get("x-stamps").map_or("", |value| value.to_str().unwrap());
    let value = HeaderValue::try_from(format!("{before}{letter}")).unwrap();
    headers.insert("x-stamps", value);
}

impl Filter<RequestFacts> for Stamp {
    fn on_request(&self, request: &mut request::Parts, facts: &RequestFacts) -> Verdict {
        assert!(facts.config_version > 0);
        match *self {
            Self::Mark(letter) => append(&mut request.headers, letter),
            Self::Slow(letter) => {
                return Verdict::Wait(Box::pin(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Verdict::Change(Box::new(move |request| append(&mut request.headers, letter)))
                }));
            }
            Self::Deny => return Verdict::Reply(Box::new(Reply::new(StatusCode::FORBIDDEN, "no"))),
            Self::Broken => panic!("on purpose"),
            Self::BrokenLater | Self::Reads => {}
        }
        Verdict::Continue
    }

    fn reads_body(&self) -> bool {
        *self == Self::Reads
    }

    fn on_response(&self, response: &mut response::Parts, _facts: &RequestFacts) {
        if let Self::Mark(letter) | Self::Slow(letter) = self {
            append(&mut response.headers, letter);
        }
        assert_ne!(*self, Self::BrokenLater, "on purpose");
    }
}

struct StampType;

impl FilterType<RequestFacts> for StampType {
    fn type_url(&self) -> &str {
        TYPE
    }

    fn build(
        &self,
        filter: &HttpFilter,
        overrides: &[Arc<dyn FilterConfig>],
    ) -> Result<Arc<dyn Filter<RequestFacts>>, Error> {
        let config: &dyn std::any::Any = &**overrides.last().unwrap_or(&filter.config);
        let stamp = config.downcast_ref::<Stamp>().cloned();
        Ok(Arc::new(stamp.ok_or_else(|| Error::new(Code::RESOURCE_REFUSED, "it is another filter's"))?))
    }
}

fn options() -> InboundOptions {
    InboundOptions { filters: InboundFilters::default().with(Arc::new(StampType)), ..InboundOptions::default() }
}

fn filter(name: &str, stamp: Stamp) -> HttpFilter {
    HttpFilter { name: name.into(), type_url: TYPE.into(), config: Arc::new(stamp), disabled: false }
}

fn overriding(route: &Route, name: &str, over: FilterOverride) -> Arc<Route> {
    Arc::new(Route { overrides: BTreeMap::from([(name.into(), over)]), ..route.clone() })
}

fn config(stamp: Stamp) -> FilterOverride {
    FilterOverride::Config { type_url: TYPE.into(), config: Arc::new(stamp) }
}

/// An application that shows the stamps it got.
async fn show(
    request: http::Request<crate::inbound::RequestBody>,
) -> Result<http::Response<http_body_util::Full<bytes::Bytes>>, crate::inbound::BoxError> {
    let stamps = request.headers().get("x-stamps").map(|stamps| stamps.to_str().unwrap().to_owned());
    Ok(http::Response::new(stamps.unwrap_or_default().into()))
}

/// gRFC A39.
#[tokio::test(start_paused = true)]
async fn filters_run_in_order_with_the_overrides_of_the_route() {
    let server = start(tower::service_fn(show), options()).await;
    let filters = vec![
        filter("a", Stamp::Mark("a")),
        filter("b", Stamp::Slow("b")),
        filter("c", Stamp::Mark("c")),
        HttpFilter { disabled: true, ..filter("d", Stamp::Mark("d")) },
    ];
    let plain = route("/", Action::NonForwarding);
    let routes = vec![
        overriding(&route("/replace", Action::NonForwarding), "a", config(Stamp::Mark("A"))),
        overriding(&route("/without", Action::NonForwarding), "b", FilterOverride::Disabled),
        overriding(&route("/with", Action::NonForwarding), "d", config(Stamp::Mark("D"))),
        overriding(&route("/deny", Action::NonForwarding), "b", config(Stamp::Deny)),
        overriding(&route("/broken", Action::NonForwarding), "b", config(Stamp::Broken)),
        overriding(&route("/later", Action::NonForwarding), "b", config(Stamp::BrokenLater)),
        plain,
    ];
    let config = Config { filters, routes: Ok(table(Domain::Any, routes)), ..Config::new(server.address) };
    server.slot.apply(config.build(1));
    let rows = [
        ("/", 200, "abc", "cba"),
        ("/replace", 200, "Abc", "cbA"),
        ("/without", 200, "ac", "ca"),
        ("/with", 200, "abcD", "Dcba"),
        ("/deny", 403, "no\n", "a"),
    ];
    for (path, status, request, response) in rows {
        for http in BOTH {
            let answer = get(http, server.address, path).await.unwrap();
            let stamps = answer.headers["x-stamps"].to_str().unwrap();
            assert_eq!((answer.status.as_u16(), answer.text.as_str(), stamps), (status, request, response), "{path}");
        }
    }
    for path in ["/broken", "/later"] {
        let answer = get(BOTH[0], server.address, path).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.code()), (500, "MESH-312"), "{path}");
    }
    let answer = call(server.address, "/deny").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.grpc_status()), (200, "7"));
}

#[tokio::test]
async fn a_listener_with_a_filter_that_is_not_there_is_refused() {
    let server = start(tower::service_fn(tell), InboundOptions::default()).await;
    let wasm = HttpFilter {
        type_url: "envoy.extensions.filters.http.wasm.v3.Wasm".into(),
        ..filter("envoy.filters.http.wasm", Stamp::Deny)
    };
    server.slot.apply(Config { filters: vec![wasm], ..Config::new(server.address) }.build(1));
    let ServingState::NotServing(error) = server.slot.state() else { panic!("serving") };
    assert_eq!((error.code(), error.config_version()), (Code::RESOURCE_REFUSED, Some(1)));
    assert!(error.to_string().contains("envoy.filters.http.wasm"), "{error}");
    assert!(get(BOTH[0], server.address, "/").await.is_err());
}

/// As with a resource that is refused, the last good configuration stays, with its connections: the control plane was told that
/// all is well, and its slip must not stop the service.
#[tokio::test]
async fn a36_an_update_that_cannot_be_built_leaves_what_is_in_force() {
    let server = start(tower::service_fn(show), options()).await;
    let with = |filters| Config { filters, ..Config::new(server.address) };
    let first = with(vec![filter("a", Stamp::Mark("a"))]).build(1);
    server.slot.apply(first.clone());
    let (mut client, _) = Client::connect(BOTH[1], server.address).await.unwrap();
    let unknown = HttpFilter { type_url: "test.Unknown".into(), ..filter("b", Stamp::Deny) };
    let foreign = FilterOverride::Config { type_url: "test.Unknown".into(), config: Arc::new(()) };
    let foreign = overriding(&route("/", Action::NonForwarding), "a", foreign);
    for bad in [
        with(vec![filter("a", Stamp::Mark("x")), unknown]).build(2),
        with_routes(&first, Ok(table(Domain::Any, vec![foreign]))),
    ] {
        server.slot.apply(bad);
        assert!(matches!(server.slot.state(), ServingState::Serving { version: 1 }));
        assert_eq!(client.get("/").await.unwrap().text, "a", "its connections stay");
        assert_eq!(get(BOTH[0], server.address, "/").await.unwrap().text, "a", "new ones come");
    }
    let marked = overriding(&route("/", Action::NonForwarding), "a", config(Stamp::Mark("b")));
    server.slot.apply(with_routes(&first, Ok(table(Domain::Any, vec![marked]))));
    assert_eq!(client.get("/").await.unwrap().text, "b", "what is good again is put in force");
    server.slot.apply(with(vec![filter("a", Stamp::Mark("c"))]).build(5));
    assert_eq!(get(BOTH[0], server.address, "/").await.unwrap().text, "c");
}

/// What was built for a server of ours must not stay in force on another one.
#[tokio::test]
async fn what_is_in_force_does_not_stay_when_bodies_become_another_servers() {
    let server = start(tower::service_fn(show), options()).await;
    server.slot.apply(Config { filters: vec![filter("a", Stamp::Reads)], ..Config::new(server.address) }.build(1));
    assert!(matches!(server.slot.state(), ServingState::Serving { version: 1 }));
    server.slot.set_split();
    let ServingState::NotServing(error) = server.slot.state() else { panic!("serving") };
    assert!(error.to_string().contains("reads bodies"), "{error}");
}

#[tokio::test]
async fn an_override_changes_with_the_routes() {
    let server = start(tower::service_fn(show), options()).await;
    let first = Config { filters: vec![filter("a", Stamp::Mark("a"))], ..Config::new(server.address) }.build(1);
    server.slot.apply(first.clone());
    assert_eq!(get(BOTH[0], server.address, "/").await.unwrap().text, "a");
    let denied = overriding(&route("/", Action::NonForwarding), "a", config(Stamp::Deny));
    server.slot.apply(with_routes(&first, Ok(table(Domain::Any, vec![denied]))));
    assert_eq!(get(BOTH[0], server.address, "/").await.unwrap().status, 403);
}

/// Envoy's 301, behind the Listener's filters and in the application's place. gRPC has no such thing.
#[tokio::test(start_paused = true)]
async fn a_host_that_requires_tls_has_plaintext_requests_asked_again() {
    let server = start(tower::service_fn(show), options()).await;
    let secured = |routes| {
        let mut table = Arc::unwrap_or_clone(table(Domain::Any, routes));
        let mut host = Arc::unwrap_or_clone(table.virtual_hosts.remove(0));
        host.require_tls = TlsRequirement::All;
        table.virtual_hosts.push(Arc::new(host));
        Ok(Arc::new(table))
    };
    let with = |filters| Config {
        filters,
        routes: secured(vec![route("/", Action::NonForwarding)]),
        ..Config::new(server.address)
    };
    server.slot.apply(with(vec![filter("a", Stamp::Mark("a"))]).build(1));
    for http in BOTH {
        let answer = get(http, server.address, "/x?y=z").await.unwrap();
        let said = |name| answer.headers.get(name).map_or("", |value| value.to_str().unwrap());
        let location = "https://a.test/x?y=z";
        assert_eq!((answer.status.as_u16(), said("location"), answer.code()), (301, location, ""), "{http:?}");
        assert_eq!((said("x-stamps"), answer.text.as_str()), ("a", ""), "filters see it, the application does not");
    }
    let answer = call(server.address, "/x").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.grpc_status()), (200, ""));
    server.slot.apply(with(vec![filter("a", Stamp::Deny)]).build(2));
    assert_eq!(get(BOTH[0], server.address, "/").await.unwrap().status, 403, "what is denied is not redirected");
}
