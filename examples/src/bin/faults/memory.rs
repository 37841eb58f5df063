//! What this process holds: by its own count, and as the system sees it.

use std::alloc::System;

use cap::Cap;
use mesh_examples::Failure;

/// Counts what is allocated and not freed. The system's allocator has more resident: what was freed it keeps for the next
/// who asks.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// A mebibyte, in the kibibytes that the system counts in.
const MIB: u64 = 1024;

/// Resident memory in MiB: now, and the most since the peak was last forgotten.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) peak: u64,
    /// Allocated and not freed, in KiB.
    pub(crate) held: u64,
}

impl Memory {
    /// Looks.
    pub(crate) fn look() -> Result<Self, Failure> {
        let held = u64::try_from(HEAP.allocated())? / 1024;
        let status = std::fs::read_to_string("/proc/self/status")?;
        let of = |name: &str| -> Result<u64, Failure> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()).ok_or(format!("no {name} in status"))?;
            Ok(number.parse::<u64>()? / MIB)
        };
        Ok(Self { now: of("VmRSS:")?, peak: of("VmHWM:")?, held })
    }

    /// Forgets the peak.
    pub(crate) fn forget_peak() -> Result<(), Failure> {
        Ok(std::fs::write("/proc/self/clear_refs", "5")?)
    }
}
