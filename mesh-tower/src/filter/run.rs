//! A request's way through its filters.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Response, request, response};

use super::{FilterChain, Verdict};
use crate::reply::Reply;

/// Where a request is in its filter chain.
pub(crate) struct FilterRun<F> {
    chain: FilterChain<F>,
    facts: F,
    next: usize,
    waiting: Option<Pin<Box<dyn Future<Output = Verdict> + Send>>>,
    /// What filters said they would do to the response, by how many had spoken then.
    watching: Vec<(usize, Watch)>,
}

type Watch = Box<dyn FnOnce(&mut response::Parts) + Send>;

impl<F> FilterRun<F> {
    pub(crate) fn new(chain: FilterChain<F>, facts: F) -> Self {
        Self { chain, facts, next: 0, waiting: None, watching: Vec::new() }
    }

    /// Goes on until every filter has spoken: Ok is the way on.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, request: &mut request::Parts) -> Poll<Result<(), Box<Reply>>> {
        loop {
            let verdict = if let Some(waiting) = &mut self.waiting {
                let Poll::Ready(verdict) = waiting.as_mut().poll(cx) else { return Poll::Pending };
                self.waiting = None;
                verdict
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
