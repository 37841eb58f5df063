//! Envoy's recorded behaviour against ours: `conformance-adapter` answers the corpus's JSON lines on standard input.
//!
//! It is `serve` in front of `http()`, nothing else: each configuration becomes one mesh, whose server passes every request
//! to the mesh's client. What comes out is the library's.

mod certificates;
mod config;
mod served;

use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tracing_subscriber::EnvFilter;

use config::{Case, Refusal};
use served::Served;

/// One line of the harness.
#[derive(Debug, Deserialize)]
struct Message {
    id: u64,
    op: Op,
    #[serde(default)]
    listen: String,
    #[serde(default)]
    config: Map<String, Value>,
}

/// What the harness asks for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Serve,
    Stop,
    Validate,
}

#[tokio::main]
async fn main() -> ExitCode {
    // Standard output is the protocol's.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut served = HashMap::new();
    while let Some(line) = lines.next_line().await? {
        let message: Message = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
        let id = message.id;
        let mut answer = answer(message, &mut served).await;
        answer["id"] = id.into();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    for (_, one) in served {
        Served::stop(one).await;
    }
    Ok(())
}

async fn answer(message: Message, served: &mut HashMap<u64, Served>) -> Value {
    let Message { id, op, listen, config } = message;
    match op {
        Op::Serve => match Served::start(Case::new(config), &listen).await {
            Ok(one) => {
                served.insert(id, one);
                json!({"ready": true})
            }
            Err(Refusal::Rejected(why)) => json!({"rejected": why}),
            Err(Refusal::Unsupported(what)) => json!({"unsupported": what}),
        },
        Op::Stop => {
            if let Some(one) = served.remove(&id) {
                one.stop().await;
            }
            json!({"stopped": true})
        }
        Op::Validate => match Case::new(config).and_then(|case| case.validate()) {
            Ok(()) => json!({"accepted": true}),
            Err(Refusal::Rejected(why)) => json!({"accepted": false, "error": why}),
            Err(Refusal::Unsupported(what)) => json!({"unsupported": what}),
        },
    }
}
