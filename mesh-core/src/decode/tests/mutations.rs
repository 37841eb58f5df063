//! The header mutation filter, as Envoy checks it; gRPC has no rule.

use core::key_value_append::KeyValueAppendAction;
use envoy_types::pb::envoy::config::common::mutation_rules::v3 as rules;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3 as pb;

use super::route::routes;
use super::*;
use crate::model::{AppendAction, FilterOverride, HeaderSteps, QueryStep, RouteTable};
use crate::resource::ROUTE_CONFIGURATION;

/// As a route's override.
fn overriding() -> Part<pb::Mutations> {
    let wrap = |mutations| {
        let mut table = routes();
        let overrides = &mut table.virtual_hosts[0].routes[0].typed_per_filter_config;
        overrides.insert("hm".to_owned(), any(&pb::HeaderMutationPerRoute { mutations: Some(mutations) }));
        table.encode_to_vec()
    };
    let path = "virtual_hosts[0].routes[0].typed_per_filter_config[\"hm\"].mutations";
    Part { type_url: ROUTE_CONFIGURATION, base: pb::Mutations::default(), wrap, path }
}

fn append(key: &str, value: &str, action: KeyValueAppendAction) -> core::KeyValueMutation {
    use protobuf::value::Kind;
    let value = Some(protobuf::Value { kind: Some(Kind::StringValue(value.to_owned())) });
    let record = Some(core::KeyValuePair { key: key.to_owned(), value });
    let append = core::KeyValueAppend { record, action: action as i32, ..Default::default() };
    core::KeyValueMutation { append: Some(append), remove: String::new() }
}

fn one(value: &str) -> core::KeyValueMutation {
    append("a", value, KeyValueAppendAction::AppendIfExistsOrAdd)
}

#[test]
fn what_is_no_mutation_of_a_query_is_refused() {
    overriding().refuses(&[
        (0, "query_parameter_mutations[0]", |all| all.query_parameter_mutations = vec![Default::default()]),
        (0, "query_parameter_mutations[1]", |all| {
            let both = core::KeyValueMutation { remove: "b".to_owned(), ..one("x") };
            all.query_parameter_mutations = vec![one("x"), both];
        }),
        (0, "query_parameter_mutations[0].append.record", |all| {
            let nothing = core::KeyValueMutation { append: Some(Default::default()), remove: String::new() };
            all.query_parameter_mutations = vec![nothing];
        }),
        (0, "query_parameter_mutations[0].append.record.key", |all| {
            all.query_parameter_mutations = vec![append("", "x", KeyValueAppendAction::AppendIfExistsOrAdd)];
        }),
        (0, "query_parameter_mutations[0].append.record.value", |all| {
            all.query_parameter_mutations = vec![one("x")];
            let append = all.query_parameter_mutations[0].append.as_mut().expect("there is one");
            append.record.as_mut().expect("there is one").value = Some(Default::default());
        }),
        (0, "query_parameter_mutations[0].append.record.value", |all| {
            all.query_parameter_mutations = vec![one("a\nb")];
        }),
        (0, "query_parameter_mutations[0].append.record.value", |all| {
            all.query_parameter_mutations = vec![one("100%")];
        }),
        // A format that is not computed here would be sent as another query.
        (0, "query_parameter_mutations[0].append.record.value", |all| {
            all.query_parameter_mutations = vec![one("%START_TIME%")];
        }),
        (0, "query_parameter_mutations[0].append.action", |all| {
            all.query_parameter_mutations = vec![one("x")];
            all.query_parameter_mutations[0].append.as_mut().expect("there is one").action = 9;
        }),
    ]);
    overriding().takes(&[
        (0, "a format", |all| all.query_parameter_mutations = vec![one("%REQ(x)%")]),
        (0, "an empty value", |all| all.query_parameter_mutations = vec![one("")]),
    ]);
}

/// They are not there, and a change that is not made is none.
#[test]
fn mutations_of_trailers_are_refused() {
    overriding().refuses(&[
        (0, "request_trailers_mutations", |all| all.request_trailers_mutations = vec![removal()]),
        (0, "response_trailers_mutations", |all| all.response_trailers_mutations = vec![removal()]),
    ]);
    overriding().takes(&[(0, "of headers", |all| all.response_mutations = vec![removal()])]);
}

fn removal() -> rules::HeaderMutation {
    rules::HeaderMutation { action: Some(rules::header_mutation::Action::Remove("x".to_owned())) }
}

#[test]
fn mutations_of_a_query_become_what_they_say() {
    let table: Arc<RouteTable> = overriding().value(|all| {
        let remove = core::KeyValueMutation { append: None, remove: "b".to_owned() };
        all.query_parameter_mutations = vec![
            append("a", "%REQ(x)%", KeyValueAppendAction::AppendIfExistsOrAdd),
            append("a", "v", KeyValueAppendAction::AddIfAbsent),
            append("a", "v", KeyValueAppendAction::OverwriteIfExistsOrAdd),
            append("a", "v", KeyValueAppendAction::OverwriteIfExists),
            remove,
        ];
    });
    let FilterOverride::Config { config, .. } = &table.virtual_hosts[0].routes[0].overrides["hm"] else { panic!() };
    let steps = &downcast::<HeaderSteps>(&**config).query;
    let actions = steps.iter().filter_map(|step| match step {
        QueryStep::Append { action, .. } => Some(*action),
        QueryStep::Remove(_) => None,
    });
    use AppendAction::{AddIfAbsent, AppendOrAdd, OverwriteIfExists, OverwriteOrAdd};
    assert_eq!(actions.collect::<Vec<_>>(), [AppendOrAdd, AddIfAbsent, OverwriteOrAdd, OverwriteIfExists]);
    assert_eq!(steps.last(), Some(&QueryStep::Remove("b".to_owned())));
}
