//! Where one end speaks TLS and the other does not, no byte of the application crosses.

use mesh_core::error::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::testing::{Ca, downstream, source, upstream};
use super::{client_leaf, client_of, server_leaf, server_of, sockets};

const SECRET: &[u8] = b"GET /secret HTTP/1.1\r\nhost: a.test\r\n\r\n";

#[tokio::test]
async fn a_plaintext_client_gets_nothing_from_a_tls_server() {
    let server = server_of(&source(&Ca::new(), &server_leaf()), downstream());
    let (mut near, _, far) = sockets().await;
    near.write_all(SECRET).await.unwrap();
    let error = server.accept(Box::new(far)).await.err().unwrap();
    assert!(error.code() == Code::HANDSHAKE && error.to_string().contains("does not speak TLS"), "{error}");
    let mut answer = Vec::new();
    let _ = near.read_to_end(&mut answer).await;
    // At most an alert: record type 21, seven bytes.
    assert!(answer.is_empty() || (answer[0] == 21 && answer.len() == 7), "{answer:?}");
}

#[tokio::test]
async fn a_tls_client_gives_nothing_to_a_plaintext_server() {
    let client = client_of(&source(&Ca::new(), &client_leaf()), upstream());
    let (near, address, mut far) = sockets().await;
    let server = async {
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let mut seen = Vec::new();
        let _ = far.read_to_end(&mut seen).await;
        seen
    };
    let (failed, seen) = tokio::join!(client.connect(Box::new(near), None, address), server);
    let error = failed.err().unwrap();
    assert!(error.code() == Code::HANDSHAKE && error.to_string().contains("does not speak TLS"), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert_eq!(seen[0], 22, "a ClientHello comes first");
    let mut records = &seen[..];
    while let [kind, _, _, high, low, rest @ ..] = records {
        assert!(matches!(kind, 21 | 22), "only handshake and alerts, no application data");
        records = &rest[usize::from(u16::from_be_bytes([*high, *low]))..];
    }
    assert!(records.is_empty());
}

#[tokio::test]
async fn a_server_that_hangs_up_is_said_to() {
    let client = client_of(&source(&Ca::new(), &client_leaf()), upstream());
    let (near, address, mut far) = sockets().await;
    let server = async {
        let _ = far.read_u8().await;
        far.shutdown().await.unwrap();
        let _ = far.read_to_end(&mut Vec::new()).await;
    };
    let (failed, ()) = tokio::join!(client.connect(Box::new(near), None, address), server);
    let error = failed.err().unwrap();
    assert!(error.to_string().contains("closed the connection in the middle"), "{error}");
}
