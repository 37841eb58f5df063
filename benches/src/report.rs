//! Numbers as rows of a Markdown table: what, measured, bound.

use std::io::Write;
use std::time::Duration;

use crate::Error;

/// Prints a row.
///
/// # Errors
///
/// Standard output is closed.
pub fn row(what: &str, measured: &str, bound: &str) -> Result<(), Error> {
    writeln!(std::io::stdout(), "| {what} | {measured} | {bound} |")?;
    Ok(())
}

/// Fails if a number is over its bound; `shown` is how it was printed.
///
/// # Errors
///
/// It is.
pub fn at_most<T: PartialOrd + Copy>(what: &str, measured: T, bound: T, shown: &str) -> Result<(), Error> {
    if measured <= bound { Ok(()) } else { Err(format!("{what}: {shown} is over its bound").into()) }
}

/// The value that `part` of all values are not over; `part` is in [0, 1]. Zero if there is none.
pub fn quantile(values: &mut [Duration], part: f64) -> Duration {
    values.sort_unstable();
    // A share of a length is one.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rank = (values.len() as f64 * part).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// In milliseconds.
pub fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let mut values: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut values, 0.5), Duration::from_millis(50));
        assert_eq!(quantile(&mut values, 0.99), Duration::from_millis(99));
        assert_eq!(quantile(&mut values, 1.0), Duration::from_millis(100));
        assert_eq!(quantile(&mut values[..1], 0.99), Duration::from_millis(1));
        assert_eq!(quantile(&mut [], 0.5), Duration::ZERO);
    }
}
