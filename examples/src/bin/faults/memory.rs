//! What this process holds: by its own count, and as the system sees it.

use std::alloc::System;

use cap::Cap;
use mesh_examples::Failure;
use mesh_examples::memory::Resident;

/// Counts what is allocated and not freed. The system's allocator has more resident: what was freed it keeps for the next
/// who asks.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Resident memory in MiB, and what is allocated.
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
        let Resident { now, peak } = Resident::of("self")?;
        Ok(Self { now, peak, held })
    }

    /// Forgets the peak.
    pub(crate) fn forget_peak() -> Result<(), Failure> {
        Resident::forget_peak("self")
    }
}
