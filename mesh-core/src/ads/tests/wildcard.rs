//! Subscriptions to everything of a type, in both protocols and in both forms (`spec` sections 2.3 and 2.12).

use std::collections::BTreeMap;

use super::*;
use crate::resource::WILDCARD;
use crate::source::responder::{EncodedResource, ResourceSet, Responder};

const BOTH: [Variant; 2] = [Variant::StateOfTheWorld, Variant::Incremental];

/// A client of servers of this protocol that may have everything of clusters.
fn dialogue_of(variant: Variant, subscription: Subscription, features: ServerFeatures, servers: &[&str]) -> Dialogue {
    let decoder: Arc<dyn DecodeResource> = Arc::new(TextDecoder);
    let row = ResourceType {
        type_url: CLUSTER.into(),
        variant: Variant::StateOfTheWorld,
        subscription,
        full_state: true,
        decoder: decoder.clone(),
    };
    let types = ResourceTypes::standard(&decoder).with(row);
    let features = ServerFeatures { delta_grpc: variant == Variant::Incremental, ..features };
    let servers: Vec<_> = servers.iter().map(|uri| ServerConfig::insecure(*uri).with_features(features)).collect();
    Dialogue::with_types(servers, Settings::default(), types)
}

fn dialogue(variant: Variant, subscription: Subscription) -> Dialogue {
    dialogue_of(variant, subscription, ServerFeatures::default(), &["a"])
}

/// With everything asked for, by incremental xDS; `a` and `b` are there, and `a` is wanted by name too.
fn cached() -> Dialogue {
    let mut it = dialogue(Variant::Incremental, Subscription::Wildcard).asking(CLUSTER, &[WILDCARD, "a"]);
    it.respond_delta(CLUSTER, "n1", &["a@1:one", "b@1:two"], &[]);
    assert_eq!(
        (it.told(), it.requests(A)),
        (vec!["a=one".to_owned(), "b=two".to_owned()], vec!["Cluster nonce n1".to_owned()])
    );
    it.events();
    it
}

fn names(it: &Dialogue) -> Vec<String> {
    it.engine.resources().map(|status| status.key.name.to_string()).collect()
}

#[test]
fn delta_a_wildcard_brings_everything_and_takes_it_away() {
    let mut it = dialogue(Variant::Incremental, Subscription::Wildcard);
    it.subscribe(CLUSTER, WILDCARD);
    it.connect(A);
    assert_eq!(it.requests(A), ["Cluster +* node"]);
    it.respond_delta(CLUSTER, "n1", &["a@1:one", "b@1:bad"], &[]);
    assert_eq!(it.told(), ["a=one", "b unusable MESH-113"]);
    assert_eq!(it.requests(A), ["Cluster nonce n1 NACK"]);
    assert_eq!(names(&it), ["a", "b"], "`*` is no resource");
    it.respond_delta(CLUSTER, "n2", &["b@2:two"], &["a"]);
    assert_eq!(it.told(), ["a lapsing MESH-112", "b=two"]);
    it.wait(30.1);
    assert_eq!((it.told(), names(&it)), (vec!["a unusable MESH-112".to_owned()], vec!["b".to_owned()]));
    it.respond_delta(CLUSTER, "n3", &[], &["never"]);
    assert_eq!(it.told(), [""; 0], "what never came cannot go");
}

#[test]
fn a_wildcard_by_state_of_the_world_is_the_complete_state() {
    let features = ServerFeatures { fail_on_data_errors: true, ..ServerFeatures::default() };
    let mut it = dialogue_of(Variant::StateOfTheWorld, Subscription::Wildcard, features, &["a"]);
    it.subscribe(CLUSTER, WILDCARD);
    it.connect(A);
    assert_eq!(it.requests(A), ["Cluster * version  nonce  node"]);
    it.respond(CLUSTER, "1", "n1", &["a:one", "b:two"]);
    assert_eq!(
        (it.told(), it.requests(A)),
        (vec!["a=one".to_owned(), "b=two".to_owned()], vec!["Cluster * version 1 nonce n1".to_owned()])
    );
    it.respond(CLUSTER, "2", "n2", &["b:two"]);
    assert_eq!((it.told(), names(&it)), (vec!["a unusable MESH-112".to_owned()], vec!["b".to_owned()]));
}

/// The form of servers that do not know `*`: a first request without names, on every stream.
#[test]
fn delta_the_older_form_of_a_wildcard_names_nothing() {
    let mut it = dialogue(Variant::Incremental, Subscription::LegacyWildcard).asking(LISTENER, &["l"]);
    it.subscribe(CLUSTER, WILDCARD);
    assert_eq!(it.requests(A), ["Cluster"]);
    it.respond_delta(CLUSTER, "n1", &["a@1:one"], &[]);
    assert_eq!((it.told(), it.requests(A)), (vec!["a=one".to_owned()], vec!["Cluster nonce n1".to_owned()]));
    it.lose(A);
    it.reconnect(A);
    assert_eq!(it.requests(A), ["Listener +l node", "Cluster has a=1"]);
    it.subscribe(CLUSTER, "b");
    assert_eq!((it.told(), it.requests(A)), (vec!["b unusable MESH-113".to_owned()], vec![]), "a name would end it");
    let mut it = dialogue(Variant::StateOfTheWorld, Subscription::LegacyWildcard).asking(CLUSTER, &[WILDCARD]);
    it.respond(CLUSTER, "1", "n1", &["a:one"]);
    assert_eq!((it.told(), it.requests(A)), (vec!["a=one".to_owned()], vec!["Cluster  version 1 nonce n1".to_owned()]));
}

/// It cannot be taken back, as naming nothing is what it is.
#[test]
fn delta_the_older_form_of_a_wildcard_ends_with_its_stream() {
    for variant in BOTH {
        let mut it = dialogue(variant, Subscription::LegacyWildcard).asking(LISTENER, &["l"]);
        it.subscribe(CLUSTER, WILDCARD);
        it.requests(A);
        it.unsubscribe(CLUSTER, WILDCARD);
        assert_eq!(it.actions(), [Action::Close(A), Action::Open(A)], "something else is wanted");
        it.connect(A);
        assert_eq!(it.requests(A).len(), 1, "and asked for alone");
        it.subscribe(CLUSTER, WILDCARD);
        assert_eq!(it.requests(A).len(), 1, "and everything again, on the stream that never asked for it");
    }
}

/// A new stream says everything that is there, so that what went in between is removed.
#[test]
fn delta_a_new_stream_says_what_the_wildcard_brought() {
    let mut it = cached();
    it.lose(A);
    it.reconnect(A);
    assert_eq!(it.requests(A), ["Cluster +*,a has a=1,b=1 node"]);
    it.respond_delta(CLUSTER, "n1", &[], &["b"]);
    assert_eq!(it.told(), ["b lapsing MESH-112"]);
}

#[test]
fn delta_a_name_beside_a_wildcard_is_held_by_it() {
    let mut it = cached();
    it.unsubscribe(CLUSTER, "a");
    assert_eq!(it.requests(A), ["Cluster -a"]);
    it.respond_delta(CLUSTER, "n2", &["a@1:one"], &[]);
    assert_eq!(
        (it.told(), names(&it)),
        (vec![], vec!["a".to_owned(), "b".to_owned()]),
        "the server must say that it stays"
    );
    it.requests(A);
    it.unsubscribe(CLUSTER, "b");
    assert_eq!((it.requests(A), names(&it).len()), (vec![], 2), "it was not subscribed to");
    it.subscribe(CLUSTER, "b");
    assert_eq!((it.told(), it.requests(A)), (vec!["b=two".to_owned()], vec!["Cluster +b".to_owned()]));
    it.unsubscribe(CLUSTER, WILDCARD);
    assert_eq!(
        (it.requests(A), names(&it)),
        (vec!["Cluster -*".to_owned()], vec!["b".to_owned()]),
        "what is named stays"
    );
    it.respond_delta(CLUSTER, "n3", &["a@2:two", "c@1:one"], &[]);
    assert_eq!((it.told(), names(&it)), (vec![], vec!["b".to_owned()]), "what is on its way still is not for us");
}

/// Else a server need not send again what changed for who did not listen.
#[test]
fn delta_a_wildcard_that_is_wanted_again_is_taken_back_before() {
    let mut it = cached();
    it.unsubscribe(CLUSTER, WILDCARD);
    it.subscribe(CLUSTER, WILDCARD);
    assert_eq!(it.requests(A), ["Cluster -*", "Cluster +*"]);
    let mut it = dialogue(Variant::StateOfTheWorld, Subscription::Wildcard).asking(CLUSTER, &[WILDCARD]);
    it.respond(CLUSTER, "1", "n1", &["a:one"]);
    it.requests(A);
    it.unsubscribe(CLUSTER, WILDCARD);
    it.subscribe(CLUSTER, WILDCARD);
    assert_eq!(it.requests(A), ["Cluster  version 1 nonce n1", "Cluster * version 1 nonce n1"]);
    it.told();
    it.respond(CLUSTER, "1", "n2", &["a:one"]);
    it.respond(CLUSTER, "1", "n3", &[]);
    assert_eq!(it.told(), ["a=one"], "the answer to where it was taken back may be late");
}

#[test]
fn a57_a_wildcard_is_answered_by_any_response_and_else_unusable() {
    for variant in BOTH {
        let mut it = dialogue(variant, Subscription::Wildcard).asking(CLUSTER, &[WILDCARD]);
        it.wait(15.1);
        assert_eq!(it.told(), ["* unusable MESH-111"]);
        let mut it = dialogue(variant, Subscription::Wildcard).asking(CLUSTER, &[WILDCARD]);
        match variant {
            Variant::StateOfTheWorld => it.respond(CLUSTER, "1", "n1", &[]),
            Variant::Incremental => it.respond_delta(CLUSTER, "n1", &[], &[]),
        }
        it.wait(60.0);
        assert_eq!(it.told(), [""; 0], "there is nothing, and that is an answer");
    }
}

#[test]
fn a71_a_wildcard_falls_back_with_what_it_brings() {
    for scope in [FallbackScope::Process, FallbackScope::Target] {
        let mut it = dialogue_of(Variant::Incremental, Subscription::Wildcard, ServerFeatures::default(), &["a", "b"]);
        it.engine.settings.fallback_scope = scope;
        it.subscribe(CLUSTER, WILDCARD);
        it.connect(A);
        it.lose(A);
        it.connect(B);
        assert_eq!(it.requests(B), ["Cluster +* node"]);
        it.engine.handle_message(B, &delta(CLUSTER, "n1", &["x@1:one", "y@1:one"], &[]).encode_to_vec(), it.now);
        assert_eq!(it.told(), ["x=one", "y=one"]);
        it.reconnect(A);
        assert_eq!(
            it.requests(A),
            ["Cluster +* has x=,y= node"],
            "no version of another server's, but that it is there"
        );
        it.respond_delta(CLUSTER, "n1", &["x@7:two"], &["y"]);
        assert_eq!(it.told(), ["y lapsing MESH-112", "x=two"]);
    }
}

/// A route to a cluster called `*` must not subscribe to all there are.
#[test]
fn a_wildcard_is_neither_a_name_nor_anything_that_a_server_may_send() {
    let mut it = Dialogue::new();
    it.subscribe(CLUSTER, WILDCARD);
    assert_eq!((it.told(), it.actions()), (vec!["* unusable MESH-113".to_owned()], vec![]));
    for variant in BOTH {
        let mut it = dialogue(variant, Subscription::Wildcard).asking(CLUSTER, &[WILDCARD]);
        match variant {
            Variant::StateOfTheWorld => it.respond(CLUSTER, "1", "n1", &["*:one", "a:one"]),
            Variant::Incremental => it.respond_delta(CLUSTER, "n1", &["*@1:one", "a@1:one"], &[]),
        }
        assert_eq!(it.told(), ["a=one"]);
        assert!(it.requests(A)[0].ends_with("NACK"));
    }
}

/// gRFC A47: what has an authority is not among everything of servers without one.
#[test]
fn a47_a_wildcard_brings_no_names_of_an_authority() {
    let mut it = dialogue(Variant::Incremental, Subscription::Wildcard).asking(CLUSTER, &[WILDCARD]);
    it.respond_delta(CLUSTER, "n1", &["xdstp://x/envoy.config.cluster.v3.Cluster/c@1:one"], &[]);
    assert_eq!(it.told(), [""; 0]);
}

/// A server whose resources come, go, spoil and change, over streams that are lost.
struct Server {
    texts: BTreeMap<String, String>,
    variant: Variant,
    responder: Option<Responder>,
}

impl Server {
    fn set(&self) -> Arc<ResourceSet> {
        let encode = |(name, text): (&String, &String)| {
            EncodedResource::new(ResourceKey::new(CLUSTER, name.as_str()), format!("{name}:{text}"))
        };
        Arc::new(ResourceSet::new(self.texts.iter().map(encode)))
    }

    fn talk(&mut self, it: &mut Dialogue) {
        it.actions();
        if self.responder.is_none() || it.is_asked(A) {
            it.reconnect(A);
            self.responder = Some(Responder::of(self.variant, self.set()));
        }
        let set = self.set();
        let responder = self.responder.as_mut().unwrap();
        let mut responses = responder.set_resources(set);
        for _ in 0..20 {
            responses.drain(..).for_each(|bytes| it.engine.handle_message(A, &bytes, it.now));
            while let Some(request) = it.engine.poll_request(A) {
                it.engine.handle_written(A, it.now);
                responses.extend(responder.handle_request(&request));
            }
        }
        assert!(responses.is_empty(), "they never agree");
    }
}

#[test]
fn delta_whatever_happens_a_wildcard_has_what_the_server_has() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let variant = BOTH[random.usize(..2)];
        let form = [Subscription::Wildcard, Subscription::LegacyWildcard][random.usize(..2)];
        let mut it = dialogue(variant, form);
        let mut server = Server { texts: BTreeMap::new(), variant, responder: None };
        it.subscribe(CLUSTER, WILDCARD);
        for _ in 0..60 {
            let name = ["a", "b", "c", "d"][random.usize(..4)];
            match random.u8(..8) {
                0..3 => drop(server.texts.insert(name.to_owned(), random.u16(..).to_string())),
                3 => drop(server.texts.insert(name.to_owned(), "bad".to_owned())),
                4 => drop(server.texts.remove(name)),
                5 if server.responder.take().is_some() => it.lose(A),
                6 => {
                    it.unsubscribe(CLUSTER, WILDCARD);
                    it.subscribe(CLUSTER, WILDCARD);
                }
                7 if form == Subscription::Wildcard && random.bool() => it.subscribe(CLUSTER, name),
                7 => it.unsubscribe(CLUSTER, name),
                _ => {}
            }
            if random.bool() {
                server.talk(&mut it);
            }
        }
        ["a", "b", "c", "d"].iter().for_each(|name| it.unsubscribe(CLUSTER, name));
        server.texts.values_mut().for_each(|text| *text = text.replace("bad", "good"));
        server.talk(&mut it);
        // An absence that may be about the time before is believed after 15 s, and has grace.
        it.wait(46.0);
        let text = |status: crate::status::ResourceStatus| {
            status.bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
        };
        let has: Vec<String> = it.engine.resources().map(text).collect();
        let expected: Vec<String> = server.texts.iter().map(|(name, text)| format!("{name}:{text}")).collect();
        assert_eq!(has, expected, "seed {seed}: {variant:?} {form:?}");
    }
}
