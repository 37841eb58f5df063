//! How an endpoint connects, fails, waits and tries again, on virtual time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Response;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::balance::CandidateState;
use mesh_core::error::Code;
use mesh_core::model::Endpoint;
use mesh_core::policy::retry::Failure;
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::rig::{Rig, connections, get, plan};
use crate::body::MeshBody;
use crate::connect::WireProtocol::{Http1, Http2};
use crate::connect::{BoxFuture, Dial, EndpointPlan, Hops, WireProtocol};
use crate::io::BoxStream;

/// What a dial meets.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Refused,
    Silent,
    Connected,
    /// Connected after a second.
    Late,
}

/// Dials as it was told to, and writes down when.
#[derive(Debug, Clone, Default)]
struct FakeDial(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    fates: VecDeque<Fate>,
    dialled: Vec<Instant>,
    servers: Vec<DuplexStream>,
}

impl FakeDial {
    /// Meets `fates`, then silence.
    fn new(fates: impl IntoIterator<Item = Fate>) -> Self {
        Self(Arc::new(Mutex::new(Script { fates: fates.into_iter().collect(), ..Script::default() })))
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().dialled.len()
    }

    /// The waits between the dials.
    fn waits(&self) -> Vec<Duration> {
        self.0.lock().unwrap().dialled.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// The server ends its connections.
    fn hang_up(&self) {
        self.0.lock().unwrap().servers.clear();
    }
}

impl Dial for FakeDial {
    fn dial<'a>(&'a self, _: &'a Endpoint, _: &'a Hops) -> BoxFuture<'a, io::Result<BoxStream>> {
        let mut script = self.0.lock().unwrap();
        script.dialled.push(Instant::now());
        let fate = script.fates.pop_front().unwrap_or(Fate::Silent);
        if let Fate::Connected = fate {
            let (client, server) = tokio::io::duplex(1024);
            script.servers.push(server);
            return Box::pin(async { Ok(Box::new(client) as BoxStream) });
        }
        Box::pin(async move {
            match fate {
                Fate::Refused => Err(io::ErrorKind::ConnectionRefused.into()),
                Fate::Late => {
                    sleep(Duration::from_secs(1)).await;
                    Ok(Box::new(tokio::io::duplex(1024).0) as BoxStream)
                }
                Fate::Silent | Fate::Connected => std::future::pending().await,
            }
        })
    }
}

fn eager(protocol: WireProtocol) -> EndpointPlan {
    plan("127.0.0.1:80".parse().unwrap(), protocol)
}

fn on_demand(protocol: WireProtocol) -> EndpointPlan {
    EndpointPlan { eager: false, ..eager(protocol) }
}

fn close_to(wait: Duration, seconds: f64) -> bool {
    (seconds * 0.8..=seconds * 1.2 + 0.01).contains(&wait.as_secs_f64())
}

/// Dials a server that answers nothing and can vanish without a word, as a machine does.
#[derive(Debug, Clone)]
struct Vanishing(watch::Receiver<bool>);

impl Dial for Vanishing {
    fn dial<'a>(&'a self, _: &'a Endpoint, _: &'a Hops) -> BoxFuture<'a, io::Result<BoxStream>> {
        let (client, server) = tokio::io::duplex(1 << 16);
        let mut vanished = self.0.clone();
        tokio::spawn(async move {
            let never = service_fn(|_| std::future::pending::<Result<Response<MeshBody>, Infallible>>());
            let builder = http2::Builder::new(TokioExecutor::new());
            let mut connection = pin!(builder.serve_connection(TokioIo::new(server), never));
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = vanished.changed() => {}
            }
            std::future::pending::<()>().await;
        });
        Box::pin(async { Ok(Box::new(client) as BoxStream) })
    }
}

/// Servers of gRPC (proposal 8) take a PING in five minutes, and no more. A machine that is gone is found by the kernel (`connect::tcp`);
/// this is for a process that hangs.
#[tokio::test(start_paused = true)]
async fn a_server_that_answers_no_ping_is_given_up_and_is_not_asked_too_often() {
    let (vanish, vanished) = watch::channel(false);
    let rig = Rig::new(&connections(Vanishing(vanished)), eager(Http2));
    rig.until_ready().await;
    let request = tokio::spawn(rig.handle.call(get("/")));
    sleep(Duration::from_secs(1200)).await;
    assert!(!request.is_finished(), "a slow server that answers PINGs is not gone");
    vanish.send_replace(true);
    let began = Instant::now();
    let failed = request.await.unwrap().unwrap_err();
    let given_up = began.elapsed();
    assert!(given_up <= Duration::from_secs(320), "{given_up:?}");
    assert!(given_up >= Duration::from_secs(20), "{given_up:?}: asked more often than servers of gRPC take");
    assert_eq!(failed.failure, Failure::Reset { code: None });
    assert!(failed.error.message().contains("PING"), "{}", failed.error);
}

/// Long enough for whatever happens at once.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn failed_attempts_are_made_again_after_growing_waits() {
    let dial = FakeDial::new([Fate::Refused; 5]);
    let rig = Rig::new(&connections(dial.clone()), eager(Http1));
    rig.until_failed().await;
    let error = rig.handle.last_error().unwrap();
    assert_eq!(error.code(), Code::NO_CONNECTION);
    assert!(error.message().contains("endpoint 127.0.0.1:80 of cluster `c`"), "{error}");
    while dial.count() < 6 {
        sleep(Duration::from_millis(10)).await;
    }
    for (wait, expected) in dial.waits().into_iter().zip([1.0, 1.6, 2.56, 4.096, 6.5536]) {
        assert!(close_to(wait, expected), "{wait:?} is not about {expected} s");
    }
    assert!(rig.state.is_failed(), "it stays failed until an attempt succeeds");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_ends_with_the_clusters_connect_timeout() {
    for (fate, protocol) in [(Fate::Silent, Http1), (Fate::Silent, Http2), (Fate::Connected, Http2)] {
        let began = Instant::now();
        let rig = Rig::new(&connections(FakeDial::new([fate])), eager(protocol));
        rig.until_failed().await;
        assert_eq!(began.elapsed(), Duration::from_secs(5), "{fate:?}: a server that says nothing does not stand");
        assert_eq!(rig.handle.last_error().unwrap().code(), Code::CONNECTION_TIMEOUT);
    }
}

#[tokio::test(start_paused = true)]
async fn eager_endpoints_connect_at_once_and_again_when_lost() {
    let dial = FakeDial::new([Fate::Connected, Fate::Connected]);
    let rig = Rig::new(&connections(dial.clone()), eager(Http1));
    rig.until_ready().await;
    sleep(Duration::from_secs(60)).await;
    dial.hang_up();
    settle().await;
    assert_eq!(dial.count(), 2);
    assert!(rig.state.is_ready());
}

#[tokio::test(start_paused = true)]
async fn endpoints_on_demand_connect_when_asked_and_rest_when_lost() {
    let dial = FakeDial::new([Fate::Connected, Fate::Connected]);
    let rig = Rig::new(&connections(dial.clone()), on_demand(Http1));
    settle().await;
    assert_eq!(dial.count(), 0);
    rig.handle.connect();
    rig.until_ready().await;
    rig.handle.connect();
    dial.hang_up();
    rig.until(|state| !state.is_ready()).await;
    settle().await;
    assert_eq!(dial.count(), 1, "there was a connection when it was asked for");
    assert!(!rig.state.is_failed());
    rig.handle.connect();
    rig.until_ready().await;
    assert_eq!(dial.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn demand_waits_for_the_backoff() {
    let dial = FakeDial::new([Fate::Refused, Fate::Connected]);
    let rig = Rig::new(&connections(dial.clone()), on_demand(Http1));
    rig.handle.connect();
    rig.until_failed().await;
    rig.handle.connect();
    settle().await;
    assert_eq!(dial.count(), 1);
    rig.until(CandidateState::is_ready).await;
    assert!(close_to(dial.waits()[0], 1.0), "{:?}", dial.waits());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_connections_only_to_drop_them_is_not_called_in_a_loop() {
    let dial = FakeDial::new([Fate::Connected; 1000]);
    let rig = Rig::new(&connections(dial.clone()), eager(Http1));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        dial.hang_up();
        settle().await;
    }
    assert!((4..=8).contains(&dial.count()), "{} times in 10 s", dial.count());
    drop(rig);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_handle_stops_trying() {
    let dial = FakeDial::new([Fate::Refused; 1000]);
    let rig = Rig::new(&connections(dial.clone()), eager(Http1));
    rig.until_failed().await;
    drop(rig);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(dial.count(), 1);
}

/// Another server may have its address by now.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_withdrawn_is_not_dialled_until_it_is_told_again() {
    let dial = FakeDial::new([Fate::Connected, Fate::Connected]);
    let rig = Rig::new(&connections(dial.clone()), eager(Http1));
    rig.until_ready().await;
    rig.state.set_withdrawn(true);
    dial.hang_up();
    rig.until(|state| !state.is_ready()).await;
    rig.handle.connect();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(dial.count(), 1);
    rig.state.set_withdrawn(false);
    rig.handle.connect();
    rig.until_ready().await;
    assert_eq!(dial.count(), 2);
}

/// A connection that is being made when the endpoint is withdrawn is never used.
#[tokio::test(start_paused = true)]
async fn a_connection_that_stands_too_late_is_dropped() {
    let dial = FakeDial::new([Fate::Late]);
    let rig = Rig::new(&connections(dial.clone()), eager(Http1));
    sleep(Duration::from_millis(500)).await;
    rig.state.set_withdrawn(true);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!((dial.count(), rig.state.is_ready()), (1, false));
}
