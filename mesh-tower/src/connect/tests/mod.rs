//! Connections over real sockets; waits on virtual time.

mod http1;
mod http2;
mod life;
mod rig;
mod seams;
mod server;
