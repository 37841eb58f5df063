//! Faults on a server: requests that do not reach the application, or late, and no more of them than allowed (gRFC A33).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use mesh_core::decode::FaultFilter;
use mesh_core::model::{FaultAbort, FaultDelay, FaultDelayAmount, FaultOutcome, FaultPolicy, Fraction, HttpFilter};

use super::client::{BOTH, get};
use super::{Server, start, tell};
use crate::inbound::InboundOptions;
use crate::inbound::testing::Config;

/// A server under `policy`, and how many requests its application had.
async fn faulty(policy: FaultPolicy) -> (Server, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let app = tower::service_fn(move |request| {
        count.fetch_add(1, Ordering::Relaxed);
        tell(request)
    });
    let server = start(app, InboundOptions::default()).await;
    let config = Arc::new(policy);
    let type_url = FaultFilter::TYPE_URL.into();
    let filter = HttpFilter { name: "fault".into(), type_url, config, disabled: false };
    server.slot.apply(Config { filters: vec![filter], ..Config::new(server.address) }.build(1));
    (server, asked)
}

#[tokio::test]
async fn an_aborted_request_does_not_reach_the_application() {
    let outcome = FaultOutcome::Http(StatusCode::TOO_MANY_REQUESTS);
    for (share, status, reached) in [(Fraction::ALWAYS, 429, 0), (Fraction { numerator: 0, denominator: 100 }, 200, 2)]
    {
        let abort = Some(FaultAbort { outcome, share });
        let (server, asked) = faulty(FaultPolicy { abort, ..FaultPolicy::default() }).await;
        for http in BOTH {
            assert_eq!(get(http, server.address, "/").await.unwrap().status, status);
        }
        assert_eq!(asked.load(Ordering::Relaxed), reached);
    }
}

#[tokio::test]
async fn no_more_requests_are_under_a_fault_than_the_servers_policy_allows() {
    let delay = FaultDelay { amount: FaultDelayAmount::Fixed(Duration::from_secs(3600)), share: Fraction::ALWAYS };
    let policy = FaultPolicy { delay: Some(delay), max_active: Some(1), ..FaultPolicy::default() };
    let (server, asked) = faulty(policy).await;
    let send = || tokio::spawn(get(BOTH[0], server.address, "/"));
    // Which of them waits is chance.
    let (mut first, mut second) = (send(), send());
    let done = tokio::select! {
        done = &mut first => done,
        done = &mut second => done,
    };
    assert_eq!(done.unwrap().unwrap().status, 200);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_ne!(first.is_finished(), second.is_finished(), "the other one waits");
}
