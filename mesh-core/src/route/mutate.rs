//! Headers that the configuration adds and removes, level by level.

use std::sync::Arc;

use http::header::Entry;
use http::{HeaderMap, HeaderValue};

use super::decide::Decision;
use super::format::{FormatFacts, expand};
use crate::model::{
    Action, AppendAction, ClusterChoice, HeaderAppend, HeaderMutations, HeaderStep, Metadata, RouteTable,
    WeightedCluster,
};

impl Decision {
    /// The entry of the weighted clusters that was chosen, if they were asked.
    pub fn weighted_cluster(&self) -> Option<&WeightedCluster> {
        let pick = self.cluster.as_ref()?.weighted?;
        match &self.route.action {
            Action::Forward(forward) => match &forward.cluster {
                ClusterChoice::Weighted(weighted) => weighted.clusters.get(pick.index),
                _ => None,
            },
            _ => None,
        }
    }

    /// What the route, and the weighted cluster in it, ask of endpoints; None: nothing.
    pub fn metadata_match(&self) -> Option<&Arc<Metadata>> {
        match (self.weighted_cluster(), &self.route.action) {
            (Some(cluster), _) => cluster.metadata_match.as_ref(),
            (None, Action::Forward(forward)) => forward.metadata_match.as_ref(),
            _ => None,
        }
    }

    /// The header mutations of all levels, in the order they apply: weighted cluster, route, virtual host, table, so that
    /// the table has the last word; the other way round with `most_specific_header_mutations_wins`. `table` is the one
    /// that the decision comes from.
    pub fn mutations<'a>(&'a self, table: &'a RouteTable) -> impl Iterator<Item = &'a HeaderMutations> {
        let mut levels = [
            self.weighted_cluster().map(|cluster| &cluster.headers),
            Some(&self.route.headers),
            Some(&self.host.headers),
            Some(&table.headers),
        ];
        if table.most_specific_mutations_win {
            levels.reverse();
        }
        levels.into_iter().flatten().filter(|level| !level.is_empty())
    }
}

/// Applies the request half of one level: removals, then replacements, then additions (Envoy).
pub fn mutate_request(level: &HeaderMutations, headers: &mut HeaderMap, facts: &FormatFacts<'_>) {
    apply(&level.request_remove, &level.request_append, headers, facts);
}

/// Applies the response half of one level, in the same order.
pub fn mutate_response(level: &HeaderMutations, headers: &mut HeaderMap, facts: &FormatFacts<'_>) {
    apply(&level.response_remove, &level.response_append, headers, facts);
}

/// Does the steps of a header mutation filter, each after the other (Envoy).
pub fn mutate_in_steps(steps: &[HeaderStep], headers: &mut HeaderMap, facts: &FormatFacts<'_>) {
    for step in steps {
        match step {
            HeaderStep::Remove(name) => while headers.remove(name).is_some() {},
            HeaderStep::Append(append) => apply(&[], std::slice::from_ref(append), headers, facts),
            HeaderStep::RemoveMatching(pattern) => {
                let matching = headers.keys().filter(|name| pattern.is_match(name.as_str().as_bytes()));
                let matching: Vec<http::HeaderName> = matching.cloned().collect();
                matching.iter().for_each(|name| while headers.remove(name).is_some() {});
            }
        }
    }
}

fn apply(remove: &[http::HeaderName], append: &[HeaderAppend], headers: &mut HeaderMap, facts: &FormatFacts<'_>) {
    for name in remove {
        while headers.remove(name).is_some() {}
    }
    // Whether a header is there is asked before anything is changed: two of the same name do not see each other. Their
    // values, too, are made from the headers as they were.
    let planned: Vec<(&HeaderAppend, HeaderValue)> = append
        .iter()
        .filter(|entry| match entry.action {
            AppendAction::AddIfAbsent => !headers.contains_key(&entry.name),
            AppendAction::OverwriteIfExists => headers.contains_key(&entry.name),
            AppendAction::AppendOrAdd | AppendAction::OverwriteOrAdd => true,
        })
        .filter_map(|entry| {
            let value = expand(&entry.value, headers, facts)?;
            (entry.keep_empty || !value.is_empty()).then_some((entry, value))
        })
        .collect();
    let overwrites = |action| matches!(action, AppendAction::OverwriteOrAdd | AppendAction::OverwriteIfExists);
    for (entry, value) in planned.iter().filter(|(entry, _)| overwrites(entry.action)) {
        headers.insert(&entry.name, value.clone());
    }
    for (entry, value) in planned.iter().filter(|(entry, _)| !overwrites(entry.action)) {
        headers.append(&entry.name, value.clone());
    }
}

/// Adds `value` to a header that is a list in one value: `x-forwarded-host: a, b` (Envoy joins with a bare comma).
pub fn append_to_list(headers: &mut HeaderMap, name: http::HeaderName, value: &HeaderValue) {
    match headers.entry(name) {
        Entry::Vacant(vacant) => {
            vacant.insert(value.clone());
        }
        Entry::Occupied(mut there) => {
            let joined = [there.get().as_bytes(), b",", value.as_bytes()].concat();
            // Two valid values and a comma are a valid value.
            if let Ok(joined) = HeaderValue::from_bytes(&joined) {
                there.insert(joined);
            }
        }
    }
}
