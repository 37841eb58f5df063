//! Endpoints over services of the application.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use mesh_core::error::Code;
use mesh_core::policy::retry::Failure;
use tokio::runtime::Handle;
use tower::service_fn;
use tower_service::Service;

use super::rig::{Rig, get, plan};
use crate::BoxError;
use crate::body::MeshBody;
use crate::connect::WireProtocol::Http1;
use crate::connect::{
    BoxFuture, ConnectBackoff, EndpointFactory, EndpointPlan, MadeEndpoints, PickedEndpoint, ServiceEndpoints,
};
use crate::secure::testing::upstream;

const ADDRESS: &str = "192.0.2.1:80";

fn plan_here() -> EndpointPlan {
    plan(ADDRESS.parse().unwrap(), Http1)
}

fn say(request: &Request<MeshBody>) -> String {
    let picked: &PickedEndpoint = request.extensions().get().unwrap();
    let host = request.headers().get("host").map_or("-", |host| host.to_str().unwrap());
    format!("{} {host} {} of {}", request.uri(), picked.address, picked.cluster)
}

#[tokio::test]
async fn a_service_is_told_where_to_by_uri_and_extension() {
    let service = service_fn(|request: Request<MeshBody>| async move {
        Ok::<_, io::Error>(Response::new(Full::<bytes::Bytes>::from(say(&request))))
    });
    let factory = ServiceEndpoints::new(service);
    assert!(!factory.proves_tls());
    let rig = Rig::new(&factory, plan_here());
    assert!(rig.state.is_ready());
    assert_eq!(rig.text("/x").await, "http://192.0.2.1:80/x a.example 192.0.2.1:80 of c");
}

#[tokio::test]
async fn errors_of_a_service_are_told_apart() {
    let kinds = [
        (io::ErrorKind::ConnectionRefused, Failure::Connect, Code::NO_CONNECTION),
        (io::ErrorKind::BrokenPipe, Failure::Reset { code: None }, Code::BROKEN),
    ];
    for (kind, failure, code) in kinds {
        let service =
            service_fn(move |_: Request<MeshBody>| async move { Err::<Response<String>, _>(io::Error::from(kind)) });
        let rig = Rig::new(&ServiceEndpoints::new(service), plan_here());
        let failed = rig.get("/").await.unwrap_err();
        assert_eq!((failed.failure, failed.error.code()), (failure, code));
    }
}

#[tokio::test]
async fn an_endpoint_that_demands_tls_is_never_called() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let service = service_fn(move |_: Request<MeshBody>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, io::Error>(Response::new(String::new())) }
    });
    let maker = {
        let service = service.clone();
        service_fn(move |_: PickedEndpoint| {
            let service = service.clone();
            async move { Ok::<_, io::Error>(service) }
        })
    };
    let one = ServiceEndpoints::new(service);
    let made = MadeEndpoints::new(maker, Handle::current(), ConnectBackoff::default(), 1);
    for factory in [&one as &dyn EndpointFactory, &made] {
        let rig = Rig::new(factory, EndpointPlan { tls: Some(Arc::new(upstream())), ..plan_here() });
        rig.until_failed().await;
        let failed = rig.get("/").await.unwrap_err();
        assert_eq!(failed.error.code(), Code::UNPROVABLE_TLS);
        assert!(failed.request.is_some());
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

/// Answers until it is told to fail.
#[derive(Clone)]
struct Fragile(Arc<Mutex<bool>>);

impl Service<Request<MeshBody>> for Fragile {
    type Response = Response<String>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<String>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(if *self.0.lock().unwrap() { Err("worn out".into()) } else { Ok(()) })
    }

    fn call(&mut self, request: Request<MeshBody>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(say(&request))) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_is_made_for_each_endpoint_and_again_when_it_fails() {
    let made = Arc::new(Mutex::new(Vec::new()));
    let all = made.clone();
    let maker = service_fn(move |picked: PickedEndpoint| {
        let worn_out = Arc::new(Mutex::new(false));
        all.lock().unwrap().push((picked, worn_out.clone()));
        async move { Ok::<_, BoxError>(Fragile(worn_out)) }
    });
    let factory = MadeEndpoints::new(maker, Handle::current(), ConnectBackoff::default(), 1);
    let rig = Rig::new(&factory, plan_here());
    rig.until_ready().await;
    assert_eq!(rig.text("/x").await, "http://a.example/x - 192.0.2.1:80 of c");
    assert_eq!(made.lock().unwrap().len(), 1);
    assert_eq!(made.lock().unwrap()[0].0.address, ADDRESS.parse().unwrap());

    *made.lock().unwrap()[0].1.lock().unwrap() = true;
    let failed = rig.get("/").await.unwrap_err();
    assert!(failed.error.message().contains("worn out"), "{}", failed.error);
    assert_eq!(failed.request.unwrap().uri(), "http://a.example/");
    while made.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    rig.until_ready().await;
    rig.text("/").await;
}

#[tokio::test(start_paused = true)]
async fn a_maker_that_fails_or_never_answers_is_asked_again_later() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let maker = service_fn(move |_: PickedEndpoint| {
        let nth = count.fetch_add(1, Ordering::SeqCst);
        async move {
            match nth {
                0 => Err::<Fragile, BoxError>("no".into()),
                1 => std::future::pending().await,
                _ => Ok(Fragile(Arc::default())),
            }
        }
    });
    let factory = MadeEndpoints::new(maker, Handle::current(), ConnectBackoff::default(), 1);
    let rig = Rig::new(&factory, EndpointPlan { eager: false, ..plan_here() });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody asked for it");
    for code in [Code::NO_CONNECTION, Code::CONNECTION_TIMEOUT] {
        rig.handle.connect();
        while rig.handle.last_error().map(|error| error.code()) != Some(code) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(rig.state.is_failed());
    }
    rig.handle.connect();
    rig.until_ready().await;
    assert!(rig.handle.last_error().is_none());
    let response = rig.handle.call(get("/")).await.unwrap();
    assert!(response.status().is_success());
}
