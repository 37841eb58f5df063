//! The buckets of one filter configuration.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::bucket::Bucket;
use super::descriptor::Descriptor;
use crate::model::{LimitDescriptor, LocalRateLimit, TokenBucket};

/// The buckets of one filter configuration. Asking takes no lock.
#[derive(Debug)]
pub struct Limiter {
    default: Option<Arc<Bucket>>,
    always_default: bool,
    exact: HashMap<Descriptor, Rule>,
    open: Vec<Open>,
}

#[derive(Debug, Clone)]
struct Rule {
    bucket: Arc<Bucket>,
    shadow: bool,
}

/// A descriptor that leaves values open: each value has a bucket, up to a bound.
#[derive(Debug)]
struct Open {
    entries: Vec<(String, Option<String>)>,
    config: TokenBucket,
    shadow: bool,
    most: usize,
    buckets: ArcSwap<HashMap<Descriptor, Arc<Bucket>>>,
}

/// What a limiter says to a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// Whether it is within every limit.
    pub allowed: bool,
    /// What is left of the limit that decided; None if there was none.
    pub left: Option<Left>,
}

/// What is left of a limit, for `x-ratelimit-*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// What its bucket holds.
    pub limit: u32,
    /// What is in it.
    pub remaining: u32,
    /// How long until there is more.
    pub reset: Duration,
}

impl Limiter {
    /// Full buckets for `policy`.
    pub fn new(policy: &LocalRateLimit, now: Instant) -> Self {
        let bucket = |config: &TokenBucket| Arc::new(Bucket::new(config, now));
        let mut exact = HashMap::new();
        let mut open = Vec::new();
        for rule in &policy.descriptors {
            match whole(rule) {
                Some(descriptor) => {
                    exact.entry(descriptor).or_insert(Rule { bucket: bucket(&rule.bucket), shadow: rule.shadow });
                }
                None => open.push(Open {
                    entries: rule.entries.clone(),
                    config: rule.bucket,
                    shadow: rule.shadow,
                    most: policy.most_dynamic.max(1) as usize,
                    buckets: ArcSwap::default(),
                }),
            }
        }
        Self { default: policy.bucket.as_ref().map(bucket), always_default: policy.always_default, exact, open }
    }

    /// Takes a token of every bucket that is for the request, the slowest first, and of the default one where nothing else
    /// is for it or the configuration says so (Envoy).
    pub fn judge(&self, descriptors: &[Descriptor], now: Instant) -> Judgement {
        let mut rules: Vec<Rule> = descriptors.iter().filter_map(|descriptor| self.find(descriptor, now)).collect();
        rules.sort_by(|a, b| a.bucket.rate().total_cmp(&b.bucket.rate()));
        for rule in &rules {
            if !rule.bucket.take(now) && !rule.shadow {
                return judged(false, Some(&rule.bucket), now);
            }
        }
        let first = rules.first().map(|rule| &rule.bucket);
        match &self.default {
            Some(default) if rules.is_empty() || self.always_default => {
                if default.take(now) {
                    judged(true, first.or(Some(default)), now)
                } else {
                    judged(false, Some(default), now)
                }
            }
            _ => judged(true, first, now),
        }
    }

    fn find(&self, descriptor: &Descriptor, now: Instant) -> Option<Rule> {
        let open = || self.open.iter().find(|open| open.is_for(descriptor)).map(|open| open.rule(descriptor, now));
        self.exact.get(descriptor).cloned().or_else(open)
    }
}

fn judged(allowed: bool, bucket: Option<&Arc<Bucket>>, now: Instant) -> Judgement {
    let left = bucket.map(|bucket| Left {
        limit: bucket.max() as u32,
        remaining: bucket.tokens(now) as u32,
        reset: bucket.next_token(now),
    });
    Judgement { allowed, left }
}

/// The descriptor that an entry without open values is for.
fn whole(rule: &LimitDescriptor) -> Option<Descriptor> {
    rule.entries.iter().map(|(key, value)| Some((key.clone(), value.clone()?))).collect()
}

impl Open {
    fn is_for(&self, descriptor: &Descriptor) -> bool {
        let fits = |((key, value), (asked, said)): (&(String, Option<String>), &(String, String))| {
            key == asked && value.as_ref().is_none_or(|value| value == said)
        };
        self.entries.len() == descriptor.len() && self.entries.iter().zip(descriptor).all(fits)
    }

    fn rule(&self, descriptor: &Descriptor, now: Instant) -> Rule {
        let known = self.buckets.load().get(descriptor).cloned();
        Rule { bucket: known.unwrap_or_else(|| self.add(descriptor, now)), shadow: self.shadow }
    }

    /// A bucket for a new value. Where all places are taken, the fullest bucket goes: a new one in its place would be as
    /// full, so that whoever makes up values gets at nobody else's count.
    fn add(&self, descriptor: &Descriptor, now: Instant) -> Arc<Bucket> {
        let new = Arc::new(Bucket::new(&self.config, now));
        let added = |buckets: &Arc<HashMap<Descriptor, Arc<Bucket>>>| {
            if buckets.contains_key(descriptor) {
                return buckets.clone();
            }
            let mut next = HashMap::clone(buckets);
            if next.len() >= self.most {
                let tokens = |bucket: &Bucket| bucket.tokens(now);
                let fullest = next.iter().max_by(|(_, a), (_, b)| tokens(a).total_cmp(&tokens(b)));
                if let Some(fullest) = fullest.map(|(descriptor, _)| descriptor.clone()) {
                    next.remove(&fullest);
                }
            }
            next.insert(descriptor.clone(), new.clone());
            Arc::new(next)
        };
        self.buckets.rcu(added);
        // Somebody else may have been first, or have pushed this one out again.
        self.buckets.load().get(descriptor).cloned().unwrap_or(new)
    }
}
