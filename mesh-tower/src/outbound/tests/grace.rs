//! What the control plane takes away while it is in use, over real sockets.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::event::{Event, EventSink};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::*;

/// Long enough for a test that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cluster whose endpoints come by EDS.
fn eds(name: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}}},
    })
}

fn assignment(name: &str, endpoints: &[SocketAddr]) -> Value {
    let mut assignment = cluster(name, endpoints)["load_assignment"].take();
    assignment["@type"] = json!("type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment");
    if endpoints.is_empty() {
        assignment["endpoints"] = json!([]);
    }
    assignment
}

struct Tell(UnboundedSender<Event>);

impl EventSink for Tell {
    fn event(&self, event: &Event) {
        let _ = self.0.send(event.clone());
    }
}

/// A mesh in which host `a` is cluster `one`, with a client that has called it.
struct World {
    client: HttpClient,
    source: MemorySource,
    events: UnboundedReceiver<Event>,
}

impl World {
    async fn of(endpoints: &[SocketAddr], grace: Option<Duration>) -> Self {
        let (tell, events) = unbounded_channel();
        let mut settings = mesh_core::ads::Settings::default();
        settings.deletion_grace = grace;
        let source = MemorySource::new(encode(&Self::resources(endpoints))).with_settings(settings);
        let mesh = Mesh::builder().source(source.clone()).events(Arc::new(Tell(tell))).build().unwrap();
        let world = Self { client: mesh.http(), source, events };
        for _ in 0..2 * endpoints.len() {
            assert_eq!(get(&world.client, "http://a/").await.0, StatusCode::OK);
        }
        world
    }

    fn resources(endpoints: &[SocketAddr]) -> [Value; 3] {
        [listener("a:80", &routes(&to("one"))), eds("one"), assignment("one", endpoints)]
    }

    /// Has the control plane say this, and waits until it is in force.
    async fn says(&mut self, resources: &[Value]) {
        while self.events.try_recv().is_ok() {}
        self.source.set(encode(resources));
        self.until(|event| matches!(event, Event::Published { .. } | Event::Unpublished { .. })).await;
    }

    async fn until(&mut self, is: impl Fn(&Event) -> bool) {
        let found = async { while !is(&self.events.recv().await.unwrap()) {} };
        timeout(PATIENCE, found).await.unwrap();
    }

    async fn get(&self) -> Result<String, Error> {
        let response = timeout(PATIENCE, self.client.get("http://a/")).await.unwrap()?;
        Ok(text(response).await)
    }

    /// Calls until nobody is left to call, and says why.
    async fn nobody_left(&self) -> Error {
        for _ in 0..1000 {
            match self.get().await {
                Err(error) if error.code() == Code::NO_ENDPOINTS => return error,
                // The connection just ended.
                Err(error) => assert!([Code::NO_CONNECTION, Code::BROKEN].contains(&error.code()), "{error}"),
                Ok(text) => assert!(text.starts_with("meant"), "{text}"),
            }
        }
        panic!("somebody is always there");
    }
}

#[tokio::test]
async fn an_emptied_set_goes_on_over_the_connections_that_stand() {
    let backends = [Backend::start("one").await, Backend::start("two").await];
    let addresses = [backends[0].address, backends[1].address];
    let mut world = World::of(&addresses, None).await;
    world.says(&World::resources(&[])).await;
    for _ in 0..20 {
        world.get().await.unwrap();
    }
    assert!(backends.iter().all(|backend| backend.count() > 8), "both are still used");
}

/// Its address may be another service's by now.
#[tokio::test]
async fn nobody_new_is_taken_for_an_endpoint_of_an_emptied_set() {
    let backend = Backend::start("meant").await;
    let address = backend.address;
    let mut world = World::of(&[address], None).await;
    world.says(&World::resources(&[])).await;
    world.get().await.unwrap();
    backend.stop().await;
    let impostor = TcpListener::bind(address).await.unwrap();
    let error = world.nobody_left().await;
    assert!(error.message().contains("`one`: it was emptied (version"), "{error}");
    assert!(timeout(Duration::from_millis(100), impostor.accept()).await.is_err(), "somebody called it");
    drop(impostor);

    let backend = Backend::start("meant again").await;
    world.says(&World::resources(&[address, backend.address])).await;
    assert!(world.get().await.unwrap().starts_with("meant again"), "and what is told anew is used");
}

#[tokio::test]
async fn an_endpoint_that_goes_while_others_stay_goes_at_once() {
    let (stays, goes) = (Backend::start("stays").await, Backend::start("goes").await);
    let mut world = World::of(&[stays.address, goes.address], None).await;
    world.says(&World::resources(&[stays.address])).await;
    let before = goes.count();
    for _ in 0..20 {
        assert!(world.get().await.unwrap().starts_with("stays"));
    }
    assert_eq!(goes.count(), before);
}

#[tokio::test]
async fn a_deleted_listener_or_cluster_goes_on() {
    let backend = Backend::start("one").await;
    for left in [vec![], vec![listener("a:80", &routes(&to("one")))]] {
        let mut world = World::of(&[backend.address], None).await;
        world.source.set(encode(&left));
        world.until(|event| matches!(event, Event::Withdrawn { .. })).await;
        for _ in 0..20 {
            world.get().await.unwrap();
        }
    }
}

/// What is wrong with the configuration may be why its endpoints are.
#[tokio::test]
async fn a88_a_request_that_reaches_nobody_says_what_is_wrong_with_the_configuration() {
    let listener = || listener("a:80", &routes(&to("one")));
    for gone in ["Listener `a:80`: ", "Cluster `one`: ", "ClusterLoadAssignment `one`: "] {
        let backend = Backend::start("one").await;
        let mut world = World::of(&[backend.address], None).await;
        let all = [listener(), eds("one"), assignment("one", &[backend.address])];
        let kind = |resource: &Value| resource["@type"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
        let left: Vec<Value> = all.into_iter().filter(|one| !gone.starts_with(&format!("{} ", kind(one)))).collect();
        assert_eq!(left.len(), 2);
        world.says(&left).await;
        backend.stop().await;
        // The first ones may still find the connection's end.
        let mut errors = Vec::new();
        for _ in 0..100 {
            errors.push(world.get().await.expect_err("nobody is there").message().to_owned());
        }
        assert!(errors.last().is_some_and(|error| error.contains(gone)), "{gone}: {errors:?}");
    }
}

#[tokio::test]
async fn without_grace_requests_fail_with_the_reason() {
    let backend = Backend::start("one").await;
    let listener = || listener("a:80", &routes(&to("one")));
    for (left, reason) in [
        (vec![], "MESH-206: the host is not in the mesh: Listener `a:80`: the server reports code 5: Listener `a:80`"),
        // What Envoy answers: `cluster_not_found_response_code`.
        (
            vec![listener()],
            "503 MESH-205: cluster `one` does not exist: Cluster `one`: the server reports code 5: Cluster `one`",
        ),
        (
            vec![listener(), eds("one"), assignment("one", &[])],
            "MESH-401: cluster `one` has no endpoints: ClusterLoadAssignment `one`: it was emptied",
        ),
    ] {
        let mut world = World::of(&[backend.address], Some(Duration::ZERO)).await;
        world.says(&left).await;
        let said = match timeout(PATIENCE, world.client.get("http://a/")).await.unwrap() {
            Ok(response) => format!("{} {}", response.status().as_u16(), text(response).await),
            Err(error) => error.to_string(),
        };
        assert!(said.starts_with(reason), "{said}");
    }
}
