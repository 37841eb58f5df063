//! The client, its servers and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::contents::{AUTHORITY, BAD, Contents, Decoder, EMPTY, MARK, TARGETS, universe};
use super::link::{Door, Link, Stream};
use super::{Checked, check};
use crate::ads::{Action, Authorities, Engine, FallbackScope, ResourceTypes, ServerId, Settings, Variant};
use crate::bootstrap::{Authority, Node, ServerConfig, ServerFeatures};
use crate::decode::DecodeResource;
use crate::error::{Code, Error};
use crate::graph::{Graph, Want};
use crate::model::{Name, RouteSource};
use crate::resource::{
    CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, ResourceEvent, ResourceKey, XdstpName,
};
use crate::snapshot::{Children, ClusterConfig, Snapshot, Update};
use crate::status::{ResourceStatus, State, UpdateFailure};

/// Longer than all that can be waited for one after the other: backoff, connecting, timers and grace.
const LONG: Duration = Duration::from_secs(180);
/// How long what was deleted or emptied may be used on.
const GRACE: Duration = Duration::from_secs(30);

pub(super) struct World {
    /// Whether everything that happens is written down.
    pub(super) is_traced: bool,
    start: Instant,
    random: fastrand::Rng,
    now: Instant,
    engine: Engine,
    graph: Graph,
    links: Vec<Link>,
    /// The servers of names without an authority and of those with one, the preferred one first.
    lists: [Vec<usize>; 2],
    contents: Contents,
    variant: Variant,
    tells_missing: bool,
    targets: BTreeSet<Name>,
    wanted: BTreeSet<ResourceKey>,
    in_force: BTreeMap<Name, Arc<Snapshot>>,
    /// What was said to be absent, and is used on.
    lapsing: BTreeSet<ResourceKey>,
    /// What is in its grace, and since when.
    grace: BTreeMap<ResourceKey, Instant>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let variant = if random.bool() { Variant::StateOfTheWorld } else { Variant::Incremental };
        let features = ServerFeatures {
            delta_grpc: variant == Variant::Incremental,
            fail_on_data_errors: random.u8(..4) == 0,
            ..ServerFeatures::default()
        };
        let servers = ["a", "b"].map(|uri| ServerConfig::insecure(uri).with_features(features));
        let servers = servers[..random.usize(1..=2)].to_vec();
        let own: Vec<usize> = (0..servers.len()).collect();
        let others = match random.u8(..3) {
            0 => vec![servers.len() - 1],
            1 => own.iter().rev().copied().collect(),
            _ => own.clone(),
        };
        let authority = Authority {
            servers: others.iter().map(|server| servers[*server].clone()).collect(),
            fallback_on_reachability_only: false,
        };
        let tells_missing = random.bool();
        let scope = if random.bool() { FallbackScope::Process } else { FallbackScope::Target };
        let settings = Settings { fallback_scope: scope, deletion_grace: Some(GRACE), ..Settings::default() };
        let now = Instant::now();
        let decoder: Arc<dyn DecodeResource> = Arc::new(Decoder);
        let types = ResourceTypes::standard(&decoder);
        Self {
            links: servers.iter().map(|_| Link::new(variant, tells_missing)).collect(),
            engine: Engine::new(
                Authorities::from(servers).with(AUTHORITY, &authority),
                &Node::default(),
                types,
                settings,
                seed,
            ),
            lists: [own, others],
            graph: Graph::new(),
            is_traced: false,
            start: now,
            now,
            contents: Contents::new(&mut random),
            random,
            variant,
            tells_missing,
            targets: BTreeSet::new(),
            wanted: BTreeSet::new(),
            in_force: BTreeMap::new(),
            lapsing: BTreeSet::new(),
            grace: BTreeMap::new(),
        }
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if self.is_traced {
            let _ = writeln!(std::io::stderr(), "{:9.3} {}", (self.now - self.start).as_secs_f64(), what());
        }
    }

    // -- what happens --

    pub(super) fn step(&mut self) -> Checked {
        let key = universe().swap_remove(self.random.usize(..universe().len()));
        let target: Name = TARGETS[self.random.usize(..TARGETS.len())].into();
        let link = self.random.usize(..self.links.len());
        let action = self.random.u8(..30);
        self.trace(|| format!("action {action}: {key}, {target}, server {link}"));
        match action {
            0..3 => self.come(&target),
            3 => self.go(&target),
            4 => {
                self.go(&target);
                self.pass_wants();
                self.come(&target);
            }
            5..10 => self.contents.mend(&key, &mut self.random),
            10 => self.contents.spoil(&key),
            11 => self.contents.delete(&key),
            12..15 => {
                if let Some(key) = self.contents.broken(&mut self.random) {
                    self.contents.mend(&key, &mut self.random);
                }
            }
            15 => self.tear(link),
            16 => {
                self.links[link].door = if self.random.bool() { Door::Closed } else { Door::Silent };
                self.tear(link);
            }
            17..19 => self.links[link].door = Door::Open,
            19 => self.links[link].stalls = true,
            20..22 => self.links[link].stalls = false,
            22 => self.garbage(link),
            23..27 => {
                let seconds = self.random.f64() * 3.0;
                self.live(Duration::from_secs_f64(seconds))?;
            }
            27 => {
                let seconds = self.random.f64() * 40.0;
                self.live(Duration::from_secs_f64(seconds))?;
            }
            28 => self.stay_away(&target, link, &key)?,
            29 => self.contents.empty(&key),
            _ => {}
        }
        self.settle()?;
        let turns = self.random.usize(..8);
        self.exchange(turns)
    }

    fn come(&mut self, target: &Name) {
        self.targets.insert(target.clone());
        self.graph.add_client(target, self.now);
    }

    fn go(&mut self, target: &Name) {
        self.targets.remove(target);
        self.in_force.remove(target);
        self.graph.remove_client(target, self.now);
    }

    /// A target is away for so long that the client forgets what it used, and a server reads nothing meanwhile. Then the server
    /// sends what has changed first, and heeds no request that was made before.
    fn stay_away(&mut self, target: &Name, link: usize, changed: &ResourceKey) -> Checked {
        if !self.targets.contains(target) || self.targets.len() == 1 {
            return Ok(());
        }
        self.links[link].stalls = true;
        self.go(target);
        self.settle()?;
        self.live(Duration::from_secs(17))?;
        self.come(target);
        self.settle()?;
        self.exchange(2)?;
        self.contents.mend(changed, &mut self.random);
        self.links[link].stalls = false;
        Ok(())
    }

    fn tear(&mut self, link: usize) {
        if self.links[link].stream.is_some() {
            self.links[link].lose(self.now);
            self.engine.handle_lost(ServerId(link), "torn", self.now);
        }
    }

    fn garbage(&mut self, link: usize) {
        if self.links[link].stream.is_some() {
            let mut bytes: Vec<u8> = (0..self.random.usize(1..40)).map(|_| self.random.u8(..)).collect();
            bytes[0] = 0xff;
            bytes.truncate(4);
            self.engine.handle_message(ServerId(link), &bytes, self.now);
        }
    }

    /// Lets time pass, while messages go on.
    fn live(&mut self, duration: Duration) -> Checked {
        let end = self.now + duration;
        while self.now < end {
            self.wait(Duration::from_secs(1).min(end - self.now))?;
            self.exchange(2)?;
        }
        Ok(())
    }

    /// Lets time pass, doing what is due when it is due.
    fn wait(&mut self, duration: Duration) -> Checked {
        let end = self.now + duration;
        loop {
            let due = [self.engine.poll_timeout(), self.graph.poll_timeout()].into_iter().flatten().min();
            let Some(at) = due.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
            self.graph.handle_time(self.now);
            self.settle()?;
            check(self.engine.poll_timeout().is_none_or(|at| at > self.now), || "a deadline stays due".to_owned())?;
        }
        self.now = end;
        Ok(())
    }

    /// Moves some messages, in each direction and on each stream.
    fn exchange(&mut self, turns: usize) -> Checked {
        for _ in 0..turns {
            for index in 0..self.links.len() {
                self.turn(index)?;
            }
        }
        Ok(())
    }

    fn turn(&mut self, index: usize) -> Checked {
        let (id, now) = (ServerId(index), self.now);
        let link = &mut self.links[index];
        let Some(stream) = &mut link.stream else { return Ok(()) };
        if stream.writing.is_none() {
            stream.writing = self.engine.poll_request(id);
            if let Some(request) = stream.writing.as_ref().filter(|_| self.is_traced) {
                let text = String::from_utf8_lossy(request);
                let _ = writeln!(std::io::stderr(), "          server {index} is told {text:?}");
            }
        }
        if stream.writing.is_some() && self.random.u8(..4) > 0 {
            stream.written(now)?;
            self.engine.handle_written(id, now);
        }
        if link.stalls {
            return Ok(());
        }
        let random = &mut self.random;
        stream.push(self.contents.set(), |responses| {
            if random.u8(..4) == 0 {
                random.shuffle(responses);
            }
        });
        stream.answer();
        if let Some(message) = stream.receive() {
            link.outage = None;
            self.trace(|| format!("server {index} says {:?}", String::from_utf8_lossy(&message)));
            self.engine.handle_message(id, &message, now);
            self.settle()?;
            let is_used = |link: &Link| link.stream.is_some() || link.is_opening;
            let stays =
                (0..self.links.len()).find(|lower| is_used(&self.links[*lower]) && self.is_below(*lower, index));
            check(stays.is_none(), || format!("a fallback, {stays:?}, stays in use beside the preferred server"))?;
        }
        Ok(())
    }

    /// Whether the server is one to fall back to from the other, wherever it is used.
    fn is_below(&self, lower: usize, other: usize) -> bool {
        let place = |list: &Vec<usize>, server| list.iter().position(|known| *known == server);
        self.lists.iter().all(|list| match (place(list, lower), place(list, other)) {
            (Some(lower), Some(other)) => lower > other,
            (place, _) => place.is_none(),
        })
    }

    /// The servers of a resource.
    fn list_of(&self, key: &ResourceKey) -> &[usize] {
        &self.lists[usize::from(XdstpName::is_meant(&key.name))]
    }

    // -- what follows --

    /// A round of the configuration thread.
    fn settle(&mut self) -> Checked {
        self.pass_wants();
        while let Some(event) = self.engine.poll_resource() {
            self.trace(|| format!("told {event:?}"));
            self.hear(&event)?;
            self.graph.handle_event(event, self.now);
            self.pass_wants();
        }
        while let Some(update) = self.graph.poll_update() {
            self.put_in_force(update)?;
        }
        self.grace.iter().try_for_each(|(key, since)| self.is_in_time(key, *since))?;
        while self.engine.poll_event().is_some() {}
        while let Some(action) = self.engine.poll_action() {
            self.act(action)?;
        }
        // A server that was fallen back to may not be needed any more by the time it would be tried again.
        let needed: BTreeSet<usize> = self.wanted.iter().filter_map(|key| self.list_of(key).first().copied()).collect();
        self.links.iter_mut().enumerate().filter(|(index, _)| !needed.contains(index)).for_each(|(_, link)| {
            link.lost = None;
        });
        let known: BTreeSet<ResourceKey> = self.engine.resources().map(|status| status.key).collect();
        check(known == self.wanted, || format!("the engine has {known:?}, and wanted are {:?}", self.wanted))
    }

    /// As the configuration thread does it: subscribes before it unsubscribes.
    fn pass_wants(&mut self) {
        let mut dropped = Vec::new();
        while let Some(want) = self.graph.poll_wants() {
            match want {
                Want::Subscribe(key) => {
                    self.trace(|| format!("wants {key}"));
                    dropped.retain(|other| *other != key);
                    self.wanted.insert(key.clone());
                    self.engine.subscribe(&key, self.now);
                }
                Want::Unsubscribe(key) => dropped.push(key),
                Want::Claim(key, target) => self.engine.claim(&key, &target, self.now),
                Want::Release(key, target) => self.engine.release(&key, &target),
            }
        }
        for key in dropped {
            self.trace(|| format!("wants {key} no more"));
            self.wanted.remove(&key);
            self.grace.remove(&key);
            self.engine.unsubscribe(&key, self.now);
        }
    }

    fn act(&mut self, action: Action) -> Checked {
        self.trace(|| format!("{action:?}"));
        match action {
            Action::Close(id) => self.links[id.0].close(self.now),
            Action::Open(id) => {
                let link = &mut self.links[id.0];
                if let Some((at, patience)) = link.patience() {
                    let waited = self.now - at;
                    check(waited <= Duration::from_secs(patience), || {
                        format!("waited {waited:?} for server {}, and may have waited {patience} s", id.0)
                    })?;
                }
                link.is_opening = true;
                match link.door {
                    Door::Silent => {}
                    Door::Open => {
                        link.open(self.contents.set());
                        self.engine.handle_connected(id, self.now);
                    }
                    Door::Closed => {
                        link.lose(self.now);
                        self.engine.handle_lost(id, "refused", self.now);
                    }
                }
            }
        }
        Ok(())
    }

    /// What was deleted or emptied is not used on for longer than its grace, whatever is said of it meanwhile.
    fn is_in_time(&self, key: &ResourceKey, since: Instant) -> Checked {
        let passed = self.now - since;
        check(passed <= GRACE, || format!("{key} is used on for {passed:?}, longer than its grace"))
    }

    /// Nothing is said that did not happen.
    fn hear(&mut self, event: &ResourceEvent) -> Checked {
        match event {
            ResourceEvent::Ambient { key, lapsing: true, .. } => {
                if self.wanted.contains(key) {
                    self.grace.entry(key.clone()).or_insert(self.now);
                }
            }
            event => {
                if let Some(since) = self.grace.remove(event.key()) {
                    self.is_in_time(event.key(), since)?;
                }
            }
        }
        let (key, error) = match event {
            ResourceEvent::Ambient { key, error: Some(error), .. } | ResourceEvent::Unusable { key, error } => {
                (key, error)
            }
            ResourceEvent::Changed { key, .. } | ResourceEvent::Ambient { key, .. } => {
                self.lapsing.remove(key);
                return Ok(());
            }
        };
        let by_timer = ["said nothing about it in time", "sends others of its type but not this one"];
        if by_timer.iter().any(|text| error.message().contains(text)) {
            let asked = self.links.iter().filter_map(|link| link.stream.as_ref()?.asked.get(key));
            let is_due = { asked }.any(|at| self.now - *at >= Duration::from_secs(15));
            return check(is_due, || format!("the timer of {key} fired, and no stream asked for it 15 s ago"));
        }
        // As with the timer: so long may a server be silent at most.
        if error.message().contains("it is absent, though it was wanted for long enough") {
            // The end of its grace says it again, whatever became of the stream.
            let is_open = self.links.iter().any(|link| link.stream.is_some());
            let is_said = match event {
                ResourceEvent::Unusable { .. } => self.lapsing.remove(key),
                _ => !self.lapsing.insert(key.clone()),
            };
            return check(is_open || is_said, || format!("{key} was said to be absent without a stream"));
        }
        check(error.code() != Code::NO_ENDPOINTS || self.contents.was(key, EMPTY), || {
            format!("{key} never was empty: {error}")
        })?;
        check(error.code() != Code::RESOURCE_NOT_FOUND || self.contents.missed(key), || {
            format!("{key} was there all the time: {error}")
        })
    }

    /// What is in force is whole, and was sent.
    fn put_in_force(&mut self, update: Update) -> Checked {
        match update {
            Update::Failed { target, error, .. } => {
                let was = self.in_force.remove(&target);
                check(was.is_none() || error.code() != Code::NO_CONTROL_PLANE, || {
                    format!("`{target}` gets worse by an outage: {error}")
                })?;
            }
            Update::Client(snapshot) => {
                if let Some(old) = self.in_force.get(&snapshot.target) {
                    // A set that has nothing in it is no worse for an outage.
                    let was_empty = |name: &Name| {
                        self.contents.was(&ResourceKey::new(CLUSTER_LOAD_ASSIGNMENT, name.clone()), EMPTY)
                    };
                    let mut worse = unreached(&snapshot).into_iter();
                    let worse = worse.find(|name| !unreached(old).contains(name) && !was_empty(name));
                    check(worse.is_none(), || format!("`{}` gets worse by an outage at {worse:?}", snapshot.target))?;
                }
                for (name, port) in ports(&snapshot) {
                    let key = ResourceKey::new(CLUSTER_LOAD_ASSIGNMENT, name);
                    let was = port.is_none_or(|port| self.contents.was(&key, &port.to_string()));
                    check(was, || format!("{key} never was {port:?}"))?;
                }
                for name in named(&snapshot) {
                    check(snapshot.clusters.contains_key(&name), || {
                        format!("torn: the routes of `{}` name cluster `{name}`, which is not there", snapshot.target)
                    })?;
                }
                if self.targets.contains(&snapshot.target) {
                    self.in_force.insert(snapshot.target.clone(), snapshot);
                }
            }
            _ => {}
        }
        Ok(())
    }

    // -- in the end --

    /// All servers live, everything arrives, and time passes. Then the client has what they have.
    pub(super) fn calm(&mut self) -> Checked {
        for link in &mut self.links {
            link.door = Door::Open;
            link.stalls = false;
        }
        let end = self.now + LONG;
        while self.now < end {
            self.settle()?;
            self.quiet()?;
            let due = [self.engine.poll_timeout(), self.graph.poll_timeout()].into_iter().flatten();
            let next = due.chain([end]).min().unwrap_or(end);
            self.wait(next.saturating_duration_since(self.now))?;
        }
        self.settle()?;
        self.quiet()?;
        for status in self.engine.resources() {
            self.agrees(&status)?;
        }
        for target in &self.targets {
            self.is_in_force(target)?;
        }
        self.is_subscribed()?;
        self.contents.forget();
        Ok(())
    }

    /// Until nothing moves.
    fn quiet(&mut self) -> Checked {
        for _ in 0..200 {
            self.exchange(4)?;
            let streams = || self.links.iter().filter_map(|link| link.stream.as_ref());
            if streams().all(Stream::is_quiet) && streams().all(|stream| stream.owed.is_empty()) {
                return Ok(());
            }
        }
        let owed: Vec<_> = self.links.iter().filter_map(|link| Some(&link.stream.as_ref()?.owed)).collect();
        Err(format!("messages never end, or are never acknowledged: {owed:?}"))
    }

    fn agrees(&self, status: &ResourceStatus) -> Checked {
        let key = &status.key;
        let held = status.bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let said = || format!("{key} is {:?}, {held:?}, {:?}", status.state, status.failure);
        match self.contents.get(key) {
            None => {
                // A silent server says so only of Listeners and clusters, and only in state of the world.
                let is_told = self.tells_missing
                    || (self.variant == Variant::StateOfTheWorld && [LISTENER, CLUSTER].contains(&&*key.type_url));
                check(!is_told || held.is_none(), || format!("there is none, but {}", said()))
            }
            Some(BAD) => check(status.state == State::Nacked, || format!("it is bad, but {}", said())),
            Some(content) => {
                let is_right = held.as_deref() == Some(&format!("{}{MARK}{content}", key.name));
                let away =
                    |failure: &UpdateFailure| failure.error.code() == Code::NO_CONTROL_PLANE && self.owes_an_answer();
                let emptied = |failure: &UpdateFailure| content == EMPTY && failure.error.code() == Code::NO_ENDPOINTS;
                let is_fine = |failure: &UpdateFailure| away(failure) || emptied(failure);
                let is_well = status.state == State::Acked && status.failure.as_ref().is_none_or(is_fine);
                check(is_right && is_well, || format!("there is `{content}`, but {}", said()))
            }
        }
    }

    /// Whether the server never answers about something that is in use and was asked about: then it counts as away.
    fn owes_an_answer(&self) -> bool {
        let is_silent = self.variant == Variant::Incremental && !self.tells_missing;
        let is_gone = |status: ResourceStatus| status.bytes.is_some() && self.contents.get(&status.key).is_none();
        is_silent && self.engine.resources().any(is_gone)
    }

    /// As far as all is good on the way there.
    fn is_in_force(&self, target: &Name) -> Checked {
        let good = |type_url: &str, name: &str| {
            self.contents.get(&ResourceKey::new(type_url, name)).filter(|content| *content != BAD)
        };
        let Some(table) = good(LISTENER, target) else { return Ok(()) };
        let Some(clusters) = good(ROUTE_CONFIGURATION, table) else { return Ok(()) };
        let snapshot = self.in_force.get(target).ok_or_else(|| format!("`{target}` has no configuration"))?;
        let is_table = matches!(&snapshot.http.routes, RouteSource::Rds(name) if **name == *table);
        check(is_table && named(snapshot).iter().map(|name| &**name).eq(clusters.split(',')), || {
            format!("`{target}` does not use `{table}` with its clusters {clusters}")
        })?;
        let ports = ports(snapshot);
        for name in clusters.split(',').filter(|name| good(CLUSTER, name).is_some()) {
            let Some(port) = good(CLUSTER_LOAD_ASSIGNMENT, name) else { continue };
            let found = ports.get(name).copied().flatten();
            let expected = Some(port).filter(|port| *port != EMPTY);
            check(found.map(|port| port.to_string()).as_deref() == expected, || {
                format!("`{target}` uses {found:?} of cluster `{name}`, and not {port}")
            })?;
        }
        Ok(())
    }

    fn is_subscribed(&self) -> Checked {
        for (index, link) in self.links.iter().enumerate() {
            let is_its = |key: &&ResourceKey| self.list_of(key).first() == Some(&index);
            let wanted: BTreeSet<ResourceKey> = self.wanted.iter().filter(is_its).cloned().collect();
            if wanted.is_empty() {
                continue;
            }
            let stream = link.stream.as_ref().ok_or("the preferred server is not in use")?;
            let subscribed: BTreeSet<ResourceKey> = stream.responder.subscriptions().collect();
            check(subscribed == wanted, || format!("subscribed is {subscribed:?}, wanted is {wanted:?}"))?;
        }
        Ok(())
    }

    /// Every target goes, and nothing stays.
    pub(super) fn end(&mut self) -> Checked {
        for target in TARGETS {
            self.go(&target.into());
        }
        self.settle()?;
        self.wait(Duration::from_secs(400))?;
        check(self.graph.is_idle() && self.wanted.is_empty(), || format!("{:?} is left in the graph", self.graph))?;
        let is_open = self.links.iter().any(|link| link.stream.is_some() || link.is_opening);
        check(!is_open, || "a stream stays open that nobody needs".to_owned())?;
        check(self.engine.poll_timeout().is_none(), || "a timer of nothing runs".to_owned())
    }
}

/// The clusters that the routes name.
fn named(snapshot: &Snapshot) -> Vec<Name> {
    let mut names: Vec<Name> =
        snapshot.routes.virtual_hosts.iter().flat_map(|host| snapshot.routes.clusters_of(host)).collect();
    names.sort_unstable();
    names
}

/// The clusters of which nothing is known for want of a server that can be reached.
fn unreached(snapshot: &Snapshot) -> BTreeSet<Name> {
    let is_away = |error: &Error| error.code() == Code::NO_CONTROL_PLANE;
    let is_unreached = |verdict: &Result<Arc<ClusterConfig>, Error>| match verdict {
        Err(error) => is_away(error),
        Ok(config) => match &config.children {
            Children::Endpoints { endpoints, note, .. } => endpoints.is_empty() && note.as_ref().is_some_and(is_away),
            Children::Leaves(_) => false,
        },
    };
    snapshot.clusters.iter().filter(|(_, verdict)| is_unreached(verdict)).map(|(name, _)| name.clone()).collect()
}

/// The port of each cluster's one endpoint; None: it has none.
fn ports(snapshot: &Snapshot) -> BTreeMap<Name, Option<u16>> {
    let port = |config: &ClusterConfig| match &config.children {
        Children::Endpoints { endpoints, .. } => {
            let first = endpoints.localities.first().and_then(|locality| locality.endpoints.first());
            first.and_then(|endpoint| endpoint.address.to_string().rsplit(':').next()?.parse().ok())
        }
        Children::Leaves(_) => None,
    };
    let each =
        |(name, verdict): (&Name, &Result<Arc<_>, _>)| (name.clone(), verdict.as_ref().ok().and_then(|c| port(c)));
    snapshot.clusters.iter().map(each).collect()
}
