//! Memory as a trace tells it, and the tables below a root in it: for readers of traces that show or count, and do not judge.
//!
//! Who needs it: measurements and pictures of a boot. What must hold: descriptors are read by [`Format`], registers by [`Controls`], as both
//! engines read them. What it refuses: another granule than 4 KiB, and HCR_EL2.E2H.

use std::collections::BTreeMap;

use breakwater_trace::Access;
use rustc_hash::FxHashMap;

use crate::descriptor::{Descriptor, Format, Granule, TableDescriptor};
use crate::maintenance::stored_words;
use crate::params::Features;
use crate::regime::Controls;

/// Words in a frame.
const WORDS: usize = 512;
const FRAME: u64 = !0xfff;

/// A word that a store has touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WordChange {
    /// Physical address, a multiple of 8.
    pub pa: u64,
    /// Before.
    pub old: u64,
    /// After.
    pub new: u64,
}

/// Physical memory as far as it is known; everything else reads as zero, as QEMU's RAM does. By frames, because stores come by the million
/// and most follow their neighbours.
#[derive(Debug, Default)]
pub struct Memory {
    frames: FxHashMap<u64, Box<[u64; WORDS]>>,
}

/// The words that one store touches, lowest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WordChanges {
    changes: [WordChange; 3],
    count: usize,
}

impl core::ops::Deref for WordChanges {
    type Target = [WordChange];

    fn deref(&self) -> &[WordChange] {
        &self.changes[..self.count]
    }
}

/// The word's place in its frame.
const fn index(pa: u64) -> usize {
    (pa & !FRAME) as usize / 8
}

impl Memory {
    /// The word at `pa`, a multiple of 8, holds `value` before the first event.
    pub fn declare(&mut self, pa: u64, value: u64) {
        self.change(pa, u64::MAX, value);
    }

    /// Performs a store; the words touched, lowest first (a misaligned one of 16 bytes touches three).
    pub fn store(&mut self, access: &Access) -> WordChanges {
        let mut touched = WordChanges { changes: [WordChange { pa: 0, old: 0, new: 0 }; 3], count: 0 };
        for (place, (pa, mask, value)) in touched.changes.iter_mut().zip(stored_words(access)) {
            *place = self.change(pa, mask, value);
            touched.count += 1;
        }
        touched
    }

    /// Zeroes `bytes` (a multiple of 8) at `pa`, as DC ZVA does.
    pub fn zero(&mut self, pa: u64, bytes: u64) -> Vec<WordChange> {
        (0..bytes / 8).map(|index| self.change(pa + 8 * index, u64::MAX, 0)).collect()
    }

    fn change(&mut self, pa: u64, mask: u64, value: u64) -> WordChange {
        let slot = match self.frames.get_mut(&(pa & FRAME)) {
            Some(frame) => &mut frame[index(pa)],
            // Memory that is zeroed takes none.
            None if value == 0 => return WordChange { pa, old: 0, new: 0 },
            None => self.slot(pa),
        };
        let old = *slot;
        *slot = (old & !mask) | (value & mask);
        WordChange { pa, old, new: *slot }
    }

    fn slot(&mut self, pa: u64) -> &mut u64 {
        &mut self.frames.entry(pa & FRAME).or_insert_with(|| Box::new([0; WORDS]))[index(pa)]
    }
}

/// Memory that can be asked for its words.
pub trait Words {
    /// The word at `pa`, a multiple of 8; zero where nobody knows it, as QEMU's RAM is.
    fn word(&self, pa: u64) -> u64;
}

impl Words for Memory {
    fn word(&self, pa: u64) -> u64 {
        self.frames.get(&(pa & FRAME)).map_or(0, |frame| frame[index(pa)])
    }
}

/// Where walks begin, and how they read descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Root {
    /// Physical address of the first table.
    pub base: u64,
    /// How its descriptors are read.
    pub format: Format,
}

impl Root {
    /// What `controls` name.
    ///
    /// # Errors
    /// A translation regime that is not followed, in words.
    pub fn of(controls: &Controls) -> Result<Self, String> {
        let Controls { tcr, hcr, .. } = controls;
        if controls.e2h() {
            return Err(format!("HCR_EL2 {hcr:#x} has E2H set, which is not supported"));
        }
        let Ok(format) = controls.format(&Features::default()) else {
            return Err(format!("TCR_EL2 {tcr:#x} has values that no walk can follow"));
        };
        if format.granule != Granule::K4 {
            return Err(format!("TCR_EL2 {tcr:#x} selects a granule other than 4 KiB"));
        }
        Ok(Self { base: controls.root(&format), format })
    }
}

/// Rights that tables above take away from a leaf.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
struct Denied {
    write: bool,
    execute: bool,
}

impl Denied {
    const fn below(self, table: &TableDescriptor) -> Self {
        Self { write: self.write || table.no_write, execute: self.execute || table.no_execute }
    }
}

/// One way in which a walk comes to a frame.
#[derive(Clone, Copy, Debug)]
struct TableUse {
    level: i8,
    denied: Denied,
    /// First slot that belongs to the table, and how many do: all 512 but for a small root.
    first_slot: u64,
    slots: u64,
    /// How many links lead here with the same rights.
    times: u64,
    /// The lowest address translated through the first of those links.
    va: u64,
}

impl TableUse {
    const fn holds(&self, slot: u64) -> bool {
        slot >= self.first_slot && slot - self.first_slot < self.slots
    }
}

/// A writable and executable leaf, as evidence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exposed {
    /// The lowest virtual address it translates.
    pub va: u64,
    /// Physical address of the descriptor.
    pub slot: u64,
    /// The descriptor.
    pub descriptor: u64,
}

/// The tables below one root: which frames they are, and how many leaves are writable and executable.
///
/// A tree is built once by a walk. After that a store into one of its frames only adjusts the count, unless it links or
/// unlinks a table: then the tree is stale and the next question walks again. The walk goes level by level and visits a frame
/// once per set of inherited rights, however often it is linked, so that tables which point at themselves cost no more
/// than others.
#[derive(Debug)]
pub struct Tree {
    root: Root,
    places: FxHashMap<u64, Vec<TableUse>>,
    exposed: u64,
    example: Option<Exposed>,
    stale: bool,
}

impl Tree {
    /// The tree below `root`, walked now.
    #[must_use]
    pub fn new(root: Root, memory: &impl Words) -> Self {
        let mut tree = Self { root, places: FxHashMap::default(), exposed: 0, example: None, stale: true };
        tree.refresh(memory);
        tree
    }

    /// Walks again if a table was linked or unlinked since the last walk.
    pub fn refresh(&mut self, memory: &impl Words) {
        if !self.stale {
            return;
        }
        (self.places, self.exposed, self.example, self.stale) = (FxHashMap::default(), 0, None, false);
        let Root { base, format } = self.root;
        let level = format.start_level;
        let (first_slot, slots) = ((base & !FRAME) / 8, format.entries(level));
        let top = TableUse { level, denied: Denied::default(), first_slot, slots, times: 1, va: 0 };
        let mut places = BTreeMap::from([((base & FRAME, top.denied), top)]);
        while !places.is_empty() {
            let mut next = BTreeMap::new();
            for ((frame, _), place) in places {
                self.visit(memory, frame, place, &mut next);
                self.places.entry(frame).or_default().push(place);
            }
            places = next;
        }
    }

    /// Counts the leaves of one table and collects the tables below it.
    fn visit(
        &mut self,
        memory: &impl Words,
        frame: u64,
        place: TableUse,
        next: &mut BTreeMap<(u64, Denied), TableUse>,
    ) {
        for slot in place.first_slot..place.first_slot + place.slots {
            let word = memory.word(frame + 8 * slot);
            if let Descriptor::Table(table) = self.root.format.decode(word, place.level) {
                let (level, denied, va) = (place.level + 1, place.denied.below(&table), self.va_of(&place, slot));
                let below = TableUse { level, denied, first_slot: 0, slots: WORDS as u64, times: 0, va };
                let linked = next.entry((table.next, denied)).or_insert(below);
                linked.times = linked.times.saturating_add(place.times);
            } else if self.is_exposed(word, &place) {
                self.add(&place, frame + 8 * slot, word);
            }
        }
    }

    const fn va_of(&self, place: &TableUse, slot: u64) -> u64 {
        place.va + ((slot - place.first_slot) << self.root.format.shift(place.level))
    }

    /// Whether a walk reads any word of the frame of `pa`.
    #[must_use]
    pub fn reads(&self, pa: u64) -> bool {
        self.places.contains_key(&(pa & FRAME))
    }

    /// True if `word` is a leaf through which memory can be both written and executed, WXN aside. Without the access flag it can be neither.
    fn is_exposed(&self, word: u64, place: &TableUse) -> bool {
        let format = &self.root.format;
        let Descriptor::Leaf(leaf) = format.decode(word, place.level) else { return false };
        let (writable, executable) = (leaf.writable && !place.denied.write, leaf.executable && !place.denied.execute);
        writable && executable && format.may_be_cached(Descriptor::Leaf(leaf))
    }

    fn add(&mut self, place: &TableUse, slot: u64, descriptor: u64) {
        self.exposed = self.exposed.saturating_add(place.times);
        self.example = Some(Exposed { va: self.va_of(place, (slot & !FRAME) / 8), slot, descriptor });
    }

    /// Follows a store; true if it was one to these tables.
    pub fn follow(&mut self, change: WordChange) -> bool {
        let Some(places) = self.places.get(&(change.pa & FRAME)) else { return false };
        let slot = (change.pa & !FRAME) / 8;
        let places: Vec<TableUse> = places.iter().filter(|place| place.holds(slot)).copied().collect();
        // The evidence is gone; there may be other.
        self.stale |= self.example.is_some_and(|leaf| leaf.slot == change.pa);
        for place in &places {
            let is_table = |word: u64| matches!(self.root.format.decode(word, place.level), Descriptor::Table(_));
            self.stale |= is_table(change.old) || is_table(change.new);
            if self.is_exposed(change.old, place) {
                self.exposed = self.exposed.saturating_sub(place.times);
            }
            if self.is_exposed(change.new, place) {
                self.add(place, change.pa, change.new);
            }
        }
        !places.is_empty()
    }

    /// A writable and executable leaf, if there is any, WXN aside. Needs [`Self::refresh`] after a store.
    #[must_use]
    pub fn exposed(&self) -> Option<Exposed> {
        self.example.filter(|_| self.exposed > 0)
    }

    /// How descriptors of these tables are read.
    #[must_use]
    pub const fn format(&self) -> &Format {
        &self.root.format
    }

    /// The level at which a walk reads the word at `pa`; nothing if none does.
    #[must_use]
    pub fn level_of(&self, pa: u64) -> Option<i8> {
        let places = self.places.get(&(pa & FRAME))?;
        places.iter().find(|place| place.holds((pa & !FRAME) / 8)).map(|place| place.level)
    }

    /// The frames of all tables.
    pub fn frames(&self) -> impl Iterator<Item = u64> {
        self.places.keys().copied()
    }

    /// The physical addresses of all slots, and the level of each.
    pub fn slots(&self) -> impl Iterator<Item = (u64, i8)> {
        self.places.iter().flat_map(|(frame, places)| {
            let slots = places.iter().take(1).flat_map(|place| {
                let level = place.level;
                (place.first_slot..place.first_slot + place.slots).map(move |slot| (slot, level))
            });
            slots.map(move |(slot, level)| (frame + 8 * slot, level))
        })
    }

    /// Physical address of `va`; nothing if it is not mapped.
    #[must_use]
    pub fn translate(&self, memory: &impl Words, va: u64) -> Option<u64> {
        let Root { mut base, format } = self.root;
        for level in format.start_level..=3 {
            match format.decode(memory.word(base + 8 * format.index(va, level)), level) {
                Descriptor::Invalid => return None,
                Descriptor::Leaf(leaf) => return Some(leaf.output | (va & (format.span(level) - 1))),
                Descriptor::Table(table) => base = table.next,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn access(bytes: u8, pa: u64, low: u64, high: u64) -> Access {
        Access { bytes, va: pa, pa, value: [low, high], device: false, release: false }
    }

    #[test]
    fn good_a_store_changes_its_bytes_only() {
        let mut memory = Memory::default();
        memory.declare(0x1000, u64::MAX);
        assert_eq!(
            *memory.store(&access(2, 0x1002, 0, 0)),
            [WordChange { pa: 0x1000, old: u64::MAX, new: 0xffff_ffff_0000_ffff }]
        );
        assert_eq!(memory.word(0x1008), 0);
    }

    #[test]
    fn good_zeros_take_no_memory_where_nothing_was() {
        let mut memory = Memory::default();
        memory.declare(0x1000, 0);
        memory.store(&access(8, 0x2000, 0, 0));
        assert!(memory.frames.is_empty());
        memory.declare(0x1000, 7);
        memory.declare(0x1000, 0);
        assert_eq!((memory.frames.len(), memory.word(0x1000)), (1, 0));
    }

    #[test]
    fn good_a_pair_is_two_words_and_a_misaligned_one_three() {
        let mut memory = Memory::default();
        let news = |changes: WordChanges| changes.iter().map(|change| change.new).collect::<Vec<_>>();
        assert_eq!(news(memory.store(&access(16, 0x1000, 1, 2))), [1, 2]);
        assert_eq!(news(memory.store(&access(16, 0x2004, 0x2_0000_0001, 4))), [1 << 32, 2 | 4 << 32, 0]);
    }

    /// 39-bit addresses, a root at 0x1000 with one table at 0x2000 for the second GiB.
    fn root() -> Root {
        Root::of(&Controls { tcr: 0x8080_3519, ttbr0: 0x1000, ..Controls::default() }).expect("walks can follow it")
    }

    #[test]
    fn good_a_tree_follows_stores_and_counts_what_is_exposed() {
        let mut memory = Memory::default();
        memory.declare(0x1008, 0x2003);
        memory.declare(0x2000, 0x4000_0701);
        let mut tree = Tree::new(root(), &memory);
        assert_eq!(tree.exposed(), Some(Exposed { va: 0x4000_0000, slot: 0x2000, descriptor: 0x4000_0701 }));
        assert_eq!((tree.level_of(0x1008), tree.level_of(0x2ff8), tree.level_of(0x3000)), (Some(1), Some(2), None));
        assert_eq!(tree.translate(&memory, 0x4000_1234), Some(0x4000_1234));
        for change in memory.store(&access(8, 0x2000, 0x4000_0781, 0)).iter() {
            assert!(tree.follow(*change));
        }
        tree.refresh(&memory);
        assert_eq!(tree.exposed(), None, "it is read-only now");
    }

    #[test]
    fn bad_regimes_that_are_not_followed() {
        let error = |controls: Controls| Root::of(&controls).expect_err("it is refused");
        assert!(error(Controls { tcr: 0x4019, ..Controls::default() }).contains("granule other than 4 KiB"));
        assert!(error(Controls { tcr: 0x19, hcr: 1 << 34, ..Controls::default() }).contains("E2H"));
        assert!(error(Controls { tcr: 5, ..Controls::default() }).contains("no walk"));
    }
}
