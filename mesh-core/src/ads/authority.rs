//! Which servers a resource comes from, and which of them its users have fallen back to (`spec` sections 2.7 and 2.10; gRFCs
//! A47, A71, A95).
//!
//! Every authority of `xdstp:` names has an ordered list of servers; all other names belong to the bootstrap's own list.
//! Servers that are equal are one, with one stream, whatever lists they are in. In each list the users of resources (targets)
//! stand at a place: at the first server, or further down if those before cannot be reached and something is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::cache::Entry;
use super::settings::FallbackScope;
use crate::bootstrap::{Authority, Bootstrap, ServerConfig};
use crate::model::Name;
use crate::resource::{ResourceKey, WILDCARD, XdstpName};

/// The servers of a client, by the authorities whose resources they give.
#[derive(Debug, Clone)]
pub struct Authorities {
    servers: Vec<ServerConfig>,
    lists: Vec<List>,
}

#[derive(Debug, Clone)]
struct List {
    /// None: of all names that are no `xdstp:` names.
    name: Option<String>,
    /// Places in [`Authorities::servers`], the preferred one first.
    servers: Vec<usize>,
    reachability_only: bool,
}

impl Authorities {
    /// With the authority `name`, whose servers are the bootstrap's own unless it has some.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, authority: &Authority) -> Self {
        let own = self.lists.first().map(|list| list.servers.clone()).unwrap_or_default();
        let servers = if authority.servers.is_empty() { own } else { self.places(authority.servers.clone()) };
        let reachability_only = authority.fallback_on_reachability_only;
        self.lists.push(List { name: Some(name.into()), servers, reachability_only });
        self
    }

    /// Where these servers are, each once; those that are new are added.
    fn places(&mut self, servers: Vec<ServerConfig>) -> Vec<usize> {
        let mut places = Vec::new();
        for server in servers {
            let place = self.servers.iter().position(|known| *known == server).unwrap_or_else(|| {
                self.servers.push(server);
                self.servers.len() - 1
            });
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    /// The servers, and the state in which nothing is wanted.
    pub(super) fn start(self, scope: FallbackScope) -> (Vec<ServerConfig>, Lists) {
        let start = |list: List| AuthorityState {
            name: list.name,
            servers: list.servers,
            reachability_only: list.reachability_only,
            wanted: 0,
            idle: None,
            unreachable: false,
            depth: 0,
            users: BTreeMap::new(),
        };
        (self.servers, Lists { lists: self.lists.into_iter().map(start).collect(), scope })
    }
}

/// One list of servers, the preferred one first, and no authorities.
impl From<Vec<ServerConfig>> for Authorities {
    fn from(servers: Vec<ServerConfig>) -> Self {
        let mut all = Self { servers: Vec::new(), lists: Vec::new() };
        let servers = all.places(servers);
        all.lists.push(List { name: None, servers, reachability_only: false });
        all
    }
}

impl From<&Bootstrap> for Authorities {
    fn from(bootstrap: &Bootstrap) -> Self {
        let own = Self::from(bootstrap.servers.clone());
        bootstrap.authorities.iter().fold(own, |all, (name, authority)| all.with(name, authority))
    }
}

/// Every authority while the client runs.
pub(super) struct Lists {
    lists: Vec<AuthorityState>,
    scope: FallbackScope,
}

/// One authority.
pub(super) struct AuthorityState {
    name: Option<String>,
    pub(super) servers: Vec<usize>,
    /// Whether the next server is tried even if nothing is missing (gRFC A95).
    pub(super) reachability_only: bool,
    /// How many of its resources are wanted.
    pub(super) wanted: usize,
    /// When nothing has been wanted for long enough.
    pub(super) idle: Option<Instant>,
    /// Whether anyone was told that no server can be reached, since one last answered.
    pub(super) unreachable: bool,
    /// The place of whoever went furthest.
    depth: usize,
    users: BTreeMap<User, Place>,
}

/// Who falls back as one: a target with all its resources, as it has an `XdsClient` of its own in gRFC A71. A resource of
/// which no target is known stands for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum User {
    Target(Name),
    Resource(ResourceKey),
}

/// Where a user stands in the list, and for how many resources.
#[derive(Default)]
struct Place {
    at: usize,
    resources: usize,
}

impl AuthorityState {
    /// A server's place in the list.
    pub(super) fn place_of(&self, server: usize) -> Option<usize> {
        self.servers.iter().position(|known| *known == server)
    }

    /// Whether the server is in use: the first one is, and those that were fallen back to.
    pub(super) fn uses(&self, server: usize) -> bool {
        self.place_of(server).is_some_and(|place| place <= self.depth)
    }

    /// The servers in use.
    pub(super) fn used(&self) -> &[usize] {
        self.servers.get(..=self.depth).unwrap_or(&self.servers)
    }

    fn at(&self, user: &User) -> usize {
        self.users.get(user).map_or(0, |place| place.at)
    }

    /// Nobody is anywhere but at the first server.
    pub(super) fn forget(&mut self) {
        self.depth = 0;
        self.users.clear();
    }
}

impl Lists {
    /// The authority of a resource.
    ///
    /// # Errors
    ///
    /// Why it has none: it is never asked for.
    pub(super) fn find(&self, key: &ResourceKey) -> Result<usize, String> {
        if !XdstpName::is_meant(&key.name) {
            return Ok(0);
        }
        if let Some(why) = crate::resource::name_fault(&key.type_url, &key.name) {
            return Err(format!("its name {why}"));
        }
        let authority = XdstpName::parse(&key.name)?.authority().to_owned();
        let known = self.lists.iter().position(|list| list.name.as_ref() == Some(&authority));
        known.ok_or_else(|| format!("the bootstrap has no authority `{authority}`"))
    }

    pub(super) fn get(&self, authority: usize) -> &AuthorityState {
        &self.lists[authority]
    }

    pub(super) fn get_mut(&mut self, authority: usize) -> &mut AuthorityState {
        &mut self.lists[authority]
    }

    pub(super) fn indices(&self) -> std::ops::Range<usize> {
        0..self.lists.len()
    }

    /// Whether something is wanted from the server.
    pub(super) fn needs(&self, server: usize) -> bool {
        self.lists.iter().any(|list| list.wanted > 0 && list.uses(server))
    }

    /// Whether the stream to the server stays open: something is wanted from it, or was a short time ago.
    pub(super) fn keeps(&self, server: usize) -> bool {
        self.lists.iter().any(|list| (list.wanted > 0 || list.idle.is_some()) && list.uses(server))
    }

    /// Whether the resource is asked for from this server.
    pub(super) fn asks(&self, server: usize, type_url: &Name, name: &Name, entry: &Entry) -> bool {
        let list = &self.lists[entry.authority];
        let Some(place) = list.place_of(server) else { return false };
        match self.scope {
            _ if place == 0 => true,
            FallbackScope::Process => place <= list.depth,
            FallbackScope::Target => self.users(type_url, name, entry).iter().any(|user| list.at(user) >= place),
        }
    }

    /// Whether what the server says of the resource counts. From a preferred server, everything; from one that was fallen
    /// back to, what nothing is cached of, and values for those who fell back to it, unless others use the cached one.
    pub(super) fn listens(&self, server: usize, key: &ResourceKey, entry: &Entry, is_value: bool) -> bool {
        if !self.asks(server, &key.type_url, &key.name, entry) {
            return false;
        }
        let list = &self.lists[entry.authority];
        let (Some(place), Some(held)) = (list.place_of(server), &entry.held) else { return true };
        let is_preferred = list.place_of(held.server).is_none_or(|from| place <= from);
        let fell_back = || self.users(&key.type_url, &key.name, entry).iter().all(|user| list.at(user) >= place);
        is_preferred || (is_value && fell_back())
    }

    /// Who uses a resource.
    pub(super) fn users(&self, type_url: &Name, name: &Name, entry: &Entry) -> BTreeSet<User> {
        let name = if entry.is_named { name.clone() } else { WILDCARD.into() };
        if entry.users.is_empty() {
            return BTreeSet::from([User::Resource(ResourceKey::new(type_url.clone(), name))]);
        }
        entry.users.iter().cloned().map(User::Target).collect()
    }

    /// Whether it matters who uses resources: only where there is a server to fall back to.
    pub(super) fn has_fallback(&self, authority: usize) -> bool {
        self.lists[authority].servers.len() > 1
    }

    /// `user` uses one more resource.
    pub(super) fn claim(&mut self, authority: usize, user: User) {
        if self.has_fallback(authority) {
            self.lists[authority].users.entry(user).or_default().resources += 1;
        }
    }

    /// `user` uses one less.
    pub(super) fn release(&mut self, authority: usize, user: &User) {
        let scope = self.scope;
        let list = &mut self.lists[authority];
        let Some(place) = list.users.get_mut(user) else { return };
        place.resources -= 1;
        if place.resources > 0 {
            return;
        }
        let gone = list.users.remove(user).map_or(0, |place| place.at);
        if scope == FallbackScope::Target && gone > 0 && gone == list.depth && list.wanted > 0 {
            list.depth = list.users.values().map(|place| place.at).max().unwrap_or(0);
        }
    }

    /// Moves users that miss something past the servers that fail. Whether any moved.
    pub(super) fn descend(&mut self, authority: usize, users: &BTreeSet<User>, fails: impl Fn(usize) -> bool) -> bool {
        let list = &mut self.lists[authority];
        let mut moved = false;
        for user in users {
            let Some(place) = list.users.get_mut(user) else { continue };
            while place.at + 1 < list.servers.len() && fails(list.servers[place.at]) {
                place.at += 1;
                moved = true;
            }
            list.depth = list.depth.max(place.at);
        }
        moved
    }

    /// The server answered: whoever went past it comes back. Whether anyone did.
    pub(super) fn ascend(&mut self, authority: usize, server: usize) -> bool {
        let list = &mut self.lists[authority];
        let Some(place) = list.place_of(server).filter(|place| *place < list.depth) else { return false };
        list.depth = place;
        list.users.values_mut().for_each(|user| user.at = user.at.min(place));
        true
    }
}
