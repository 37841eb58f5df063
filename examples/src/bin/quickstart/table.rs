//! What is printed as it goes.

use std::io::{IsTerminal, Write};

use mesh_examples::load::Tally;

/// The table, with a line below it that changes if somebody looks at it.
pub(crate) struct Table {
    is_terminal: bool,
}

/// Wipes a terminal's line.
const WIPE: &str = "\r\x1b[K";

impl Table {
    /// With its head.
    pub(crate) fn new() -> Self {
        let table = Self { is_terminal: std::io::stdout().is_terminal() };
        table.line(&format!(
            "{:<34} {:>7} {:>7} {:>9} {:>9} {:>8} {:>6}",
            "step", "v1", "v2", "p50", "p99", "retries", "lost"
        ));
        table
    }

    /// The row of a step.
    pub(crate) fn row(&self, step: &str, all: &Tally) {
        let [one, two] = [share(all, "v1"), share(all, "v2")].map(|share| format!("{:.1} %", share * 100.0));
        let [half, most] = [0.5, 0.99].map(|at| millis(all.quantile(at)));
        let Tally { retries, lost, .. } = all;
        self.line(&format!("{step:<34} {one:>7} {two:>7} {half:>9} {most:>9} {retries:>8} {lost:>6}"));
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let wipe = if self.is_terminal { WIPE } else { "" };
        let _ = writeln!(out, "{wipe}{text}").and_then(|()| out.flush());
    }

    /// The line that changes.
    pub(crate) fn progress(&self, step: &str, all: &Tally) {
        if self.is_terminal {
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "{WIPE}{step} ... sent {}, lost {}", all.sent, all.lost).and_then(|()| out.flush());
        }
    }
}

/// The share of good answers that servers of this version gave.
pub(crate) fn share(tally: &Tally, version: &str) -> f64 {
    let of_version = tally.backends.iter().filter(|(name, _)| name.starts_with(version));
    let count: u64 = of_version.map(|(_, count)| count).sum();
    ratio(count, tally.ok)
}

// Counts of a minute are exact.
#[allow(clippy::cast_precision_loss)]
fn ratio(count: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { count as f64 / all as f64 }
}

fn millis(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}
