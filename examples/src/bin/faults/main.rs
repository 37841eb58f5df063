//! What a control plane's faults cost: `faults [--quick] [ROW...]`.
//!
//! Puts a steady load of real requests over sockets on three backends, has the control plane fail in every way there is, and
//! prints one row of a table for each: what was measured, and what must hold. Ends with an error if a row does not hold.
//!
//! The control plane and the backends are processes of their own, so that what is measured of this one is the client's.

mod control;
mod memory;
mod rows;
mod servers;
mod stage;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mesh_examples::{Failure, log_to_stderr, say};

use mesh_examples::row::Row;
use rows::ROWS;
use stage::Stage;

/// A row that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(300);

/// Measures what faults of the control plane cost.
#[derive(Debug, Parser)]
struct Arguments {
    /// Measure for seconds what is otherwise measured for a minute: enough to see that nothing is lost.
    #[arg(long)]
    quick: bool,
    /// Which rows; by default all of them.
    rows: Vec<String>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program starts of itself.
#[derive(Debug, Subcommand)]
enum Part {
    /// The control plane: takes orders on stdin.
    #[command(hide = true)]
    Control,
    /// Three backends.
    #[command(hide = true)]
    Backends,
}

fn main() -> ExitCode {
    log_to_stderr("error");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(run(Arguments::parse())));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every row holds.
async fn run(arguments: Arguments) -> Result<bool, Failure> {
    match arguments.part {
        Some(Part::Control) => return control::run().await.map(|()| true),
        Some(Part::Backends) => return servers::run().await.map(|()| true),
        None => {}
    }
    for asked in &arguments.rows {
        if !ROWS.iter().any(|(name, _)| name == asked) {
            let names: Vec<&str> = ROWS.iter().map(|(name, _)| *name).collect();
            return Err(format!("there is no row {asked}; rows are {}", names.join(", ")).into());
        }
    }
    let mut holds = true;
    for (name, measure) in ROWS {
        if !arguments.rows.is_empty() && !arguments.rows.iter().any(|asked| asked == name) {
            continue;
        }
        // Each has a control plane and backends of its own: what one leaves behind is not measured with the next.
        let measured = tokio::time::timeout(LONGEST, async { measure(Stage::set(arguments.quick).await?).await });
        let rows = match measured.await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => vec![Row::failed(name, &error.to_string())],
            Err(_) => vec![Row::failed(name, "it hangs")],
        };
        for row in rows {
            say(&row.to_string())?;
            holds &= row.holds;
        }
    }
    Ok(holds)
}
