//! State of the world: each request names everything.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{
    DiscoveryRequest, DiscoveryResponse, ResourceError, ResourceName,
};
use envoy_types::pb::google::rpc::Status;
use prost::Message;

use super::{Common, EncodedResource, Interest, REMOVED_LAST, ResourceSet, bare, is_full_state};
use crate::model::Name;
use crate::resource::{ResourceKey, TYPE_URL_PREFIX, WILDCARD, canonical_name};

/// `google.rpc.Code.NOT_FOUND`.
const NOT_FOUND: i32 = 5;

/// Follows the version of a response that still holds what is about to go.
const TRANSITION: &str = "+";

#[derive(Debug, Default)]
pub(super) struct Stream {
    types: BTreeMap<Name, Subscription>,
}

#[derive(Debug, Default)]
struct Subscription {
    /// The nonce of the last response; None before the first.
    nonce: Option<String>,
    interest: Interest,
    /// Whether a name (or `*`) was ever named on this stream, after which an empty list means none.
    explicit: bool,
}

impl Stream {
    pub(super) fn interests(&self) -> impl Iterator<Item = (&Name, &Interest)> {
        self.types.iter().map(|(type_url, subscription)| (type_url, &subscription.interest))
    }

    pub(super) fn handle_request(&mut self, common: &mut Common, request: &[u8]) -> Option<Bytes> {
        let request = DiscoveryRequest::decode(request).ok()?;
        let type_url = bare(&request.type_url);
        if let Some(status) = request.error_detail {
            common.reject(&type_url, status.message);
        }
        let subscription = self.types.entry(type_url.clone()).or_default();
        if !request.response_nonce.is_empty() && subscription.nonce.as_ref() != Some(&request.response_nonce) {
            return None;
        }
        let first = subscription.nonce.is_none();
        let change = subscription.change(request.resource_names, is_full_state(&type_url));
        if !first && change.is_empty() {
            return None;
        }
        self.answer(common, &type_url, change, &[])
    }

    pub(super) fn push(
        &mut self,
        common: &mut Common,
        changes: Vec<(Name, BTreeSet<Name>)>,
        old: &ResourceSet,
    ) -> Vec<Bytes> {
        let mut responses = Vec::new();
        let mut removals = Vec::new();
        for (type_url, changed) in changes {
            if !REMOVED_LAST.contains(&&*type_url) {
                responses.extend(self.answer(common, &type_url, changed, &[]));
                continue;
            }
            let (kept, gone): (BTreeSet<Name>, BTreeSet<Name>) =
                changed.into_iter().partition(|name| common.set.get(&type_url, name).is_some());
            let still: Vec<EncodedResource> =
                gone.iter().filter_map(|name| old.get(&type_url, name).cloned()).collect();
            if !kept.is_empty() {
                responses.extend(self.answer(common, &type_url, kept, &still));
            }
            removals.push((type_url, gone));
        }
        for (type_url, gone) in removals.into_iter().filter(|(_, gone)| !gone.is_empty()) {
            responses.extend(self.answer(common, &type_url, gone, &[]));
        }
        responses
    }

    /// A response for `names`; of a full-state type, for all that is subscribed, and with `kept`, which is about to go.
    fn answer(
        &mut self,
        common: &mut Common,
        type_url: &Name,
        names: BTreeSet<Name>,
        kept: &[EncodedResource],
    ) -> Option<Bytes> {
        let subscription = self.types.get_mut(type_url)?;
        let kept = if is_full_state(type_url) { kept } else { &[] };
        let mut names = if is_full_state(type_url) { subscription.interest.all(type_url, &common.set) } else { names };
        names.retain(|name| !kept.iter().any(|resource| resource.key.name == *name));
        let nonce = common.next_nonce();
        subscription.nonce = Some(nonce.clone());
        let mut version = common.set.version(type_url).to_owned();
        version.push_str(if kept.is_empty() { "" } else { TRANSITION });
        let (found, missing): (Vec<_>, Vec<_>) =
            names.iter().map(|name| (name, common.set.get(type_url, name))).partition(|(_, found)| found.is_some());
        let found = found.into_iter().filter_map(|(_, found)| found);
        let errors = missing.into_iter().filter(|_| common.tells_missing).map(|(name, _)| not_found(type_url, name));
        let response = DiscoveryResponse {
            version_info: version,
            resources: found.chain(kept).map(EncodedResource::to_any).collect(),
            type_url: format!("{TYPE_URL_PREFIX}{type_url}"),
            nonce,
            resource_errors: errors.collect(),
            ..DiscoveryResponse::default()
        };
        Some(response.encode_to_vec().into())
    }
}

impl Subscription {
    /// Takes the names of a request and gives those that must be answered.
    fn change(&mut self, names: Vec<String>, may_be_wildcard: bool) -> BTreeSet<Name> {
        let interest = &mut self.interest;
        let had_wildcard = interest.wildcard;
        self.explicit |= !names.is_empty();
        interest.wildcard = may_be_wildcard && (!self.explicit || names.iter().any(|name| name == WILDCARD));
        let names = names.into_iter().filter(|name| name != WILDCARD).map(canonical_name).collect();
        let old = std::mem::replace(&mut interest.names, names);
        let mut added: BTreeSet<Name> = interest.names.difference(&old).cloned().collect();
        if interest.wildcard && !had_wildcard {
            added.insert(WILDCARD.into());
        }
        added
    }
}

fn not_found(type_url: &str, name: &str) -> ResourceError {
    let key = ResourceKey::new(type_url, name);
    ResourceError {
        resource_name: Some(ResourceName { name: name.to_owned(), dynamic_parameter_constraints: None }),
        error_detail: Some(Status { code: NOT_FOUND, message: format!("{key} does not exist"), details: Vec::new() }),
    }
}
