//! A decision with its reasons, from the very code that decides.

use std::sync::Arc;

use super::decide::{Decision, NoDecision};
use super::facts::RequestFacts;
use super::index::RouteIndex;
use super::matcher::Mismatch;
use crate::model::{Name, Route, VirtualHost};

/// Is told how a decision comes about. The decision is compiled once without (`()`) and once with an observer.
pub(super) trait Observer {
    /// Whether it wants to hear of every route, also of those that the path index would skip.
    const SEES_ALL: bool;
    /// The virtual host was chosen.
    fn host(&mut self, host: &Arc<VirtualHost>);
    /// A route was tried; `mismatch` is why it was not taken.
    fn tried(&mut self, position: usize, route: &Arc<Route>, mismatch: Option<Mismatch<'_>>);
}

impl Observer for () {
    const SEES_ALL: bool = false;
    fn host(&mut self, _host: &Arc<VirtualHost>) {}
    fn tried(&mut self, _position: usize, _route: &Arc<Route>, _mismatch: Option<Mismatch<'_>>) {}
}

/// A decision and how it came about.
#[derive(Debug)]
pub struct Explanation {
    /// The virtual host, if one serves the authority.
    pub host: Option<Arc<VirtualHost>>,
    /// Every route tried, in order; the last is the one taken, if one was.
    pub tried: Vec<Tried>,
    /// The decision.
    pub decision: Result<Decision, NoDecision>,
}

/// A route that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Its position in the virtual host.
    pub position: usize,
    /// Its name; may be empty.
    pub route: Name,
    /// Why it was not taken; None if it was.
    pub mismatch: Option<String>,
}

#[derive(Default)]
struct Recorder {
    host: Option<Arc<VirtualHost>>,
    tried: Vec<Tried>,
}

impl Observer for Recorder {
    const SEES_ALL: bool = true;

    fn host(&mut self, host: &Arc<VirtualHost>) {
        self.host = Some(host.clone());
    }

    fn tried(&mut self, position: usize, route: &Arc<Route>, mismatch: Option<Mismatch<'_>>) {
        let mismatch = mismatch.map(|mismatch| mismatch.to_string());
        self.tried.push(Tried { position, route: route.name.clone(), mismatch });
    }
}

impl RouteIndex {
    /// [`decide`](Self::decide), with every route tried and the reason it did not match.
    pub fn explain(&self, authority: &str, facts: &RequestFacts<'_>, random: u64) -> Explanation {
        let mut recorder = Recorder::default();
        let decision = self.decide_observed(authority, facts, random, &mut recorder);
        Explanation { host: recorder.host, tried: recorder.tried, decision }
    }
}
