//! What the mesh does about time, failure and load, as answers to given facts: no clock, no I/O, chance as an argument.

pub mod cors;
pub mod deadline;
pub mod fault;
pub mod grpc;
pub mod internal_redirect;
pub mod jwt;
pub mod limit;
pub mod metadata;
pub mod origin;
pub mod rate_limit;
pub mod rbac;
pub mod retry;
pub mod steering;
