//! The examples of `docs/policies.md`, run: each is a configuration, requests, and what is seen of each.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse, OkHttpResponse};
use envoy_types::pb::google::rpc;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_core::load::{LOAD_REPORT, Load};
use mesh_tower::Mesh;
use mesh_tower::body::MeshBody;
use mesh_tower::outbound::HttpClient;
use tokio::net::TcpListener;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policies.md");

/// How long an example may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A section of the page.
#[derive(Default)]
struct Example {
    title: String,
    host: String,
    filter: String,
    server: String,
    cluster: String,
    requests: String,
}

/// The sections that have requests.
fn examples(page: &str) -> Vec<Example> {
    let mut all = Vec::<Example>::new();
    let mut block: Option<&str> = None;
    for line in page.lines() {
        match (block, line.strip_prefix("```")) {
            (None, Some(kind)) => block = Some(kind),
            (Some(_), Some(_)) => block = None,
            (Some(kind), None) => {
                let example = all.last_mut().expect("a block stands under a title");
                let text = match kind {
                    "yaml" => &mut example.host,
                    "yaml filter" => &mut example.filter,
                    "yaml server" => &mut example.server,
                    "yaml cluster" => &mut example.cluster,
                    "text" => &mut example.requests,
                    other => panic!("nobody knows what a block of `{other}` is"),
                };
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {
                if let Some(title) = line.strip_prefix("## ") {
                    all.push(Example { title: title.to_owned(), ..Example::default() });
                }
            }
        }
    }
    all.retain(|example| !example.requests.is_empty());
    all
}

fn indented(text: &str, first: &str, rest: &str) -> String {
    let mut out = String::new();
    for (number, line) in text.lines().enumerate() {
        let _ = writeln!(out, "{}{line}", if number == 0 { first } else { rest });
    }
    out
}

/// The whole file of an example's mesh.
fn file(example: &Example, a: SocketAddr, b: SocketAddr) -> String {
    let mut text = format!(
        "\"@type\": type.googleapis.com/envoy.config.listener.v3.Listener
name: shop:80
api_listener:
  api_listener:
    \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
    route_config:
      virtual_hosts:
      - name: shop
        domains: [\"*\"]
{}    http_filters:
{}    - name: router
      typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
",
        indented(&example.host, "        ", "        "),
        indented(&example.filter, "    - ", "      "),
    );
    let more = example.cluster.as_str();
    for (name, addresses, more) in [("a", &[a][..], more), ("b", &[b], ""), ("ab", &[a, b], more)] {
        let endpoint = |at: &SocketAddr| {
            let (ip, port) = (at.ip(), at.port());
            let server = if *at == a { "a" } else { "b" };
            format!(
                "{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}, \
                 metadata: {{filter_metadata: {{envoy.lb: {{server: {server}}}}}}}}}"
            )
        };
        let endpoints = addresses.iter().map(endpoint).collect::<Vec<_>>().join(", ");
        let _ = write!(
            text,
            "---
\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster
name: {name}
type: STATIC
{more}load_assignment:
  cluster_name: {name}
  endpoints:
  - locality: {{region: r}}
    load_balancing_weight: 1
    lb_endpoints: [{endpoints}]
"
        );
    }
    text
}

/// The Listener of a server at `address` with these filters; what passes them goes on by the routes.
fn server_listener(filters: &str, address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        "---
\"@type\": type.googleapis.com/envoy.config.listener.v3.Listener
name: grpc/server?xds.resource.listening_address={address}
address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
filter_chains:
- filters:
  - name: http
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      route_config:
        virtual_hosts:
        - name: all
          domains: [\"*\"]
          routes: [{{match: {{prefix: \"\"}}, non_forwarding_action: {{}}}}]
      http_filters:
{}      - name: router
        typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
",
        indented(filters, "      ", "      "),
    )
}

/// The cluster of an authorization server.
fn authz_cluster(address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        "---
\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster
name: authz
type: STATIC
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {{http2_protocol_options: {{}}}}
load_assignment:
  cluster_name: authz
  endpoints:
  - lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]
"
    )
}

/// An authorization server that lets in whoever says please, as Ann.
struct Please;

#[tonic::async_trait]
impl Authorization for Please {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, tonic::Status> {
        let attributes = request.into_inner().attributes.expect("a question has attributes");
        let http = attributes.request.and_then(|request| request.http).expect("it is about HTTP");
        let polite = http.headers.get("x-say").is_some_and(|said| said == "please");
        let user = HeaderValue { key: "x-user".to_owned(), value: "ann".to_owned(), ..HeaderValue::default() };
        let user = HeaderValueOption { header: Some(user), ..HeaderValueOption::default() };
        let ok = OkHttpResponse { headers: vec![user], ..OkHttpResponse::default() };
        Ok(tonic::Response::new(CheckResponse {
            status: Some(rpc::Status { code: if polite { 0 } else { 7 }, ..rpc::Status::default() }),
            http_response: polite.then_some(HttpResponse::OkResponse(ok)),
            ..CheckResponse::default()
        }))
    }
}

async fn authorization_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    let address = listener.local_addr().expect("it is bound");
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder().add_service(AuthorizationServer::new(Please));
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

/// Starts a server; both of an example count together.
async fn server(name: &'static str, count: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = count.clone();
            let service = service_fn(move |request| answer(name, count.clone(), request));
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// Tells who it is and what it got; does what the request's plan says for this many requests.
async fn answer(
    name: &'static str,
    count: Arc<AtomicUsize>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = count.fetch_add(1, Ordering::SeqCst);
    let plan = request
        .headers()
        .get("x-plan")
        .map(|plan| plan.to_str().expect("plans are text").to_owned())
        .unwrap_or_default();
    let step = plan.split(',').nth(number).unwrap_or_default();
    if step == "hang" {
        std::future::pending::<()>().await;
    }
    let host = request.headers().get("host").map(|host| host.to_str().expect("hosts are text")).unwrap_or_default();
    let mut text = format!("{name} {} {host}", request.uri());
    for (header, value) in request.headers() {
        let _ = write!(text, " {header}:{}", value.to_str().expect("headers here are text"));
    }
    let load = request.headers().get("x-load").map(|load| load.to_str().expect("loads are text"));
    let mut response = Response::new(Full::from(text));
    let (status, location) = step.split_once('>').unwrap_or((step, ""));
    *response.status_mut() = status.parse().unwrap_or(StatusCode::OK);
    if !location.is_empty() {
        response.headers_mut().insert("location", location.parse().expect("URLs here are text"));
    }
    if let Some((a, b)) = load.map(|load| load.split_once(',').expect("a load for each")) {
        let application_utilization = if name == "a" { a } else { b }.parse().expect("a load is a number");
        let load = Load { requests_per_second: 100.0, application_utilization, ..Load::default() };
        response.headers_mut().insert(LOAD_REPORT, load.to_header());
    }
    Ok(response)
}

/// Sends one request line; all that is seen of the answer, with a space around each word.
async fn ask(client: &HttpClient, line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut request = Request::builder()
        .method(words.next().expect("a method"))
        .uri(format!("http://shop{}", words.next().expect("a path")));
    for word in words {
        let (name, value) = word.split_once(':').expect("a header is name:value");
        request = request.header(name, value);
    }
    let response = match client.send(request.body(MeshBody::empty()).expect("the line is a request")).await {
        Ok(response) => response,
        // What a server of the mesh would answer.
        Err(error) => return format!(" {} {error} ", mesh_tower::reply::Reply::of(&error).status.as_u16()),
    };
    let mut seen = format!(" {}", response.status().as_u16());
    for (name, value) in response.headers() {
        let _ = write!(seen, " {name}:{}", value.to_str().expect("headers here are text"));
    }
    let body = response.into_body().collect().await.expect("the body is whole").to_bytes();
    let _ = write!(seen, " {} ", String::from_utf8_lossy(&body).trim_end());
    seen
}

async fn run(example: &Example) {
    let count = Arc::new(AtomicUsize::new(0));
    let (a, b) = (server("a", count.clone()).await, server("b", count.clone()).await);
    let title = &example.title;
    let mut text = file(example, a, b);
    let front = if example.server.is_empty() { None } else { Some(free_address()) };
    if let Some(front) = front {
        text += &server_listener(&example.server, front);
        text += &authz_cluster(authorization_server().await);
    }
    let mesh = of_file(&text, a.port(), title);
    let client = match front {
        None => mesh.http(),
        Some(front) => caller(&mesh, front, title).await,
    };
    for line in example.requests.lines() {
        let (request, wanted) = line.split_once(" -> ").expect("a request and what is seen of it");
        if let Some(share) = wanted.strip_prefix("a=") {
            settles(&client, request, share.parse().expect("a share is a number"), title).await;
            continue;
        }
        let seen = ask(&client, request).await;
        for word in wanted.split_whitespace() {
            match word.strip_prefix("n=") {
                Some(number) => had(&count, number.parse().expect("n is a number"), title).await,
                None => assert!(seen.contains(&format!(" {word} ")), "{title}: {request}: {word} is not in{seen}"),
            }
        }
    }
}

/// A mesh of a file, which is read when the mesh is built.
fn of_file(text: &str, number: u16, title: &str) -> Mesh {
    let path = std::env::temp_dir().join(format!("mesh-policy-{}-{number}.yaml", std::process::id()));
    std::fs::write(&path, text).expect("the folder can be written");
    let mesh = Mesh::builder().file(&path).build();
    std::fs::remove_file(&path).expect("it was written");
    mesh.unwrap_or_else(|error| panic!("{title}: {error}"))
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
    listener.local_addr().expect("it is bound")
}

/// Serves `mesh` on `front`, and gives a client of that server: another mesh's, without a policy. Ready when the server is.
async fn caller(mesh: &Mesh, front: SocketAddr, title: &str) -> HttpClient {
    let server = mesh.clone();
    tokio::spawn(async move { server.serve(front, server.http()).await });
    let plain =
        Example { host: "routes:\n- match: {prefix: /}\n  route: {cluster: a}\n".to_owned(), ..Example::default() };
    let client = of_file(&file(&plain, front, front), front.port(), title).http();
    while ask(&client, "GET /").await.contains(" MESH-") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client
}

/// Of 100 such requests, so many come to server `a`, once the weights have followed.
async fn settles(client: &HttpClient, request: &str, share: usize, title: &str) {
    let mut found = Vec::new();
    while found.len() < 100 {
        let mut to_a = 0;
        for _ in 0..100 {
            to_a += usize::from(ask(client, request).await.contains(" a "));
        }
        if to_a.abs_diff(share) <= 2 {
            return;
        }
        found.push(to_a);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{title}: {request}: never {share} of 100, but {found:?}");
}

/// A copy may come a moment after its call was answered.
async fn had(count: &AtomicUsize, wanted: usize, title: &str) {
    for _ in 0..200 {
        if count.load(Ordering::SeqCst) == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{title}: the servers had {} requests, not {wanted}", count.load(Ordering::SeqCst));
}

#[tokio::test]
async fn every_example_of_the_page_does_what_it_says() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let all = examples(&page);
    assert!(all.len() >= 16, "{} examples", all.len());
    for example in &all {
        tokio::time::timeout(PATIENCE, run(example)).await.unwrap_or_else(|_| panic!("{} hangs", example.title));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_prints_the_decision_of_a_file() {
    let path = std::env::temp_dir().join(format!("mesh-explain-{}.yaml", std::process::id()));
    let example = Example {
        host: "routes:\n- {name: first, match: {path: /x}, route: {cluster: b}}\n- {name: rest, match: {prefix: /}, \
               route: {cluster: a}}\n"
            .to_owned(),
        ..Example::default()
    };
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    std::fs::write(&path, file(&example, nowhere, nowhere)).unwrap();
    let explain = |uri: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_explain"));
        command.args(["GET", uri, "-H", "k:v", "--dice", "7", "--config"]).arg(&path).output().unwrap()
    };
    let taken = explain("http://shop/y");
    let text = String::from_utf8(taken.stdout).unwrap();
    for part in ["route 0 `first`: ", "route 1 `rest`: TAKEN", "cluster `a`", "127.0.0.1:9 priority 0"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(taken.status.success());
    let mesh = Mesh::builder().file(&path).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = mesh.explain_service();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback_service(service)).await });
    let command = std::process::Command::new(env!("CARGO_BIN_EXE_explain"))
        .args(["GET", "http://shop/y", "--live", &address.to_string()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let live = tokio::task::spawn_blocking(|| command.wait_with_output().unwrap()).await.unwrap();
    assert!(live.status.success() && String::from_utf8_lossy(&live.stdout).contains("route 1 `rest`: TAKEN"));
    assert_eq!(explain("http://nobody/y").status.code(), Some(2), "it has no configuration");
    std::fs::remove_file(&path).unwrap();
}
