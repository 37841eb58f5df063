//! The way to a control plane: gRPC streams over HTTP/2, in plaintext or TLS as the bootstrap says.
//!
//! One connection for each stream, on the runtime of whoever opens it, which is the configuration thread's. Only what ADS
//! needs of gRPC is here: no compression, no deadline, and messages of any size.

mod outgoing;
mod stream;
mod token;
mod uri;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_core::ads::{ControlStream, ControlTransport, Opening, TransportError};
use mesh_core::bootstrap::{ChannelCredentials, ServerConfig, TlsFiles};
use mesh_core::identity::CertificateSource;
use mesh_core::model::Name;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::connect::first::first_of;
use crate::connect::tcp::TcpKeepalive;
use crate::io::BoxStream;
use crate::secure::{ChannelTls, Protocol};
use outgoing::Outgoing;
use stream::GrpcStream;
use token::Tokens;
use uri::{Place, ServerUri};

/// How long a silent connection is left alone: as gRPC's xDS clients do. grpc-go's servers close connections that ask more
/// often than every 5 minutes, unless they are told otherwise.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// How long the answer may take: as gRPC's xDS clients do.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// HTTP/2's windows: so much may be under way while we are busy with the message before.
const WINDOW: u32 = 1 << 20;
/// How long a stream that was dropped may take to tell the server so.
const FAREWELL: Duration = Duration::from_secs(1);

/// The transport of the xDS servers of a bootstrap.
pub(crate) fn control_transport() -> Arc<dyn ControlTransport> {
    Arc::new(Http2Transport::default())
}

/// The same, showing the certificate of `identity` to servers whose credentials are `tls` without a certificate of their own.
#[cfg(feature = "istio-ca")]
pub(crate) fn control_transport_as(identity: Arc<dyn CertificateSource>) -> Arc<dyn ControlTransport> {
    Arc::new(Http2Transport { identity: Some(identity), ..Http2Transport::default() })
}

#[derive(Default)]
struct Http2Transport {
    identity: Option<Arc<dyn CertificateSource>>,
    /// TLS by its files, which are those of a bootstrap's few servers.
    channels: Mutex<Vec<(TlsFiles, Arc<ChannelTls>)>>,
    tokens: Tokens,
}

impl ControlTransport for Http2Transport {
    fn open(&self, server: &ServerConfig, path: &str) -> Opening {
        let channel = self.channel(&server.credentials).and_then(|tls| {
            let token = self.tokens.bearer(&server.call_credentials, tls.is_some(), SystemTime::now())?;
            Ok((tls, token))
        });
        let (server, path) = (server.clone(), path.to_owned());
        Box::pin(async move {
            let (tls, token) = channel?;
            let stream = open(&server, &path, tls, token).await?;
            Ok(Box::new(stream) as Box<dyn ControlStream>)
        })
    }
}

impl Http2Transport {
    /// The TLS that the credentials ask for; None is plaintext.
    fn channel(&self, credentials: &ChannelCredentials) -> Result<Option<Arc<ChannelTls>>, TransportError> {
        match credentials {
            ChannelCredentials::Insecure => Ok(None),
            ChannelCredentials::Tls(files) => {
                let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, tls)) = channels.iter().find(|(known, _)| known == files) {
                    return Ok(Some(tls.clone()));
                }
                let tls = Arc::new(ChannelTls::new(files, self.identity.clone()));
                channels.push((files.clone(), tls.clone()));
                Ok(Some(tls))
            }
            other => Err(TransportError::new(format!("channel_creds {other:?} are not supported"))),
        }
    }
}

async fn open(
    server: &ServerConfig,
    path: &str,
    tls: Option<Arc<ChannelTls>>,
    token: Option<HeaderValue>,
) -> Result<GrpcStream, TransportError> {
    let to: ServerUri = server.uri.parse()?;
    let io = connect(&to.place).await?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let io = match tls {
        None => io,
        Some(tls) => secure(io, &tls, &to.host).await?,
    };
    let uri = Uri::builder().scheme(scheme).authority(to.authority.as_str()).path_and_query(path).build();
    let uri = uri.map_err(|error| TransportError::new(format!("server_uri gives no valid authority: {error}")))?;
    let metadata = metadata(&server.initial_metadata)?;
    call(io, uri, token, metadata).await
}

/// What the server's configuration has sent with each call, beside what gRPC has.
fn metadata(pairs: &[(Name, Name)]) -> Result<HeaderMap, TransportError> {
    let mut metadata = HeaderMap::new();
    for (name, value) in pairs {
        let pair = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(value).ok());
        let (name, value) =
            pair.ok_or_else(|| TransportError::new(format!("initial_metadata `{name}` is no header")))?;
        metadata.append(name, value);
    }
    Ok(metadata)
}

async fn connect(place: &Place) -> Result<BoxStream, TransportError> {
    match place {
        Place::Host(host, port) => {
            let found = tokio::net::lookup_host((host.as_str(), *port)).await;
            let found = found.map_err(|error| TransportError::new(format!("`{host}` is not found: {error}")))?;
            Ok(Box::new(connect_first(found.collect()).await?))
        }
        Place::Addresses(addresses) => Ok(Box::new(connect_first(addresses.clone()).await?)),
        #[cfg(unix)]
        Place::Unix(path) => match tokio::net::UnixStream::connect(path).await {
            Ok(io) => Ok(Box::new(io)),
            Err(error) => Err(TransportError::new(format!("cannot connect to {}: {error}", path.display()))),
        },
        #[cfg(not(unix))]
        Place::Unix(_) => Err(TransportError::new("this system has no unix sockets")),
    }
}

/// The first that answers: of two, one may lead nowhere for as long as the resolver names it first.
async fn connect_first(addresses: Vec<SocketAddr>) -> Result<TcpStream, TransportError> {
    let connected = first_of(addresses, Some(TcpKeepalive::default())).await;
    connected.map_err(|error| TransportError::new(error.to_string()))
}

async fn secure(io: BoxStream, tls: &ChannelTls, host: &str) -> Result<BoxStream, TransportError> {
    let secured = tls.connect(io, host).await.map_err(|error| TransportError::new(error.to_string()))?;
    match secured.alpn {
        Some(Protocol::Http2) | None => Ok(secured.io),
        Some(other) => Err(TransportError::new(format!("the server chose {other:?} by ALPN, and gRPC needs HTTP/2"))),
    }
}

/// Starts the call, without waiting for any answer.
async fn call(
    io: BoxStream,
    uri: Uri,
    token: Option<HeaderValue>,
    metadata: HeaderMap,
) -> Result<GrpcStream, TransportError> {
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake::<_, Outgoing>(TokioIo::new(io))
        .await
        .map_err(|error| stream::broken("HTTP/2 cannot be spoken", &error))?;
    let (alive, dropped) = oneshot::channel();
    tokio::spawn(run(connection, dropped));
    sender.ready().await.map_err(|error| stream::broken("the connection is broken", &error))?;
    let (outbox, outgoing) = outgoing::channel();
    let response = sender.send_request(request(uri, token, metadata, outgoing));
    Ok(GrpcStream::new(outbox, Box::pin(response), sender, alive))
}

/// Runs the connection as long as its stream lives, and then until the server knows or cannot be told.
async fn run(connection: impl Future<Output = hyper::Result<()>>, dropped: oneshot::Receiver<()>) {
    let farewell = async {
        // Nothing is ever sent: the stream's end is the news.
        let _ = dropped.await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        // The stream reports why.
        _ = connection => {}
        () = farewell => {}
    }
}

fn request(uri: Uri, token: Option<HeaderValue>, metadata: HeaderMap, body: Outgoing) -> Request<Outgoing> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = metadata;
    let headers = request.headers_mut();
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("mesh-tower/", env!("CARGO_PKG_VERSION"))));
    if let Some(token) = token {
        headers.insert(AUTHORIZATION, token);
    }
    request
}
