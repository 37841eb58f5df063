//! What the programs and examples share.

pub mod backend;
pub mod load;
pub mod signal;

use tracing_subscriber::EnvFilter;

/// Logs to stderr what `RUST_LOG` asks for, by default `level`.
pub fn log_to_stderr(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
