//! The mesh's errors as gRPC statuses, and back.

use std::error::Error as StdError;
use std::sync::Arc;

use mesh_core::error::{Code, Error};
use mesh_core::policy::grpc::GrpcStatus;
use tonic::Status;

/// What a gRPC caller is told of `error`: the code that the gRFCs ask for, with the whole text as its message. The error is
/// the status' source; [`error_of`] finds it.
///
/// Generated clients over a [`MeshChannel`](crate::MeshChannel) get this by themselves. It is for services that call others
/// by [`Mesh::http`](crate::Mesh::http).
pub fn status_of(error: Error) -> Status {
    let mut status = Status::new(code_of(&error), error.to_string());
    status.set_source(Arc::new(error));
    status
}

/// The mesh's error that `status` was made of; None if it is a server's status, or tonic's own.
pub fn error_of(status: &Status) -> Option<&Error> {
    find(status)
}

/// The gRPC code of an error. What happened on the wire is in its sources; everything else its own code says.
fn code_of(error: &Error) -> tonic::Code {
    match error.code() {
        // The application's own body, whose error may be a status: an encoder's, or that of a call it forwards.
        Code::BODY => find::<Status>(error).map_or(tonic::Code::Internal, Status::code),
        Code::BROKEN => find::<h2::Error>(error).map_or(tonic::Code::Unavailable, of_stream),
        code => of_code(code),
    }
}

/// The gRPC code of each code. gRPC's libraries never make seven of the codes themselves, nor does a configuration make a
/// call end so (gRFC A54), and UNKNOWN says nothing: none of these is here.
fn of_code(code: Code) -> tonic::Code {
    match code {
        Code::DEADLINE | Code::ATTEMPT_TIMEOUT | Code::CONNECTION_TIMEOUT => tonic::Code::DeadlineExceeded,
        // A limit of this process, as gRPC says of its own: not a state of the service that is called.
        Code::TOO_MANY_TARGETS => tonic::Code::ResourceExhausted,
        // What the policy's own filter answers with (gRFC A41).
        Code::ACCESS_DENIED => tonic::Code::PermissionDenied,
        // Nothing that passes by itself: a defect, here, at the server or in the application.
        Code::NO_RUNTIME
        | Code::BAD_DESCRIPTORS
        | Code::FILTER_FAILED
        | Code::PROTOCOL
        | Code::BODY
        | Code::BAD_REQUEST
        | Code::BAD_CLIENT
        | Code::HANDLER_FAILED
        | Code::INTERNAL => tonic::Code::Internal,
        // Everything that a channel of gRPC counts as a failure to get there: no configuration, no route (gRFC A31), no
        // endpoint, no connection, no TLS, overload and drops (A32); and a channel that was misused or shut down.
        _ => tonic::Code::Unavailable,
    }
}

/// What the end of a stream means.
fn of_stream(error: &h2::Error) -> tonic::Code {
    match error.reason() {
        Some(reason) if error.is_reset() => of_reset(reason),
        // A connection that ends, or a server that goes away, says nothing about this call.
        _ => tonic::Code::Unavailable,
    }
}

/// What an HTTP/2 error code means (gRPC over HTTP/2, "Errors").
fn of_reset(reason: h2::Reason) -> tonic::Code {
    match GrpcStatus::from_reset(reason.into()) {
        // A code that gRPC has no row for. What a peer does against the rules is INTERNAL.
        GrpcStatus::UNKNOWN => tonic::Code::Internal,
        GrpcStatus(number) => i32::from(number).into(),
    }
}

/// The first `E` among `error` and its sources.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| error.downcast_ref::<E>())
}

#[cfg(test)]
mod tests {
    use tonic::Code as Grpc;

    use super::*;

    /// The whole mapping, by number: what the gRFCs say, written down beside the code that does it.
    const TABLE: &[(u16, Grpc)] = &[
        (101, Grpc::Unavailable),
        (102, Grpc::Unavailable),
        (103, Grpc::Unavailable),
        (104, Grpc::Internal),
        (105, Grpc::Unavailable),
        (106, Grpc::Unavailable),
        (107, Grpc::Internal),
        (110, Grpc::Unavailable),
        (111, Grpc::Unavailable),
        (112, Grpc::Unavailable),
        (113, Grpc::Unavailable),
        (114, Grpc::Unavailable),
        (115, Grpc::Unavailable),
        (116, Grpc::Unavailable),
        (201, Grpc::Unavailable),
        (202, Grpc::Unavailable),
        (203, Grpc::Unavailable),
        (204, Grpc::Unavailable),
        (205, Grpc::Unavailable),
        (206, Grpc::Unavailable),
        (207, Grpc::ResourceExhausted),
        (301, Grpc::DeadlineExceeded),
        (302, Grpc::DeadlineExceeded),
        (311, Grpc::Unavailable),
        (312, Grpc::Internal),
        (313, Grpc::PermissionDenied),
        (401, Grpc::Unavailable),
        (402, Grpc::Unavailable),
        (403, Grpc::Unavailable),
        (404, Grpc::Unavailable),
        (405, Grpc::DeadlineExceeded),
        (501, Grpc::Unavailable),
        (502, Grpc::Unavailable),
        (503, Grpc::Unavailable),
        (504, Grpc::Unavailable),
        (601, Grpc::Unavailable),
        (602, Grpc::Internal),
        (603, Grpc::Internal),
        (604, Grpc::Internal),
        (701, Grpc::Unavailable),
        (702, Grpc::Unavailable),
        (703, Grpc::Unavailable),
        (704, Grpc::Internal),
        (705, Grpc::Unavailable),
        (706, Grpc::Internal),
        (901, Grpc::Internal),
    ];

    /// What no library and no configuration makes (gRFC A54, gRPC's list of status codes), and UNKNOWN.
    const NEVER: &[Grpc] = &[
        Grpc::Ok,
        Grpc::Unknown,
        Grpc::InvalidArgument,
        Grpc::NotFound,
        Grpc::AlreadyExists,
        Grpc::FailedPrecondition,
        Grpc::Aborted,
        Grpc::OutOfRange,
        Grpc::DataLoss,
    ];

    /// gRFC A54.
    #[test]
    fn every_code_has_its_row() {
        let found: Vec<_> =
            Code::ALL.iter().map(|&code| (code.number(), status_of(Error::new(code, "x")).code())).collect();
        assert_eq!(found, TABLE);
        assert!(found.iter().all(|(_, code)| !NEVER.contains(code)));
    }

    #[test]
    fn the_text_and_the_error_are_in_the_status() {
        let error = Error::new(Code::NO_ENDPOINTS, "cluster `a` has no endpoints").with_config_version(7);
        let status = status_of(error.clone());
        assert_eq!(status.message(), error.to_string());
        let found = error_of(&status).unwrap();
        assert_eq!((found.code(), found.config_version()), (Code::NO_ENDPOINTS, Some(7)));
        assert!(error_of(&status.clone()).is_some(), "a copy has it too");
        assert!(error_of(&Status::not_found("a server's")).is_none());
    }

    #[test]
    fn the_body_s_own_status_stays() {
        let failed = Error::new(Code::BODY, "x").with_source(Status::out_of_range("too large"));
        assert_eq!(status_of(failed).code(), Grpc::OutOfRange);
    }

    #[test]
    fn a_stream_s_end_is_read_by_its_code() {
        for (reason, expected) in [
            (h2::Reason::CANCEL, Grpc::Cancelled),
            (h2::Reason::REFUSED_STREAM, Grpc::Unavailable),
            (h2::Reason::ENHANCE_YOUR_CALM, Grpc::ResourceExhausted),
            (h2::Reason::INADEQUATE_SECURITY, Grpc::PermissionDenied),
            (h2::Reason::PROTOCOL_ERROR, Grpc::Internal),
            (h2::Reason::NO_ERROR, Grpc::Internal),
            (h2::Reason::HTTP_1_1_REQUIRED, Grpc::Internal),
        ] {
            assert_eq!(of_reset(reason), expected, "{reason:?}");
        }
        // An error that no stream was reset by: the connection's end.
        let connection = Error::new(Code::BROKEN, "x").with_source(h2::Error::from(h2::Reason::CANCEL));
        assert_eq!(status_of(connection).code(), Grpc::Unavailable);
    }
}
