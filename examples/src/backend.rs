//! A server of the mesh that says who it is and who asked: HTTP and gRPC on one port.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use mesh_core::error::{Code, Error};
use mesh_core::identity::PeerIdentity;
use mesh_core::load::Load;
use mesh_grpc::OrcaService;
use mesh_tower::Mesh;
use mesh_tower::inbound::{InboundOptions, PeerInfo, ServerLoad, serve};
use tokio::io::AsyncReadExt;

use crate::signal;

/// The header in which every response says who answered.
pub const BACKEND: HeaderName = HeaderName::from_static("x-backend");

/// The header in which every response says which certificate the client showed: a number made of it.
pub const SEEN_CERTIFICATE: HeaderName = HeaderName::from_static("x-seen-certificate");

/// An empty message in gRPC's frame.
const EMPTY: &[u8] = &[0; 5];
/// How often its load is told on a stream.
const REPORTS: Duration = Duration::from_secs(1);
/// How long requests under way may take when the program is asked to end.
const DRAIN: Duration = Duration::from_secs(10);

/// What a backend does.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 is any.
    pub listen: SocketAddr,
    /// What it calls itself.
    pub name: String,
    /// Whether it takes gRPC too: `grpc.health.v1.Health`, and any other method with an empty message.
    pub grpc: bool,
    /// How busy it says that it is, and how it says so.
    pub busy: Option<(f64, Saying)>,
    /// How long it takes to answer.
    pub delay: Duration,
    /// Whether another program started it: it prints `listening on ADDR` before there is a configuration that lets it serve,
    /// and ends when its stdin does, so that it does not outlive that program.
    pub is_child: bool,
}

/// How a backend says what load it is under (ORCA, gRFC A51).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Saying {
    /// With each response.
    Responses,
    /// On a stream of its own.
    Stream,
}

impl Options {
    /// How its mesh serves.
    pub fn server_options(&self) -> InboundOptions {
        let mut options = InboundOptions::default();
        options.load_reports = self.load(Saying::Responses);
        options
    }

    /// What it says of its load in this way.
    fn load(&self, saying: Saying) -> Option<ServerLoad> {
        let (application_utilization, _) = self.busy.filter(|(_, way)| *way == saying)?;
        let load = ServerLoad::new();
        load.set(Load { requests_per_second: 100.0, application_utilization, ..Load::default() });
        Some(load)
    }
}

/// Serves under the configuration of `mesh` until SIGINT or SIGTERM. Prints `serving on ADDR` when it does.
///
/// # Errors
///
/// [`Code::BIND`], and what [`Mesh::bind`] says.
pub async fn run(mesh: &Mesh, options: Options) -> Result<(), Error> {
    let ended = signal::ended().map_err(|error| Error::new(Code::INTERNAL, error.to_string()))?;
    let bound = mesh.bind(options.listen).await?;
    let address = bound.local_addr();
    if options.is_child {
        say("listening", address);
    }
    let (slot, listener) = bound.into_parts();
    let watched = slot.clone();
    let announced = tokio::spawn(async move {
        watched.serving().await;
        say("serving", address);
    });
    let (stopping, is_child) = (mesh.clone(), options.is_child);
    let stopped = tokio::spawn(async move {
        tokio::select! {
            () = ended => {}
            () = stdin_ended(), if is_child => {}
        }
        stopping.shutdown(DRAIN).await;
    });
    serve(slot, listener, app(&options)).await;
    announced.abort();
    // What is under way has ended; the control plane is still to be told.
    stopped.await.map_err(|error| Error::new(Code::INTERNAL, error.to_string()))
}

async fn stdin_ended() {
    let mut ignored = [0; 64];
    while tokio::io::stdin().read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}

/// Whoever started the program reads it; if nobody does any more, that is no reason to stop.
fn say(what: &str, address: SocketAddr) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{what} on {address}").and_then(|()| out.flush());
}

/// The application: what a user would write, and nothing of the mesh but who the peer is.
///
/// # Panics
///
/// The name is no header value.
pub fn app(options: &Options) -> Router {
    let (name, delay) = (options.name.clone(), options.delay);
    let header = HeaderValue::try_from(&*name).expect("a backend's name is a word");
    let grpc = options.grpc;
    let mut app = Router::new().fallback(move |request: Request| answer(name.clone(), grpc, request));
    if grpc {
        let (_, health) = tonic_health::server::health_reporter();
        app = app.route_service("/grpc.health.v1.Health/{method}", health);
    }
    if let Some(load) = options.load(Saying::Stream) {
        let orca = OrcaService::new(load).min_interval(REPORTS);
        app = app.route_service("/xds.service.orca.v3.OpenRcaService/{method}", orca);
    }
    app.layer(axum::middleware::from_fn(move |request: Request, next: axum::middleware::Next| {
        let header = header.clone();
        async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let seen = request.extensions().get::<PeerInfo>().and_then(PeerInfo::identity).map(fingerprint);
            let mut response = next.run(request).await;
            response.headers_mut().insert(BACKEND, header);
            if let Some(seen) = seen {
                response.headers_mut().insert(SEEN_CERTIFICATE, HeaderValue::from(seen));
            }
            response
        }
    }))
}

/// Tells certificates apart; it proves nothing.
fn fingerprint(peer: &PeerIdentity) -> u64 {
    let mut hasher = DefaultHasher::new();
    peer.chain().first().map(AsRef::as_ref).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

async fn answer(name: String, grpc: bool, request: Request) -> Response {
    if grpc && is_grpc(request.headers()) {
        return empty_message();
    }
    let peer = request.extensions().get::<PeerInfo>();
    let id = peer.and_then(PeerInfo::identity).and_then(PeerIdentity::spiffe_id);
    let id = id.map_or_else(|| "nobody".to_owned(), ToString::to_string);
    Response::new(Body::from(format!("{name} {} for {id}\n", request.uri().path())))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The answer of any unary method whose response has no required meaning.
fn empty_message() -> Response {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let trailers = async move { Some(Ok::<_, Infallible>(trailers)) };
    let mut response = Response::new(Body::new(Full::new(Bytes::from_static(EMPTY)).with_trailers(trailers)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
