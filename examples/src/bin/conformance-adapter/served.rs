//! One configuration in force: a mesh whose server hands each request to its client.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::bootstrap::ListenerNames;
use mesh_core::error::Error;
use mesh_core::source::MemorySource;
use mesh_tower::Mesh;
use mesh_tower::inbound::{InboundOptions, ServingState};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinHandle;

use crate::config::{CLIENT_LISTENER, Case, Refusal};

/// How long a mesh may take to put its configuration in force.
const PATIENCE: Duration = Duration::from_secs(10);

/// A mesh that serves.
pub(crate) struct Served {
    mesh: Mesh,
    serving: JoinHandle<Result<(), Error>>,
}

impl Served {
    /// Serves `case` on `listen`.
    pub(crate) async fn start(case: Result<Case, Refusal>, listen: &str) -> Result<Self, Refusal> {
        let case = case?;
        let address = listen.parse().map_err(|error| Refusal::Rejected(format!("{listen}: {error}")))?;
        let (told, mut changes) = unbounded_channel();
        let mut options = InboundOptions::default();
        options.on_change = Arc::new(move |change| drop(told.send(change.state.clone())));
        let mut names = ListenerNames::local();
        // Whatever its host, a request finds the one Listener: which host it is for is the routes' business.
        names.set_client_default(CLIENT_LISTENER);
        let sources = case.providers().iter().cloned();
        let builder = sources.fold(Mesh::builder(), |builder, (name, source)| builder.certificates(name, source));
        let mesh = builder
            .source(MemorySource::new(case.resources(address)?))
            .listener_names(names)
            .insecure_tls(case.insecure(address))
            .server_options(options)
            .build()
            .map_err(|error| rejected(&error))?;
        let server = mesh.clone();
        let mut serving = tokio::spawn(async move { server.serve(address, server.http()).await });
        let in_force = async {
            mesh.ready(CLIENT_LISTENER).await.map_err(|error| rejected(&error))?;
            let change = tokio::select! {
                change = changes.recv() => change,
                ended = &mut serving => return Err(Refusal::Rejected(format!("the server ended: {ended:?}"))),
            };
            match change {
                Some(ServingState::Serving { .. }) => Ok(()),
                Some(ServingState::NotServing(error)) => Err(rejected(&error)),
                other => Err(Refusal::Rejected(format!("the server said {other:?}"))),
            }
        };
        let late = || Err(Refusal::Rejected(format!("it is not in force after {PATIENCE:?}")));
        let outcome = tokio::time::timeout(PATIENCE, in_force).await.unwrap_or_else(|_| late());
        let one = Self { mesh, serving };
        match outcome {
            Ok(()) => Ok(one),
            Err(refusal) => {
                one.stop().await;
                Err(refusal)
            }
        }
    }

    /// Closes everything now: the harness has its answers.
    pub(crate) async fn stop(self) {
        self.serving.abort();
        self.mesh.shutdown(Duration::ZERO).await;
    }
}

fn rejected(error: &Error) -> Refusal {
    Refusal::Rejected(error.to_string())
}
