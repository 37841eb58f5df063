//! External authorization (Envoy's `ext_authz`) over gRPC: asks a server whether a request may pass. Without an answer it
//! may not, unless the configuration says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderName, HeaderValue, Request, StatusCode, Version, request};
use http_body_util::{BodyExt as _, Full, Limited};
use mesh_core::authz::{self, Answer, CheckFacts, Denial};
use mesh_core::decode::ExtAuthzFilter as Decoding;
use mesh_core::error::{Code, Error};
use mesh_core::model::{ExtAuthz, ExtAuthzOverride, FilterConfig, HttpFilter};
use mesh_core::policy::deadline::format_grpc_timeout;
use mesh_core::policy::grpc::GrpcStatus;

use super::{NO_METADATA, RequestFacts};
use crate::filter::{Callouts, DynamicMetadata, Filter, FilterFacts, FilterType, Kept, Verdict, config_of};
use crate::outbound::HttpClient;
use crate::reply::{ERROR_HEADER, Reply};

/// Says that a request passed because nobody answered (`failure_mode_allow_header_add`).
const FAILURE_ALLOWED: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");
/// gRPC's bound for a message.
const MOST_BYTES: usize = 4 << 20;
/// A flag and a length stand before a message.
const PREFIX: usize = 5;

/// The external authorization filter. Its client is made once for a Listener, and shared by its routes.
#[derive(Debug, Default)]
pub struct ExtAuthzFilterType {
    kept: Kept<Authority>,
    callouts: Option<Callouts>,
}

/// Whom a Listener asks.
#[derive(Debug)]
struct Authority {
    policy: ExtAuthz,
    client: HttpClient,
}

/// Why there is no answer that can be followed.
enum Failure {
    /// Nobody answered.
    Silence(String),
    /// What was answered is none: nobody can tell whether it allows.
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
        let mut context = BTreeMap::new();
        let mut disabled = false;
        for over in overrides {
            match config_of::<ExtAuthzOverride>(over, Decoding::TYPE_URL)? {
                ExtAuthzOverride::Disabled => disabled = true,
                ExtAuthzOverride::Context(more) => {
                    disabled = false;
                    context.extend(more);
                }
            }
        }
        // Also where it is off: a Listener whose server cannot be asked is refused whole.
        let authority = self.kept.get(&filter.config, || self.authority(filter))?;
        Ok(Arc::new(External { authority, context, disabled }))
    }
}

impl ExtAuthzFilterType {
    fn authority(&self, filter: &HttpFilter) -> Result<Authority, Error> {
        let policy = config_of::<ExtAuthz>(&filter.config, Decoding::TYPE_URL)?;
        let callouts = self.callouts.as_ref().ok_or_else(|| {
            let text =
                format!("filter `{}` asks cluster `{}`, and the server is not a mesh's", filter.name, policy.cluster);
            Error::new(Code::RESOURCE_REFUSED, text).with_next_step("serve through Mesh")
        })?;
        let client = callouts.client(&policy.cluster, policy.authority.clone())?;
        Ok(Authority { policy, client })
    }
}

/// The filter of one route.
#[derive(Debug)]
struct External {
    authority: Arc<Authority>,
    context: BTreeMap<String, String>,
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
        if !policy.enabled.contains(fastrand::u64(..)) {
            return if policy.deny_at_disable { refusal(policy.status_on_error) } else { Verdict::Continue };
        }
        let question = authz::question(policy, &self.facts(request, facts));
        let what = format!("{} {}", request.method, request.uri.path());
        let authority = self.authority.clone();
        Verdict::Wait(Box::pin(async move { authority.judge(question, &what).await }))
    }
}

impl External {
    fn facts<'a>(&'a self, request: &'a request::Parts, facts: &'a RequestFacts) -> CheckFacts<'a> {
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
            metadata: request.extensions.get::<DynamicMetadata>().map_or(&*NO_METADATA, |found| &found.0),
            context: &self.context,
        }
    }
}

impl Authority {
    /// Asks, and does as it is told.
    async fn judge(&self, question: Bytes, what: &str) -> Verdict {
        let policy = &self.policy;
        let late = |_| Err(Failure::Silence(format!("no answer within {:?}", policy.timeout)));
        match tokio::time::timeout(policy.timeout, self.ask(question)).await.unwrap_or_else(late) {
            Ok(Answer::Allowed(amendments)) => self.amend(amendments),
            Ok(Answer::Denied(denial)) => {
                tracing::debug!(target: "mesh", "{}: {what} is denied by cluster `{}`", Code::ACCESS_DENIED, policy.cluster);
                denied(denial, policy.most_denied_body)
            }
            Err(Failure::Silence(why)) if policy.failure_mode_allow => {
                tracing::warn!(target: "mesh", "{what} passes without authorization by cluster `{}`: {why}", policy.cluster);
                let says = policy.failure_mode_allow_header_add;
                Verdict::Change(Box::new(move |request| {
                    if says {
                        request.headers.insert(FAILURE_ALLOWED, HeaderValue::from_static("true"));
                    }
                }))
            }
            Err(Failure::Silence(why) | Failure::Nonsense(why)) => {
                tracing::warn!(target: "mesh", "{what} is denied, as cluster `{}` gives no answer: {why}", policy.cluster);
                refusal(policy.status_on_error)
            }
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

    async fn ask(&self, question: Bytes) -> Result<Answer, Failure> {
        let silence = |why: String| Failure::Silence(why);
        let request = self.request(&question).map_err(|error| silence(error.to_string()))?;
        let response = self.client.send(request).await.map_err(|error| silence(error.to_string()))?;
        if response.status() != StatusCode::OK {
            return Err(silence(format!("the answer is {}", response.status())));
        }
        let in_head = GrpcStatus::of(response.headers());
        let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
        let body = body.map_err(|error| silence(error.to_string()))?;
        let in_trailers = body.trailers().and_then(GrpcStatus::of);
        match in_trailers.or(in_head) {
            Some(GrpcStatus::OK) => {}
            Some(status) => return Err(silence(format!("the call ends with {status:?}"))),
            None => return Err(silence("the call ends without a status".to_owned())),
        }
        let message = unframed(&body.to_bytes()).ok_or_else(|| Failure::Nonsense("it is no message".to_owned()))?;
        authz::answer(&message).map_err(Failure::Nonsense)
    }

    fn request(&self, question: &[u8]) -> http::Result<Request<Full<Bytes>>> {
        let mut framed = BytesMut::with_capacity(PREFIX + question.len());
        framed.put_u8(0);
        framed.put_u32(u32::try_from(question.len()).unwrap_or(u32::MAX));
        framed.put_slice(question);
        let mut request = Request::post(authz::CHECK)
            .version(Version::HTTP_2)
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header("grpc-timeout", format_grpc_timeout(self.policy.timeout));
        for (name, value) in &self.policy.metadata {
            request = request.header(name, value);
        }
        request.body(Full::new(framed.freeze()))
    }
}

/// The one message of a body, which is not compressed: we have not said that it may be.
fn unframed(body: &Bytes) -> Option<Bytes> {
    let (prefix, rest) = body.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    let whole = prefix[0] == 0 && usize::try_from(length) == Ok(rest.len());
    whole.then(|| body.slice(PREFIX..))
}

fn denied(denial: Denial, most: Option<usize>) -> Verdict {
    let mut body = denial.body;
    if let Some(most) = most.filter(|most| *most < body.len()) {
        let end = (0..=most).rev().find(|end| body.is_char_boundary(*end)).unwrap_or(0);
        body.truncate(end);
    }
    let mut reply = Reply::new(denial.status, body);
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
