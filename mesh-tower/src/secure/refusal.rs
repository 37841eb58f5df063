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

/// What the peer says against us in `error`, an error of a stream under TLS that seemed to stand: a server that speaks
/// TLS 1.3 judges our certificate only then. None: it is another error.
pub(crate) fn refusal_of(error: &io::Error) -> Option<String> {
    use rustls::AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked, CertificateUnknown,
        DecryptError, HandshakeFailure, UnknownCA, UnsupportedCertificate,
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(
            alert @ (AccessDenied
            | BadCertificate
            | CertificateExpired
            | CertificateRequired
            | CertificateRevoked
            | CertificateUnknown
            | DecryptError
            | HandshakeFailure
            | UnknownCA
            | UnsupportedCertificate),
        )) => Some(format!("refuses our certificate: it says {alert:?}")),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;

    use super::*;

    #[test]
    fn only_what_is_said_against_a_certificate_is_a_refusal() {
        let alert = |alert| io::Error::other(rustls::Error::AlertReceived(alert));
        assert!(refusal_of(&alert(AlertDescription::CertificateRequired)).unwrap().contains("CertificateRequired"));
        assert!(refusal_of(&alert(AlertDescription::UnknownCA)).is_some());
        assert_eq!(refusal_of(&alert(AlertDescription::InternalError)), None);
        assert_eq!(refusal_of(&io::Error::from(io::ErrorKind::UnexpectedEof)), None);
    }
}
