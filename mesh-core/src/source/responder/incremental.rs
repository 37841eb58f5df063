//! Incremental xDS: requests and responses hold what is different (`spec` section 2.12).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use prost::Message;

use super::{Common, Interest, REMOVED_LAST, bare, is_full_state};
use crate::model::Name;
use crate::resource::{TYPE_URL_PREFIX, WILDCARD, canonical_name};

#[derive(Debug, Default)]
pub(super) struct Stream {
    types: BTreeMap<Name, Interest>,
}

/// What is to be said about a name.
enum Word {
    /// Whatever is true of it.
    Any,
    /// Whatever is true of it, if the client does not have it in this version.
    UnlessVersion(String),
}

impl Stream {
    pub(super) fn interests(&self) -> impl Iterator<Item = (&Name, &Interest)> {
        self.types.iter()
    }

    /// Its nonce does not matter: a change of subscriptions counts even if it crossed a response on its way.
    pub(super) fn handle_request(&mut self, common: &mut Common, request: &[u8]) -> Option<Bytes> {
        let request = DeltaDiscoveryRequest::decode(request).ok()?;
        let type_url = bare(&request.type_url);
        if let Some(status) = request.error_detail {
            common.reject(&type_url, status.message);
        }
        let is_first = !self.types.contains_key(&type_url);
        let interest = self.types.entry(type_url.clone()).or_default();
        let mut subscribe = request.resource_names_subscribe;
        // The older form of the wildcard: a first request without any names.
        if is_first && is_full_state(&type_url) && subscribe.is_empty() && request.resource_names_unsubscribe.is_empty()
        {
            subscribe.push(WILDCARD.to_owned());
        }
        let initial = if is_first { request.initial_resource_versions } else { HashMap::new() };
        let mut to_say = BTreeMap::new();
        let is_wildcard_new = interest.subscribe(subscribe, &mut to_say);
        if is_wildcard_new {
            to_say.extend(common.set.names(&type_url).map(|name| (name.clone(), Word::Any)));
            to_say.extend(initial.keys().map(|name| (canonical_name(name.as_str()), Word::Any)));
        }
        for (name, version) in initial {
            to_say.entry(canonical_name(name)).and_modify(|word| *word = Word::UnlessVersion(version));
        }
        for name in request.resource_names_unsubscribe.into_iter().map(canonical_name) {
            interest.wildcard &= &*name != WILDCARD;
            // It may be held by the wildcard still.
            if interest.names.remove(&name) && interest.wildcard {
                to_say.insert(name, Word::Any);
            }
        }
        let answer = common.answer(&type_url, to_say);
        answer.or_else(|| is_wildcard_new.then(|| common.response(&type_url, Vec::new(), Vec::new())))
    }

    pub(super) fn push(&mut self, common: &mut Common, changes: Vec<(Name, BTreeSet<Name>)>) -> Vec<Bytes> {
        let mut responses = Vec::new();
        let mut removals = Vec::new();
        for (type_url, changed) in changes {
            let (kept, gone): (Vec<Name>, Vec<Name>) =
                changed.into_iter().partition(|name| common.set.get(&type_url, name).is_some());
            let resources = kept.iter().filter_map(|name| common.resource(&type_url, name)).collect::<Vec<_>>();
            let gone: Vec<String> = gone.iter().map(ToString::to_string).collect();
            if !REMOVED_LAST.contains(&&*type_url) {
                responses.push(common.response(&type_url, resources, gone));
                continue;
            }
            if !resources.is_empty() {
                responses.push(common.response(&type_url, resources, Vec::new()));
            }
            if !gone.is_empty() {
                removals.push((type_url, gone));
            }
        }
        responses.extend(removals.into_iter().map(|(type_url, gone)| common.response(&type_url, Vec::new(), gone)));
        responses
    }
}

impl Interest {
    /// Takes names, each of which must be answered even if it was there before. Whether there is a wildcard since now.
    fn subscribe(&mut self, names: Vec<String>, to_say: &mut BTreeMap<Name, Word>) -> bool {
        let mut is_wildcard_new = false;
        for name in names {
            if name == WILDCARD {
                is_wildcard_new = true;
                self.wildcard = true;
                continue;
            }
            let name = canonical_name(name);
            self.names.insert(name.clone());
            to_say.insert(name, Word::Any);
        }
        is_wildcard_new
    }
}

impl Common {
    /// The response that says all this; None if there is nothing to say.
    fn answer(&mut self, type_url: &Name, to_say: BTreeMap<Name, Word>) -> Option<Bytes> {
        let (mut resources, mut removed) = (Vec::new(), Vec::new());
        for (name, word) in to_say {
            match (self.resource(type_url, &name), word) {
                (Some(resource), Word::UnlessVersion(version)) if resource.version == version => {}
                (Some(resource), _) => resources.push(resource),
                // What the client has must be taken from it, whether or not it is told of what there is not.
                (None, Word::UnlessVersion(_)) => removed.push(name.to_string()),
                (None, Word::Any) if self.tells_missing => removed.push(name.to_string()),
                (None, Word::Any) => {}
            }
        }
        let is_any = !resources.is_empty() || !removed.is_empty();
        is_any.then(|| self.response(type_url, resources, removed))
    }

    fn resource(&self, type_url: &str, name: &str) -> Option<Resource> {
        let found = self.set.get(type_url, name)?;
        Some(Resource {
            name: name.to_owned(),
            version: found.version(),
            resource: Some(found.to_any()),
            ..Resource::default()
        })
    }

    fn response(&mut self, type_url: &Name, resources: Vec<Resource>, removed: Vec<String>) -> Bytes {
        let response = DeltaDiscoveryResponse {
            system_version_info: self.set.version(type_url).to_owned(),
            resources,
            type_url: format!("{TYPE_URL_PREFIX}{type_url}"),
            removed_resources: removed,
            nonce: self.next_nonce(),
            ..DeltaDiscoveryResponse::default()
        };
        response.encode_to_vec().into()
    }
}
