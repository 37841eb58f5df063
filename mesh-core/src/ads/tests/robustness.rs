//! Nothing that a server sends, and no order of happenings, breaks the engine.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const NAMES: [&str; 3] = ["x", "y", "z"];
const TYPES: [&str; 4] = [LISTENER, ROUTE_CONFIGURATION, CLUSTER, CLUSTER_LOAD_ASSIGNMENT];

/// What a reader believes, by what it was told.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) values: BTreeMap<ResourceKey, String>,
}

impl Reader {
    pub(super) fn forget(&mut self, key: &ResourceKey) {
        self.values.remove(key);
    }

    pub(super) fn hear(&mut self, event: &ResourceEvent) {
        match event {
            ResourceEvent::Changed { key, value, .. } => {
                self.values.insert(key.clone(), value.downcast_ref::<String>().unwrap().clone());
            }
            ResourceEvent::Unusable { key, .. } => {
                self.values.remove(key);
            }
            ResourceEvent::Ambient { key, .. } => {
                assert!(self.values.contains_key(key), "trouble beside a value, and there is none: {key}");
            }
        }
    }
}

fn random_step(it: &mut Dialogue, reader: &mut Reader, random: &mut fastrand::Rng) {
    let type_url = TYPES[random.usize(..TYPES.len())];
    let name = NAMES[random.usize(..NAMES.len())];
    let server = ServerId(random.usize(..2));
    match random.u32(..16) {
        0..3 => it.subscribe(type_url, name),
        3 => {
            it.unsubscribe(type_url, name);
            reader.forget(&ResourceKey::new(type_url, name));
        }
        4..7 => it.engine.handle_connected(server, it.now),
        7 => it.engine.handle_lost(server, "torn", it.now),
        8..13 => {
            let content = ["one", "two", "bad"][random.usize(..3)];
            let text = format!("{name}:{content}");
            let mut response = response(type_url, &random.u8(..3).to_string(), &random.u8(..).to_string(), &[&text]);
            if random.bool() {
                response.resource_errors = vec![resource_error(NAMES[random.usize(..3)], random.i32(0..16))];
            }
            let mut bytes = response.encode_to_vec();
            if random.u8(..4) == 0 {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            it.engine.handle_message(server, &bytes, it.now);
        }
        _ => it.wait(random.f64() * 20.0),
    }
}

#[test]
fn a_reader_always_believes_what_the_engine_knows() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let servers = vec![ServerConfig::insecure("a"), ServerConfig::insecure("b")];
        let mut it = Dialogue::with(servers, Settings::default());
        let mut reader = Reader::default();
        for _ in 0..200 {
            random_step(&mut it, &mut reader, &mut random);
            it.told_events().iter().for_each(|event| reader.hear(event));
            it.actions();
            for server in [A, B] {
                it.requests(server);
            }
            let known: BTreeSet<ResourceKey> =
                it.engine.resources().filter(|status| status.bytes.is_some()).map(|status| status.key).collect();
            assert_eq!(reader.values.keys().cloned().collect::<BTreeSet<_>>(), known, "seed {seed}");
        }
        it.events();
    }
}

#[test]
fn after_any_past_a_server_that_answers_is_believed() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut it =
            Dialogue::with(vec![ServerConfig::insecure("a"), ServerConfig::insecure("b")], Settings::default());
        let mut reader = Reader::default();
        for _ in 0..60 {
            random_step(&mut it, &mut reader, &mut random);
            it.told_events().iter().for_each(|event| reader.hear(event));
            it.actions();
            it.requests(A);
        }
        it.subscribe(CLUSTER, "final");
        // However it stands, within the longest wait the preferred server is tried.
        for _ in 0..40 {
            it.engine.handle_connected(A, it.now);
            it.requests(A);
            it.respond(CLUSTER, "9", "n", &["final:here"]);
            it.wait(1.0);
        }
        it.told_events().iter().for_each(|event| reader.hear(event));
        let value = reader.values.get(&ResourceKey::new(CLUSTER, "final"));
        assert_eq!(value.map(String::as_str), Some("here"), "seed {seed}");
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut it = Dialogue::new().asking(LISTENER, &["a"]);
    for _ in 0..5_000 {
        let length = random.usize(..60);
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        it.engine.handle_message(A, &bytes, it.now);
    }
}

#[test]
fn a_nack_stays_small_enough_to_be_sent() {
    let mut it = Dialogue::new().asking(CLUSTER, &["a"]);
    let bad: Vec<String> = (0..20_000).map(|index| format!("resource-{index}:bad")).collect();
    let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
    it.respond(CLUSTER, "1", "n1", &bad);
    let nack = it.raw_requests(A).remove(0).error_detail.unwrap().message;
    assert!(nack.len() < 300_000 && nack.ends_with(" more"), "{}", nack.len());
}

/// `spec` 3.1, rule 6.
#[test]
fn a47_a_resource_whose_xdstp_name_is_of_another_type_is_refused_and_its_siblings_are_taken() {
    let mut it = Dialogue::new().asking(LISTENER, &["x"]);
    it.respond(LISTENER, "1", "n1", &["x:one", "xdstp-like:fine"]);
    assert_eq!(it.told(), ["x=one"]);
    it.requests(A);
    let named = |name: &str, text: &str| wrapped(name, Some(any(LISTENER, text)));
    let mut mixed = response(LISTENER, "2", "n2", &["x:two"]);
    mixed.resources.push(named("xdstp://a/envoy.config.cluster.v3.Cluster/y", "y:one"));
    mixed.resources.push(named("xdstp://a/%zz", "z:one"));
    it.respond_from(A, &mixed);
    assert_eq!(it.told(), ["x=two"]);
    let nack = it.raw_requests(A)[0].error_detail.clone().unwrap().message;
    assert!(nack.starts_with("2 of 3 resources refused"), "{nack}");
    assert!(nack.contains("names a resource of type `envoy.config.cluster.v3.Cluster`"), "{nack}");
}
