//! External authorization (Envoy's `ext_authz`): asks a server whether a request may pass, by gRPC or by HTTP. Without an answer
//! it may not, unless the configuration says so.

mod grpc;
mod http;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ::http::{HeaderName, HeaderValue, Request, StatusCode, request};
use bytes::Bytes;
use mesh_core::authz::{self, Answer, CheckBody, CheckFacts, Denial};
use mesh_core::decode::ExtAuthzFilter as Decoding;
use mesh_core::error::{Code, Error};
use mesh_core::model::{
    AuthzBody, AuthzService, AuthzTransport, ExtAuthz, ExtAuthzOverride, FilterConfig, HttpFilter, Metadata, Name,
};

use super::{NO_METADATA, RequestFacts};
use crate::filter::{Callouts, DynamicMetadata, Filter, FilterFacts, FilterType, Held, Kept, Verdict, config_of};
use crate::outbound::HttpClient;
use crate::reply::{ERROR_HEADER, Reply};

/// Says that a request passed because nobody answered (`failure_mode_allow_header_add`).
const FAILURE_ALLOWED: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");
/// Envoy's text for a body that is longer than the server is to see.
const TOO_LARGE: &str = "Payload Too Large";

/// The external authorization filter. Its client is made once for a Listener, and shared by its routes; so is that of an
/// override with a server of its own.
#[derive(Debug, Default)]
pub struct ExtAuthzFilterType {
    kept: Kept<Authority>,
    callouts: Option<Callouts>,
}

/// Who is asked, and under what policy.
#[derive(Debug)]
struct Authority {
    policy: ExtAuthz,
    service: AuthzService,
    client: HttpClient,
}

/// What a server is asked.
enum Question {
    Grpc(Bytes),
    Http(Box<Request<Bytes>>),
}

/// Why there is no answer that can be followed.
enum Failure {
    /// Nobody answered.
    Silence(String),
    /// What was answered is none, or nothing could be asked: nobody can tell whether it allows. A client may be why, so
    /// that nobody passes on account of it.
    Nonsense(String),
}

impl FilterType<RequestFacts> for ExtAuthzFilterType {
    fn type_url(&self) -> &str {
        Decoding::TYPE_URL
    }

    fn with_callouts(&self, callouts: &Callouts) -> Option<Arc<dyn FilterType<RequestFacts>>> {
        Some(Arc::new(Self { callouts: Some(callouts.clone()), ..Self::default() }))
    }

    fn build(
        &self,
        filter: &HttpFilter,
        overrides: &[Arc<dyn FilterConfig>],
    ) -> Result<Arc<dyn Filter<RequestFacts>>, Error> {
        let policy = config_of::<ExtAuthz>(&filter.config, Decoding::TYPE_URL)?;
        let mut context = BTreeMap::new();
        let (mut disabled, mut body, mut by) = (false, policy.body, None);
        for over in overrides {
            // All but the context is the most specific's alone, as in Envoy.
            (disabled, body, by) = (false, policy.body, None);
            match config_of::<ExtAuthzOverride>(over, Decoding::TYPE_URL)? {
                ExtAuthzOverride::Disabled => disabled = true,
                ExtAuthzOverride::Settings(settings) => {
                    context.extend(settings.context);
                    body = settings.body.unwrap_or(body);
                    by = settings.service.map(|service| (over, service));
                }
            }
        }
        let (key, service) = by.unwrap_or_else(|| (&filter.config, policy.service.clone()));
        // Also where it is off: a Listener whose server cannot be asked is refused whole.
        let authority = self.kept.get(key, || self.authority(&filter.name, policy, service))?;
        Ok(Arc::new(External { authority, context, body, disabled }))
    }
}

impl ExtAuthzFilterType {
    fn authority(&self, filter: &Name, policy: ExtAuthz, service: AuthzService) -> Result<Authority, Error> {
        let callouts = self.callouts.as_ref().ok_or_else(|| {
            let text = format!("filter `{filter}` asks cluster `{}`, and the server is not a mesh's", service.cluster);
            Error::new(Code::RESOURCE_REFUSED, text).with_next_step("serve through Mesh")
        })?;
        let client = callouts.client(&service.cluster, service.authority.clone())?;
        Ok(Authority { policy, service, client })
    }
}

/// The filter of one route.
#[derive(Debug)]
struct External {
    authority: Arc<Authority>,
    context: BTreeMap<String, String>,
    body: Option<AuthzBody>,
    disabled: bool,
}

impl Filter<RequestFacts> for External {
    fn on_request(&self, request: &mut request::Parts, facts: &RequestFacts) -> Verdict {
        let policy = &self.authority.policy;
        if policy.failure_mode_allow_header_add {
            request.headers.remove(FAILURE_ALLOWED);
        }
        if self.disabled {
            return Verdict::Continue;
        }
        if !is_enabled(policy, request) {
            return if policy.deny_at_disable { refusal(policy.status_on_error) } else { Verdict::Continue };
        }
        match &self.body {
            // One more, to know of a body that is too long.
            Some(body) if !body.partial => Verdict::Read(body.most.saturating_add(1)),
            Some(body) => Verdict::Read(body.most),
            None => self.ask(request, None, facts),
        }
    }

    fn reads_body(&self) -> bool {
        self.body.is_some() && !self.disabled
    }

    fn on_body(&self, request: &mut request::Parts, mut held: Held, facts: &RequestFacts) -> Verdict {
        let Some(AuthzBody { most, partial, bytes }) = self.body else { return self.ask(request, None, facts) };
        let longer = held.bytes.len() > most;
        if longer && !partial {
            return Verdict::Reply(Box::new(coded(Reply::new(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE))));
        }
        held.bytes.truncate(most);
        if held.bytes.is_empty() {
            return self.ask(request, None, facts);
        }
        let body = CheckBody { bytes: held.bytes, partial: longer || !held.whole, raw: bytes };
        self.ask(request, Some(&body), facts)
    }
}

fn is_enabled(policy: &ExtAuthz, request: &request::Parts) -> bool {
    let found = policy.enabled_metadata.as_ref().is_none_or(|wanted| wanted.is_match(metadata_of(request)));
    found && policy.enabled.contains(fastrand::u64(..))
}

fn metadata_of(request: &request::Parts) -> &Metadata {
    request.extensions.get::<DynamicMetadata>().map_or(&*NO_METADATA, |found| &found.0)
}

impl External {
    fn ask(&self, request: &request::Parts, body: Option<&CheckBody>, facts: &RequestFacts) -> Verdict {
        let question = self.question(request, body, facts);
        let what = format!("{} {}", request.method, request.uri.path());
        let authority = self.authority.clone();
        Verdict::Wait(Box::pin(async move { authority.judge(question, &what).await }))
    }

    fn question(
        &self,
        request: &request::Parts,
        body: Option<&CheckBody>,
        facts: &RequestFacts,
    ) -> Result<Question, Failure> {
        let Authority { policy, service, .. } = &*self.authority;
        let known = self.facts(request, body, facts);
        match &service.transport {
            AuthzTransport::Grpc { .. } => Ok(Question::Grpc(authz::question(policy, &known))),
            AuthzTransport::Http(http) => authz::http::question(policy, http, &known, &facts.format(request))
                .map(|question| Question::Http(Box::new(question)))
                .map_err(Failure::Nonsense),
        }
    }

    fn facts<'a>(
        &'a self,
        request: &'a request::Parts,
        body: Option<&'a CheckBody>,
        facts: &'a RequestFacts,
    ) -> CheckFacts<'a> {
        let peer = &facts.peer;
        CheckFacts {
            request: facts.request(request),
            version: request.version,
            source: peer.remote_addr(),
            destination: peer.local_addr(),
            peer: peer.identity(),
            local: &peer.client().shown_uris,
            server_name: peer.server_name(),
            time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            metadata: metadata_of(request),
            route_metadata: &facts.route.metadata,
            context: &self.context,
            body,
        }
    }
}

impl Authority {
    /// Asks, and does as it is told.
    async fn judge(&self, question: Result<Question, Failure>, what: &str) -> Verdict {
        let Self { policy, service, .. } = self;
        let (cluster, timeout) = (&service.cluster, service.timeout);
        let late = |_| Err(Failure::Silence(format!("no answer within {timeout:?}")));
        match tokio::time::timeout(timeout, self.ask(question)).await.unwrap_or_else(late) {
            Ok(Answer::Allowed(amendments)) => self.amend(amendments),
            Ok(Answer::Denied(denial)) => {
                tracing::debug!(target: "mesh", "{}: {what} is denied by cluster `{cluster}`", Code::ACCESS_DENIED);
                denied(denial, policy.most_denied_body)
            }
            Err(Failure::Silence(why)) if policy.failure_mode_allow => {
                tracing::warn!(target: "mesh", "{what} passes without authorization by cluster `{cluster}`: {why}");
                let says = policy.failure_mode_allow_header_add;
                Verdict::Change(Box::new(move |request| {
                    if says {
                        request.headers.insert(FAILURE_ALLOWED, HeaderValue::from_static("true"));
                    }
                }))
            }
            Err(Failure::Silence(why) | Failure::Nonsense(why)) => {
                tracing::warn!(target: "mesh", "{what} is denied, as cluster `{cluster}` gives no answer: {why}");
                refusal(policy.status_on_error)
            }
        }
    }

    async fn ask(&self, question: Result<Question, Failure>) -> Result<Answer, Failure> {
        match (question?, &self.service.transport) {
            (Question::Grpc(question), AuthzTransport::Grpc { metadata }) => {
                grpc::ask(&self.client, &self.service, metadata, &question).await
            }
            (Question::Http(question), AuthzTransport::Http(http)) => http::ask(&self.client, http, *question).await,
            _ => Err(Failure::Nonsense("the question is of another transport".to_owned())),
        }
    }

    fn amend(&self, mut amendments: authz::Amendments) -> Verdict {
        if !self.policy.takes_metadata {
            amendments.metadata = None;
        }
        if amendments == authz::Amendments::default() {
            return Verdict::Continue;
        }
        let of_response = std::mem::take(&mut amendments.response);
        Verdict::Amend {
            request: Box::new(move |request| {
                authz::change(&amendments.request, &mut request.headers);
                amendments.change_query(&mut request.uri);
                if let Some(metadata) = amendments.metadata {
                    let known = request.extensions.get_or_insert_default::<DynamicMetadata>();
                    known.0.insert(authz::METADATA_NAMESPACE.to_owned(), metadata);
                }
            }),
            response: Box::new(move |response| authz::change(&of_response, &mut response.headers)),
        }
    }
}

/// What is cut may end in the middle of a character: it is bytes.
fn denied(denial: Denial, most: Option<usize>) -> Verdict {
    let mut body = denial.body;
    body.truncate(most.unwrap_or(usize::MAX));
    let mut reply = Reply::new(denial.status, String::from_utf8_lossy(&body));
    reply.body = Some(body);
    authz::change(&denial.headers, &mut reply.headers);
    Verdict::Reply(Box::new(coded(reply)))
}

fn refusal(status: StatusCode) -> Verdict {
    Verdict::Reply(Box::new(coded(Reply::new(status, ""))))
}

fn coded(mut reply: Reply) -> Reply {
    if let Ok(code) = HeaderValue::try_from(Code::ACCESS_DENIED.to_string()) {
        reply.headers.insert(ERROR_HEADER, code);
    }
    reply
}
