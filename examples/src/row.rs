//! One row of a table of what was measured.

use std::fmt;

use crate::load::Tally;

/// What was measured of one thing, and what must hold.
#[derive(Debug)]
pub struct Row {
    what: String,
    measured: String,
    bound: String,
    /// Whether it does.
    pub holds: bool,
}

impl Row {
    /// What was measured, and whether the bound holds.
    pub fn new(what: impl Into<String>, measured: impl Into<String>, bound: &str, holds: bool) -> Self {
        Self { what: what.into(), measured: measured.into(), bound: bound.to_owned(), holds }
    }

    /// Nothing could be measured.
    pub fn failed(what: &str, why: &str) -> Self {
        Self::new(what, format!("FAILED: {why}"), "", false)
    }

    /// No request may be lost.
    pub fn lossless(what: impl Into<String>, tally: &Tally) -> Self {
        Self::new(what, lost(tally), "0 lost", tally.lost == 0 && tally.ok > 0)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.holds { "" } else { " **does not hold**" };
        write!(f, "| {} | {}{verdict} | {} |", self.what, self.measured, self.bound)
    }
}

/// `0 of 3000 lost`, and of what is lost why.
pub fn lost(tally: &Tally) -> String {
    let why: Vec<String> = tally.errors.iter().map(|(error, count)| format!("{count} {error}")).collect();
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(", ")) };
    format!("{} of {} lost{why}", tally.lost, tally.sent)
}

/// Microseconds as milliseconds.
pub fn ms(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}
