//! Load reports of an endpoint on a stream of their own (gRFC A51), for as long as its connection stands.
//!
//! The stream is a request to the endpoint like any other, but the mesh's own: it is made and read on the configuration thread.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body::{Body, Frame};
use mesh_core::balance::Observer;
use mesh_core::model::{Endpoint, Name};
use mesh_core::orca::{LARGEST_REPORT, ReportCalls, ReportRequest, STREAM_CORE_METRICS};
use mesh_core::policy::grpc::GrpcStatus;
use tokio::task::AbortHandle;

use crate::body::MeshBody;
use crate::connect::{Deframer, EndpointHandle, frame};
use crate::outbound::now;

/// An endpoint is read no further for so long after each report: one that floods us keeps its own flood.
const BREATH: Duration = Duration::from_millis(10);

/// The reports of one connection. Dropping it ends them.
pub(super) struct Subscription {
    connection: u64,
    period: Duration,
    sink: Arc<ArcSwap<Arc<dyn Observer>>>,
    task: AbortHandle,
}

/// Whom to ask, and how often.
pub(super) struct Asking {
    pub(super) way: Arc<dyn EndpointHandle>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) cluster: Name,
    pub(super) period: Duration,
    pub(super) seed: u64,
}

impl Subscription {
    /// Has the endpoint report to `sink` over its `connection`, by number. Within a Tokio runtime.
    pub(super) fn start(asking: Asking, sink: Arc<dyn Observer>, connection: u64) -> Self {
        let sink = Arc::new(ArcSwap::from_pointee(sink));
        let period = asking.period;
        let task = tokio::spawn(hear(asking, sink.clone())).abort_handle();
        Self { connection, period, sink, task }
    }

    /// Whether it is what is wanted now: another period needs another call.
    pub(super) fn is_of(&self, connection: u64, period: Duration) -> bool {
        self.connection == connection && self.period == period
    }

    /// Who hears the reports from now on.
    pub(super) fn redirect(&self, sink: Arc<dyn Observer>) {
        self.sink.store(Arc::new(sink));
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Calls, and calls again, until the endpoint says that it has no reports.
async fn hear(asking: Asking, sink: Arc<ArcSwap<Arc<dyn Observer>>>) {
    let Asking { endpoint, cluster, .. } = &asking;
    let mut calls = ReportCalls::new(now(), asking.seed);
    loop {
        calls.handle_call(now());
        let (status, why) = call(&asking, &sink, &mut calls).await;
        let address = endpoint.address;
        let Some(next) = calls.handle_end(status, now()) else {
            tracing::error!(
                target: "mesh",
                "endpoint {address} of cluster `{cluster}` reports no load out of band ({why}), so that it gets no weight: \
                 register the ORCA service with its server, or unset enable_oob_load_report"
            );
            return;
        };
        tracing::debug!(target: "mesh", "endpoint {address} of cluster `{cluster}` ended its load reports: {why}");
        tokio::time::sleep_until(next.into()).await;
    }
}

/// One call, and how it ended.
async fn call(asking: &Asking, sink: &ArcSwap<Arc<dyn Observer>>, calls: &mut ReportCalls) -> (GrpcStatus, String) {
    let response = match asking.way.call(request(asking)).await {
        Ok(response) => response,
        Err(failed) => return (GrpcStatus::UNAVAILABLE, failed.error.to_string()),
    };
    let (head, mut body) = response.into_parts();
    if let Some(status) = GrpcStatus::of(&head.headers) {
        return (status, named(status));
    }
    if head.status != StatusCode::OK {
        return (GrpcStatus::from_http(head.status), format!("HTTP status {}", head.status));
    }
    let mut deframer = Deframer::default();
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        match frame.map(|frame| frame.map(Frame::into_data)) {
            None => return (GrpcStatus::UNKNOWN, "it ended without a grpc-status".to_owned()),
            Some(Err(error)) => return (GrpcStatus::UNAVAILABLE, error.to_string()),
            Some(Ok(Err(frame))) => {
                let status = frame.trailers_ref().and_then(GrpcStatus::of).unwrap_or(GrpcStatus::UNKNOWN);
                return (status, named(status));
            }
            Some(Ok(Ok(data))) => {
                deframer.push(&data);
                match tell(&mut deframer, sink, calls) {
                    Ok(false) => {}
                    Ok(true) => tokio::time::sleep(BREATH).await,
                    Err(why) => return (GrpcStatus::INTERNAL, why),
                }
            }
        }
    }
}

/// Tells the reports that have come whole. Whether there were any.
fn tell(deframer: &mut Deframer, sink: &ArcSwap<Arc<dyn Observer>>, calls: &mut ReportCalls) -> Result<bool, String> {
    let mut any = false;
    while let Some(message) = deframer.next().map_err(|error| error.reason)? {
        any = true;
        match calls.handle_message(&message) {
            Some(report) => sink.load().on_report(&report, now()),
            None => tracing::debug!(target: "mesh", "a load report of {} bytes cannot be read", message.len()),
        }
    }
    if deframer.len() > LARGEST_REPORT {
        return Err(format!("a report is larger than {LARGEST_REPORT} bytes"));
    }
    Ok(any)
}

fn named(status: GrpcStatus) -> String {
    status.name().map_or_else(|| format!("status {}", status.0), str::to_owned)
}

fn request(asking: &Asking) -> Request<MeshBody> {
    let endpoint = &asking.endpoint;
    let message = ReportRequest { interval: asking.period }.encode();
    let framed = frame(&message).expect("a message of a few bytes has a frame");
    let mut request = Request::new(MeshBody::from(framed));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(STREAM_CORE_METRICS);
    let headers = request.headers_mut();
    // By what name the endpoint is known; its address is one that every server takes.
    let host = HeaderValue::from_str(&endpoint.hostname).ok().filter(|host| !host.is_empty());
    let address = || HeaderValue::from_str(&endpoint.address.to_string()).expect("an address is a header value");
    headers.insert(HOST, host.unwrap_or_else(address));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("mesh-tower/", env!("CARGO_PKG_VERSION"))));
    request
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::task::{Context, Poll};
    use std::time::Instant;

    use bytes::Bytes;
    use http::{HeaderMap, Response};
    use http_body_util::BodyExt;
    use mesh_core::error::{Code, Error};
    use mesh_core::load::{Load, LoadReport};
    use mesh_core::model::Health;
    use mesh_core::policy::retry::Failure;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
    use tokio::time::{advance, timeout};

    use super::*;
    use crate::BoxError;
    use crate::connect::{EndpointFuture, EndpointService, Failed};

    const SECOND: Duration = Duration::from_secs(1);

    /// What a test sends as a response's body.
    struct Script(UnboundedReceiver<Frame<Bytes>>);

    impl Body for Script {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.0.poll_recv(cx).map(|frame| frame.map(Ok))
        }
    }

    /// An endpoint that answers as it was told, and fails when it was told nothing.
    #[derive(Debug, Default)]
    struct Scripted {
        answers: Mutex<VecDeque<Response<MeshBody>>>,
        requests: Mutex<Vec<(Instant, Request<MeshBody>)>>,
    }

    impl EndpointService for Scripted {
        fn call(&self, request: Request<MeshBody>) -> EndpointFuture {
            self.requests.lock().unwrap().push((now(), request));
            let answer = self.answers.lock().unwrap().pop_front().ok_or_else(|| Failed {
                failure: Failure::BeforeRequest,
                error: Error::new(Code::NO_CONNECTION, "nothing is there"),
                request: None,
            });
            Box::pin(std::future::ready(answer))
        }
    }

    impl EndpointHandle for Scripted {
        fn connect(&self) {}

        fn last_error(&self) -> Option<Error> {
            None
        }
    }

    impl Scripted {
        fn answers(&self, response: Response<MeshBody>) {
            self.answers.lock().unwrap().push_back(response);
        }

        /// A stream that a test writes.
        fn streams(&self) -> UnboundedSender<Frame<Bytes>> {
            let (sender, frames) = unbounded_channel();
            self.answers(Response::new(MeshBody::new(Script(frames))));
            sender
        }

        /// When it was called, in whole seconds since the first time.
        fn calls(&self) -> Vec<u64> {
            let requests = self.requests.lock().unwrap();
            requests.iter().map(|(at, _)| (*at - requests[0].0).as_secs()).collect()
        }
    }

    /// Remembers the CPU's utilization.
    #[derive(Debug)]
    struct Heard(UnboundedSender<f64>);

    impl Observer for Heard {
        fn on_report(&self, report: &LoadReport<'_>, _now: Instant) {
            self.0.send(report.cpu_utilization).unwrap();
        }
    }

    fn start(way: &Arc<Scripted>, hostname: &str) -> (Subscription, UnboundedReceiver<f64>) {
        let endpoint = Arc::new(Endpoint {
            address: "127.0.0.1:80".parse().unwrap(),
            additional: Vec::new(),
            weight: 1,
            health: Health::Unknown,
            hostname: hostname.into(),
            metadata: Default::default(),
        });
        let asking = Asking { way: way.clone(), endpoint, cluster: "c".into(), period: 5 * SECOND, seed: 1 };
        let (sender, heard) = unbounded_channel();
        (Subscription::start(asking, Arc::new(Heard(sender)), 1), heard)
    }

    fn report(cpu_utilization: f64) -> Bytes {
        frame(&Load { cpu_utilization, ..Load::default() }.encode()).unwrap()
    }

    async fn next(heard: &mut UnboundedReceiver<f64>) -> Option<f64> {
        timeout(SECOND, heard.recv()).await.ok().flatten()
    }

    fn trailers(status: &'static str) -> HeaderMap {
        HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))])
    }

    #[tokio::test(start_paused = true)]
    async fn a51_reports_come_however_they_are_cut_for_as_long_as_they_are_wanted() {
        let way = Arc::<Scripted>::default();
        let stream = way.streams();
        let (subscription, mut heard) = start(&way, "");
        stream.send(Frame::data(report(0.25))).unwrap();
        assert_eq!(next(&mut heard).await, Some(0.25));
        let both = [report(0.5), report(0.75)].concat();
        stream.send(Frame::data(Bytes::copy_from_slice(&both[..7]))).unwrap();
        assert_eq!(next(&mut heard).await, None);
        stream.send(Frame::data(Bytes::copy_from_slice(&both[7..]))).unwrap();
        assert_eq!((next(&mut heard).await, next(&mut heard).await), (Some(0.5), Some(0.75)));
        stream.send(Frame::data(frame(&[0xff]).unwrap())).unwrap();
        stream.send(Frame::data(report(0.125))).unwrap();
        assert_eq!(next(&mut heard).await, Some(0.125), "one that cannot be read is passed over");
        let (other, mut others) = unbounded_channel();
        subscription.redirect(Arc::new(Heard(other)));
        stream.send(Frame::data(report(1.0))).unwrap();
        assert_eq!(next(&mut others).await, Some(1.0), "on the same stream");
        drop(subscription);
        timeout(SECOND, stream.closed()).await.unwrap();
        assert_eq!(way.calls(), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a51_a_call_says_how_often_and_by_what_name_the_endpoint_is_known() {
        for (hostname, host) in [("", "127.0.0.1:80"), ("greeter.test", "greeter.test")] {
            let way = Arc::<Scripted>::default();
            let _stream = way.streams();
            let (_subscription, _heard) = start(&way, hostname);
            advance(SECOND).await;
            tokio::task::yield_now().await;
            let (_, request) = way.requests.lock().unwrap().remove(0);
            let (head, body) = request.into_parts();
            assert_eq!(head.uri, "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics");
            assert_eq!((head.method, &head.headers[HOST]), (Method::POST, &HeaderValue::from_static(host)));
            assert!(head.headers[CONTENT_TYPE] == "application/grpc" && head.headers[TE] == "trailers");
            // Field 1, a Duration, whose field 1 is 5.
            assert_eq!(&body.collect().await.unwrap().to_bytes()[..], b"\0\0\0\0\x04\x0a\x02\x08\x05");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a51_an_endpoint_without_the_service_is_asked_once_for_each_connection() {
        let unimplemented = || {
            let mut response = Response::new(MeshBody::empty());
            response.headers_mut().extend(trailers("12"));
            response
        };
        let no_grpc = || Response::builder().status(404).body(MeshBody::empty()).unwrap();
        for answer in [unimplemented, no_grpc] {
            let way = Arc::<Scripted>::default();
            way.answers(answer());
            let (_subscription, mut heard) = start(&way, "");
            timeout(600 * SECOND, heard.recv()).await.unwrap_err();
            assert_eq!(way.calls(), [0]);
        }
        let way = Arc::<Scripted>::default();
        way.streams().send(Frame::trailers(trailers("12"))).unwrap();
        let (_subscription, mut heard) = start(&way, "");
        timeout(600 * SECOND, heard.recv()).await.unwrap_err();
        assert_eq!(way.calls(), [0], "by its trailers");
    }

    #[tokio::test(start_paused = true)]
    async fn a51_a_call_that_fails_is_made_again_after_waits_that_grow() {
        let way = Arc::<Scripted>::default();
        let (_subscription, mut heard) = start(&way, "");
        timeout(60 * SECOND, heard.recv()).await.unwrap_err();
        let calls = way.calls();
        // 1 s, 1.6 s, 2.56 s and so on, each a fifth shorter or longer.
        assert!((6..=9).contains(&calls.len()), "{calls:?}");
        let stream = way.streams();
        stream.send(Frame::data(report(0.5))).unwrap();
        assert_eq!(timeout(120 * SECOND, heard.recv()).await, Ok(Some(0.5)));
        let next_stream = way.streams();
        next_stream.send(Frame::data(report(0.75))).unwrap();
        drop(stream);
        assert_eq!(next(&mut heard).await, Some(0.75), "at once, after a report");
    }

    #[tokio::test(start_paused = true)]
    async fn a51_a_report_without_end_ends_the_call() {
        let way = Arc::<Scripted>::default();
        let stream = way.streams();
        let (_subscription, mut heard) = start(&way, "");
        let mut head = vec![0];
        head.extend(u32::MAX.to_be_bytes());
        stream.send(Frame::data(head.into())).unwrap();
        while stream.send(Frame::data(Bytes::from_static(&[0; 1 << 16]))).is_ok() {
            assert_eq!(next(&mut heard).await, None);
        }
        timeout(SECOND, stream.closed()).await.unwrap();
    }
}
