//! When which name is looked up: the schedule, without I/O and without a clock.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Addresses, Again, Question};
use crate::ads::{Backoff, BackoffSettings};
use crate::error::{Code, Error};
use crate::model::Name;
use crate::publish::Publisher;
use crate::resource::{HOST, ResourceEvent, ResourceKey};

/// A name is not looked up again sooner because connections fail: gRPC's `min_time_between_resolutions`.
const RARELY: Duration = Duration::from_secs(30);

/// The names that are wanted.
pub(super) struct Names {
    known: BTreeMap<Name, Known>,
    events: VecDeque<ResourceEvent>,
    random: fastrand::Rng,
    /// Says that a name is to be looked up again.
    signal: Arc<Publisher<()>>,
}

struct Known {
    question: Question,
    again: Again,
    /// The last good answer.
    value: Option<Arc<Addresses>>,
    /// What came of the last lookup, if it was no good.
    error: Option<Error>,
    /// When the last lookup began.
    began: Option<Instant>,
    /// When the next one is to begin; None: one is under way, or nothing calls for one.
    due: Option<Instant>,
    backoff: Backoff,
}

/// A lookup that is to be made.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) name: Name,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) began: Instant,
}

impl Names {
    pub(super) fn new(seed: u64, signal: Arc<Publisher<()>>) -> Self {
        Self { known: BTreeMap::new(), events: VecDeque::new(), random: fastrand::Rng::with_seed(seed), signal }
    }

    /// Someone wants this name. What is known already is told again.
    pub(super) fn subscribe(&mut self, key: &ResourceKey, now: Instant) {
        if let Some(known) = self.known.get(&key.name) {
            return self.events.extend(known.changed(&key.name).into_iter().chain(known.trouble(&key.name)));
        }
        let Some(question) = Question::of(key) else { return };
        let known = Known {
            question,
            again: Again::new(self.signal.clone()),
            value: None,
            error: None,
            began: None,
            due: Some(now),
            backoff: Backoff::new(BackoffSettings::grpc(), self.random.u64(..)),
        };
        self.known.insert(key.name.clone(), known);
    }

    /// Nobody wants it any more.
    pub(super) fn unsubscribe(&mut self, key: &ResourceKey) {
        self.known.remove(&key.name);
        self.events.retain(|event| event.key() != key);
    }

    /// Some names are to be looked up again: connections to what they are known to be fail.
    pub(super) fn ask_again(&mut self, now: Instant) {
        for known in self.known.values_mut().filter(|known| known.again.take()) {
            let soonest = known.began.map_or(now, |began| now.max(began + RARELY));
            // What fails has its own time.
            if known.error.is_none() && known.due.is_none_or(|due| soonest < due) {
                known.due = Some(soonest);
            }
        }
    }

    /// The next lookup that is due.
    pub(super) fn poll_task(&mut self, now: Instant) -> Option<Task> {
        let is_due = |known: &Known| known.due.is_some_and(|due| due <= now);
        let (name, known) = self.known.iter_mut().find(|(_, known)| is_due(known))?;
        known.due = None;
        known.began = Some(now);
        let Question { host, port, .. } = known.question.clone();
        Some(Task { name: name.clone(), host, port, began: now })
    }

    /// When the next lookup is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.known.values().filter_map(|known| known.due).min()
    }

    /// What there is to say.
    pub(super) fn poll_event(&mut self) -> Option<ResourceEvent> {
        self.events.pop_front()
    }

    /// A lookup has ended. One that nobody waits for any more means nothing.
    pub(super) fn answered(&mut self, name: &Name, began: Instant, answer: io::Result<Vec<SocketAddr>>, now: Instant) {
        let Some(known) = self.known.get_mut(name).filter(|known| known.began == Some(began)) else { return };
        match answer {
            Ok(list) => {
                known.backoff.reset();
                known.due = known.question.refresh.map(|refresh| now + refresh);
                let recovered = known.error.take().is_some();
                if !known.value.as_ref().is_some_and(|value| same_set(&value.list, &list)) {
                    known.value = Some(Arc::new(Addresses { list, again: known.again.clone() }));
                    self.events.extend(known.changed(name));
                } else if recovered {
                    self.events.push_back(ResourceEvent::Ambient { key: key(name), error: None, lapsing: false });
                }
            }
            Err(error) => {
                known.due = Some(known.backoff.next(now));
                known.error = Some(unresolved(&known.question.host, error));
                self.events.extend(known.trouble(name));
            }
        }
    }
}

impl Known {
    fn changed(&self, name: &Name) -> Option<ResourceEvent> {
        let value = self.value.clone()?;
        Some(ResourceEvent::Changed { key: key(name), value, version: String::new(), server: None })
    }

    /// An answer once had is used whatever becomes of later lookups (gRFC A74).
    fn trouble(&self, name: &Name) -> Option<ResourceEvent> {
        let (key, error) = (key(name), self.error.clone()?);
        Some(match self.value {
            Some(_) => ResourceEvent::Ambient { key, error: Some(error), lapsing: false },
            None => ResourceEvent::Unusable { key, error },
        })
    }
}

fn key(name: &Name) -> ResourceKey {
    ResourceKey { type_url: HOST.into(), name: name.clone() }
}

/// Servers of DNS turn the order with each answer; that alone changes nothing.
fn same_set(a: &[SocketAddr], b: &[SocketAddr]) -> bool {
    a.len() == b.len() && a.iter().all(|address| b.contains(address))
}

fn unresolved(host: &str, error: io::Error) -> Error {
    Error::new(Code::UNRESOLVED, format!("DNS gives no address for `{host}`: {error}")).with_source(error)
}
