//! Where a request would go, and why: `explain GET http://reviews:9080/x -H k:v`.
//!
//! The configuration is the environment's, as for any program of the mesh (`MESH_CONFIG`, a file of routes;
//! `GRPC_XDS_BOOTSTRAP`, a control plane), or the file that `--config` names; with `--live ADDRESS` it is that of a running process
//! which serves `Mesh::explain_service` there, with the endpoints' states as that process sees them. Nothing is sent. `--dice`
//! fixes the chance, as weights and fractions need it. The exit code is 1 where no route takes the request.

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use mesh_tower::Mesh;

const USAGE: &str = "explain METHOD URI [-H NAME:VALUE]... [--config FILE [--dice NUMBER] | --live ADDRESS]";

/// How long the configuration may take to come.
const PATIENCE: Duration = Duration::from_secs(20);

type BoxError = Box<dyn std::error::Error>;

struct Asked {
    request: Request<()>,
    config: Option<String>,
    dice: Option<u64>,
    live: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<bool, BoxError> {
    let Asked { request, config, dice, live } = asked(std::env::args().skip(1))?;
    if let Some(address) = live {
        return tokio::time::timeout(PATIENCE, ask(&address, &request)).await.map_err(|_| "no answer came in time")?;
    }
    let mesh = match config {
        Some(path) => Mesh::builder().file(path).build()?,
        None => Mesh::from_env()?,
    };
    let explaining = async {
        match dice {
            Some(dice) => mesh.explain_with(&request, dice).await,
            None => mesh.explain(&request).await,
        }
    };
    let explained = tokio::time::timeout(PATIENCE, explaining).await.map_err(|_| "no configuration came in time")??;
    write!(std::io::stdout(), "{explained}")?;
    Ok(explained.routing.decision.is_ok())
}

/// Asks a running process.
async fn ask(address: &str, request: &Request<()>) -> Result<bool, BoxError> {
    let mut question = format!("{} {}", request.method(), request.uri());
    for (name, value) in request.headers() {
        let _ = write!(question, "\n{name}:{}", value.to_str()?);
    }
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let question = Request::post("/").header("host", address).body(Full::<bytes::Bytes>::from(question))?;
    let response = sender.send_request(question).await?;
    let is_answer = response.status().is_success();
    let text = response.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&text);
    if !is_answer {
        return Err(text.trim_end().into());
    }
    write!(std::io::stdout(), "{text}")?;
    Ok(!text.contains("no decision: "))
}

fn asked(mut words: impl Iterator<Item = String>) -> Result<Asked, BoxError> {
    let method: Method = words.next().ok_or(USAGE)?.parse()?;
    let uri: Uri = words.next().ok_or(USAGE)?.parse()?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let (mut config, mut dice, mut live) = (None, None, None);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        match word.as_str() {
            "-H" => {
                let (name, value) = value.split_once(':').ok_or("a header is NAME:VALUE")?;
                let name: HeaderName = name.trim().parse()?;
                request.headers_mut().append(name, HeaderValue::from_str(value.trim())?);
            }
            "--config" => config = Some(value),
            "--live" => live = Some(value),
            "--dice" => dice = Some(value.parse()?),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(Asked { request, config, dice, live })
}
