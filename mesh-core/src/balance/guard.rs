//! What holds a request at its endpoint, and tells who wants to know how it goes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::{HeaderMap, StatusCode};

use super::CandidateState;
use crate::load::{LoadReport, LocalityLoad, Outcome};
use crate::model::EndpointMetric;
use crate::policy::grpc::GrpcStatus;

/// Held from the pick to the end of the response: counts the request as outstanding, and is told how it goes.
///
/// What a policy or a report wants to learn of a request arrives here: [`Observer`] is the seam.
#[derive(Debug)]
pub struct PickGuard {
    state: Arc<CandidateState>,
    observer: Option<Arc<dyn Observer>>,
    said: Said,
}

/// What is known of the response so far.
#[derive(Debug, Default)]
struct Said {
    is_grpc: bool,
    status: Option<StatusCode>,
    grpc: Option<GrpcStatus>,
    broke: bool,
    /// Whether a load report came: the first one counts.
    reported: bool,
}

impl PickGuard {
    /// Counts a request to the candidate of `state`, which follows gRPC's rules or not.
    pub fn new(state: Arc<CandidateState>, observer: Option<Arc<dyn Observer>>, is_grpc: bool) -> Self {
        state.outstanding.fetch_add(1, Ordering::Relaxed);
        state.started.fetch_add(1, Ordering::Relaxed);
        if let Some(observer) = &observer {
            observer.on_start();
        }
        Self { state, observer, said: Said { is_grpc, ..Said::default() } }
    }

    /// The response's head arrived. `now` is asked if there is a load report in it that somebody wants.
    pub fn on_headers(&mut self, status: StatusCode, headers: &HeaderMap, now: fn() -> Instant) {
        self.said.status = Some(status);
        if let Some(observer) = &self.observer {
            observer.on_headers(status, headers);
        }
        self.look(headers, now);
    }

    /// The response's trailers arrived; load reports are mostly in them (gRFC A51). `now` as for the head.
    pub fn on_trailers(&mut self, trailers: &HeaderMap, now: fn() -> Instant) {
        if let Some(observer) = &self.observer {
            observer.on_trailers(trailers);
        }
        self.look(trailers, now);
    }

    /// The exchange failed before its response was complete.
    pub fn on_failure(&mut self) {
        self.said.broke = true;
        self.state.lost.fetch_add(1, Ordering::Relaxed);
        if let Some(observer) = &self.observer {
            observer.on_failure();
        }
    }

    fn look(&mut self, headers: &HeaderMap, now: fn() -> Instant) {
        let Some(observer) = &self.observer else { return };
        if self.said.is_grpc {
            self.said.grpc = GrpcStatus::of(headers).or(self.said.grpc);
        }
        if !self.said.reported && observer.wants_reports() {
            self.said.reported = LoadReport::of(headers, |report| observer.on_report(report, now()));
        }
    }
}

impl Said {
    fn outcome(&self) -> Outcome {
        if self.broke {
            return Outcome::Failed;
        }
        if self.is_grpc {
            return match self.grpc {
                Some(GrpcStatus::OK) => Outcome::Succeeded,
                Some(_) => Outcome::Failed,
                None => Outcome::Abandoned,
            };
        }
        match self.status {
            Some(status) if status.is_server_error() => Outcome::Failed,
            Some(_) => Outcome::Succeeded,
            None => Outcome::Abandoned,
        }
    }
}

impl Drop for PickGuard {
    fn drop(&mut self) {
        self.state.outstanding.fetch_sub(1, Ordering::Relaxed);
        if let Some(observer) = &self.observer {
            observer.on_end(self.said.outcome());
        }
    }
}

/// Learns how the requests to one endpoint go: outlier detection, load reports, latency-aware policies. Called on a
/// request's way: nothing may wait or lock.
pub trait Observer: Send + Sync + fmt::Debug {
    /// A request goes to the endpoint.
    fn on_start(&self) {}
    /// The response's head arrived.
    fn on_headers(&self, _status: StatusCode, _headers: &HeaderMap) {}
    /// The response's trailers arrived.
    fn on_trailers(&self, _trailers: &HeaderMap) {}
    /// The exchange failed.
    fn on_failure(&self) {}
    /// Whether load reports are worth looking for.
    fn wants_reports(&self) -> bool {
        false
    }
    /// The endpoint says what load it is under (gRFC A51), at `now`: at most once with a response, or on a stream of its own.
    fn on_report(&self, _report: &LoadReport<'_>, _now: Instant) {}
    /// The exchange is over.
    fn on_end(&self, _outcome: Outcome) {}
}

/// Counts the requests to one locality for its control plane (`spec` section 2.14).
#[derive(Debug)]
pub struct LoadObserver {
    load: Arc<LocalityLoad>,
    metrics: Arc<[EndpointMetric]>,
}

impl LoadObserver {
    /// Counts into `load`, and adds up `metrics` of the endpoints' reports.
    pub fn new(load: Arc<LocalityLoad>, metrics: Arc<[EndpointMetric]>) -> Self {
        Self { load, metrics }
    }
}

impl Observer for LoadObserver {
    fn on_start(&self) {
        self.load.begin();
    }

    fn wants_reports(&self) -> bool {
        !self.metrics.is_empty()
    }

    fn on_report(&self, report: &LoadReport<'_>, _now: Instant) {
        self.load.add(report, &self.metrics);
    }

    fn on_end(&self, outcome: Outcome) {
        self.load.end(outcome);
    }
}

/// Both of two observers, where there are two.
pub fn both(first: Option<Arc<dyn Observer>>, second: Option<Arc<dyn Observer>>) -> Option<Arc<dyn Observer>> {
    match (first, second) {
        (Some(first), Some(second)) => Some(Arc::new(Both(first, second))),
        (first, second) => first.or(second),
    }
}

#[derive(Debug)]
struct Both(Arc<dyn Observer>, Arc<dyn Observer>);

impl Both {
    fn each(&self, tell: impl Fn(&(dyn Observer + 'static))) {
        tell(&*self.0);
        tell(&*self.1);
    }
}

impl Observer for Both {
    fn on_start(&self) {
        self.each(Observer::on_start);
    }

    fn on_headers(&self, status: StatusCode, headers: &HeaderMap) {
        self.each(|observer| observer.on_headers(status, headers));
    }

    fn on_trailers(&self, trailers: &HeaderMap) {
        self.each(|observer| observer.on_trailers(trailers));
    }

    fn on_failure(&self) {
        self.each(Observer::on_failure);
    }

    fn wants_reports(&self) -> bool {
        self.0.wants_reports() || self.1.wants_reports()
    }

    fn on_report(&self, report: &LoadReport<'_>, now: Instant) {
        // Read once for both (gRFC A51).
        self.each(|observer| {
            if observer.wants_reports() {
                observer.on_report(report, now);
            }
        });
    }

    fn on_end(&self, outcome: Outcome) {
        self.each(|observer| observer.on_end(outcome));
    }
}
