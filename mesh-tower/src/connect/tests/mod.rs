//! Connections over real sockets; waits on virtual time.

mod app;
mod http1;
mod http2;
mod life;
pub(super) mod rig;
mod seams;
mod server;
mod tls;
