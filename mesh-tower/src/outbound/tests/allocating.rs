//! What the retry layer allocates, counted around it and without what is inside it.

use std::future::{Ready, ready};
use std::io::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use http::Request;
use mesh_core::balance::CandidateState;
use tower_layer::Layer;
use tower_service::Service;

use super::*;
use crate::body::MeshBody;
use crate::observe::CallLink;
use crate::outbound::Way;
use crate::outbound::resolve::ResolveLayer;
use crate::outbound::retry::RetryLayer;
use crate::outbound::route::RouteLayer;
use crate::outbound::stage::{Arrived, At, Attempt, AttemptFailed, Routed};

const CALLS: usize = 100;

/// Keeps requests where they would go on to their attempts.
#[derive(Clone, Default)]
struct Caught(Arc<Mutex<Vec<Routed>>>);

impl Service<Routed> for Caught {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = Ready<Result<Response<ResponseBody>, Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, routed: Routed) -> Self::Future {
        self.0.lock().unwrap().push(routed);
        ready(Ok(Response::new(ResponseBody::ours(MeshBody::empty()))))
    }
}

/// Answers each attempt at once, without allocating.
#[derive(Debug, Clone)]
struct Answers;

struct Answered(Ready<Result<Response<ResponseBody>, AttemptFailed>>);

impl Service<Attempt> for Answers {
    type Response = Response<ResponseBody>;
    type Error = AttemptFailed;
    type Future = Answered;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), AttemptFailed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _attempt: Attempt) -> Answered {
        Answered(ready(Ok(Response::new(ResponseBody::ours(MeshBody::empty())))))
    }
}

impl Future for Answered {
    type Output = Result<Response<ResponseBody>, AttemptFailed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl At for Answered {
    fn endpoint(&self) -> Option<&Arc<CandidateState>> {
        None
    }
}

/// Requests that are routed, by a route with this `retry_policy`.
async fn routed(retry: &Value) -> Vec<Routed> {
    let table = routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "one", "retry_policy": retry}}]));
    let backend = SocketAddr::from(([127, 0, 0, 1], 9));
    let (mesh, _source) = mesh(&[listener("a:80", &table), cluster("one", &[backend])]);
    mesh.ready("a:80").await.unwrap();
    let (targets, caught) = (mesh.targets(), Caught::default());
    let way = Way::ByAuthority { targets: targets.clone(), passthrough: None };
    let mut stack = ResolveLayer::new(way, 1, true).layer(RouteLayer::new(targets).layer(caught.clone()));
    for grpc in [false, true].repeat(CALLS / 2) {
        let kind = if grpc { "application/grpc" } else { "text/plain" };
        let request = Request::post("http://a/").header("content-type", kind).body(MeshBody::from("the body"));
        stack.call(Arrived { request: request.unwrap(), link: CallLink::off() }).await.unwrap();
    }
    std::mem::take(&mut *caught.0.lock().unwrap())
}

/// Allocations for each call.
fn allocations(routed: Vec<Routed>) -> f64 {
    assert_eq!(routed.len(), CALLS);
    let mut retry = RetryLayer { replay_bytes: 1 << 16, keep_extensions: false }.layer(Answers);
    let mut answered = 0;
    let counted = allocation_counter::measure(|| {
        for routed in routed {
            let mut call = std::pin::pin!(retry.call(routed));
            answered +=
                usize::from(matches!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_))));
        }
    });
    assert_eq!(answered, CALLS);
    counted.count_total as f64 / CALLS as f64
}

#[tokio::test]
async fn the_retry_layer_allocates_nothing_without_a_policy() {
    let without = allocations(routed(&Value::Null).await);
    let with = allocations(routed(&json!({"retry_on": "5xx,unavailable"})).await);
    // Not by `println!`, which the harness keeps to itself when all is well: this line is a number.
    let row = format!(
        "| allocations: the retry layer for a call without a retry policy | {without:.2} (with one {with:.2}) | 0 |"
    );
    writeln!(std::io::stdout().lock(), "{row}").unwrap();
    assert!(without == 0.0, "{without} allocations for each call");
    assert!(with > 0.0, "what is kept for another attempt was not counted");
}
