//! HTTP/2: one connection, which all requests share.
//!
//! A request is handed to hyper's connection by a clone of its sender, without a lock of ours. Requests beyond the server's
//! MAX_CONCURRENT_STREAMS wait inside hyper, in their order; those that still wait when the connection ends come back.

mod frames;

use std::sync::Arc;

use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_core::error::{Code, Error};
use tokio::task::JoinHandle;

use self::frames::{Signs, Watched};
use super::classify::reason;
use super::exchange::finish;
use super::link::{Established, Lost};
use super::request::to_http2;
use super::way::Way;
use super::{ConnectSettings, EndpointFuture, EndpointService};
use crate::body::MeshBody;
use crate::io::BoxStream;
use http::Request;

/// A connection that stands.
#[derive(Debug)]
struct Connection {
    way: Arc<Way>,
    sender: SendRequest<MeshBody>,
}

impl EndpointService for Connection {
    fn call(&self, mut request: Request<MeshBody>) -> EndpointFuture {
        to_http2(&mut request, self.way.is_tls());
        let sent = self.sender.clone().try_send_request(request);
        let way = self.way.clone();
        Box::pin(async move {
            let response = sent.await.map_err(|error| finish(&way.peer, error))?;
            Ok(response.map(MeshBody::new))
        })
    }
}

/// Speaks HTTP/2 on `io`, up to the server's SETTINGS.
pub(super) async fn establish(way: &Arc<Way>, io: BoxStream) -> Result<Established, Error> {
    let signs = Arc::new(Signs::default());
    let io = TokioIo::new(Watched::new(io, signs.clone()));
    let (sender, connection) =
        builder(&way.settings).handshake(io).await.map_err(|error| not_http2(way, &reason(&error)))?;
    let mut driver = tokio::spawn(connection);
    tokio::select! {
        () = signs.settings() => {}
        ended = &mut driver => {
            if let Some(refusal) = signs.refusal() {
                return Err(Error::new(Code::HANDSHAKE, format!("{} {refusal}", way.peer)));
            }
            let why = ended.ok().and_then(Result::err).map_or_else(|| "it closed the connection".to_owned(), |error| reason(&error));
            return Err(not_http2(way, &why));
        }
    }
    Ok(Established { service: Box::new(Connection { way: way.clone(), sender }), lost: Box::pin(lost(signs, driver)) })
}

/// Until no more requests can go there. Those under way when the server says GOAWAY are finished by hyper.
async fn lost(signs: Arc<Signs>, driver: JoinHandle<hyper::Result<()>>) -> Lost {
    tokio::select! {
        () = signs.goaway() => {}
        _ = driver => {}
    }
    Lost::Ended
}

fn not_http2(way: &Way, why: &str) -> Error {
    let text = format!("{} took a connection but did not start HTTP/2 on it: {why}", way.peer);
    // A server that speaks TLS 1.3 judges our certificate only now.
    let next_step = if way.is_tls() {
        "check that the server trusts our certificate, and that the port speaks HTTP/2"
    } else {
        "check that the port speaks HTTP/2, and whether it wants TLS"
    };
    Error::new(Code::NO_CONNECTION, text).with_next_step(next_step)
}

/// Runs what hyper spawns for each request: boxed, as it is large, and a task's future is moved many times on its way in.
#[derive(Debug, Clone, Copy)]
struct Spawn;

impl<F> Executor<F> for Spawn
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(Box::pin(future));
    }
}

fn builder(settings: &ConnectSettings) -> Builder<Spawn> {
    let mut builder = Builder::new(Spawn);
    builder
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .keep_alive_interval(settings.keep_alive_interval)
        .keep_alive_timeout(settings.keep_alive_timeout)
        .keep_alive_while_idle(settings.keep_alive_while_idle);
    builder
}
