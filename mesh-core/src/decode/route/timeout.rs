//! `max_stream_duration` of a route (gRFC A31): rule 83.

use envoy_types::pb::envoy::config::route::v3 as pb;

use crate::decode::at::At;
use crate::decode::value::countable_duration as duration;
use crate::model::MaxStreamDuration;

/// The bounds of a route. `max_grpc_timeout` and its offset are the older spelling, used where the new one is not there.
pub(super) fn max_stream_duration(value: &pb::RouteAction, at: &At<'_>) -> MaxStreamDuration {
    let Some(value) = &value.max_stream_duration else {
        return MaxStreamDuration {
            max: None,
            grpc_header_max: duration(value.max_grpc_timeout.as_ref(), &at.field("max_grpc_timeout")),
            grpc_header_offset: duration(value.grpc_timeout_offset.as_ref(), &at.field("grpc_timeout_offset")),
        };
    };
    let at = at.field("max_stream_duration");
    MaxStreamDuration {
        max: duration(value.max_stream_duration.as_ref(), &at.field("max_stream_duration")),
        grpc_header_max: duration(value.grpc_timeout_header_max.as_ref(), &at.field("grpc_timeout_header_max")),
        grpc_header_offset: duration(
            value.grpc_timeout_header_offset.as_ref(),
            &at.field("grpc_timeout_header_offset"),
        ),
    }
}
