//! Which endpoints another attempt leaves alone, as far as its policy has a word (Envoy's retry host predicates and priorities).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::model::{Metadata, RetryPolicy, has_lb_metadata, lb_metadata};

/// Whether a retry by `policy` is to go elsewhere than an endpoint with this `metadata`.
pub fn omits(policy: &RetryPolicy, metadata: &Metadata) -> bool {
    let canary = policy.omit_canary_hosts && lb_metadata(metadata, "canary").and_then(Value::as_bool) == Some(true);
    canary || policy.omit_metadata.iter().any(|wanted| carries(metadata, wanted))
}

/// Whether the metadata have all of these values. One that is a list has each of its items.
fn carries(metadata: &Metadata, wanted: &Metadata) -> bool {
    !wanted.is_empty() && wanted.iter().all(|(key, value)| has_lb_metadata(metadata, key, value, true))
}

/// The priorities that the next attempt leaves alone: those of the attempts before, `attempted` in their order, looked at after
/// each `update_frequency` of them. None once that would be all of those that are `available`: then it begins anew.
pub fn previous_priorities(
    attempted: impl IntoIterator<Item = u32>,
    available: &BTreeSet<u32>,
    update_frequency: u32,
) -> BTreeSet<u32> {
    let every = usize::try_from(update_frequency).unwrap_or(usize::MAX).max(1);
    let (mut excluded, mut since) = (BTreeSet::new(), Vec::new());
    for priority in attempted {
        since.push(priority);
        if since.len() % every == 0 {
            excluded.extend(since.iter().copied());
            if available.is_subset(&excluded) {
                excluded.clear();
                since.clear();
            }
        }
    }
    excluded
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(value: &Value) -> Metadata {
        serde_json::from_value(value.clone()).unwrap()
    }

    fn endpoint(lb: &Value) -> Metadata {
        metadata(&json!({"envoy.lb": lb, "other": {"canary": true, "stage": "old"}}))
    }

    #[test]
    fn canaries_and_whoever_carries_what_a_predicate_names_are_left_alone() {
        let canaries = RetryPolicy { omit_canary_hosts: true, ..RetryPolicy::default() };
        assert!(omits(&canaries, &endpoint(&json!({"canary": true}))));
        assert!(!omits(&canaries, &endpoint(&json!({"canary": "true"}))));
        assert!(!omits(&canaries, &endpoint(&json!({}))));
        let named = |wanted: &Value| RetryPolicy { omit_metadata: vec![metadata(wanted)], ..RetryPolicy::default() };
        for (wanted, known, omitted) in [
            (json!({"stage": "old"}), json!({"stage": "old", "zone": 1}), true),
            (json!({"stage": "old"}), json!({"stage": "new"}), false),
            (json!({"stage": "old"}), json!({}), false),
            (json!({"stage": "old", "zone": 1}), json!({"stage": "old", "zone": 1}), true),
            (json!({"stage": "old", "zone": 1}), json!({"stage": "old"}), false),
            (json!({"stage": "old"}), json!({"stage": ["new", "old"]}), true),
            (json!({"stage": ["old"]}), json!({"stage": ["old"]}), true),
            (json!({}), json!({"stage": "old"}), false),
        ] {
            assert_eq!(omits(&named(&wanted), &endpoint(&known)), omitted, "{wanted} {known}");
        }
        assert!(!omits(&RetryPolicy::default(), &endpoint(&json!({"canary": true}))));
    }

    /// The next attempt's priority, as Envoy 1.40 chose it after so many 503s of three priorities with one endpoint each.
    #[test]
    fn priorities_are_left_alone_until_each_had_its_turn() {
        let available = BTreeSet::from([0, 1, 2]);
        for (every, chosen) in [(1, [0, 1, 2, 0, 1, 2]), (2, [0, 0, 1, 1, 2, 2]), (3, [0, 0, 0, 1, 1, 1])] {
            for after in 0..chosen.len() {
                let excluded = previous_priorities(chosen[..after].to_vec(), &available, every);
                let next = available.iter().find(|priority| !excluded.contains(priority));
                assert_eq!(next, Some(&chosen[after]), "every {every} after {after}");
            }
        }
        assert!(previous_priorities([0], &BTreeSet::from([0]), 1).is_empty(), "nobody else is there");
        assert_eq!(previous_priorities([0], &available, 0), BTreeSet::from([0]), "0 counts as 1");
    }
}
