//! What a walk from a root can reach: table frames, with the level and address at which each slot is read.

use std::collections::HashMap;

use crate::measure::descriptor::{self, Denied, Kind};
use crate::measure::memory::Memory;

const FRAME: u64 = !0xfff;
/// Ways to one frame that are kept: tables that point at themselves have no end of them.
const MOST_PLACES: usize = 8;

/// Where walks begin, from TTBR0_EL2 and TCR_EL2 (4 KiB granule, up to 48 bits).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Root {
    base: u64,
    level: u8,
    entries: u64,
}

impl Root {
    /// Decodes the two; nothing for a granule or a size that is not supported.
    pub(super) fn new(ttbr0: u64, tcr: u64) -> Option<Self> {
        let size = tcr & 0x3f;
        if tcr >> 14 & 3 != 0 || tcr >> 32 & 1 != 0 || !(16..=39).contains(&size) {
            return None;
        }
        let level = (size - 16) as u8 / 9;
        let entries = 1 << (64 - size as u32 - descriptor::offset_bits(level));
        Some(Self { base: ttbr0 & 0xffff_ffff_fffe & !((8 * entries).max(64) - 1), level, entries })
    }
}

/// One way in which a walk reads a slot or a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// 0 to 3.
    pub(super) level: u8,
    /// First address translated through it.
    pub(super) va: u64,
}

/// A leaf below a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Below {
    pub(super) place: Place,
    pub(super) word: u64,
}

/// The tables below one root.
pub(super) struct Reach {
    pub(super) root: Root,
    places: HashMap<u64, Vec<Place>>,
    stale: bool,
}

impl Reach {
    /// What is reached from `root` now.
    pub(super) fn new(root: Root, memory: &Memory) -> Self {
        let mut reach = Self { root, places: HashMap::new(), stale: true };
        reach.refresh(memory);
        reach
    }

    /// A table was linked or unlinked.
    pub(super) fn outdated(&mut self) {
        self.stale = true;
    }

    /// Walks again if that is needed.
    pub(super) fn refresh(&mut self, memory: &Memory) {
        if !core::mem::take(&mut self.stale) {
            return;
        }
        self.places.clear();
        let mut open = vec![(self.root.base, Place { level: self.root.level, va: 0 })];
        while let Some((table, place)) = open.pop() {
            let known = self.places.entry(table & FRAME).or_default();
            if known.len() >= MOST_PLACES || known.contains(&place) {
                continue;
            }
            known.push(place);
            for index in 0..self.slots_of(table) {
                let word = memory.word(table + 8 * index);
                if descriptor::kind(word, place.level) == Kind::Table {
                    let va = place.va + (index << descriptor::offset_bits(place.level));
                    open.push((descriptor::address(word, place.level), Place { level: place.level + 1, va }));
                }
            }
        }
    }

    fn slots_of(&self, table: u64) -> u64 {
        if table == self.root.base { self.root.entries } else { 512 }
    }

    /// How walks read the slot at `pa`; empty if none does.
    pub(super) fn at(&self, pa: u64) -> Vec<Place> {
        let Some(places) = self.places.get(&(pa & FRAME)) else { return Vec::new() };
        let first = if self.root.base & FRAME == pa & FRAME { self.root.base } else { pa & FRAME };
        let index = pa.wrapping_sub(first) / 8;
        if index >= self.slots_of(first) {
            return Vec::new();
        }
        let of_slot = |place: &Place| Place {
            level: place.level,
            va: place.va + (index << descriptor::offset_bits(place.level)),
        };
        places.iter().map(of_slot).collect()
    }

    /// The frames of all tables.
    pub(super) fn frames(&self) -> impl Iterator<Item = u64> {
        self.places.keys().copied()
    }

    /// Where `va` leads, and whether it may be executed; nothing if it is not mapped.
    pub(super) fn translate(&self, memory: &Memory, va: u64) -> Option<(u64, bool)> {
        let (mut table, mut denied) = (self.root.base, Denied::default());
        for level in self.root.level..=3 {
            let bits = descriptor::offset_bits(level);
            let index = va >> bits & if level == self.root.level { self.root.entries - 1 } else { 511 };
            let word = memory.word(table + 8 * index);
            let address = descriptor::address(word, level);
            match descriptor::kind(word, level) {
                Kind::Invalid => return None,
                Kind::Leaf => return Some((address | va & ((1 << bits) - 1), word & 1 << 54 == 0 && !denied.execute)),
                Kind::Table => (table, denied) = (address, denied.below(word)),
            }
        }
        None
    }
}

/// The frames of the tables below the table descriptor `word` at `place`, and their leaves.
pub(super) fn below(memory: &Memory, word: u64, place: Place) -> (Vec<u64>, Vec<Below>) {
    let (mut frames, mut leaves) = (Vec::new(), Vec::new());
    let mut open = vec![(word, place)];
    while let Some((word, place)) = open.pop() {
        let frame = descriptor::address(word, place.level);
        if frames.contains(&frame) {
            continue;
        }
        frames.push(frame);
        let level = place.level + 1;
        for index in 0..512 {
            let word = memory.word(frame + 8 * index);
            let place = Place { level, va: place.va + (index << descriptor::offset_bits(level)) };
            match descriptor::kind(word, level) {
                Kind::Table => open.push((word, place)),
                Kind::Leaf => leaves.push(Below { place, word }),
                Kind::Invalid => {}
            }
        }
    }
    (frames, leaves)
}
