//! A request's way through its filters.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Response, request, response};
use mesh_core::error::{Code, Error};

use super::{FilterChain, Hold, Verdict};
use crate::reply::Reply;

/// Where a request is in its filter chain.
pub(crate) struct FilterRun<F> {
    chain: FilterChain<F>,
    facts: F,
    next: usize,
    waiting: Option<Pin<Box<dyn Future<Output = Verdict> + Send>>>,
    /// How much of the body the filter that spoke last waits for.
    reading: Option<usize>,
    /// What filters said they would do to the response, by how many had spoken then.
    watching: Vec<(usize, Watch)>,
}

type Watch = Box<dyn FnOnce(&mut response::Parts) + Send>;

/// A server that cannot give bodies refuses such filters, so that this is a mistake of ours; nobody passes on account of it.
const UNREADABLE: &str = "a filter reads the body of a request, which is not to be had here";

fn failed(code: Code, why: &str) -> Box<Reply> {
    let error = Error::new(code, why);
    tracing::debug!(target: "mesh", "{error}");
    Box::new(Reply::of(&error))
}

impl<F> FilterRun<F> {
    pub(crate) fn new(chain: FilterChain<F>, facts: F) -> Self {
        Self { chain, facts, next: 0, waiting: None, reading: None, watching: Vec::new() }
    }

    /// Goes on until every filter has spoken: Ok is the way on. `body` is the request's, where filters may read it.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut request::Parts,
        mut body: Option<&mut dyn Hold>,
    ) -> Poll<Result<(), Box<Reply>>> {
        loop {
            let verdict = if let Some(waiting) = &mut self.waiting {
                let Poll::Ready(verdict) = waiting.as_mut().poll(cx) else { return Poll::Pending };
                self.waiting = None;
                verdict
            } else if let Some(enough) = self.reading {
                let Some(body) = &mut body else { return Poll::Ready(Err(failed(Code::FILTER_FAILED, UNREADABLE))) };
                let Poll::Ready(held) = body.poll_hold(cx, enough) else { return Poll::Pending };
                self.reading = None;
                match held {
                    Ok(held) => self.chain[self.next - 1].on_body(request, held, &self.facts),
                    Err(error) => return Poll::Ready(Err(failed(Code::BAD_CLIENT, &error.to_string()))),
                }
            } else {
                let Some(filter) = self.chain.get(self.next) else { return Poll::Ready(Ok(())) };
                self.next += 1;
                filter.on_request(request, &self.facts)
            };
            match verdict {
                Verdict::Continue => {}
                Verdict::Change(change) => change(request),
                Verdict::Watch(watch) => self.watching.push((self.next, watch)),
                Verdict::Amend { request: change, response } => {
                    change(request);
                    self.watching.push((self.next, response));
                }
                Verdict::Reply(reply) => return Poll::Ready(Err(reply)),
                Verdict::Read(enough) => self.reading = Some(enough),
                Verdict::Wait(waiting) => self.waiting = Some(waiting),
            }
        }
    }

    /// Shows the head of the response to the filters that saw the request, the last first.
    pub(crate) fn show<B>(&mut self, response: Response<B>) -> Response<B> {
        if self.next == 0 {
            return response;
        }
        let (mut head, body) = response.into_parts();
        for spoken in (1..=self.next).rev() {
            while self.watching.last().is_some_and(|(at, _)| *at == spoken) {
                self.watching.pop().into_iter().for_each(|(_, watch)| watch(&mut head));
            }
            self.chain[spoken - 1].on_response(&mut head, &self.facts);
        }
        Response::from_parts(head, body)
    }

    #[cfg(feature = "server")]
    /// Whether there is no filter at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }

    pub(crate) fn facts(&self) -> &F {
        &self.facts
    }
}
