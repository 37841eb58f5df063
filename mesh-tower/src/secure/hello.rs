//! What a ClientHello says, before anything is answered.

use mesh_core::chain::FirstBytes;
use mesh_core::error::{Code, Error};
use rustls::server::Acceptor;

use crate::inbound::HelloReader;

/// Reads a ClientHello as its bytes come; each call is given what has come since the last.
pub(super) fn reader() -> HelloReader {
    let mut acceptor = Acceptor::default();
    Box::new(move |mut new: &[u8]| {
        while !new.is_empty() {
            let read = acceptor.read_tls(&mut new).map_err(|error| bad(&error))?;
            match acceptor.accept() {
                Ok(None) if read > 0 => {}
                Ok(None) => return Err(bad(&"it does not end")),
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let protocols = hello.alpn().into_iter().flatten();
                    return Ok(Some(FirstBytes {
                        tls: true,
                        server_name: hello.server_name().map(str::to_ascii_lowercase),
                        protocols: protocols.map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
                    }));
                }
                Err((error, _)) => return Err(bad(&error)),
            }
        }
        Ok(None)
    })
}

fn bad(error: &dyn std::fmt::Display) -> Error {
    Error::new(Code::HANDSHAKE, format!("the client begins TLS, and its ClientHello cannot be read: {error}"))
}
