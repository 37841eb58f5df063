//! What the programs and examples share.

pub mod admin;
pub mod backend;
pub mod load;
pub mod memory;
pub mod part;
pub mod row;
pub mod sandbox;
pub mod signal;

use tracing_subscriber::EnvFilter;

/// Why a program failed.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Logs to stderr what `RUST_LOG` asks for, by default `level`.
pub fn log_to_stderr(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Prints one line.
///
/// # Errors
///
/// Nobody reads stdout any more.
pub fn say(text: &str) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{text}")
}

/// The whole body of a response, as text.
///
/// # Errors
///
/// It breaks off, or is not UTF-8.
pub async fn text<B>(response: http::Response<B>) -> Result<String, Failure>
where
    B: http_body_util::BodyExt<Error: std::error::Error + Send + Sync + 'static>,
{
    Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?)
}
