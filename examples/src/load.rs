//! Load on a target of the mesh, and what became of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use mesh_core::error::Error;
use mesh_tower::Mesh;
use mesh_tower::outbound::{HttpClient, ResponseBody};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::backend::{BACKEND, SEEN_CERTIFICATE};

/// An empty message in gRPC's frame.
const EMPTY: &[u8] = &[0; 5];
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// One kind of request, to one target.
#[derive(Debug, Clone)]
pub struct Call {
    client: HttpClient,
    uri: Uri,
    grpc: bool,
    timeout: Duration,
}

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// From when it was due until its whole answer was there.
    pub latency: Duration,
    /// The endpoint that answered.
    pub endpoint: Option<SocketAddr>,
    /// What the server calls itself.
    pub backend: Option<String>,
    /// Which certificate of ours the server saw.
    pub seen_certificate: Option<u64>,
    /// Attempts beside the first.
    pub retries: u32,
    /// Why it is lost: `MESH-402`, `HTTP-503`, `GRPC-14`, `TIMEOUT`.
    pub error: Option<String>,
}

/// What became of many.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// How many were sent.
    pub sent: u64,
    /// How many have a good answer.
    pub ok: u64,
    /// How many have none.
    pub lost: u64,
    /// Attempts beside the first.
    pub retries: u64,
    /// Answers by endpoint.
    pub endpoints: BTreeMap<SocketAddr, u64>,
    /// Good answers by what the server calls itself.
    pub backends: BTreeMap<String, u64>,
    /// Why requests are lost.
    pub errors: BTreeMap<String, u64>,
    /// Of good answers, in microseconds.
    latencies: Vec<u64>,
}

impl Call {
    /// GET requests to `uri`: `http://host:port/path`, or `xds:///name`.
    ///
    /// # Errors
    ///
    /// As [`Mesh::client`].
    pub fn http(mesh: &Mesh, target: &str, timeout: Duration) -> Result<Self, Error> {
        let uri = target.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("http"));
        match uri {
            Some(uri) => Ok(Self { client: mesh.http(), uri, grpc: false, timeout }),
            None => Ok(Self { client: mesh.client(target)?, uri: Uri::from_static("/"), grpc: false, timeout }),
        }
    }

    /// Calls of the unary method `package.Service/Method` with an empty message.
    ///
    /// # Errors
    ///
    /// As [`Mesh::client`]; [`Code::BAD_REQUEST`](mesh_core::error::Code::BAD_REQUEST) if that is no method's name.
    pub fn grpc(mesh: &Mesh, target: &str, method: &str, timeout: Duration) -> Result<Self, Error> {
        let path = PathAndQuery::try_from(format!("/{}", method.trim_start_matches('/')));
        let path = path.map_err(|error| {
            Error::new(mesh_core::error::Code::BAD_REQUEST, format!("`{method}` is no method's name: {error}"))
        })?;
        Ok(Self { client: mesh.client(target)?, uri: path.into(), grpc: true, timeout })
    }

    /// Sends one request that was due at `due`.
    pub async fn once(&self, due: Instant) -> Outcome {
        let mut outcome = match tokio::time::timeout(self.timeout, self.exchange()).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::lost("TIMEOUT"),
        };
        outcome.latency = due.elapsed();
        outcome
    }

    async fn exchange(&self) -> Outcome {
        let response = match self.client.send(self.request()).await {
            Ok(response) => response,
            Err(error) => return Outcome::failed(&error),
        };
        let mut outcome = Outcome {
            endpoint: response.body().endpoint_address(),
            backend: text(response.headers(), &BACKEND),
            seen_certificate: text(response.headers(), &SEEN_CERTIFICATE).and_then(|number| number.parse().ok()),
            retries: response.body().retries(),
            ..Outcome::lost("")
        };
        outcome.error = self.read(response).await.err();
        outcome
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let body = if self.grpc { Bytes::from_static(EMPTY) } else { Bytes::new() };
        let mut request = Request::new(Full::new(body));
        *request.uri_mut() = self.uri.clone();
        if self.grpc {
            *request.method_mut() = Method::POST;
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        }
        request
    }

    /// Reads the whole answer; an error says why it is no good one.
    async fn read(&self, response: Response<ResponseBody>) -> Result<(), String> {
        let status = response.status();
        if !status.is_success() {
            return Err(format!("HTTP-{}", status.as_u16()));
        }
        // A gRPC response without a message has its status in the head.
        let head = self.grpc.then(|| grpc_status(response.headers())).flatten();
        let body = response.into_body().collect().await.map_err(|error| error.code().to_string())?;
        if !self.grpc {
            return Ok(());
        }
        match head.or_else(|| body.trailers().and_then(grpc_status)).as_deref() {
            Some("0") => Ok(()),
            Some(status) => Err(format!("GRPC-{status}")),
            None => Err("GRPC-NO-STATUS".to_owned()),
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<String> {
    text(headers, &GRPC_STATUS)
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

impl Outcome {
    /// No response, after the retries there were.
    fn failed(error: &Error) -> Self {
        Self { retries: error.retries(), ..Self::lost(&error.code().to_string()) }
    }

    fn lost(why: &str) -> Self {
        Self {
            latency: Duration::ZERO,
            endpoint: None,
            backend: None,
            seen_certificate: None,
            retries: 0,
            error: Some(why.to_owned()),
        }
    }
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, outcome: Outcome) {
        self.sent += 1;
        self.retries += u64::from(outcome.retries);
        if let Some(endpoint) = outcome.endpoint {
            *self.endpoints.entry(endpoint).or_default() += 1;
        }
        if let Some(error) = outcome.error {
            self.lost += 1;
            *self.errors.entry(error).or_default() += 1;
            return;
        }
        self.ok += 1;
        if let Some(backend) = outcome.backend {
            *self.backends.entry(backend).or_default() += 1;
        }
        self.latencies.push(u64::try_from(outcome.latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.ok += other.ok;
        self.lost += other.lost;
        self.retries += other.retries;
        other.endpoints.iter().for_each(|(at, count)| *self.endpoints.entry(*at).or_default() += count);
        other.backends.iter().for_each(|(name, count)| *self.backends.entry(name.clone()).or_default() += count);
        other.errors.iter().for_each(|(error, count)| *self.errors.entry(error.clone()).or_default() += count);
        self.latencies.extend_from_slice(&other.latencies);
    }

    /// What was counted, without the latencies and without the endpoints: of a thousand of those, small pieces that lie between
    /// what connections held would keep all of it resident.
    #[must_use]
    pub fn counts(mut self) -> Self {
        (self.latencies, self.endpoints) = (Vec::new(), BTreeMap::new());
        self
    }

    /// Puts the latencies in order, for [`quantile`](Self::quantile).
    pub fn sort(&mut self) {
        self.latencies.sort_unstable();
    }

    /// The latency, in microseconds, that this share of good answers did not exceed; 0 without any. After
    /// [`sort`](Self::sort).
    pub fn quantile(&self, share: f64) -> u64 {
        let last = self.latencies.len().saturating_sub(1);
        // A rank is small enough to be exact.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rank = (share.clamp(0.0, 1.0) * last as f64).round() as usize;
        self.latencies.get(rank).copied().unwrap_or_default()
    }
}

/// How much load, for how long.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Requests in a second.
    pub rps: u32,
    /// For how long.
    pub duration: Duration,
    /// So many at the same time at most; what is due then waits, and the wait is part of its latency.
    pub in_flight: usize,
}

/// Sends requests at a steady pace, whatever becomes of them, and waits for the last.
pub async fn run(call: Call, pace: Pace) -> Tally {
    let slots = Arc::new(Semaphore::new(pace.in_flight));
    let (began, call) = (Instant::now(), Arc::new(call));
    let (mut tally, mut under_way) = (Tally::default(), JoinSet::new());
    let period = Duration::from_secs(1) / pace.rps.max(1);
    let total = u64::from(pace.rps) * pace.duration.as_millis() as u64 / 1000;
    let mut due = began;
    for _ in 0..total {
        tokio::time::sleep_until(due.into()).await;
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        let call = call.clone();
        under_way.spawn(async move {
            let outcome = call.once(due).await;
            drop(slot);
            outcome
        });
        due += period;
        while let Some(done) = under_way.try_join_next() {
            tally.add(done.unwrap_or_else(|_| Outcome::lost("PANIC")));
        }
    }
    while let Some(done) = under_way.join_next().await {
        tally.add(done.unwrap_or_else(|_| Outcome::lost("PANIC")));
    }
    tally.sort();
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(millis: u64, backend: &str) -> Outcome {
        Outcome {
            latency: Duration::from_millis(millis),
            endpoint: Some(SocketAddr::from(([127, 0, 0, 1], 1))),
            backend: Some(backend.to_owned()),
            seen_certificate: None,
            retries: 1,
            error: None,
        }
    }

    #[test]
    fn what_is_lost_counts_for_no_share_and_no_latency() {
        let mut one = Tally::default();
        (1..=99).for_each(|millis| one.add(answered(millis, "v1")));
        let mut other = Tally::default();
        other.add(Outcome { error: Some("GRPC-14".to_owned()), ..answered(5_000, "v2") });
        let failed = Error::new(mesh_core::error::Code::NO_CONNECTION, "no").with_retries(2);
        other.add(Outcome::failed(&failed));
        one.merge(&other);
        one.sort();
        assert_eq!((one.sent, one.ok, one.lost, one.retries), (101, 99, 2, 102));
        assert_eq!(one.backends, BTreeMap::from([("v1".to_owned(), 99)]));
        assert_eq!(one.endpoints.values().sum::<u64>(), 100, "a bad answer comes from somewhere, too");
        assert_eq!(one.errors, BTreeMap::from([("GRPC-14".to_owned(), 1), ("MESH-402".to_owned(), 1)]));
        assert_eq!([0.0, 0.5, 1.0].map(|share| one.quantile(share)), [1_000, 50_000, 99_000]);
        assert_eq!(Tally::default().quantile(0.5), 0);
    }
}
