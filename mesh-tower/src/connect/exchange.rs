//! How an exchange over hyper ends.

use http::Request;
use hyper::client::conn::TrySendError;
use mesh_core::policy::retry::Failure;

use super::Failed;
use super::classify::{exchange_error, failure_of};
use crate::body::MeshBody;

/// The failure of a request that hyper could not bring to a response. What never left comes back.
pub(super) fn finish(peer: &str, mut error: TrySendError<Request<MeshBody>>) -> Failed {
    let request = error.take_message().map(Box::new);
    let error = error.into_error();
    let failure = if request.is_some() { Failure::BeforeRequest } else { failure_of(&error) };
    Failed { failure, error: exchange_error(peer, failure, error), request }
}
