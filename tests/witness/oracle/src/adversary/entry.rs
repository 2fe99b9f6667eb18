//! What a TLB and its walk caches hold, and which two entries exclude each other.

use std::hash::{Hash, Hasher};

use crate::descriptor::{Format, Leaf};
use crate::params::Features;
use crate::regime::MemoryType;

use super::memory::Memory;

/// A leaf entry: how a stretch of addresses is translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct Translation {
    /// Log2 of the bytes translated.
    pub shift: u8,
    /// First virtual address.
    pub va: u64,
    /// Physical address that [`Translation::va`] becomes.
    pub output: u64,
    /// Level of the descriptor.
    pub level: i8,
    /// What MAIR_EL2 says of its index.
    pub memory: MemoryType,
    /// Shareability.
    pub shareability: u8,
    /// Writable, table descriptors obeyed.
    pub writable: bool,
    /// Executable, table descriptors obeyed; WXN is not counted.
    pub executable: bool,
    /// GP.
    pub guarded: bool,
    /// The contiguous hint.
    pub contiguous: bool,
    /// nT.
    pub no_translation: bool,
}

impl Hash for Translation {
    /// Three words: a search hashes many.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let memory = match self.memory {
            MemoryType::Device(kind) => u64::from(kind),
            MemoryType::Normal { outer, inner } => 0x100 | u64::from(outer) << 4 | u64::from(inner),
        };
        let flags = [self.writable, self.executable, self.guarded, self.contiguous, self.no_translation];
        let flags = flags.iter().fold(0, |bits, flag| bits << 1 | u64::from(*flag));
        let sizes = u64::from(self.shift) << 8 | u64::from(self.level as u8) << 16 | u64::from(self.shareability) << 24;
        state.write_u64(self.va);
        state.write_u64(self.output);
        state.write_u64(memory << 32 | sizes | flags);
    }
}

impl Translation {
    /// Bytes translated.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        1 << self.shift
    }

    /// Last virtual address.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.va + (self.bytes() - 1)
    }

    /// Whether `va` is among those translated.
    #[must_use]
    pub const fn covers(&self, va: u64) -> bool {
        va >> self.shift == self.va >> self.shift
    }

    /// Physical address of `va`, one of those translated.
    const fn output_of(&self, va: u64) -> u64 {
        self.output + (va - self.va)
    }

    pub(super) const fn leads_into(&self, first: u64, last: u64) -> bool {
        self.output <= last && first <= self.output + (self.bytes() - 1)
    }

    pub(super) fn of(leaf: &Leaf, va: u64, level: i8, format: &Format, mair: u64) -> Self {
        Self {
            shift: format.shift(level),
            va,
            output: leaf.output,
            level,
            memory: MemoryType::of(mair, leaf.attr_index),
            shareability: leaf.shareability,
            writable: leaf.writable,
            executable: leaf.executable,
            guarded: leaf.guarded,
            contiguous: leaf.contiguous,
            no_translation: leaf.no_translation,
        }
    }
}

/// A table entry of a walk cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct TableEntry {
    /// Level of the descriptor; that of the table it leads to is the next.
    pub(super) level: i8,
    /// First virtual address.
    pub(super) va: u64,
    /// Log2 of the bytes below it.
    pub(super) shift: u8,
    /// Physical address of the descriptor.
    pub(super) slot: u64,
    /// Physical address of the next table.
    pub(super) next: u64,
    /// Nothing below is writable.
    pub(super) no_write: bool,
    /// Nothing below is executable.
    pub(super) no_execute: bool,
}

impl TableEntry {
    pub(super) const fn last(&self) -> u64 {
        self.va + ((1 << self.shift) - 1)
    }
}

/// Something held, and the invalidations that will remove it: a set of bits, each a class of pending TLBIs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct Held<T> {
    pub(super) what: T,
    pub(super) doom: u32,
}

/// Which pairs one core cannot hold at once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Exclusion {
    /// FEAT_BBM level.
    pub(super) bbm: u8,
    /// 3683289: any difference.
    pub(super) any_right: bool,
    /// 2645198: execute-never after executable.
    pub(super) execute_never: bool,
}

impl Exclusion {
    pub(super) const fn of(features: &Features, mixes_rights: bool) -> Self {
        let any_right = mixes_rights && features.bbm_always;
        Self { bbm: features.bbm, any_right, execute_never: mixes_rights && features.bbm_for_xn }
    }

    /// Why `old` and `new`, which share an address, exclude each other.
    pub(super) fn between(&self, old: &Translation, new: &Translation, memory: &Memory) -> Option<&'static str> {
        if old.memory != new.memory {
            return Some("two entries that differ in memory type or cacheability");
        }
        if old.shareability != new.shareability {
            return Some("two entries that differ in shareability");
        }
        let shared = old.va.max(new.va);
        let outputs = (old.output_of(shared), new.output_of(shared));
        if outputs.0 != outputs.1 {
            let bytes = old.bytes().min(new.bytes());
            if old.writable || new.writable || !memory.same(outputs.0, outputs.1, bytes) {
                return Some("two entries that differ in output address");
            }
        }
        if old.shift != new.shift && !self.allows_sizes(old, new) {
            return Some("two entries that differ in size");
        }
        if old.contiguous != new.contiguous && old.shift == new.shift && self.bbm < 1 {
            return Some("two entries that differ in contiguous bit");
        }
        self.rights(old, new)
    }

    fn allows_sizes(&self, one: &Translation, other: &Translation) -> bool {
        let larger = if one.shift > other.shift { one } else { other };
        self.bbm >= 2 || (self.bbm == 1 && larger.no_translation)
    }

    /// Whether a block and a table at its place exclude each other.
    pub(super) const fn of_block_and_table(&self, block: &Translation) -> bool {
        self.bbm < 2 && !(self.bbm == 1 && block.no_translation)
    }

    fn rights(&self, old: &Translation, new: &Translation) -> Option<&'static str> {
        let of = |entry: &Translation| (entry.writable, entry.executable, entry.guarded, entry.contiguous, entry.shift);
        if self.any_right && of(old) != of(new) {
            return Some("two entries that differ in rights, on a core that mixes them");
        }
        (self.execute_never && old.executable && !new.executable)
            .then_some("two entries that differ in execute-never, on a core that mixes it")
    }
}
