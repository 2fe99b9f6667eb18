//! One walk of memory as it is now, without any cache: what a translation must be compared with.

use crate::descriptor::Descriptor;

use super::element::{Element, TableEncoding, TableUse};
use super::entry::{TableEntry, Translation};
use super::memory::Memory;
use super::roots::root_of;

/// Levels -1 to 3.
const MOST_LEVELS: usize = 5;

/// How a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    Leaf(Translation),
    /// At a descriptor that nothing may cache.
    Fault,
    /// In memory that nobody wrote.
    Unknown,
}

/// A walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    tables: [Option<TableEntry>; MOST_LEVELS],
    /// Physical address and level of the last descriptor.
    pub(super) slot: u64,
    pub(super) level: i8,
    pub(super) ending: Ending,
}

impl Path {
    /// The walk of `va` from the root in force; nothing where `element` cannot walk to it.
    pub(super) fn of(element: &Element, memory: &Memory, va: u64) -> Option<Self> {
        let regime = element.regime()?;
        let va = element.controls.input(va, &regime.format)?;
        Some(Self::from(root_of(&element.controls, &regime.format), &regime, memory, va))
    }

    pub(super) fn from(root: TableUse, regime: &TableEncoding, memory: &Memory, va: u64) -> Self {
        let mut path = Self { tables: [None; MOST_LEVELS], slot: 0, level: 3, ending: Ending::Fault };
        let mut context = root;
        for step in 0..MOST_LEVELS {
            path.level = context.level;
            path.slot = context.table.wrapping_add(8 * regime.format.index(va, context.level));
            let Some(word) = memory.get(path.slot) else {
                path.ending = Ending::Unknown;
                break;
            };
            let base = va & !(regime.format.span(context.level) - 1);
            match context.read(path.slot, base, regime.value(word), regime) {
                Read::Leaf(leaf) => {
                    path.ending = Ending::Leaf(leaf);
                    break;
                }
                Read::Table(table) => {
                    path.tables[step] = Some(table);
                    context = TableUse::below(&table, 0);
                }
                Read::Fault => break,
            }
        }
        path
    }

    pub(super) fn holds_table(&self, entry: &TableEntry) -> bool {
        // What it says, not where it was read: the tables of two roots may lead to the same place.
        self.tables.iter().flatten().any(|table| TableEntry { slot: table.slot, ..*entry } == *table)
    }

    /// Whether the walk ends in exactly `translation`.
    pub(super) fn says(&self, translation: &Translation) -> bool {
        self.ending == Ending::Leaf(*translation)
    }

    /// The descriptors read, the first of the walk first.
    pub(super) fn slots(&self) -> impl Iterator<Item = (u64, i8)> {
        self.tables
            .iter()
            .flatten()
            .map(|table| (table.slot, table.level))
            .chain(std::iter::once((self.slot, self.level)))
    }
}

/// What a descriptor means where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Read {
    /// Nothing that may be cached.
    Fault,
    Leaf(Translation),
    Table(TableEntry),
}

impl TableUse {
    /// No descriptor leads to a root.
    pub(super) const ROOT: u64 = u64::MAX;

    /// The table that `entry` leads to.
    pub(super) const fn below(entry: &TableEntry, doom: u32) -> Self {
        let TableEntry { level, va, slot, next, no_write, no_execute, .. } = *entry;
        Self { level: level + 1, va, table: next, link: slot, no_write, no_execute, doom }
    }

    /// Reads the descriptor `word` at `slot`, which is for addresses from `va`.
    pub(super) fn read(&self, slot: u64, va: u64, word: u64, regime: &TableEncoding) -> Read {
        let format = &regime.format;
        let descriptor = format.decode(word, self.level);
        if !format.may_be_cached(descriptor) {
            return Read::Fault;
        }
        match descriptor {
            Descriptor::Invalid => Read::Fault,
            Descriptor::Leaf(leaf) => {
                let mut translation = Translation::of(&leaf, va, self.level, format, regime.mair);
                translation.writable &= !self.no_write;
                translation.executable &= !self.no_execute;
                Read::Leaf(translation)
            }
            Descriptor::Table(table) => Read::Table(TableEntry {
                level: self.level,
                va,
                shift: format.shift(self.level),
                slot,
                next: table.next,
                no_write: self.no_write || table.no_write,
                no_execute: self.no_execute || table.no_execute,
            }),
        }
    }

    /// How the descriptor came there that leads here, if only one store brought it.
    pub(super) fn came(&self, memory: &Memory, regime: &TableEncoding) -> Option<(u32, u8)> {
        let leads_here = |word: u64| match regime.format.decode(regime.value(word), self.level - 1) {
            Descriptor::Table(table) => table.next == self.table,
            _ => false,
        };
        memory.came(self.link, leads_here)
    }

    /// Bytes of the table.
    pub(super) const fn bytes(&self, regime: &TableEncoding) -> u64 {
        8 * regime.format.entries(self.level)
    }

    /// First address of the descriptor at `slot`, if that stands in the table.
    pub(super) fn va_of(&self, slot: u64, regime: &TableEncoding) -> Option<u64> {
        let offset = slot.checked_sub(self.table)?;
        (offset < self.bytes(regime)).then(|| self.va | (offset / 8) << regime.format.shift(self.level))
    }
}
