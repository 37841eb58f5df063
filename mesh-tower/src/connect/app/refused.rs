//! An endpoint that demands TLS where nobody can prove it.

use http::Request;
use mesh_core::error::{Code, Error};
use mesh_core::policy::retry::Failure;

use crate::body::MeshBody;
use crate::connect::way::peer_name;
use crate::connect::{EndpointFuture, EndpointHandle, EndpointPlan, EndpointService, Failed};

/// Never ready, and refuses whatever comes nevertheless: whoever forgets to ask `proves_tls` still sends nothing.
#[derive(Debug)]
pub(super) struct Refused(Error);

impl Refused {
    pub(super) fn new(plan: &EndpointPlan) -> Self {
        let text =
            format!("{} demands TLS, which a layer over the application's service cannot prove", peer_name(plan));
        plan.state.set_failed();
        plan.changed.state_changed();
        Self(Error::new(Code::UNPROVABLE_TLS, text))
    }
}

impl EndpointService for Refused {
    fn call(&self, request: Request<MeshBody>) -> EndpointFuture {
        let failed = Failed { failure: Failure::Connect, error: self.0.clone(), request: Some(Box::new(request)) };
        Box::pin(std::future::ready(Err(failed)))
    }
}

impl EndpointHandle for Refused {
    fn connect(&self) {}

    fn last_error(&self) -> Option<Error> {
        Some(self.0.clone())
    }
}
