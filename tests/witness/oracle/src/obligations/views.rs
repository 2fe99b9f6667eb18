//! What a reader of long traces may ask: what the engine looked at, so that the rest of a trace can be left out.

use super::memory::SHIFT;
use super::{Obligations, Pe};

impl Obligations {
    /// How many violations were found, repetitions included.
    #[must_use]
    pub const fn reports(&self) -> u64 {
        self.report.times
    }

    /// The first byte of each 4 KiB of memory that is or was part of a table that a PE could walk or hold.
    pub fn pages_of_tables(&self) -> impl Iterator<Item = u64> {
        self.frames.ever().map(|page| page << SHIFT)
    }

    /// Whether the word at `pa` is part of a table that a PE may walk or hold now.
    #[must_use]
    pub fn is_table(&self, pa: u64) -> bool {
        !self.frames.at(pa).is_empty()
    }

    /// The word at `pa`, a multiple of 8, if it is known.
    #[must_use]
    pub fn word(&self, pa: u64) -> Option<u64> {
        self.memory.read(pa)
    }

    /// Whether loads and stores of `pe` certainly go through caches.
    #[must_use]
    pub fn is_cached(&self, pe: u32) -> bool {
        self.pes.get(pe as usize).is_some_and(|state| Pe::caches(state))
    }

    /// The physical address of `va` for `pe`, if its tables are known to map it.
    #[must_use]
    pub fn physical(&self, pe: u32, va: u64) -> Option<u64> {
        self.pes.get(pe as usize)?;
        self.translate(pe, va)
    }
}
