//! What a server says of its load on streams of their own: ORCA out of band (gRFC A51).

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use mesh_core::load::Load;
use mesh_core::orca::{ReportRequest, STREAM_CORE_METRICS};
use mesh_tower::inbound::ServerLoad;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_stream::Stream;
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tower_service::Service;

use crate::codec::Whole;

/// Nobody is told more often, whatever the application says.
const SHORTEST: Duration = Duration::from_millis(10);
/// Nobody waits longer, so that no sum of times overflows.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The service `xds.service.orca.v3.OpenRcaService`: tells each client that asks, at once and then as often as it asks, what load
/// the server is under. Clients that balance by load ask (`enable_oob_load_report` of `client_side_weighted_round_robin`, gRFC
/// A58).
///
/// What it says the application sets in a [`ServerLoad`], from wherever it measures; the same one may be in
/// [`InboundOptions::load_reports`](crate::InboundOptions), to be told with each response too. It says all that is set each time,
/// changed or not, except for `request_cost`, which is a matter of single requests.
///
/// ```no_run
/// # async fn example(greeter: impl tonic_health::pb::health_server::Health) -> Result<(), mesh_grpc::Error> {
/// use mesh_grpc::{Mesh, OrcaService, ServerLoad};
/// use tonic::service::Routes;
/// use tonic_health::pb::health_server::HealthServer;
///
/// let load = ServerLoad::new();
/// let routes = Routes::new(HealthServer::new(greeter)).add_service(OrcaService::new(load.clone()));
/// // From time to time: requests for each second, and how busy the process is with them.
/// load.update(|load| (load.requests_per_second, load.application_utilization) = (120.0, 0.4));
/// mesh_grpc::serve(&Mesh::from_env()?, "0.0.0.0:50051", routes.prepare()).await
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct OrcaService {
    load: ServerLoad,
    min_interval: Duration,
}

impl OrcaService {
    /// Says what is set in `load`.
    pub fn new(load: ServerLoad) -> Self {
        Self { load, min_interval: Duration::from_secs(30) }
    }

    /// How often a client is told at most, though it asks for more: every 30 s by default, as gRFC A51 has it. A client that
    /// does not say how often is told so often. Below 10 ms is taken as 10 ms.
    #[must_use]
    pub fn min_interval(mut self, interval: Duration) -> Self {
        self.min_interval = interval;
        self
    }

    fn interval(&self, asked: Duration) -> Duration {
        asked.max(self.min_interval).clamp(SHORTEST, LONGEST)
    }
}

impl NamedService for OrcaService {
    const NAME: &'static str = "xds.service.orca.v3.OpenRcaService";
}

impl<B> Service<Request<B>> for OrcaService
where
    B: HttpBody + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        // A router may have taken the service's name off.
        if path.rsplit('/').next() != STREAM_CORE_METRICS.rsplit('/').next() {
            let text = format!("{} has no method {path}", Self::NAME);
            return Box::pin(ready(Ok(Status::unimplemented(text).into_http())));
        }
        let call = Call(self.clone());
        Box::pin(async move { Ok(Grpc::new(Whole).server_streaming(call, request).await) })
    }
}

/// Its one method.
struct Call(OrcaService);

impl ServerStreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = Reports;
    type Future = Ready<Result<tonic::Response<Reports>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let Some(asked) = ReportRequest::read(request.get_ref()) else {
            return ready(Err(Status::invalid_argument("the request is no OrcaLoadReportRequest")));
        };
        let mut interval = tokio::time::interval_at(Instant::now(), self.0.interval(asked.interval));
        // A client that did not read is not told over and over what it missed.
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ready(Ok(tonic::Response::new(Reports { load: self.0.load.clone(), interval })))
    }
}

/// The reports for one client, until it hangs up.
#[derive(Debug)]
struct Reports {
    load: ServerLoad,
    interval: Interval,
}

impl Stream for Reports {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        ready!(self.interval.poll_tick(cx));
        let load = Load { request_cost: Default::default(), ..Load::clone(&self.load.current()) };
        Poll::Ready(Some(Ok(load.encode().into())))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mesh_core::load::LoadReport;
    use tokio::time::advance;
    use tokio_stream::StreamExt;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn reports(service: &OrcaService, interval: Duration) -> Reports {
        let request = tonic::Request::new(Bytes::from(ReportRequest { interval }.encode()));
        Call(service.clone()).call(request).await.unwrap().into_inner()
    }

    /// The next report, and how many seconds it took.
    async fn next(reports: &mut Reports) -> (Load, u64) {
        let before = Instant::now();
        let message = reports.next().await.unwrap().unwrap();
        (Load::from(&LoadReport::read(&message).unwrap()), before.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a51_a_client_is_told_at_once_and_then_as_often_as_it_asks_within_the_servers_bound() {
        let service = OrcaService::new(ServerLoad::new());
        for (asked, told) in [(0, 30), (1, 30), (30, 30), (100, 100)] {
            let mut reports = reports(&service, asked * SECOND).await;
            assert_eq!(next(&mut reports).await.1, 0);
            assert_eq!((next(&mut reports).await.1, next(&mut reports).await.1), (told, told), "{asked}");
        }
        let mut often = reports(&service.clone().min_interval(SECOND), 5 * SECOND).await;
        next(&mut often).await;
        assert_eq!(next(&mut often).await.1, 5);
        let mut never = reports(&service, Duration::from_secs(1 << 40)).await;
        assert_eq!(next(&mut never).await.1, 0, "and no time overflows");
        assert_eq!(service.min_interval(Duration::ZERO).interval(Duration::ZERO), SHORTEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a51_everything_that_is_set_is_told_each_time_until_it_is_unset() {
        let load = ServerLoad::new();
        let mut reports = reports(&OrcaService::new(load.clone()), SECOND).await;
        assert_eq!(next(&mut reports).await.0, Load::default(), "nothing is set");
        let named = |name: &str, value| BTreeMap::from([(name.to_owned(), value)]);
        let set = Load {
            cpu_utilization: 0.5,
            utilization: named("disk", 0.25),
            named_metrics: named("queue", 7.0),
            ..Load::default()
        };
        load.set(Load { request_cost: named("db", 1.0), ..set.clone() });
        for _ in 0..2 {
            assert_eq!(next(&mut reports).await.0, set, "but for what a request costs");
        }
        load.update(|load| load.cpu_utilization = 0.0);
        assert_eq!(next(&mut reports).await.0, Load { cpu_utilization: 0.0, ..set });
    }

    #[tokio::test(start_paused = true)]
    async fn a51_a_client_that_reads_late_is_told_the_newest_once() {
        let mut reports = reports(&OrcaService::new(ServerLoad::new()), SECOND).await;
        next(&mut reports).await;
        advance(1000 * SECOND).await;
        assert_eq!(next(&mut reports).await.1, 0);
        assert_eq!(next(&mut reports).await.1, 30);
    }

    #[tokio::test]
    async fn a51_what_is_no_request_is_refused() {
        let request = tonic::Request::new(Bytes::from_static(b"\xff"));
        let answer = Call(OrcaService::new(ServerLoad::new())).call(request).await;
        assert_eq!(answer.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
