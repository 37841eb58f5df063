//! What would become of a request, without sending it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::uri::Scheme;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use mesh_core::error::{Code, Error};
use mesh_core::target::Target;
use tower_service::Service;

use super::Mesh;
use crate::BoxError;
use crate::body::MeshBody;
use crate::outbound::{Explained, TargetState, TargetView, authority_of, explain};

impl Mesh {
    /// What would become of `request`, and why: every route tried with the reason it was not taken, the decision, the dice, the
    /// policies and the endpoints. The code that decides is the one that requests run; nothing is sent.
    ///
    /// It waits until the target's configuration is in force. The dice are thrown anew each time; see
    /// [`explain_with`](Self::explain_with).
    ///
    /// # Errors
    ///
    /// As [`ready`](Self::ready), and [`Code::BAD_TARGET`] if the request has no authority.
    pub async fn explain(&self, request: &Request<()>) -> Result<Explained, Error> {
        self.explain_with(request, fastrand::u64(..)).await
    }

    /// [`explain`](Self::explain) with given dice: the same number decides the same.
    ///
    /// # Errors
    ///
    /// As [`explain`](Self::explain).
    pub async fn explain_with(&self, request: &Request<()>, dice: u64) -> Result<Explained, Error> {
        let authority = authority_of(request.uri(), request.headers());
        if authority.is_empty() {
            return Err(Error::new(Code::BAD_TARGET, "the request has neither an authority nor a host header"));
        }
        let target = Target::from_authority(authority, request.uri().scheme() == Some(&Scheme::HTTPS))?;
        let view = self.view(&target).await?;
        Ok(explain(&view, authority, request, dice))
    }

    /// The configuration of a target, as soon as it is in force.
    pub(super) async fn view(&self, target: &Target) -> Result<Arc<TargetView>, Error> {
        let pinned = self.0.outbound.targets.pin(target)?;
        let mut reader = pinned.slot().reader();
        loop {
            match &**reader.load() {
                TargetState::Ready(view) => return Ok(view.clone()),
                TargetState::Missing(why) => return Err(why.error.clone()),
                TargetState::Waiting => {}
            }
            if reader.changed().await.is_err() {
                return Err(Error::new(Code::SHUT_DOWN, "the mesh was shut down"));
            }
        }
    }
}

/// The most that a question may say.
const MOST: usize = 64 * 1024;

/// Answers questions about requests over HTTP, for the program `explain --live`; see [`Mesh::explain_service`].
#[derive(Debug, Clone)]
pub struct ExplainService {
    mesh: Mesh,
}

impl Mesh {
    /// A service for a port of the application's own that is asked where requests would go: a POST whose body is
    /// `GET http://reviews:9080/x` and, on further lines, headers. The answer is the text of [`Explained`], with the
    /// endpoints' states of this process.
    ///
    /// Whoever can ask it learns the configuration, and which targets are asked for: serve it on loopback.
    pub fn explain_service(&self) -> ExplainService {
        ExplainService { mesh: self.clone() }
    }
}

impl<B> Service<Request<B>> for ExplainService
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<MeshBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<MeshBody>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mesh = self.mesh.clone();
        Box::pin(async move {
            let (status, text) = match answer(&mesh, request.into_body()).await {
                Ok(explained) => (StatusCode::OK, explained.to_string()),
                Err((status, why)) => (status, why + "\n"),
            };
            let mut response = Response::new(MeshBody::from(text));
            *response.status_mut() = status;
            Ok(response)
        })
    }
}

async fn answer<B>(mesh: &Mesh, body: B) -> Result<Explained, (StatusCode, String)>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    let question = Limited::new(body, MOST).collect().await.map_err(|error| bad(error.to_string()))?.to_bytes();
    let question = std::str::from_utf8(&question).map_err(|_| bad("the question is no text".to_owned()))?;
    let asked = asked(question).map_err(bad)?;
    mesh.explain(&asked).await.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

/// The request that a question is about.
fn asked(question: &str) -> Result<Request<()>, String> {
    let mut lines = question.lines();
    let (method, uri) = lines.next().and_then(|line| line.split_once(' ')).ok_or("the first line is METHOD URI")?;
    let mut request = Request::builder().method(method).uri(uri.trim());
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(|| format!("`{line}` is no NAME:VALUE"))?;
        request = request.header(name.trim(), value.trim());
    }
    request.body(()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_request_without_a_body() {
        let request = asked("PUT http://a:80/x?q\nk: v\n\nk:w\n").unwrap();
        assert_eq!((request.method().as_str(), request.uri().to_string().as_str()), ("PUT", "http://a:80/x?q"));
        assert_eq!(request.headers().get_all("k").iter().collect::<Vec<_>>(), ["v", "w"]);
        for bad in ["", "GET", "GET http://a\nno header", "GET http://a b"] {
            assert!(asked(bad).is_err(), "{bad:?}");
        }
    }
}
