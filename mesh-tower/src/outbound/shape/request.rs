//! What the route makes of a request before it goes out.

use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Request, Uri};
use mesh_core::error::{Code, Error};
use mesh_core::model::{Forward, PathRewrite};
use mesh_core::route::format::{FormatFacts, expand_or};
use mesh_core::route::mutate::{append_to_list, mutate_request};
use mesh_core::route::rewrite::{rewrite_authority, rewrite_path};

use crate::outbound::stage::Routed;

/// The path as the client said it, where the route has rewritten it (Envoy).
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
/// The host as the client said it, where the route has rewritten it (Envoy).
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
/// The host as the client said it (Envoy's `append_x_forwarded_host`).
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Header mutations of all levels, then the rewrites.
///
/// # Errors
///
/// [`Code::UNSUPPORTED_ROUTE`] if a rewrite makes something that is no path or no authority.
pub(super) fn shape(routed: &mut Routed) -> Result<(), Error> {
    mutate(routed);
    let of_weighted = routed.decision.weighted_cluster().is_some_and(|cluster| cluster.host_rewrite.is_some());
    let of_route =
        routed.forward().is_some_and(|forward| forward.path_rewrite.is_some() || forward.host_rewrite.is_some());
    if !of_weighted && !of_route {
        return Ok(());
    }
    // What follows changes what the decision is part of.
    let decision = routed.decision.clone();
    let mesh_core::model::Action::Forward(forward) = &decision.route.action else { return Ok(()) };
    if forward.path_rewrite.is_some() {
        path(routed, forward)?;
    }
    let weighted = decision.weighted_cluster();
    if forward.host_rewrite.is_some() || weighted.is_some_and(|cluster| cluster.host_rewrite.is_some()) {
        let facts = format_facts(routed);
        let before = facts.request.authority.to_owned();
        if let Some(authority) = rewrite_authority(forward, weighted, &facts, "").map_err(|error| bad(&error))? {
            set_authority(&mut routed.request, authority)?;
            let by_route = weighted.is_none_or(|cluster| cluster.host_rewrite.is_none());
            rewritten_host(routed, forward, &before, by_route);
        }
    }
    Ok(())
}

fn mutate(routed: &mut Routed) {
    let levels = routed.decision.mutations(routed.view.table());
    if levels.into_iter().all(|level| level.request_append.is_empty() && level.request_remove.is_empty()) {
        return;
    }
    // Values are made from the request as it was.
    let before = routed.request.headers().clone();
    let (method, uri) = (routed.request.method().clone(), routed.request.uri().clone());
    let facts = FormatFacts {
        request: routed.call.facts_of(&method, &uri, &before),
        version: routed.request.version(),
        remote: routed.call.downstream.remote(),
        local: routed.call.downstream.local(),
        peer: routed.call.downstream.peer(),
        status: None,
    };
    for level in routed.decision.mutations(routed.view.table()) {
        mutate_request(level, routed.request.headers_mut(), &facts);
    }
}

/// What formats may speak of while the request goes out.
fn format_facts(routed: &Routed) -> FormatFacts<'_> {
    let request = &routed.request;
    FormatFacts {
        request: routed.call.facts_of(request.method(), request.uri(), request.headers()),
        version: request.version(),
        remote: routed.call.downstream.remote(),
        local: routed.call.downstream.local(),
        peer: routed.call.downstream.peer(),
        status: None,
    }
}

fn path(routed: &mut Routed, forward: &Forward) -> Result<(), Error> {
    let Some(rewrite) = &forward.path_rewrite else { return Ok(()) };
    let uri = routed.request.uri();
    let before = uri.path_and_query().map_or("/", |path| path.as_str());
    let expanded = match rewrite {
        PathRewrite::Format(format) => {
            let made = expand_or(format, routed.request.headers(), &format_facts(routed), b"-");
            let made = made.as_ref().and_then(|made| made.to_str().ok()).unwrap_or_default();
            Some(PathRewrite::Full(made.to_owned()))
        }
        _ => None,
    };
    let rewrite = expanded.as_ref().unwrap_or(rewrite);
    let after = rewrite_path(rewrite, &routed.decision.route.matches, before).map_err(|error| bad(&error))?;
    let Some(after) = after else { return Ok(()) };
    if let Ok(original) = HeaderValue::from_str(before) {
        routed.request.headers_mut().insert(ORIGINAL_PATH, original);
    }
    let mut parts = std::mem::take(routed.request.uri_mut()).into_parts();
    parts.path_and_query = Some(after);
    *routed.request.uri_mut() = whole(parts)?;
    Ok(())
}

/// Tells the server what the host was; of a weighted cluster's own rewrite Envoy says nothing.
fn rewritten_host(routed: &mut Routed, forward: &Forward, before: &str, by_route: bool) {
    let Ok(host) = HeaderValue::from_str(before) else { return };
    let headers = routed.request.headers_mut();
    if forward.append_x_forwarded_host {
        append_to_list(headers, FORWARDED_HOST, &host);
    }
    if by_route {
        headers.insert(ORIGINAL_HOST, host);
    }
}

/// Replaces the authority of `request`, also where a header said it.
///
/// # Errors
///
/// When what comes out is no URI.
pub(crate) fn set_authority<B>(request: &mut Request<B>, authority: http::uri::Authority) -> Result<(), Error> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.authority = Some(authority);
    *request.uri_mut() = whole(parts)?;
    request.headers_mut().remove(HOST);
    Ok(())
}

fn whole(mut parts: http::uri::Parts) -> Result<Uri, Error> {
    // With an authority and a path a URI has a scheme.
    if parts.scheme.is_none() && parts.authority.is_some() && parts.path_and_query.is_some() {
        parts.scheme = Some(Scheme::HTTP);
    }
    Uri::from_parts(parts)
        .map_err(|error| Error::new(Code::UNSUPPORTED_ROUTE, format!("the route's rewrite makes no URI: {error}")))
}

fn bad(error: &mesh_core::route::rewrite::BadRewrite) -> Error {
    Error::new(Code::UNSUPPORTED_ROUTE, error.to_string())
}
