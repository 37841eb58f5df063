//! What floods do to a server of the mesh, and to its other clients: `floods [--quick] [ROW...]`.
//!
//! Puts a steady load of a good client on a server, attacks the server in every way that servers were brought down in, and
//! prints one row of a table for each: what the attack's budget is, when it was cut, what the good client had of it, and what
//! the server's memory had. Ends with an error if a row does not hold.
//!
//! The server and the attackers are processes of their own. The attackers run at the lowest priority: they share this
//! machine's cores, and would have some of their own elsewhere.

mod attack;
mod attacks;
mod frames;
mod rows;
mod server;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mesh_examples::row::Row;
use mesh_examples::{Failure, log_to_stderr, say};

use rows::ROWS;

/// A row that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(180);

/// Measures what floods cost.
#[derive(Debug, Parser)]
struct Arguments {
    /// Smaller floods, and timeouts of two seconds: enough to see that all are cut.
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
    /// The server.
    #[command(hide = true)]
    Server {
        /// With timeouts of two seconds.
        #[arg(long)]
        quick: bool,
    },
    /// An attacker.
    #[command(hide = true)]
    Attack {
        /// What it does, as JSON.
        plan: String,
    },
}

fn main() -> ExitCode {
    log_to_stderr("error");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(run(Arguments::parse()))) {
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
        Some(Part::Server { quick }) => return server::run(quick).await.map(|()| true),
        Some(Part::Attack { plan }) => return attack::run(&plan).await.map(|()| true),
        None => {}
    }
    for asked in &arguments.rows {
        if !ROWS.iter().any(|row| row.name == asked) {
            let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
            return Err(format!("there is no row {asked}; rows are {}", names.join(", ")).into());
        }
    }
    let mut holds = true;
    for row in &ROWS {
        if !arguments.rows.is_empty() && !arguments.rows.iter().any(|asked| asked == row.name) {
            continue;
        }
        let measured = match tokio::time::timeout(LONGEST, row.measure(arguments.quick)).await {
            Ok(Ok(row)) => row,
            Ok(Err(error)) => Row::failed(row.what, &error.to_string()),
            Err(_) => Row::failed(row.what, "it hangs"),
        };
        say(&measured.to_string())?;
        holds &= measured.holds;
    }
    Ok(holds)
}
