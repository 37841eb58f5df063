//! What a process holds, as the system sees it.

use crate::Failure;

/// A mebibyte, in the kibibytes that the system counts in.
const MIB: u64 = 1024;

/// Resident memory in MiB: now, and the most since the peak was last forgotten.
#[derive(Debug, Clone, Copy)]
pub struct Resident {
    /// Now.
    pub now: u64,
    /// At most.
    pub peak: u64,
}

impl Resident {
    /// That of the process `id`: `self`, or a number.
    ///
    /// # Errors
    ///
    /// There is no such process, or the system does not tell.
    pub fn of(id: &str) -> Result<Self, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let of = |name: &str| -> Result<u64, Failure> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()).ok_or(format!("no {name} in status"))?;
            Ok(number.parse::<u64>()? / MIB)
        };
        Ok(Self { now: of("VmRSS:")?, peak: of("VmHWM:")? })
    }

    /// Forgets the peak of the process `id`.
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of).
    pub fn forget_peak(id: &str) -> Result<(), Failure> {
        Ok(std::fs::write(format!("/proc/{id}/clear_refs"), "5")?)
    }
}
