//! The Gateway API's durations (GEP-2257) and what they become in proto-JSON.

use std::time::Duration;

use crate::bootstrap::json::Object;
use crate::decode::Fault;

/// Each with its length in milliseconds; `ms` before `m` and `s`, which it could be read as.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

pub(super) fn read(object: &Object<'_>, field: &str) -> Result<Option<Duration>, Fault> {
    let Some(text) = object.string(field)? else { return Ok(None) };
    parse(text)
        .map(Some)
        .ok_or_else(|| object.fault(field, format!("is {text:?}, and must be a duration like 10s, 500ms or 1m30s")))
}

/// One to four numbers of at most five digits, each with its unit.
fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis = 0;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let (unit, length) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        if digits > 5 {
            return None;
        }
        millis += number.parse::<u64>().ok()? * length;
        rest = &after[unit.len()..];
        if rest.is_empty() {
            return Some(Duration::from_millis(millis));
        }
    }
    None
}

pub(super) fn json(duration: Duration) -> String {
    format!("{}.{:03}s", duration.as_secs(), duration.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_the_gateway_api() {
        for (text, millis) in [("0s", 0), ("10s", 10_000), ("500ms", 500), ("1h2m3s4ms", 3_723_004), ("1m30s", 90_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1.5s", "123456s", "1d", "1s ", "1s1s1s1s1s"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(json(Duration::from_millis(1_500)), "1.500s");
    }
}
