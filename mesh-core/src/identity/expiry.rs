//! The alarm well before certificates expire: whatever rotates them has stopped doing so.
//!
//! Sources renew at half of a certificate's life or at two thirds. When three quarters are over, or 30 days are left of a long
//! life, nothing has renewed it, and there is still time to find out why. It is said again near the end and at the end.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CertificateProviders, CertificateSource, Roots, Sans};
use crate::event::{Event, Material};
use crate::model::Name;

/// The first alarm: so much of the life is left.
const EARLY: (u32, Duration) = (4, Duration::from_secs(30 * DAY));
/// The second.
const LATE: (u32, Duration) = (10, Duration::from_secs(3 * DAY));
const DAY: u64 = 24 * 3600;

/// From when until when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// `notBefore`.
    pub from: SystemTime,
    /// `notAfter`.
    pub until: SystemTime,
}

impl Validity {
    /// Of this certificate; None: it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let time =
            |seconds: i64| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        let validity = parsed.validity();
        Some(Self { from: time(validity.not_before.timestamp())?, until: time(validity.not_after.timestamp())? })
    }

    /// What is left of it at `now`.
    pub fn left(&self, now: SystemTime) -> Duration {
        self.until.duration_since(now).unwrap_or_default()
    }

    /// How far it has gone.
    fn stage(&self, now: SystemTime) -> Stage {
        let life = self.until.duration_since(self.from).unwrap_or_default();
        let left = self.left(now);
        let within = |(share, most): (u32, Duration)| left <= (life / share).min(most);
        match () {
            () if left.is_zero() => Stage::Expired,
            () if within(LATE) => Stage::Late,
            () if within(EARLY) => Stage::Early,
            () => Stage::Good,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Good,
    Early,
    Late,
    Expired,
}

/// Watches over the certificates of all sources. It has no clock: it is asked from time to time.
#[derive(Debug, Default)]
pub struct ExpiryWatch(BTreeMap<(Name, Material), Watched>);

#[derive(Debug)]
struct Watched {
    generation: u64,
    /// None: it cannot be read.
    validity: Option<Validity>,
    stage: Stage,
    names: String,
    /// It was there when it was last looked for.
    is_there: bool,
}

impl ExpiryWatch {
    /// What is to be said at `now`: what was taken since it was last asked, and what nears its end.
    pub fn check(&mut self, providers: &CertificateProviders, now: SystemTime) -> Vec<Event> {
        let mut events = Vec::new();
        self.0.values_mut().for_each(|watched| watched.is_there = false);
        for (instance, source) in providers.iter() {
            let parts = source.parts();
            if parts.is_empty() {
                self.look(instance, source.as_ref(), now, &mut events);
            }
            for (name, part) in parts {
                self.look(&format!("{instance}/{name}").into(), part.as_ref(), now, &mut events);
            }
        }
        self.0.retain(|_, watched| watched.is_there);
        events
    }

    fn look(&mut self, name: &Name, source: &dyn CertificateSource, now: SystemTime, events: &mut Vec<Event>) {
        if let Ok(identity) = source.identity() {
            let read = || {
                // The chain is as good as what ends first of it.
                let all: Option<Vec<_>> = identity.chain.iter().map(Validity::of).collect();
                let first = all.and_then(|all| all.into_iter().min_by_key(|validity| validity.until));
                let names = identity.chain.first().and_then(|leaf| Sans::read(leaf).ok());
                (first, names.map_or_else(String::new, |names| names.to_string()))
            };
            self.follow(name, Material::Identity, identity.generation, read, now, events);
        }
        if let Ok(trust) = source.trust() {
            let read = || (roots_validity(&trust.roots), String::new());
            self.follow(name, Material::Roots, trust.generation, read, now, events);
        }
    }

    fn follow(
        &mut self,
        name: &Name,
        material: Material,
        generation: u64,
        read: impl FnOnce() -> (Option<Validity>, String),
        now: SystemTime,
        events: &mut Vec<Event>,
    ) {
        let key = (name.clone(), material);
        let known = self.0.get_mut(&key).filter(|watched| watched.generation == generation);
        let watched = if let Some(watched) = known {
            watched
        } else {
            let (validity, names) = read();
            let watched = Watched { generation, validity, stage: Stage::Good, names: names.clone(), is_there: true };
            if let Some(validity) = validity {
                let (certificate, not_after) = (name.clone(), validity.until);
                events.push(Event::CertificateTaken { certificate, material, names, not_after });
            }
            self.0.insert(key.clone(), watched);
            let Some(watched) = self.0.get_mut(&key) else { return };
            watched
        };
        watched.is_there = true;
        let Some(validity) = watched.validity else { return };
        let stage = validity.stage(now);
        if stage > watched.stage {
            let (certificate, names, left) = (name.clone(), watched.names.clone(), validity.left(now));
            events.push(if stage == Stage::Expired {
                Event::CertificateExpired { certificate, material, names }
            } else {
                Event::CertificateExpiring { certificate, material, names, left }
            });
        }
        watched.stage = stage;
    }
}

/// Old roots end while newer ones stand beside them: nobody is missed until the last of a trust domain ends.
fn roots_validity(roots: &Roots) -> Option<Validity> {
    let last = |roots: &Vec<CertificateDer<'static>>| {
        roots.iter().filter_map(Validity::of).max_by_key(|validity| validity.until)
    };
    match roots {
        Roots::Any(roots) => last(roots),
        Roots::ByTrustDomain(map) => map.values().filter_map(last).min_by_key(|validity| validity.until),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::StaticSource;
    use crate::identity::testing::{certificate, key};

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(hours: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + HOUR * hours
    }

    fn said(events: &[Event]) -> Vec<String> {
        events.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_certificate_that_is_not_renewed_is_said_well_before_its_end_and_only_once_for_each_stage() {
        let source = Arc::new(StaticSource::new());
        let providers = CertificateProviders::new().with("default", source.clone());
        let mut watch = ExpiryWatch::default();
        assert!(watch.check(&providers, at(0)).is_empty(), "what is not there does not end");
        source.set_identity(vec![certificate(at(0), at(24))], key());
        let taken = watch.check(&providers, at(1));
        assert!(
            matches!(&taken[..], [Event::CertificateTaken { material: Material::Identity, not_after, .. }] if *not_after == at(24))
        );
        assert!(watch.check(&providers, at(17)).is_empty());
        let early = watch.check(&providers, at(18));
        assert!(matches!(&early[..], [Event::CertificateExpiring { left, .. }] if *left == 6 * HOUR), "{early:?}");
        assert!(said(&early)[0].contains("`default`"), "{early:?}");
        assert!(watch.check(&providers, at(19)).is_empty(), "once");
        assert_eq!(watch.check(&providers, at(22)).len(), 1, "again near its end");
        let end = watch.check(&providers, at(24));
        assert!(matches!(&end[..], [Event::CertificateExpired { .. }]), "{end:?}");
        source.set_identity(vec![certificate(at(24), at(48))], key());
        let renewed = watch.check(&providers, at(25));
        assert!(matches!(&renewed[..], [Event::CertificateTaken { .. }]), "{renewed:?}");
        assert_eq!(watch.check(&providers, at(43)).len(), 1, "the new one has an alarm of its own");
    }

    #[test]
    fn a_long_life_is_said_a_month_before_its_end() {
        let source = Arc::new(StaticSource::new());
        let providers = CertificateProviders::new().with("default", source.clone());
        let mut watch = ExpiryWatch::default();
        let days = |days: u32| at(days * 24);
        source.set_trust(vec![certificate(days(0), days(3650))]);
        assert_eq!(watch.check(&providers, days(3000)).len(), 1, "it was taken");
        assert!(watch.check(&providers, days(3619)).is_empty());
        let early = watch.check(&providers, days(3620));
        assert!(matches!(&early[..], [Event::CertificateExpiring { material: Material::Roots, .. }]), "{early:?}");
    }

    #[test]
    fn roots_that_end_beside_newer_ones_are_no_alarm() {
        let source = Arc::new(StaticSource::new());
        let providers = CertificateProviders::new().with("default", source.clone());
        let mut watch = ExpiryWatch::default();
        source.set_trust(vec![certificate(at(0), at(24)), certificate(at(12), at(240))]);
        watch.check(&providers, at(13));
        assert!(watch.check(&providers, at(30)).is_empty());
        let other = (String::from("b"), vec![certificate(at(0), at(40))]);
        let map = [(String::from("a"), vec![certificate(at(0), at(400))]), other];
        source.set_roots(Roots::ByTrustDomain(map.into()));
        watch.check(&providers, at(29));
        assert_eq!(watch.check(&providers, at(31)).len(), 1, "one trust domain's roots end");
    }
}
