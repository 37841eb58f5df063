//! The secret discovery service: one stream for each server, with all secrets that somebody holds.
//!
//! The protocol is the stream engine's ([`ads`](crate::ads)); a secret is one more type of resource, over a method of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use super::Surroundings;
use crate::ads::{Driver, Engine, ResourceTypes};
use crate::bootstrap::{SdsConfig, ServerConfig};
use crate::decode::SecretDecoder;
use crate::error::Error;
use crate::event::{Event, EventSink};
use crate::identity::{CertificateSource, IdentityMaterial, Secret, Settled, Slot, TrustMaterial};
use crate::model::Name;
use crate::publish::{Publisher, Reader};
use crate::resource::{ResourceEvent, ResourceKey, SECRET, canonical_name};
use crate::source::Feed;

/// So many secrets of one server may be in use: their names come from the control plane.
const MOST_SECRETS: usize = 1000;
/// So many rounds are done at a stretch before others get their turn.
const ROUNDS: usize = 32;

/// The secrets of one SDS server.
///
/// As a source it is a pair of them: `default` and `ROOTCA`, or what its configuration names. Each other secret is a source
/// by its name.
#[derive(Clone)]
pub struct Sds(Arc<Shared>);

struct Shared {
    uri: Name,
    secrets: Mutex<BTreeMap<Name, Weak<Held>>>,
    /// Says that what is held has changed.
    changes: Arc<Publisher<()>>,
    /// Our certificate and the roots; None: this server is asked for nothing of itself.
    pair: Option<(Arc<Held>, Arc<Held>)>,
}

/// A secret that somebody holds.
#[derive(Debug)]
struct Held {
    slot: Slot,
    changes: Weak<Publisher<()>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(changes) = self.changes.upgrade() {
            changes.publish(Arc::new(()));
        }
    }
}

impl Sds {
    /// The server of `config`, with the two secrets that it names; and the work that keeps them fresh, which never ends.
    pub fn new(config: &SdsConfig, around: &Surroundings) -> (Self, SdsRun) {
        let names = (config.certificate_name.clone(), config.validation_context_name.clone());
        Self::start(&config.server, Some(names), around)
    }

    /// The server for secrets that others name, and for none of itself: nothing is opened before one is held.
    pub fn on_demand(server: &ServerConfig, around: &Surroundings) -> (Self, SdsRun) {
        Self::start(server, None, around)
    }

    fn start(server: &ServerConfig, names: Option<(Name, Name)>, around: &Surroundings) -> (Self, SdsRun) {
        let changes = Arc::new(Publisher::new(Arc::new(())));
        let changed = changes.reader();
        let secrets = Mutex::default();
        let mut shared = Shared { uri: server.uri.clone(), secrets, changes, pair: None };
        shared.pair = names.map(|(certificate, roots)| (shared.hold(&certificate), shared.hold(&roots)));
        let shared = Arc::new(shared);
        let types = ResourceTypes::secrets(Arc::new(SecretDecoder::new(around.pair.clone())));
        let settings = around.settings.clone();
        let engine = Engine::new(vec![server.clone()], &around.node, types, settings, around.seed);
        let driver = Driver::new(engine, around.transport.clone(), around.events.clone());
        let run = SdsRun {
            shared: shared.clone(),
            changed,
            driver,
            asked: BTreeMap::new(),
            events: around.events.clone(),
            is_new: true,
        };
        (Self(shared), run)
    }

    fn pair(&self) -> Result<&(Arc<Held>, Arc<Held>), Error> {
        self.0.pair.as_ref().ok_or_else(|| {
            let text = format!("SDS server {} has no certificate of its own: name a secret", self.0.uri);
            Error::new(crate::error::Code::NO_CERTIFICATE, text)
        })
    }
}

impl Shared {
    fn secrets(&self) -> MutexGuard<'_, BTreeMap<Name, Weak<Held>>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The secret of this name, which is asked for from now on if it was not.
    fn hold(&self, name: &Name) -> Arc<Held> {
        let name = &canonical_name(name.clone());
        let mut secrets = self.secrets();
        if let Some(held) = secrets.get(name).and_then(Weak::upgrade) {
            return held;
        }
        let slot = Slot::new(format!("secret `{name}` of SDS server {}", self.uri));
        let held = Arc::new(Held { slot, changes: Arc::downgrade(&self.changes) });
        secrets.retain(|_, held| held.strong_count() > 0);
        if secrets.len() >= MOST_SECRETS {
            held.slot.trouble(format!("{MOST_SECRETS} secrets are in use, and no more are asked for"));
            return held;
        }
        secrets.insert(name.clone(), Arc::downgrade(&held));
        drop(secrets);
        self.changes.publish(Arc::new(()));
        held
    }
}

impl CertificateSource for Sds {
    fn identity(&self) -> Result<Arc<IdentityMaterial>, Error> {
        self.pair()?.0.slot.identity()
    }

    fn trust(&self) -> Result<Arc<TrustMaterial>, Error> {
        self.pair()?.1.slot.trust()
    }

    fn certificate(&self, name: &str) -> Option<Arc<dyn CertificateSource>> {
        (!name.is_empty()).then(|| self.0.hold(&name.into()) as Arc<dyn CertificateSource>)
    }

    fn parts(&self) -> Vec<(Name, Arc<dyn CertificateSource>)> {
        let secrets = self.0.secrets();
        let alive = |(name, held): (&Name, &Weak<Held>)| Some((name.clone(), held.upgrade()?));
        // Outside the lock: the last one to let go of a secret takes it.
        let held: Vec<_> = secrets.iter().filter_map(alive).collect();
        drop(secrets);
        held.into_iter().map(|(name, held)| (name, held as Arc<dyn CertificateSource>)).collect()
    }

    fn may_revoke(&self) -> bool {
        true
    }

    fn settled(&self) -> Settled {
        let Some((certificate, roots)) = &self.0.pair else { return Box::pin(std::future::ready(())) };
        let both = (certificate.slot.settled(), roots.slot.settled());
        Box::pin(async move {
            both.0.await;
            both.1.await;
        })
    }
}

impl CertificateSource for Held {
    fn identity(&self) -> Result<Arc<IdentityMaterial>, Error> {
        self.slot.identity()
    }

    fn trust(&self) -> Result<Arc<TrustMaterial>, Error> {
        self.slot.trust()
    }

    fn may_revoke(&self) -> bool {
        true
    }

    fn settled(&self) -> Settled {
        self.slot.settled()
    }
}

impl fmt::Debug for Sds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sds").field("server", &self.0.uri).finish_non_exhaustive()
    }
}

/// Keeps the secrets of an [`Sds`] fresh for as long as it is polled, inside a Tokio runtime with time. It never ends.
pub struct SdsRun {
    shared: Arc<Shared>,
    changed: Reader<()>,
    driver: Driver,
    asked: BTreeMap<Name, Weak<Held>>,
    events: Arc<dyn EventSink>,
    is_new: bool,
}

impl SdsRun {
    /// Asks for what is held, and no more for what is not.
    fn follow(&mut self) {
        let held: BTreeMap<_, _> = {
            let mut secrets = self.shared.secrets();
            secrets.retain(|_, held| held.strong_count() > 0);
            secrets.clone()
        };
        for (name, secret) in &held {
            if !self.asked.get(name).is_some_and(|asked| asked.ptr_eq(secret)) {
                // Of what is asked for already, it is told again what is known: this one has not heard it.
                self.driver.subscribe(&key(name));
            }
        }
        for name in self.asked.keys().filter(|name| !held.contains_key(*name)) {
            self.driver.unsubscribe(&key(name));
        }
        self.asked = held;
    }

    fn take(&self, event: &ResourceEvent) {
        let name = &event.key().name;
        let Some(held) = self.asked.get(name).and_then(Weak::upgrade) else { return };
        let trouble = match event {
            ResourceEvent::Changed { value, .. } => match value.downcast_ref::<Secret>() {
                Some(secret) => return held.slot.set(secret),
                None => return,
            },
            ResourceEvent::Ambient { error: None, .. } => return,
            // A server that forgets a secret, or takes it away, is no reason to stop: its end is in the certificate.
            ResourceEvent::Ambient { error: Some(error), .. } | ResourceEvent::Unusable { error, .. } => {
                error.to_string()
            }
        };
        if held.slot.trouble(&*trouble) {
            let certificate = format!("secret `{name}` of SDS server {}", self.shared.uri).into();
            self.events.event(&Event::CertificateTrouble { certificate, reason: trouble });
        }
    }

    fn round(&mut self, cx: &mut Context<'_>) -> bool {
        let mut changed = std::mem::take(&mut self.is_new);
        while let Poll::Ready(Ok(())) = self.changed.poll_changed(cx) {
            changed = true;
        }
        if changed {
            self.follow();
        }
        while let Poll::Ready(event) = self.driver.poll_event(cx) {
            self.take(&event);
        }
        self.driver.poll_settled(cx).is_ready()
    }
}

fn key(name: &Name) -> ResourceKey {
    ResourceKey::new(SECRET, name.clone())
}

impl Future for SdsRun {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS {
            if !self.round(cx) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl fmt::Debug for SdsRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SdsRun").field("server", &self.shared.uri).finish_non_exhaustive()
    }
}
