//! Load reports out of band (gRFC A51): what a client asks an endpoint for, and when it asks again. Without I/O.
//!
//! A balancing policy says that it wants them ([`PolicyConfig::out_of_band`](crate::balance::PolicyConfig::out_of_band)); whoever
//! owns the endpoint's connection makes the calls.

use std::time::{Duration, Instant};

use crate::ads::{Backoff, BackoffSettings};
use crate::load::LoadReport;
use crate::load::wire::{Value, field, put_varint};
use crate::policy::grpc::GrpcStatus;

/// The method of reports out of band: one request, and reports until one side ends the call.
pub const STREAM_CORE_METRICS: &str = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics";

/// The largest report that is read: one with some ten thousand metrics. More is a mistake, or malice.
pub const LARGEST_REPORT: usize = 1 << 20;

/// What a client asks for: `xds.service.orca.v3.OrcaLoadReportRequest`. Its `request_cost_names` is not there: what a request
/// cost is not said out of band (gRFC A51).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReportRequest {
    /// `report_interval`: how often it wants a report. 0, which is also what makes no sense: as often as the server lets it.
    pub interval: Duration,
}

impl ReportRequest {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut interval = Vec::new();
        for (number, value) in [(1, self.interval.as_secs()), (2, u64::from(self.interval.subsec_nanos()))] {
            if value > 0 {
                interval.push(number << 3);
                put_varint(&mut interval, value);
            }
        }
        let mut bytes = vec![1 << 3 | 2];
        put_varint(&mut bytes, interval.len() as u64);
        bytes.extend(interval);
        bytes
    }

    /// Reads a message. None: it is none.
    pub fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut request = Self::default();
        while !bytes.is_empty() {
            match field(&mut bytes)? {
                (1, Value::Bytes(interval)) => request.interval = duration(interval)?,
                (1, _) => return None,
                _ => {}
            }
        }
        Some(request)
    }
}

/// A `google.protobuf.Duration`.
fn duration(mut bytes: &[u8]) -> Option<Duration> {
    let (mut seconds, mut nanos) = (0, 0);
    while !bytes.is_empty() {
        match field(&mut bytes)? {
            (1, Value::Varint(value)) => seconds = value,
            (2, Value::Varint(value)) => nanos = value,
            (1 | 2, _) => return None,
            _ => {}
        }
    }
    // What is negative is a very large number here.
    let seconds = i64::try_from(seconds).ok().and_then(|seconds| u64::try_from(seconds).ok());
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    Some(seconds.zip(nanos).map_or(Duration::ZERO, |(seconds, nanos)| Duration::new(seconds, nanos)))
}

/// The calls for reports on one connection, one after the other.
#[derive(Debug)]
pub struct ReportCalls {
    backoff: Backoff,
    /// When the call under way began.
    began: Instant,
    /// Whether it brought a report.
    answered: bool,
    /// Whether the last one that did was over at once.
    was_short: bool,
}

/// A call that brought reports for so long may be made again at once.
const LASTING: Duration = Duration::from_secs(1);

impl ReportCalls {
    /// The first call begins at `now`. `seed` is all the randomness there is.
    pub fn new(now: Instant, seed: u64) -> Self {
        let backoff = Backoff::new(BackoffSettings::grpc(), seed);
        Self { backoff, began: now, answered: false, was_short: false }
    }

    /// A call begins.
    pub fn handle_call(&mut self, now: Instant) {
        self.began = now;
        self.answered = false;
    }

    /// A message came: the report in it, if it can be read.
    pub fn handle_message<'a>(&mut self, bytes: &'a [u8]) -> Option<LoadReport<'a>> {
        self.answered = true;
        self.backoff.reset();
        LoadReport::read(bytes)
    }

    /// The call ended with this status: when to make the next one. None: never on this connection, as the server does not have
    /// the method.
    ///
    /// After a call that brought a report the next one is made at once (gRFC A51), unless such calls end as soon as they are
    /// made: a server that answers and hangs up would be called in a tight loop otherwise.
    pub fn handle_end(&mut self, status: GrpcStatus, now: Instant) -> Option<Instant> {
        if status == GrpcStatus::UNIMPLEMENTED {
            return None;
        }
        let is_short = now.saturating_duration_since(self.began) < LASTING;
        let at_once = self.answered && !(is_short && self.was_short);
        if self.answered {
            self.was_short = is_short;
        }
        Some(if at_once { now } else { self.backoff.next(now) })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// `xds.service.orca.v3.OrcaLoadReportRequest`, as its `.proto` has it.
    #[derive(Clone, PartialEq, Message)]
    struct OrcaLoadReportRequest {
        #[prost(message, optional, tag = "1")]
        report_interval: Option<envoy_types::pb::google::protobuf::Duration>,
        #[prost(string, repeated, tag = "2")]
        request_cost_names: Vec<String>,
    }

    fn theirs(seconds: i64, nanos: i32) -> OrcaLoadReportRequest {
        let report_interval = Some(envoy_types::pb::google::protobuf::Duration { seconds, nanos });
        OrcaLoadReportRequest { report_interval, request_cost_names: vec!["db".to_owned()] }
    }

    #[test]
    fn a51_requests_are_written_and_read_as_protobuf_has_them() {
        for (seconds, nanos) in [(0, 0), (10, 0), (0, 1), (1, 999_999_999), (1 << 40, 7)] {
            let interval = Duration::new(seconds as u64, nanos as u32);
            assert_eq!(ReportRequest::read(&theirs(seconds, nanos).encode_to_vec()), Some(ReportRequest { interval }));
            let ours = OrcaLoadReportRequest::decode(&ReportRequest { interval }.encode()[..]).unwrap();
            assert_eq!(ours, OrcaLoadReportRequest { request_cost_names: vec![], ..theirs(seconds, nanos) });
        }
        for (seconds, nanos) in [(-1, 0), (0, -1), (5, 1_000_000_000)] {
            let read = ReportRequest::read(&theirs(seconds, nanos).encode_to_vec());
            assert_eq!(read, Some(ReportRequest::default()), "{seconds} {nanos}: as the server likes");
        }
        assert_eq!(ReportRequest::read(&[]), Some(ReportRequest::default()));
        for bad in [&b"\x0a\x05"[..], b"\x08\x01", b"\x0a\x02\x0a\x00", b"\xff"] {
            assert_eq!(ReportRequest::read(bad), None, "{bad:?}");
        }
    }

    /// When calls are made, in seconds: each ends after so long, with this status, and with a report or without.
    fn waits(calls: &[(u64, GrpcStatus, bool)]) -> Vec<Option<u64>> {
        let mut now = Instant::now();
        let mut state = ReportCalls::new(now, 1);
        let mut waits = Vec::new();
        for (lasts, status, brings) in calls {
            state.handle_call(now);
            if *brings {
                assert!(state.handle_message(&[]).is_some());
            }
            now += Duration::from_secs(*lasts);
            let next = state.handle_end(*status, now);
            waits.push(next.map(|next| (next - now).as_secs_f64().round() as u64));
            now = next.unwrap_or(now);
        }
        waits
    }

    #[test]
    fn a51_calls_back_off_until_a_report_comes_and_the_next_is_made_at_once() {
        let (failed, ended) = (GrpcStatus::UNAVAILABLE, GrpcStatus::OK);
        let long = [(0, failed, false); 5];
        let mut found = waits(&long);
        assert!(found[0] <= Some(1) && found[4] >= Some(5), "{found:?}");
        found = waits(&[(0, failed, false), (0, failed, false), (60, ended, true), (0, failed, false)]);
        assert_eq!(found[2], Some(0));
        assert_eq!(found[3], Some(1), "waits have started over");
        assert_eq!(waits(&[(60, failed, true), (60, failed, true), (60, failed, true)]), [Some(0); 3]);
    }

    #[test]
    fn a51_a_server_that_answers_and_hangs_up_is_not_called_in_a_loop() {
        let ended = GrpcStatus::OK;
        assert_eq!(waits(&[(0, ended, true), (0, ended, true), (0, ended, true)]), [Some(0), Some(1), Some(1)]);
    }

    #[test]
    fn a51_a_server_without_the_method_is_not_asked_again() {
        assert_eq!(waits(&[(0, GrpcStatus::UNIMPLEMENTED, false)]), [None]);
    }
}
