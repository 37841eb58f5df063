//! What a server says of its load with each response (ORCA, gRFC A51).

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::{HeaderMap, Response};
use http_body::Body;
use mesh_core::load::{LOAD_REPORT, Load};

use crate::reply::ReplyBody;

/// What a server says of itself with every response, beside what its handlers record for one request.
///
/// The application keeps a clone and sets it as it measures, from wherever it does; it is read with an atomic load.
#[derive(Clone, Default)]
pub struct ServerLoad(Arc<ArcSwap<Load>>);

impl ServerLoad {
    /// Nothing, until it is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says this from now on.
    pub fn set(&self, load: Load) {
        self.0.store(Arc::new(load));
    }

    /// Changes what is said. `change` is called again if somebody else changes it at the same time.
    pub fn update(&self, change: impl Fn(&mut Load)) {
        self.0.rcu(|load| changed(load, &change));
    }

    /// What is said now.
    pub fn current(&self) -> Arc<Load> {
        self.0.load_full()
    }
}

/// Records what one request costs, and what its handler knows of the load. It is in the extensions of every request of a server
/// that reports its load (`InboundOptions::load_reports`).
///
/// gRPC's callers get it in the trailers, so that a handler may record until the end of its response; others in the response's
/// head, so that only what was recorded before counts.
#[derive(Clone, Default)]
pub struct LoadRecorder(Arc<ArcSwapOption<Load>>);

impl LoadRecorder {
    /// Records something. `record` is called again if somebody else records at the same time.
    pub fn record(&self, record: impl Fn(&mut Load)) {
        self.0.rcu(|load| match load {
            Some(load) => Some(changed(load, &record)),
            None => Some(changed(&Arc::default(), &record)),
        });
    }
}

fn changed(load: &Arc<Load>, change: &impl Fn(&mut Load)) -> Arc<Load> {
    let mut load = Load::clone(load);
    change(&mut load);
    Arc::new(load)
}

/// The report of one request in the making.
#[derive(Debug, Clone)]
pub(crate) struct Reporting {
    server: ServerLoad,
    request: LoadRecorder,
}

impl Reporting {
    pub(crate) fn new(server: &ServerLoad) -> Self {
        Self { server: server.clone(), request: LoadRecorder::default() }
    }

    /// What the handler records with.
    pub(crate) fn recorder(&self) -> LoadRecorder {
        self.request.clone()
    }

    /// Says it, unless there is nothing to say or the application itself has.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let load = self.server.current();
        let load = match &*self.request.0.load() {
            Some(request) => Load::clone(&load).overlaid(request),
            None => Load::clone(&load),
        };
        if !load.is_empty() && !headers.contains_key(LOAD_REPORT) {
            headers.insert(LOAD_REPORT, load.to_header());
        }
    }

    /// Has the response say it: at its end where there are trailers, in its head where there are none.
    pub(crate) fn attach<B: Body>(self, response: &mut Response<ReplyBody<B>>, grpc: bool) {
        if grpc && !response.body().is_over() {
            response.body_mut().reported(self);
        } else {
            self.write(response.headers_mut());
        }
    }
}

impl fmt::Debug for ServerLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerLoad").field(&*self.0.load()).finish()
    }
}

impl fmt::Debug for LoadRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LoadRecorder").field(&*self.0.load()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a51_what_the_application_says_itself_is_not_said_over() {
        let server = ServerLoad::new();
        server.set(Load { cpu_utilization: 0.5, ..Load::default() });
        let mut headers = HeaderMap::new();
        Reporting::new(&server).write(&mut headers);
        assert_eq!(headers[LOAD_REPORT], "CQAAAAAAAOA/");
        headers.insert(LOAD_REPORT, http::HeaderValue::from_static("its own"));
        Reporting::new(&server).write(&mut headers);
        assert_eq!(headers[LOAD_REPORT], "its own");
    }
}
