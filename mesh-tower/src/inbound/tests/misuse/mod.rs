//! Each half of a split server without the other, and in the wrong order: requests are refused, on every framework.

mod axum;
mod hyper;
mod tonic;
mod transport_only;

use std::sync::Arc;

use super::bound;
use super::client::{Answer, Http, get};
use crate::inbound::testing::Config;
use crate::inbound::{Bound, InboundOptions};

/// A bound address that serves under a configuration that hands everything to the application.
async fn ready() -> Bound {
    let (listener, slot) = bound(InboundOptions::default()).await;
    slot.apply(Config::new(slot.address()).build(1));
    Bound::new(Arc::clone(&slot), listener)
}

/// The layer's own refusal.
fn refused(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "MESH-702"), "{answer:?}");
}

/// The connection ends without a response.
async fn closed(http: Http, to: std::net::SocketAddr, path: &str) {
    let answer = get(http, to, path).await;
    assert!(answer.is_err(), "{http:?} {path}: {answer:?}");
}
