//! The tables below a root: which frames they are, and how many leaves are writable and executable.
//!
//! A tree is built once by a walk. After that a store into one of its frames only adjusts the count, unless it links or
//! unlinks a table: then the tree is stale and the next question walks again. The walk goes level by level and visits a frame
//! once per set of inherited rights, however often it is linked, so that tables which point at themselves cost no more
//! than others.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::descriptor::{self, Denied, Kind};
use super::memory::{Change, Memory};

/// What TTBR0_EL2 and TCR_EL2 say about where a walk begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Root {
    /// Physical address of the first table.
    pub(crate) base: u64,
    start_level: u8,
    /// Number of entries of the first table.
    entries: u64,
    /// TCR_EL2.HPD: hierarchical controls are ignored.
    flat: bool,
}

impl Root {
    /// Decodes the two registers (E2H = 0).
    ///
    /// # Errors
    /// A granule or size that is not supported.
    pub(crate) fn new(ttbr0: u64, tcr: u64) -> Result<Self, String> {
        let (size, granule) = (tcr & 0x3f, tcr >> 14 & 3);
        if granule != 0 {
            return Err(format!("TCR_EL2 {tcr:#x} selects a granule other than 4 KiB"));
        }
        if tcr >> 32 & 1 != 0 || !(16..=39).contains(&size) {
            return Err(format!("TCR_EL2 {tcr:#x}: only input addresses of 25 to 48 bits are supported"));
        }
        let address_bits = 64 - size as u32;
        let start_level = (48 - address_bits) as u8 / 9;
        let entries = 1 << (address_bits - descriptor::offset_bits(start_level));
        let alignment = (8 * entries).max(64);
        Ok(Self { base: ttbr0 & 0xffff_ffff_fffe & !(alignment - 1), start_level, entries, flat: tcr >> 24 & 1 != 0 })
    }
}

/// One way in which a walk comes to a frame.
#[derive(Clone, Copy, Debug)]
struct Place {
    level: u8,
    denied: Denied,
    /// First slot that belongs to the table, and how many do: all 512 but for a small root.
    first_slot: u64,
    slots: u64,
    /// How many links lead here with the same rights.
    times: u64,
    /// The lowest address translated through the first of those links.
    va: u64,
}

impl Place {
    const fn holds(&self, slot: u64) -> bool {
        slot >= self.first_slot && slot - self.first_slot < self.slots
    }

    const fn va_of(&self, slot: u64) -> u64 {
        self.va + ((slot - self.first_slot) << descriptor::offset_bits(self.level))
    }
}

/// A writable and executable leaf, as evidence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// The lowest virtual address it translates.
    pub va: u64,
    /// Physical address of the descriptor.
    pub slot: u64,
    /// The descriptor.
    pub descriptor: u64,
}

/// The tables below one root.
pub(crate) struct Tree {
    root: Root,
    places: FxHashMap<u64, Vec<Place>>,
    writable_executable: u64,
    example: Option<Leaf>,
    stale: bool,
}

const FRAME: u64 = !0xfff;

impl Tree {
    /// The tree below `root`, walked now.
    pub(crate) fn new(root: Root, memory: &Memory) -> Self {
        let mut tree = Self { root, places: FxHashMap::default(), writable_executable: 0, example: None, stale: true };
        tree.refresh(memory);
        tree
    }

    /// Walks again if a table was linked or unlinked since the last walk.
    pub(crate) fn refresh(&mut self, memory: &Memory) {
        if !self.stale {
            return;
        }
        (self.places, self.writable_executable, self.example, self.stale) = (FxHashMap::default(), 0, None, false);
        let Root { base, entries, .. } = self.root;
        let top = Place {
            level: self.root.start_level,
            denied: Denied::default(),
            first_slot: (base & !FRAME) / 8,
            slots: entries,
            times: 1,
            va: 0,
        };
        let mut level = BTreeMap::from([((base & FRAME, top.denied), top)]);
        while !level.is_empty() {
            let mut next = BTreeMap::new();
            for ((frame, _), place) in level {
                self.visit(memory, frame, place, &mut next);
                self.places.entry(frame).or_default().push(place);
            }
            level = next;
        }
    }

    /// Counts the leaves of one table and collects the tables below it.
    fn visit(&mut self, memory: &Memory, frame: u64, place: Place, next: &mut BTreeMap<(u64, Denied), Place>) {
        for slot in place.first_slot..place.first_slot + place.slots {
            let word = memory.word(frame + 8 * slot);
            if descriptor::kind(word, place.level) == Kind::Table {
                let denied = if self.root.flat { place.denied } else { place.denied.below(word) };
                let below = Place {
                    level: place.level + 1,
                    denied,
                    first_slot: 0,
                    slots: 512,
                    times: 0,
                    va: place.va_of(slot),
                };
                let key = (descriptor::address(word, place.level), denied);
                let linked = next.entry(key).or_insert(below);
                linked.times = linked.times.saturating_add(place.times);
            } else if descriptor::writable_executable(word, place.level, place.denied) {
                self.add(&place, frame + 8 * slot, word);
            }
        }
    }

    fn add(&mut self, place: &Place, slot: u64, descriptor: u64) {
        self.writable_executable = self.writable_executable.saturating_add(place.times);
        self.example = Some(Leaf { va: place.va_of((slot & !FRAME) / 8), slot, descriptor });
    }

    /// Follows a store; true if it was one to these tables.
    pub(crate) fn follow(&mut self, change: Change) -> bool {
        let Some(places) = self.places.get(&(change.pa & FRAME)) else { return false };
        let slot = (change.pa & !FRAME) / 8;
        let places: Vec<Place> = places.iter().filter(|place| place.holds(slot)).copied().collect();
        // The evidence is gone; there may be other.
        self.stale |= self.example.is_some_and(|leaf| leaf.slot == change.pa);
        for place in &places {
            let level = place.level;
            if [change.old, change.new].iter().any(|word| descriptor::kind(*word, level) == Kind::Table) {
                self.stale = true;
            }
            if descriptor::writable_executable(change.old, level, place.denied) {
                self.writable_executable = self.writable_executable.saturating_sub(place.times);
            }
            if descriptor::writable_executable(change.new, level, place.denied) {
                self.add(place, change.pa, change.new);
            }
        }
        !places.is_empty()
    }

    /// A writable and executable leaf, if there is any, WXN aside. Needs [`Self::refresh`] after a store.
    pub(crate) fn writable_executable(&self) -> Option<Leaf> {
        self.example.filter(|_| self.writable_executable > 0)
    }

    /// The level at which a walk reads the word at `pa`; nothing if none does.
    pub(crate) fn level_of(&self, pa: u64) -> Option<u8> {
        let places = self.places.get(&(pa & FRAME))?;
        places.iter().find(|place| place.holds((pa & !FRAME) / 8)).map(|place| place.level)
    }

    /// The frames of all tables.
    pub(crate) fn frames(&self) -> impl Iterator<Item = u64> {
        self.places.keys().copied()
    }

    /// The physical addresses of all slots, and the level of each.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (u64, u8)> {
        self.places.iter().flat_map(|(frame, places)| {
            let slots = places.iter().take(1).flat_map(|place| {
                let level = place.level;
                (place.first_slot..place.first_slot + place.slots).map(move |slot| (slot, level))
            });
            slots.map(move |(slot, level)| (frame + 8 * slot, level))
        })
    }

    /// Physical address of `va`; nothing if it is not mapped.
    pub(crate) fn translate(&self, memory: &Memory, va: u64) -> Option<u64> {
        let mut table = self.root.base;
        for level in self.root.start_level..=3 {
            let bits = descriptor::offset_bits(level);
            let index = va >> bits & if level == self.root.start_level { self.root.entries - 1 } else { 511 };
            let word = memory.word(table + 8 * index);
            let address = descriptor::address(word, level);
            match descriptor::kind(word, level) {
                Kind::Invalid => return None,
                Kind::Leaf => return Some(address | (va & ((1 << bits) - 1))),
                Kind::Table => table = address,
            }
        }
        None
    }
}
