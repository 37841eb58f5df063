//! The program `conformance-adapter`, spoken to over its pipes as the corpus's harness does.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// How long an answer may take before the test fails: a fault must not hang it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, which does not outlive its test.
struct Adapter {
    program: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Adapter {
    fn start() -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_conformance-adapter"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let mut adapter = program;
        let (input, output) = (adapter.stdin.take(), adapter.stdout.take().expect("it is piped"));
        Self { program: adapter, input, output: BufReader::new(output).lines() }
    }

    fn ask(&mut self, message: &Value) -> Value {
        writeln!(self.input.as_ref().expect("it listens"), "{message}").expect("it listens");
        let line = self.output.next().expect("it answers").expect("it answers in UTF-8");
        serde_json::from_str(&line).expect("it answers in JSON")
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("loopback can be bound").local_addr().expect("it has an address")
}

/// Answers its connections with the first line of each request, one request a connection. A thread for each: a client may
/// hold a connection on which it says nothing.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let address = listener.local_addr().expect("it has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || echo(&stream));
        }
    });
    address
}

fn echo(mut stream: &TcpStream) {
    let mut lines = BufReader::new(stream).lines();
    let Some(Ok(first)) = lines.next() else { return };
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let length = first.len();
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{first}");
}

fn get(address: SocketAddr, path: &str) -> String {
    ask(address, path, "x-none: 1")
}

fn ask(address: SocketAddr, path: &str, header: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: svc.test\r\n{header}\r\nconnection: close\r\n\r\n").expect("it reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("it answers in text");
    response
}

fn serve(id: u64, listen: SocketAddr, upstream: SocketAddr, filter: &Value) -> Value {
    let endpoint = json!({"endpoint": {"address": {"socket_address": {
        "address": upstream.ip().to_string(), "port_value": upstream.port()}}}});
    json!({"id": id, "op": "serve", "listen": listen.to_string(), "config": {
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"path": "/direct"}, "direct_response": {"status": 202, "body": {"inline_string": "r:direct"}}},
            {"match": {"prefix": "/"}, "route": {"cluster": "a", "prefix_rewrite": "/new/"}},
        ]}]},
        "http_filters": [filter],
        "clusters": [{"name": "a", "type": "STATIC", "connect_timeout": "1s", "load_assignment": {
            "cluster_name": "a", "endpoints": [{"lb_endpoints": [endpoint]}]}}],
    }})
}

fn fault(abort: &Value) -> Value {
    json!({"name": "fault", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault", "abort": abort}})
}

#[test]
fn it_serves_a_configuration_until_it_is_told_to_stop() {
    let (mut adapter, listen, upstream) = (Adapter::start(), free_address(), upstream());
    let none = fault(&json!({"http_status": 503}));
    assert_eq!(adapter.ask(&serve(7, listen, upstream, &none)), json!({"id": 7, "ready": true}));
    let direct = get(listen, "/direct");
    assert!(direct.starts_with("HTTP/1.1 202 ") && direct.ends_with("\r\n\r\nr:direct"), "{direct}");
    let forwarded = get(listen, "/x");
    assert!(forwarded.ends_with("\r\n\r\nGET /new/x HTTP/1.1"), "{forwarded}");
    // What came over HTTP/1.1 goes on so: the upstream speaks nothing else.
    let grpc = ask(listen, "/x", "content-type: application/grpc");
    assert!(grpc.ends_with("\r\n\r\nGET /new/x HTTP/1.1"), "{grpc}");
    assert_eq!(adapter.ask(&json!({"id": 7, "op": "stop"})), json!({"id": 7, "stopped": true}));
    TcpListener::bind(listen).expect("the address is free again");
    // The next configuration has nothing of the last one.
    let all = fault(&json!({"http_status": 418, "percentage": {"numerator": 100}}));
    assert_eq!(adapter.ask(&serve(8, listen, upstream, &all))["ready"], true);
    assert!(get(listen, "/x").starts_with("HTTP/1.1 418 "));
    drop(adapter.input.take());
    assert!(adapter.program.wait().unwrap().success(), "it ends with its input");
}

#[test]
fn what_is_wrong_is_rejected_and_what_is_not_there_is_unsupported() {
    let (mut adapter, listen) = (Adapter::start(), free_address());
    let wrong = fault(&json!({"http_status": 99}));
    let rejected = adapter.ask(&serve(1, listen, listen, &wrong));
    assert!(rejected["rejected"].as_str().unwrap().contains("http_status"), "{rejected}");
    let unknown = json!({"name": "wasm", "typed_config": {
        "@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": "type.googleapis.com/acme.Wasm"}});
    let unsupported = adapter.ask(&serve(2, listen, listen, &unknown));
    assert!(unsupported["unsupported"].as_str().unwrap().contains("acme.Wasm"), "{unsupported}");
    let table = |domain: &str| {
        json!({"op": "validate", "id": 3, "config": {"route_config": {"virtual_hosts": [
            {"name": "a", "domains": ["a"]}, {"name": "b", "domains": [domain]}]}}})
    };
    assert_eq!(adapter.ask(&table("b")), json!({"id": 3, "accepted": true}));
    let twice = adapter.ask(&table("a"));
    assert_eq!(twice["accepted"], false);
    assert!(twice["error"].as_str().unwrap().contains("domains"), "{twice}");
}
