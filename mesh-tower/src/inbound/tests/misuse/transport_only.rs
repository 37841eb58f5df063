//! A listener that is built without a layer: it serves as long as there is nothing to say about requests.

use axum::Router;
use axum::routing::get as on_get;
use mesh_core::error::Code;
use mesh_core::model::{Action, Domain, HttpFilter, RouteTable};
use std::sync::Arc;

use super::super::client::{BOTH, get};
use super::{closed, ready};
use crate::inbound::testing::{Config, everything, route, table, with_routes};
use crate::inbound::{InboundSlot, ServingState};

async fn serving() -> Arc<InboundSlot> {
    let bound = ready().await;
    let slot = bound.slot().clone();
    let listener = bound.transport_only();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", on_get(|| async { "reached" }))).await });
    slot
}

fn refused(slot: &InboundSlot) {
    let ServingState::NotServing(error) = slot.state() else { panic!("serving") };
    assert_eq!(error.code(), Code::HALF_SERVER, "{error}");
}

#[tokio::test]
async fn it_serves_without_a_layer() {
    let slot = serving().await;
    for http in BOTH {
        assert_eq!(get(http, slot.address(), "/").await.unwrap().text, "reached");
    }
}

#[tokio::test]
async fn a_listener_with_http_policy_is_not_served() {
    let slot = serving().await;
    let filter = HttpFilter { name: "f".into(), type_url: "test.F".into(), config: Arc::new(()), disabled: false };
    slot.apply(Config { filters: vec![filter], ..Config::new(slot.address()) }.build(2));
    refused(&slot);
    closed(BOTH[0], slot.address(), "/").await;

    let first = Config::new(slot.address()).build(3);
    slot.apply(first.clone());
    assert!(matches!(slot.state(), ServingState::Serving { .. }));
    let narrow: [Arc<RouteTable>; 3] = [
        table(Domain::Any, vec![route("/only", Action::NonForwarding)]),
        table(Domain::Exact("a.test".into()), vec![route("/", Action::NonForwarding)]),
        table(Domain::Any, vec![route("/", Action::Unknown("x".into()))]),
    ];
    for routes in narrow {
        slot.apply(with_routes(&first, Ok(routes)));
        refused(&slot);
    }
    slot.apply(with_routes(&first, Ok(everything())));
    assert_eq!(get(BOTH[0], slot.address(), "/").await.unwrap().text, "reached");
}

#[tokio::test]
async fn what_is_in_force_already_is_looked_at_again() {
    let bound = ready().await;
    let slot = bound.slot().clone();
    slot.apply(Config { routes: Ok(table(Domain::Any, vec![])), ..Config::new(slot.address()) }.build(2));
    assert!(matches!(slot.state(), ServingState::Serving { .. }));
    let _listener = bound.transport_only();
    refused(&slot);
}
