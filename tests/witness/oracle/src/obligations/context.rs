//! The tables in force: which memory is a table, where it is reached, and by whom.
//!
//! A context is a root and how it is read; PEs with the same share one. While any PE may walk it or hold what it said, each of its tables
//! has its places in [`Frames`], so that a store is known at once for the change that it is. A table that was unlinked keeps its places, as
//! ghosts, until nobody can walk through its old descriptor.

use super::cause::{At, Evidence};
use super::change::Weakest;
use super::debt::{NOWHERE, WalkTables};
use super::fast::FastMap;
use super::holder::{Holder, Pes};
use super::memory::{Memory, SHIFT, index};
use crate::descriptor::{Descriptor, Format, Leaf};

/// Descriptors that the walks of one event visit at most: tables that lead to themselves, and hostile ones, end here.
pub(super) const MOST_SLOTS: u64 = 1 << 20;

/// Places of one page of tables at most; tables that lead to themselves have any number.
const MOST_PLACES: usize = 256;

/// A root and how it is read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Regime {
    pub(super) format: Format,
    pub(super) mair: u64,
    pub(super) root: u64,
    pub(super) walks_cacheable: bool,
    /// SCTLR_EL2.EE: descriptors are read byte-swapped.
    pub(super) big_endian: bool,
}

/// A root in force, or still cached.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Context {
    pub(super) regime: Regime,
    /// Who may walk it.
    pub(super) walkers: Pes,
    /// Who may hold what it says.
    pub(super) reach: Holder,
    /// Who issued the TLBI that removed it and, without FEAT_ETS2, has not synchronised context since.
    pub(super) latent: Pes,
    /// The DSB that completed that.
    pub(super) done: Evidence<At>,
    /// The event with which it came into use.
    pub(super) begun: Evidence<At>,
    /// It is walked only because no ISB followed this write of a control: nobody means it to be.
    pub(super) unmeant: Evidence<Option<At>>,
    pub(super) weakest: Weakest,
}

impl Context {
    pub(super) const fn in_use(&self) -> bool {
        self.walkers | self.reach.held() | self.latent != 0
    }
}

/// Where a table is reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct TableUse {
    pub(super) context: usize,
    pub(super) level: i8,
    /// First address that its first descriptor translates.
    pub(super) va: u64,
    pub(super) base: u64,
    pub(super) entries: u64,
    /// APTable and XNTable of the way to it, together.
    pub(super) no_write: bool,
    pub(super) no_execute: bool,
    /// The descriptor that leads here; the root has none.
    pub(super) link: u64,
    /// The tables of the way to it, itself included.
    pub(super) way: WalkTables,
    /// Descriptors are read byte-swapped.
    pub(super) swapped: bool,
    /// That descriptor is gone from memory, but may still be cached.
    pub(super) ghost: bool,
}

impl TableUse {
    pub(super) const fn root(context: usize, regime: &Regime) -> Self {
        let Regime { format, root, big_endian: swapped, .. } = *regime;
        let (level, entries) = (format.start_level, format.entries(format.start_level));
        let (no_write, no_execute, ghost) = (false, false, false);
        let mut way = NOWHERE;
        way[(level + 1) as usize % 5] = root;
        Self { context, level, va: 0, base: root, entries, no_write, no_execute, link: u64::MAX, way, swapped, ghost }
    }

    /// The index of the descriptor at `pa`, if it is one of this table.
    pub(super) const fn entry(&self, pa: u64) -> Option<u64> {
        let offset = pa.wrapping_sub(self.base);
        if offset / 8 < self.entries { Some(offset / 8) } else { None }
    }

    const fn pages(&self) -> core::ops::RangeInclusive<u64> {
        (self.base >> SHIFT)..=(self.base.saturating_add(8 * self.entries - 8) >> SHIFT)
    }
}

/// A descriptor where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PlacedWord {
    pub(super) pa: u64,
    pub(super) level: i8,
    pub(super) va: u64,
    pub(super) word: u64,
    /// What it says, a leaf's rights as the tables above leave them; [`Descriptor::Invalid`] for all that is not cached.
    pub(super) said: Descriptor,
}

impl TableUse {
    /// The place of the table that `slot` of this table leads to.
    pub(super) fn below(&self, slot: &PlacedWord, format: &Format) -> Option<Self> {
        let Descriptor::Table(table) = slot.said else { return None };
        let (level, mut way) = (self.level + 1, self.way);
        way[(level + 1) as usize % 5] = table.next;
        Some(Self {
            level,
            way,
            va: slot.va,
            base: table.next,
            entries: format.entries(level),
            no_write: self.no_write || table.no_write,
            no_execute: self.no_execute || table.no_execute,
            link: slot.pa,
            ..*self
        })
    }

    /// Entry `index` of this table, holding `word`.
    pub(super) fn slot(&self, index: u64, word: u64, format: &Format) -> PlacedWord {
        let word = if self.swapped { word.swap_bytes() } else { word };
        let decoded = format.decode(word, self.level);
        let said = match decoded {
            _ if !format.may_be_cached(decoded) => Descriptor::Invalid,
            Descriptor::Leaf(leaf) => Descriptor::Leaf(Leaf {
                writable: leaf.writable && !self.no_write,
                executable: leaf.executable && !self.no_execute,
                ..leaf
            }),
            table => table,
        };
        PlacedWord {
            pa: self.base + 8 * index,
            level: self.level,
            va: self.va + (index << format.shift(self.level)),
            word,
            said,
        }
    }
}

/// Tables and what stands in them, from some place down.
#[derive(Debug, Default)]
pub(super) struct Subtree {
    pub(super) places: Vec<TableUse>,
    /// Descriptors that may be cached, each with the index of its place.
    pub(super) slots: Vec<(usize, PlacedWord)>,
    /// There is more than an event may visit.
    pub(super) is_cut: bool,
}

impl Subtree {
    /// Everything that `memory` is known to hold from `top` down.
    /// As many descriptors as `left` allows, which becomes less.
    pub(super) fn of(memory: &Memory, top: TableUse, format: &Format, left: &mut u64) -> Self {
        let mut tree = Self { places: vec![top], slots: Vec::new(), is_cut: false };
        let mut next = 0;
        while let Some(place) = tree.places.get(next).copied().filter(|place| *left >= place.entries) {
            *left -= place.entries;
            tree.read(memory, next, &place, format);
            next += 1;
        }
        tree.is_cut = next < tree.places.len();
        tree.places.truncate(next.max(1));
        tree
    }

    fn read(&mut self, memory: &Memory, number: usize, place: &TableUse, format: &Format) {
        let mut entry = 0;
        while entry < place.entries {
            let pa = place.base + 8 * entry;
            let here = (512 - index(pa) as u64).min(place.entries - entry);
            if let Some(page) = memory.page(pa) {
                for offset in 0..here {
                    let at = index(pa) + offset as usize;
                    let word = page.word(at);
                    let valid = if place.swapped { 1 << 56 } else { 1 };
                    if word & valid == 0 || !page.known.has(at) {
                        continue;
                    }
                    let slot = place.slot(entry + offset, word, format);
                    self.places.extend(place.below(&slot, format));
                    if slot.said != Descriptor::Invalid {
                        self.slots.push((number, slot));
                    }
                }
            }
            entry += here;
        }
    }
}

/// Which memory is a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Frames {
    by_page: FastMap<u64, Vec<TableUse>>,
    /// Pages that are or were part of a table.
    ever: FastMap<u64, ()>,
}

impl Frames {
    /// Notes a place; false if a table has too many of them already.
    pub(super) fn add(&mut self, place: TableUse) -> bool {
        let mut fits = true;
        for page in place.pages() {
            self.ever.insert(page, ());
            let places = self.by_page.entry(page).or_default();
            if !places.contains(&place) {
                if places.len() < MOST_PLACES {
                    places.push(place);
                } else {
                    fits = false;
                }
            }
        }
        fits
    }

    pub(super) fn remove(&mut self, place: &TableUse) {
        for page in place.pages() {
            if let Some(places) = self.by_page.get_mut(&page) {
                places.retain(|other| other != place);
                if places.is_empty() {
                    self.by_page.remove(&page);
                }
            }
        }
    }

    /// The tables that the word at `pa` may be part of.
    pub(super) fn at(&self, pa: u64) -> &[TableUse] {
        self.by_page.get(&(pa >> SHIFT)).map_or(&[], Vec::as_slice)
    }

    /// The pages that are or were part of a table, by number.
    pub(super) fn ever(&self) -> impl Iterator<Item = u64> {
        self.ever.keys().copied()
    }

    /// A table in use that has a word in `first` to `last`.
    pub(super) fn in_use(&self, first: u64, last: u64) -> Option<TableUse> {
        let meets = |place: &&TableUse| {
            !place.ghost && place.base <= last && place.base.saturating_add(8 * place.entries - 1) >= first
        };
        let (from, to) = (first >> SHIFT, last >> SHIFT);
        if to - from > self.by_page.len() as u64 {
            return self.by_page.values().flatten().find(meets).copied();
        }
        (from..=to).filter_map(|page| self.by_page.get(&page)).flatten().find(meets).copied()
    }
}
