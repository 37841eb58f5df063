//! Why a peer was refused, on its way from the middle of a handshake to its end.
//!
//! rustls turns a verifier's error into the alert that the peer gets, so it must be rustls's own error; the text that names
//! the certificate goes beside it.

use std::cell::RefCell;
use std::io;

use mesh_core::error::{Code, Error};

/// Why a certificate was refused.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) text: String,
}

tokio::task_local! {
    /// What the verifier of the handshake that is being polled has found.
    static FOUND: RefCell<Option<Refusal>>;
}

/// Keeps `refusal` for the end of the handshake.
pub(super) fn refuse(refusal: Refusal) {
    // Outside a handshake nobody asks for it.
    let _ = FOUND.try_with(|found| found.replace(Some(refusal)));
}

/// Runs a handshake with `peer`, and says what it failed of.
pub(super) async fn explain<T>(peer: &str, handshake: impl Future<Output = io::Result<T>>) -> Result<T, Error> {
    let explained = async {
        handshake.await.map_err(|error| match FOUND.with(RefCell::take) {
            Some(refusal) => Error::new(refusal.code, format!("{peer} {}", refusal.text)).with_source(error),
            None => Error::new(Code::HANDSHAKE, broken(peer, &error)).with_source(error),
        })
    };
    FOUND.scope(RefCell::new(None), explained).await
}

fn broken(peer: &str, error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => format!("{peer} does not speak TLS ({error})"),
        Some(rustls::Error::AlertReceived(alert)) => format!("{peer} ended the TLS handshake: it says {alert:?}"),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!("{peer} closed the connection in the middle of the TLS handshake")
        }
        _ => format!("the TLS handshake with {peer} failed: {error}"),
    }
}
