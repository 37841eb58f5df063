//! The engine and a responder, with everything that can happen between them, by seed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::robustness::Reader;
use super::*;
use crate::source::responder::{EncodedResource, ResourceSet, Responder};

const TYPES: [&str; 4] = [LISTENER, ROUTE_CONFIGURATION, CLUSTER, CLUSTER_LOAD_ASSIGNMENT];
const NAMES: [&str; 4] = ["w", "x", "y", "z"];

/// A client, a server that may be down, and what is on its way between them.
struct World {
    it: Dialogue,
    reader: Reader,
    wanted: BTreeSet<ResourceKey>,
    contents: BTreeMap<ResourceKey, String>,
    up: bool,
    server: Option<Responder>,
    to_server: VecDeque<Bytes>,
    to_client: VecDeque<Bytes>,
    random: fastrand::Rng,
    /// Whether the server says what does not exist.
    tells: bool,
}

impl World {
    fn new(seed: u64, tells: bool) -> Self {
        let settings = Settings { deletion_grace: Some(Duration::ZERO), ..Settings::default() };
        Self {
            it: Dialogue::with(vec![ServerConfig::insecure("a")], settings),
            reader: Reader::default(),
            wanted: BTreeSet::new(),
            contents: BTreeMap::new(),
            up: true,
            server: None,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            random: fastrand::Rng::with_seed(seed),
            tells,
        }
    }

    fn set(&self) -> Arc<ResourceSet> {
        let encode =
            |(key, text): (&ResourceKey, &String)| EncodedResource::new(key.clone(), format!("{}:{text}", key.name));
        Arc::new(ResourceSet::new(self.contents.iter().map(encode)))
    }

    fn key(&mut self) -> ResourceKey {
        ResourceKey::new(TYPES[self.random.usize(..4)], NAMES[self.random.usize(..4)])
    }

    fn step(&mut self) {
        match self.random.u8(..20) {
            0..3 => {
                let key = self.key();
                self.it.subscribe(&key.type_url, &key.name);
                self.wanted.insert(key);
            }
            3 => {
                let key = self.key();
                self.it.unsubscribe(&key.type_url, &key.name);
                self.reader.forget(&key);
                self.wanted.remove(&key);
            }
            4..7 => {
                let key = self.key();
                let content = ["one", "two", "three", "bad"][self.random.usize(..4)];
                self.contents.insert(key, content.to_owned());
                self.push();
            }
            7 => {
                let key = self.key();
                self.contents.remove(&key);
                self.push();
            }
            8 => self.tear(),
            9 => {
                self.up = !self.up;
                self.tear();
            }
            10..12 => self.it.wait(self.random.f64() * 8.0),
            _ => {}
        }
        let messages = self.random.usize(..4);
        self.exchange(messages);
    }

    fn push(&mut self) {
        let set = self.set();
        self.to_client.extend(self.server.as_mut().map(|server| server.set_resources(set)).unwrap_or_default());
    }

    /// The stream ends, with what was on its way.
    fn tear(&mut self) {
        if self.server.take().is_some() {
            self.to_server.clear();
            self.to_client.clear();
            self.it.lose(A);
        }
    }

    /// Delivers up to `messages` in each direction.
    fn exchange(&mut self, messages: usize) {
        for action in self.it.actions() {
            match action {
                Action::Open(_) if self.up => {
                    let server = Responder::new(self.set());
                    self.server = Some(if self.tells { server } else { server.without_resource_errors() });
                    self.it.engine.handle_connected(A, self.it.now);
                }
                Action::Open(_) => self.it.lose(A),
                Action::Close(_) => {
                    self.server = None;
                    self.to_server.clear();
                    self.to_client.clear();
                }
            }
        }
        for _ in 0..=messages {
            if let Some(request) = self.it.engine.poll_request(A) {
                self.to_server.push_back(request);
                self.it.engine.handle_written(A, self.it.now);
            }
            if let (Some(request), Some(server)) = (self.to_server.pop_front(), &mut self.server) {
                self.to_client.extend(server.handle_request(&request));
            }
            if let Some(message) = self.to_client.pop_front() {
                self.it.engine.handle_message(A, &message, self.it.now);
            }
            self.it.told_events().iter().for_each(|event| self.reader.hear(event));
            self.it.events();
        }
    }

    /// Lets the server live, and everything arrive.
    fn calm(&mut self) {
        self.up = true;
        for _ in 0..120 {
            self.it.wait(0.5);
            self.exchange(40);
        }
    }
}

fn end_in_agreement(tells: bool, types: &[&str]) {
    for seed in 0..200 {
        let mut world = World::new(seed, tells);
        for round in 0..3 {
            for _ in 0..80 {
                world.step();
            }
            // What is bad in the end would leave the last good value, which is another test's matter.
            world.contents.values_mut().filter(|text| *text == "bad").for_each(|text| "good".clone_into(text));
            world.push();
            world.calm();
            let counts = |key: &ResourceKey| types.contains(&&*key.type_url) && world.wanted.contains(key);
            let mut expected = world.contents.clone();
            expected.retain(|key, _| counts(key));
            let mut believed = world.reader.values.clone();
            believed.retain(|key, _| counts(key));
            assert_eq!(believed, expected, "seed {seed}, round {round}");
        }
    }
}

#[test]
fn whatever_happened_the_reader_ends_with_what_the_server_has() {
    end_in_agreement(true, &TYPES);
}

/// Then only Listeners and Clusters can be deleted.
#[test]
fn a_server_without_resource_errors_is_understood_too() {
    end_in_agreement(false, &[LISTENER, CLUSTER]);
}
