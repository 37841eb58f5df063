//! One root and its walk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::clusters::{ClusterWalk, Clusters, Verdict, same_error};
use super::direct::everything_to;
use super::dynamic::Dynamic;
use super::nodes::{Found, Inquiry, Nodes};
use crate::error::{Code, Error};
use crate::model::{HttpConnection, Listener, ListenerKind, Name, RouteSource, RouteTable, ServerListener};
use crate::planted::{Mistake, planted};
use crate::resource::{LISTENER, ROUTE_CONFIGURATION, ResourceKey, XdstpName};
use crate::route::RouteIndex;
use crate::snapshot::{ServerSnapshot, Snapshot, Update};
use crate::target::cluster_of;

/// Which root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TargetId {
    /// A client target.
    Client(Name),
    /// A listening address.
    Server(Name),
}

impl TargetId {
    /// What a source knows it by: a client and a server may have a Listener of the same name.
    pub(super) fn user(&self) -> Name {
        match self {
            Self::Client(name) => name.clone(),
            Self::Server(name) => format!("server {name}").into(),
        }
    }
}

/// A root.
#[derive(Debug, Default)]
pub(super) struct Target {
    /// What its last walk met.
    pub(super) needs: BTreeSet<ResourceKey>,
    /// The clusters of its last walk and of what is published.
    pub(super) clusters: BTreeSet<Name>,
    /// Clusters that requests named.
    dynamic: Dynamic,
    published: Option<Published>,
    /// What is missing in what is published for want of a control plane.
    unreached: BTreeSet<ResourceKey>,
    failed: Option<Error>,
    /// What a target that is one cluster has in place of a Listener and routes.
    direct: Option<ClientParts>,
    /// The clusters that the routes name, so that a large table is gone through once.
    named: Option<(Arc<RouteTable>, Arc<[Name]>)>,
}

#[derive(Debug)]
enum Published {
    Client(Arc<Snapshot>),
    Server(Arc<ServerSnapshot>),
}

/// The result of a walk.
pub(super) struct Walked {
    pub(super) needs: BTreeSet<ResourceKey>,
    pub(super) update: Option<Update>,
}

/// Whether `update` is for the root `id`.
pub(super) fn is_for(update: &Update, id: &TargetId) -> bool {
    match (update, id) {
        (Update::Client(snapshot), TargetId::Client(name)) => snapshot.target == *name,
        (Update::Server(snapshot), TargetId::Server(name)) => snapshot.target == *name,
        (Update::Failed { target, .. }, TargetId::Client(name)) => target == name,
        (Update::ServerFailed { target, .. }, TargetId::Server(name)) => target == name,
        _ => false,
    }
}

/// How far a walk over Listener and routes got.
enum Step<T> {
    Pending,
    Failed(Error),
    /// There is no such Listener.
    Absent(Error),
    Done(T),
}

impl Target {
    pub(super) fn walk(&mut self, id: &TargetId, nodes: &Nodes, clusters: &mut Clusters, version: u64) -> Walked {
        let excused = self.published.as_ref().map(|_| self.unreached.clone());
        let mut inquiry = Inquiry::new(nodes, excused.as_ref());
        let update = match id {
            TargetId::Client(name) => self.walk_client(name, &mut inquiry, clusters, version),
            TargetId::Server(name) => self.walk_server(name, &mut inquiry, version),
        };
        Walked { needs: inquiry.needs, update }
    }

    fn walk_client(
        &mut self,
        name: &Name,
        inquiry: &mut Inquiry<'_>,
        clusters: &mut Clusters,
        version: u64,
    ) -> Option<Update> {
        let found = match cluster_of(name) {
            Some(cluster) => Step::Done(self.direct.get_or_insert_with(|| everything_to(cluster, name)).clone()),
            None => client_routes(name, inquiry),
        };
        let parts = match found {
            Step::Failed(error) => return self.fail_client(name, error, false),
            Step::Absent(error) => return self.fail_client(name, error, true),
            Step::Pending => return self.keep_client(name, None, inquiry, clusters, version),
            Step::Done(parts) => parts,
        };
        let walk = self.walk_clusters(name, &parts.routes, inquiry, clusters);
        if walk.pending && !planted(Mistake::Torn) {
            return self.keep_client(name, Some(&parts.routes), inquiry, clusters, version);
        }
        self.unreached = inquiry.unreached.clone();
        self.clusters.clear();
        self.publish_walked(name, parts, walk, inquiry, clusters, version)
    }

    fn walk_clusters(
        &mut self,
        name: &Name,
        routes: &Arc<RouteTable>,
        inquiry: &mut Inquiry<'_>,
        clusters: &mut Clusters,
    ) -> ClusterWalk {
        let mut walk = ClusterWalk::default();
        for cluster in self.named_clusters(name, routes).iter() {
            walk.visit(cluster, inquiry, clusters);
        }
        walk
    }

    /// The clusters of every virtual host that serves the target's name; of all of them if none does.
    ///
    /// istiod sends other services' virtual hosts along, and their clusters are none of this target's business.
    fn named_clusters(&mut self, name: &Name, routes: &Arc<RouteTable>) -> Arc<[Name]> {
        if let Some((of, named)) = &self.named
            && Arc::ptr_eq(of, routes)
        {
            return named.clone();
        }
        let index = RouteIndex::new(routes.clone());
        // The context of an `xdstp:` name is no part of it.
        let path = name.split_once('?').filter(|_| XdstpName::is_meant(name)).map_or(&**name, |(path, _)| path);
        let authority = path.rsplit('/').next().unwrap_or(path);
        let without_port = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let mut hosts: Vec<_> = [authority, without_port].iter().filter_map(|name| index.virtual_host(name)).collect();
        if routes.vhost_header.is_some() {
            // Which virtual host a request takes, its headers say.
            hosts.clear();
        }
        if hosts.is_empty() {
            hosts = routes.virtual_hosts.iter().collect();
        }
        let mut named: Vec<Name> = hosts.into_iter().flat_map(|host| routes.clusters_of(host)).collect();
        named.sort_unstable();
        named.dedup();
        let named: Arc<[Name]> = named.into();
        self.named = Some((routes.clone(), named.clone()));
        named
    }

    /// Something is still on its way. The Listener in force stays, and with it its routes and clusters, each as new as it
    /// can be; `tried` is a table whose clusters are not all there.
    fn keep_client(
        &mut self,
        name: &Name,
        tried: Option<&Arc<RouteTable>>,
        inquiry: &mut Inquiry<'_>,
        clusters: &mut Clusters,
        version: u64,
    ) -> Option<Update> {
        let Some(Published::Client(old)) = &self.published else { return None };
        let old = old.clone();
        let newer = newer_routes(&old, inquiry);
        let is_tried = |routes: &Arc<RouteTable>| tried.is_some_and(|tried| Arc::ptr_eq(tried, routes));
        if let Some(parts) = newer.filter(|parts| !is_tried(&parts.routes)) {
            let walk = self.walk_clusters(name, &parts.routes, inquiry, clusters);
            if !walk.pending {
                self.clusters.clear();
                return self.publish_walked(name, parts, walk, inquiry, clusters, version);
            }
        }
        let mut walk = ClusterWalk::default();
        for (cluster, verdict) in &old.clusters {
            walk.keep(cluster, verdict, inquiry, clusters);
        }
        let (listener, http, routes) = (old.listener.clone(), old.http.clone(), old.routes.clone());
        let parts = ClientParts { listener, http, routes, note: old.note.clone() };
        self.publish_walked(name, parts, walk, inquiry, clusters, version)
    }

    /// Publishes the clusters that were walked to, and with them those that requests named. Of these each waits alone, so that a
    /// name that somebody made up keeps nothing back; and to who waits for one that is not there yet, an outage is an answer.
    fn publish_walked(
        &mut self,
        name: &Name,
        parts: ClientParts,
        mut walk: ClusterWalk,
        inquiry: &mut Inquiry<'_>,
        clusters: &mut Clusters,
        version: u64,
    ) -> Option<Update> {
        for cluster in self.dynamic.names() {
            match self.verdict(cluster) {
                Some(verdict) => walk.keep(cluster, verdict, inquiry, clusters),
                None => inquiry.taking_any_answer(|inquiry| walk.visit(cluster, inquiry, clusters)),
            }
        }
        self.clusters.extend(walk.found.keys().cloned());
        self.publish_client(name, parts, walk.found, version)
    }

    /// What is published of a cluster.
    fn verdict(&self, cluster: &Name) -> Option<&Verdict> {
        match &self.published {
            Some(Published::Client(snapshot)) => snapshot.clusters.get(cluster),
            _ => None,
        }
    }

    /// A request names this cluster. Whether it is one more.
    pub(super) fn add_dynamic(&mut self, cluster: &Name, now: Instant) -> bool {
        let mut dynamic = std::mem::take(&mut self.dynamic);
        let is_new = dynamic.add(cluster, now, |name| self.verdict(name).is_some_and(Verdict::is_err));
        self.dynamic = dynamic;
        is_new
    }

    pub(super) fn dynamic_names(&self) -> impl Iterator<Item = &Name> {
        self.dynamic.names()
    }

    /// Lets go of clusters that requests named and take no more. Whether there were any.
    pub(super) fn let_go_of_dynamic(&mut self, taken: &BTreeSet<Name>, now: Instant) -> bool {
        let mut dynamic = std::mem::take(&mut self.dynamic);
        let any = dynamic.let_go(taken, now, |name| self.verdict(name).is_some_and(Verdict::is_err));
        self.dynamic = dynamic;
        any
    }

    fn publish_client(
        &mut self,
        name: &Name,
        parts: ClientParts,
        found: BTreeMap<Name, Verdict>,
        version: u64,
    ) -> Option<Update> {
        self.failed = None;
        let ClientParts { listener, http, routes, note } = parts;
        if let Some(Published::Client(old)) = &self.published
            && Arc::ptr_eq(&old.listener, &listener)
            && Arc::ptr_eq(&old.routes, &routes)
            && same_verdicts(&old.clusters, &found)
            && same_error(old.note.as_ref(), note.as_ref())
        {
            return None;
        }
        let (target, clusters) = (name.clone(), found);
        let snapshot = Arc::new(Snapshot { version, target, listener, http, routes, clusters, note });
        self.published = Some(Published::Client(snapshot.clone()));
        Some(Update::Client(snapshot))
    }

    fn fail_client(&mut self, name: &Name, error: Error, absent: bool) -> Option<Update> {
        self.fail(&error).then(|| Update::Failed { target: name.clone(), error, absent })
    }

    fn fail_server(&mut self, name: &Name, error: Error) -> Option<Update> {
        self.fail(&error).then(|| Update::ServerFailed { target: name.clone(), error })
    }

    /// Nothing is in force any more. Whether that, or why, is news.
    fn fail(&mut self, error: &Error) -> bool {
        self.published = None;
        self.clusters.clear();
        self.named = None;
        let is_news = !same_error(self.failed.as_ref(), Some(error));
        self.failed = Some(error.clone());
        is_news
    }

    fn walk_server(&mut self, name: &Name, inquiry: &mut Inquiry<'_>, version: u64) -> Option<Update> {
        let (listener, server) = match server_listener(name, inquiry) {
            Step::Pending => return self.keep_server(name, inquiry, version),
            Step::Failed(error) | Step::Absent(error) => return self.fail_server(name, error),
            Step::Done(parts) => parts,
        };
        let (routes, pending) = tables(&listener, inquiry);
        if pending {
            return self.keep_server(name, inquiry, version);
        }
        self.unreached = inquiry.unreached.clone();
        self.publish_server(name, listener, server, routes, version)
    }

    /// Something is still on its way: the Listener in force stays, with its tables as they are now.
    fn keep_server(&mut self, name: &Name, inquiry: &mut Inquiry<'_>, version: u64) -> Option<Update> {
        let Some(Published::Server(old)) = &self.published else { return None };
        let old = old.clone();
        let (mut routes, _) = tables(&old.listener, inquiry);
        for (table, verdict) in &old.routes {
            routes.entry(table.clone()).or_insert_with(|| verdict.clone());
        }
        self.publish_server(name, old.listener.clone(), old.server.clone(), routes, version)
    }

    fn publish_server(
        &mut self,
        name: &Name,
        listener: Arc<Listener>,
        server: Arc<ServerListener>,
        routes: Tables,
        version: u64,
    ) -> Option<Update> {
        self.failed = None;
        if let Some(Published::Server(old)) = &self.published
            && Arc::ptr_eq(&old.listener, &listener)
            && same_tables(&old.routes, &routes)
        {
            return None;
        }
        let snapshot = Arc::new(ServerSnapshot { version, target: name.clone(), listener, server, routes });
        self.published = Some(Published::Server(snapshot.clone()));
        Some(Update::Server(snapshot))
    }
}

/// What a client's walk over Listener and routes found.
#[derive(Debug, Clone)]
pub(super) struct ClientParts {
    pub(super) listener: Arc<Listener>,
    pub(super) http: Arc<HttpConnection>,
    pub(super) routes: Arc<RouteTable>,
    /// What is wrong with either.
    pub(super) note: Option<Error>,
}

fn client_routes(name: &Name, inquiry: &mut Inquiry<'_>) -> Step<ClientParts> {
    let (listener, of_listener) = match inquiry.find::<Listener>(&ResourceKey::new(LISTENER, name.clone())) {
        Found::Pending => return Step::Pending,
        Found::Error(error) => return no_listener(error),
        Found::Value(listener, ambient, _) => (listener, ambient),
    };
    let ListenerKind::Client(http) = &listener.kind else {
        return Step::Failed(Error::new(
            Code::NOT_A_CLIENT_LISTENER,
            format!("Listener `{name}` is for servers: it has no api_listener"),
        ));
    };
    let http = http.clone();
    let (routes, of_routes) = match &http.routes {
        RouteSource::Inline(routes) => (routes.clone(), None),
        RouteSource::Rds(table) => {
            match inquiry.find::<RouteTable>(&ResourceKey::new(ROUTE_CONFIGURATION, table.clone())) {
                Found::Pending => return Step::Pending,
                Found::Error(error) => return Step::Failed(error),
                Found::Value(routes, ambient, _) => (routes, ambient),
            }
        }
    };
    Step::Done(ClientParts { listener, http, routes, note: of_listener.or(of_routes) })
}

/// The Listener in force with another table under the name it gives, if there is one. What is wrong with its successor is not
/// its own.
fn newer_routes(of: &Snapshot, inquiry: &mut Inquiry<'_>) -> Option<ClientParts> {
    let RouteSource::Rds(table) = &of.http.routes else { return None };
    match inquiry.find::<RouteTable>(&ResourceKey::new(ROUTE_CONFIGURATION, table.clone())) {
        Found::Value(routes, note, _) if !Arc::ptr_eq(&routes, &of.routes) => {
            Some(ClientParts { listener: of.listener.clone(), http: of.http.clone(), routes, note })
        }
        _ => None,
    }
}

fn server_listener(name: &Name, inquiry: &mut Inquiry<'_>) -> Step<(Arc<Listener>, Arc<ServerListener>)> {
    match inquiry.find::<Listener>(&ResourceKey::new(LISTENER, name.clone())) {
        Found::Pending => Step::Pending,
        Found::Error(error) => no_listener(error),
        Found::Value(listener, ..) => match &listener.kind {
            ListenerKind::Server(server) => {
                let server = server.clone();
                Step::Done((listener, server))
            }
            ListenerKind::Client(_) => Step::Failed(Error::new(
                Code::RESOURCE_REFUSED,
                format!("Listener `{name}` is for clients: it has an api_listener"),
            )),
        },
    }
}

/// The tables that a Listener's chains name, and whether one is still on its way.
fn tables(listener: &Listener, inquiry: &mut Inquiry<'_>) -> (Tables, bool) {
    let mut routes = BTreeMap::new();
    let mut pending = false;
    for http in listener.connections() {
        let RouteSource::Rds(table) = &http.routes else { continue };
        match inquiry.find::<RouteTable>(&ResourceKey::new(ROUTE_CONFIGURATION, table.clone())) {
            Found::Pending => pending = true,
            Found::Value(value, ..) => drop(routes.insert(table.clone(), Ok(value))),
            Found::Error(error) => drop(routes.insert(table.clone(), Err(error))),
        }
    }
    (routes, pending)
}

/// A root without a Listener: by its code the source says whether there is none, or none to be had.
fn no_listener<T>(error: Error) -> Step<T> {
    if error.code() == Code::RESOURCE_NOT_FOUND { Step::Absent(error) } else { Step::Failed(error) }
}

fn same_verdicts(old: &BTreeMap<Name, Verdict>, new: &BTreeMap<Name, Verdict>) -> bool {
    old.len() == new.len()
        && old.iter().zip(new).all(|((old_name, old), (new_name, new))| {
            old_name == new_name
                && match (old, new) {
                    (Ok(old), Ok(new)) => Arc::ptr_eq(old, new),
                    (Err(old), Err(new)) => same_error(Some(old), Some(new)),
                    _ => false,
                }
        })
}

type Tables = BTreeMap<Name, Result<Arc<RouteTable>, Error>>;

fn same_tables(old: &Tables, new: &Tables) -> bool {
    old.len() == new.len()
        && old.iter().zip(new).all(|((old_name, old), (new_name, new))| {
            old_name == new_name
                && match (old, new) {
                    (Ok(old), Ok(new)) => Arc::ptr_eq(old, new),
                    (Err(old), Err(new)) => same_error(Some(old), Some(new)),
                    _ => false,
                }
        })
}
