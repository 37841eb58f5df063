//! Connections that stand, and must not when their peer is revoked.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use mesh_core::error::Error;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;

use super::client::ClientTls;
use crate::io::BoxStream;

/// The connections of clients whose policies have revocation lists.
#[derive(Default)]
pub(super) struct LiveConnections(Mutex<Vec<Weak<Live>>>);

struct Live {
    tls: ClientTls,
    chain: Vec<CertificateDer<'static>>,
    kill: Mutex<Option<oneshot::Sender<Error>>>,
}

impl LiveConnections {
    /// `io`, to a peer that has shown `chain`; it breaks when the lists of `tls` revoke that.
    pub(super) fn watch(&self, io: BoxStream, tls: ClientTls, chain: Vec<CertificateDer<'static>>) -> BoxStream {
        let (kill, killed) = oneshot::channel();
        let live = Arc::new(Live { tls, chain, kill: Mutex::new(Some(kill)) });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == all.capacity() {
            all.retain(|live| live.strong_count() > 0);
        }
        all.push(Arc::downgrade(&live));
        Box::new(Watched { io, killed, error: None, _live: live })
    }

    /// Breaks those whose peers are revoked by now.
    pub(super) fn sweep(&self) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let live: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
        drop(all);
        for live in live {
            if let Some(error) = live.tls.revoked(&live.chain)
                && let Some(kill) = live.kill.lock().unwrap_or_else(PoisonError::into_inner).take()
            {
                tracing::warn!(target: "mesh", "a connection is closed: the server {error}");
                // An error: it has ended on its own.
                let _ = kill.send(error);
            }
        }
    }
}

struct Watched {
    io: BoxStream,
    killed: oneshot::Receiver<Error>,
    error: Option<Error>,
    _live: Arc<Live>,
}

impl Watched {
    fn poll_killed(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.error.is_none()
            && let Poll::Ready(killed) = Pin::new(&mut self.killed).poll(cx)
        {
            // The sender lives as long as this does: an error cannot be, and would be no reason to go on.
            self.error = killed.ok();
        }
        match &self.error {
            Some(error) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, error.clone())),
            None => Ok(()),
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_killed(cx)?;
        Pin::new(&mut self.io).poll_read(cx, to)
    }
}

crate::io::writes_pass!(Watched, io);
