//! Sends copies of requests elsewhere (`request_mirror_policies`): fire and forget.
//!
//! The call does not wait for its copies and does not fail with them. A copy that cannot keep up with the request's body, or
//! is one too many, is given up.

mod layer;
mod service;
mod tee;

pub(crate) use layer::MirrorLayer;
pub(crate) use service::Mirror;
