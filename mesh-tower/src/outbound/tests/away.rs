//! Control planes that are not there.

use http::Request;
use mesh_core::bootstrap::Bootstrap;
use mesh_core::error::{Code, Stage};

use super::*;
use crate::body::MeshBody;

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn bootstrap(servers: &[SocketAddr]) -> Bootstrap {
    let server = |at: &SocketAddr| format!(r#"{{"server_uri": "{at}", "channel_creds": [{{"type": "insecure"}}]}}"#);
    let servers: Vec<String> = servers.iter().map(server).collect();
    Bootstrap::from_json(&format!(r#"{{"xds_servers": [{}], "node": {{"id": "me"}}}}"#, servers.join(","))).unwrap()
}

#[tokio::test]
async fn a_request_fails_with_the_reason_as_soon_as_every_server_has_failed() {
    let (first, second) = (nobody(), nobody());
    let mesh = Mesh::builder().bootstrap(bootstrap(&[first, second])).build().unwrap();
    let error = mesh.http().get("http://a/").await.unwrap_err();
    assert_eq!((error.code(), error.stage()), (Code::NO_CONTROL_PLANE, Stage::Configure));
    let text = error.to_string();
    assert!(text.contains(&second.to_string()) && text.contains("a:80") && text.contains("check that"), "{text}");
    assert_eq!(mesh.ready("a").await.unwrap_err().code(), Code::NO_CONTROL_PLANE);
}

#[tokio::test]
async fn a_request_that_waits_for_ready_waits_until_its_deadline() {
    let mesh = Mesh::builder().bootstrap(bootstrap(&[nobody()])).build().unwrap();
    let request =
        Request::post("http://a/s/m").header("content-type", "application/grpc").header("grpc-timeout", "100m");
    let request = request.extension(crate::outbound::WaitForReady).body(MeshBody::empty()).unwrap();
    assert_eq!(code(mesh.http().send(request).await), Code::DEADLINE);
}

#[tokio::test]
async fn a_silent_control_plane_costs_a_call_its_own_deadline_at_most() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mesh = Mesh::builder().bootstrap(bootstrap(&[silent.local_addr().unwrap()])).build().unwrap();
    let request =
        Request::post("http://a/s/m").header("content-type", "application/grpc").header("grpc-timeout", "100m");
    assert_eq!(code(mesh.http().send(request.body(MeshBody::empty()).unwrap()).await), Code::DEADLINE);
}
