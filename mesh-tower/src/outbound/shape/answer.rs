//! Routes that answer themselves: redirects and direct responses.

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use mesh_core::error::{Code, Error};
use mesh_core::model::{Action, DirectResponse, Redirect};
use mesh_core::route::RequestFacts;
use mesh_core::route::redirect::location;

use crate::outbound::ResponseBody;
use crate::outbound::stage::Routed;
use crate::reply::Reply;

/// The answer of a route that does not forward.
///
/// # Errors
///
/// [`Code::UNSUPPORTED_ROUTE`]: a client can do nothing with the action.
pub(super) fn answer(routed: &Routed, facts: &RequestFacts<'_>) -> Result<Response<ResponseBody>, Error> {
    let route = &routed.decision.route;
    match &route.action {
        Action::Direct(direct) => Ok(direct_response(direct, facts.is_grpc)),
        Action::Redirect(redirect) => redirection(redirect, routed, facts),
        // Authority and path as they are: Envoy leaves even the port of plaintext in place.
        Action::RequireTls => {
            redirect_to(StatusCode::MOVED_PERMANENTLY, format!("https://{}{}", facts.authority, facts.path).as_bytes())
        }
        Action::Unknown(what) => Err(unsupported(routed, what)),
        _ => Err(unsupported(routed, "non_forwarding_action")),
    }
}

fn unsupported(routed: &Routed, what: &str) -> Error {
    let route = &routed.decision.route.name;
    Error::new(Code::UNSUPPORTED_ROUTE, format!("route `{route}` has the action {what}, which a client cannot do"))
}

fn direct_response(direct: &DirectResponse, grpc: bool) -> Response<ResponseBody> {
    if grpc {
        let text = String::from_utf8_lossy(&direct.body);
        return Reply::new(direct.status, text).into_response(true).map(|body| ResponseBody::ours(body.into()));
    }
    let mut response = Response::new(ResponseBody::ours(direct.body.clone().into()));
    *response.status_mut() = direct.status;
    if !direct.body.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    response
}

fn redirection(
    redirect: &Redirect,
    routed: &Routed,
    facts: &RequestFacts<'_>,
) -> Result<Response<ResponseBody>, Error> {
    if facts.is_grpc {
        return Err(unsupported(routed, "redirect"));
    }
    redirect_to(redirect.status, &location(redirect, &routed.decision.route.matches, facts))
}

fn redirect_to(status: StatusCode, location: &[u8]) -> Result<Response<ResponseBody>, Error> {
    let location = HeaderValue::from_bytes(location).map_err(|_| {
        Error::new(Code::UNSUPPORTED_ROUTE, "the route's redirect makes a location that no header can hold")
    })?;
    let mut response = Response::new(ResponseBody::ours(crate::body::MeshBody::empty()));
    *response.status_mut() = status;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}
