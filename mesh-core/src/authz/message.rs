//! The messages: questions written, answers read. An answer that cannot be honoured whole is none.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3 as pb;
use envoy_types::pb::google::protobuf;
use http::{HeaderName, HeaderValue, StatusCode, Version};
use pb::attribute_context::{HttpRequest, Peer, Request, TlsSession};
use pb::check_response::HttpResponse;
use prost::Message as _;
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use super::{Amendments, Answer, CheckFacts, Denial, HeaderChange, OURS, PARTIAL_BODY, is_told, joined, utf8};
use crate::identity::PeerIdentity;
use crate::model::{ExtAuthz, Metadata};

/// The question about a request, as bytes of a `CheckRequest`.
pub fn question(config: &ExtAuthz, facts: &CheckFacts<'_>) -> Bytes {
    let http = http_request(config, facts);
    let attributes = pb::AttributeContext {
        source: Some(Peer {
            address: Some(address(facts.source)),
            principal: facts.peer.map(principal).unwrap_or_default(),
            certificate: certificate(config, facts.peer),
            ..Peer::default()
        }),
        destination: Some(Peer {
            address: Some(address(facts.destination)),
            principal: facts.local.first().cloned().unwrap_or_default(),
            ..Peer::default()
        }),
        request: Some(Request { time: Some(timestamp(facts)), http: Some(http) }),
        context_extensions: facts.context.clone().into_iter().collect(),
        metadata_context: Some(context(&config.metadata_namespaces, facts.metadata)),
        route_metadata_context: Some(context(&config.route_metadata_namespaces, facts.route_metadata)),
        tls_session: facts
            .server_name
            .filter(|_| config.include_tls_session)
            .map(|name| TlsSession { sni: name.to_owned() }),
    };
    pb::CheckRequest { attributes: Some(attributes) }.encode_to_vec().into()
}

fn http_request(config: &ExtAuthz, facts: &CheckFacts<'_>) -> HttpRequest {
    let request = &facts.request;
    let length = request.headers.get(http::header::CONTENT_LENGTH);
    let id = request.headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let pseudo = [
        (":method", request.method.as_str()),
        (":path", request.path),
        (":authority", request.authority),
        (":scheme", request.scheme),
    ];
    let pseudo = pseudo.into_iter().filter(|(name, _)| is_told(config, name));
    let told = || request.headers.keys().filter(|name| is_told(config, name.as_str()));
    let partial = facts.body.map(|body| (PARTIAL_BODY, if body.partial { "true" } else { "false" }));
    let mut http = HttpRequest {
        id: id.unwrap_or_default().to_owned(),
        method: request.method.as_str().to_owned(),
        path: request.path.to_owned(),
        host: request.authority.to_owned(),
        scheme: request.scheme.to_owned(),
        size: length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(-1),
        protocol: protocol(facts.version).to_owned(),
        ..HttpRequest::default()
    };
    if config.raw_headers {
        let pseudo = pseudo.map(|(name, value)| raw(name, value.as_bytes()));
        let each = told().flat_map(|name| request.headers.get_all(name).iter().map(move |value| (name, value)));
        // The request's own word on that is none.
        let each = each.filter(|(name, _)| partial.is_none() || **name != PARTIAL_BODY);
        let each = each.map(|(name, value)| raw(name.as_str(), value.as_bytes()));
        let partial = partial.iter().map(|(name, value)| raw(name.as_str(), value.as_bytes()));
        http.header_map = Some(core::HeaderMap { headers: pseudo.chain(each).chain(partial).collect() });
    } else {
        http.headers = pseudo.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        http.headers.extend(told().map(|name| (name.as_str().to_owned(), joined(request.headers, name))));
        http.headers.extend(partial.map(|(name, value)| (name.as_str().to_owned(), value.to_owned())));
    }
    match facts.body {
        Some(body) if body.raw => http.raw_body = body.bytes.to_vec(),
        Some(body) => http.body = utf8(&body.bytes),
        None => {}
    }
    http
}

fn raw(name: &str, value: &[u8]) -> core::HeaderValue {
    core::HeaderValue { key: name.to_owned(), raw_value: value.to_vec(), ..core::HeaderValue::default() }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

fn address(address: std::net::SocketAddr) -> core::Address {
    let socket = core::SocketAddress {
        address: address.ip().to_canonical().to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(address.port().into())),
        ..core::SocketAddress::default()
    };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

/// As Envoy: the first URI, else the first DNS name, else the subject.
fn principal(peer: &PeerIdentity) -> String {
    let sans = peer.sans();
    sans.uris.first().or(sans.dns.first()).cloned().unwrap_or_else(|| peer.subject().to_owned())
}

/// The leaf in PEM, percent-encoded.
fn certificate(config: &ExtAuthz, peer: Option<&PeerIdentity>) -> String {
    let leaf = peer.filter(|_| config.include_peer_certificate).and_then(|peer| peer.chain().first());
    leaf.map(encoded).unwrap_or_default()
}

fn encoded(leaf: &CertificateDer<'_>) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in BASE64_STANDARD.encode(leaf).as_bytes().chunks(64) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn timestamp(facts: &CheckFacts<'_>) -> protobuf::Timestamp {
    protobuf::Timestamp {
        seconds: i64::try_from(facts.time.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(facts.time.subsec_nanos()).unwrap_or_default(),
    }
}

fn context(namespaces: &[String], metadata: &Metadata) -> core::Metadata {
    let found = namespaces.iter().filter_map(|name| Some((name.clone(), fields(metadata.get(name)?)?)));
    core::Metadata { filter_metadata: found.collect(), ..core::Metadata::default() }
}

fn fields(value: &Value) -> Option<protobuf::Struct> {
    let fields = value.as_object()?.iter().map(|(key, value)| (key.clone(), proto(value)));
    Some(protobuf::Struct { fields: fields.collect() })
}

fn proto(value: &Value) -> protobuf::Value {
    use protobuf::value::Kind;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(truth) => Kind::BoolValue(*truth),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(list) => Kind::ListValue(protobuf::ListValue { values: list.iter().map(proto).collect() }),
        Value::Object(_) => Kind::StructValue(fields(value).unwrap_or_default()),
    };
    protobuf::Value { kind: Some(kind) }
}

/// What the bytes of a `CheckResponse` say.
///
/// # Errors
///
/// They are no answer: why.
pub fn answer(bytes: &[u8]) -> Result<Answer, String> {
    let value = pb::CheckResponse::decode(bytes).map_err(|error| format!("it cannot be decoded: {error}"))?;
    let allowed = value.status.as_ref().is_some_and(|status| status.code == 0);
    if value.status.is_none() {
        return Err("it has no status".to_owned());
    }
    let metadata = value.dynamic_metadata.map(crate::decode::json_struct);
    match value.http_response {
        Some(HttpResponse::OkResponse(ok)) if allowed => amendments(ok, metadata).map(Answer::Allowed),
        None if allowed => Ok(Answer::Allowed(Amendments { metadata, ..Amendments::default() })),
        Some(HttpResponse::DeniedResponse(denied)) if !allowed => denial(&denied).map(Answer::Denied),
        Some(HttpResponse::ErrorResponse(_)) => Err("the server says that it failed".to_owned()),
        // A response that contradicts its status: nobody can tell which is meant.
        Some(HttpResponse::DeniedResponse(_)) => Err("it allows the request, and says how it is denied".to_owned()),
        _ => denial(&pb::DeniedHttpResponse::default()).map(Answer::Denied),
    }
}

fn amendments(ok: pb::OkHttpResponse, metadata: Option<Value>) -> Result<Amendments, String> {
    let mut request = changes(&ok.headers)?;
    // The last word, as in Envoy: what is to go is not set again.
    for name in &ok.headers_to_remove {
        request.push(HeaderChange::Remove(mutable(name)?));
    }
    Ok(Amendments {
        request,
        response: changes(&ok.response_headers_to_add)?,
        query_set: ok.query_parameters_to_set.into_iter().map(|parameter| (parameter.key, parameter.value)).collect(),
        query_remove: ok.query_parameters_to_remove,
        metadata,
    })
}

fn denial(value: &pb::DeniedHttpResponse) -> Result<Denial, String> {
    let code = value.status.as_ref().map_or(0, |status| status.code);
    let status = if code == 0 {
        StatusCode::FORBIDDEN
    } else {
        let parsed = u16::try_from(code).ok().filter(|code| (200..600).contains(code));
        parsed.and_then(|code| StatusCode::from_u16(code).ok()).ok_or_else(|| format!("{code} is no status"))?
    };
    Ok(Denial { status, headers: changes(&value.headers)?, body: value.body.clone().into() })
}

fn changes(values: &[core::HeaderValueOption]) -> Result<Vec<HeaderChange>, String> {
    values.iter().map(header_change).collect()
}

#[allow(deprecated)] // Servers go on saying `append`.
fn header_change(value: &core::HeaderValueOption) -> Result<HeaderChange, String> {
    use core::header_value_option::HeaderAppendAction as Action;
    let header = value.header.as_ref().ok_or("a header is missing")?;
    let name = mutable(&header.key)?;
    let bytes = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
    let text = HeaderValue::from_bytes(bytes).map_err(|_| format!("the value of `{name}` is none"))?;
    // Unlike elsewhere, what says nothing replaces (Envoy's documentation of `OkHttpResponse.headers`).
    if let Some(append) = &value.append {
        return Ok(if append.value { HeaderChange::Append(name, text) } else { HeaderChange::Set(name, text) });
    }
    Ok(match Action::try_from(value.append_action).map_err(|_| format!("the action of `{name}` is not known"))? {
        Action::AppendIfExistsOrAdd | Action::OverwriteIfExistsOrAdd => HeaderChange::Set(name, text),
        Action::AddIfAbsent => HeaderChange::AddIfAbsent(name, text),
        Action::OverwriteIfExists => HeaderChange::OverwriteIfExists(name, text),
    })
}

fn mutable(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
    parsed
        .filter(|parsed| !OURS.contains(&parsed.as_str()))
        .ok_or_else(|| format!("`{}` is not the name of a header that may change", name.escape_debug()))
}
