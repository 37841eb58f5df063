//! What kind of failure an error of HTTP is.

use std::error::Error as StdError;

use h2::Reason;
use mesh_core::error::{Code, Error};
use mesh_core::policy::retry::Failure;

use crate::secure::refusal_of;

/// What an error of an exchange, or of a response's body, means for retries.
///
/// Errors of hyper and h2 are looked for along the sources, as bodies and services of applications wrap them.
pub(crate) fn failure_of(error: &(dyn StdError + 'static)) -> Failure {
    match find::<h2::Error>(error) {
        // h2 fails with the GOAWAY only those streams that are above the last one the server says it looked at.
        Some(stream) if stream.is_go_away() && stream.is_remote() => Failure::Refused,
        Some(stream) if stream.is_reset() && stream.reason() == Some(Reason::REFUSED_STREAM) => Failure::Refused,
        Some(stream) if is_own_body(stream) => Failure::Refusal,
        Some(stream) if stream.is_reset() => Failure::Reset { code: stream.reason().map(u32::from) },
        None if find::<hyper::Error>(error).is_some_and(hyper::Error::is_user) => Failure::Refusal,
        _ => Failure::Reset { code: None },
    }
}

/// Whether the stream was reset because the request's own body failed.
fn is_own_body(stream: &h2::Error) -> bool {
    stream.is_reset() && !stream.is_remote() && !stream.is_library()
}

/// The first `E` among `error` and its sources.
pub(super) fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    sources(error).find_map(|error| error.downcast_ref::<E>())
}

/// `error` and its sources.
fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The error of an exchange with `peer` that failed as `failure`.
pub(super) fn exchange_error(peer: &str, failure: Failure, error: hyper::Error) -> Error {
    if let Some(refusal) = find::<std::io::Error>(&error).and_then(refusal_of) {
        return Error::new(Code::HANDSHAKE, format!("{peer} {refusal}")).with_source(error);
    }
    let (code, what) = if error.is_parse() {
        (Code::PROTOCOL, "does not speak HTTP as expected")
    } else if failure == Failure::Refusal {
        (Code::BODY, "could not be sent the whole request")
    } else if error.is_timeout() {
        (Code::BROKEN, "does not answer PINGs")
    } else if failure == Failure::Refused {
        (Code::BROKEN, "refused the request without looking at it")
    } else if failure == Failure::BeforeRequest {
        (Code::BROKEN, "ended the connection before the request left")
    } else {
        (Code::BROKEN, "broke off the exchange")
    };
    Error::new(code, format!("{peer} {what}: {}", reason(&error))).with_source(error)
}

/// The innermost text of `error`: hyper's own says little more than `http2 error`.
pub(super) fn reason(error: &(dyn StdError + 'static)) -> String {
    sources(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Wrapped(h2::Error);

    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("wrapped")
        }
    }

    impl StdError for Wrapped {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn errors_are_found_behind_others() {
        let error = Wrapped(Reason::CANCEL.into());
        assert_eq!(find::<h2::Error>(&error).and_then(h2::Error::reason), Some(Reason::CANCEL));
        assert_eq!(reason(&error), error.0.to_string());
    }

    #[test]
    fn what_is_not_known_is_a_broken_exchange() {
        let error = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(failure_of(&error), Failure::Reset { code: None });
    }
}
