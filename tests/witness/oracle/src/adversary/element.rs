//! One processing element: its controls, and everything its caches may hold.

use breakwater_trace::Register;

use crate::descriptor::Format;
use crate::level::Levels;
use crate::maintenance::{Reach, ZeroedBlock};
use crate::params::Features;
use crate::regime::{Control, Controls, MemoryType};

use super::entry::{Held, TableEntry, Translation};
use super::lines::Route;
use super::shared::{Hint, List};

/// Every address.
const EVERYTHING: (u64, u64) = (0, u64::MAX);
/// So few are looked at again: to forget them would copy the PE.
const FEW_SUSPECTS: usize = 8;
/// With more changes, everything is suspect.
const MOST_SUSPECTS: usize = 64;

/// The control values that TLBs cache (RVNRFW), and those of them that are still what reset left.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct CachedControls {
    tcr: u64,
    mair: u64,
    /// WXN, EE, E2H, CnP.
    bits: [bool; 4],
    unknown: u8,
}

impl CachedControls {
    /// MAIR_EL2.
    pub(super) const fn mair(&self) -> u64 {
        self.mair
    }

    /// A bit per [`Control`] of which this is what reset left.
    pub(super) const fn unknown(&self) -> u8 {
        self.unknown
    }

    /// Whether these are the values of `controls`, whoever set them.
    pub(super) fn is_of(&self, controls: &Controls) -> bool {
        *self == Element::to_cache(controls, self.unknown)
    }
}

/// A slot that this PE may have seen faulting since its last context synchronisation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct FaultView {
    pub(super) slot: u64,
    pub(super) level: i8,
    pub(super) va: u64,
    pub(super) shift: u8,
    /// This PE has filled it itself.
    pub(super) is_own: bool,
}

/// An invalidated translation that instructions of this PE may still use until its context synchronisation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct Latent {
    pub(super) what: Translation,
    /// Accesses may use it, not fetched instructions alone.
    pub(super) by_accesses: bool,
}

/// A descriptor cached by its physical address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct CachedWord {
    pub(super) slot: u64,
    pub(super) value: u64,
}

/// A table that no walk cache holds any more, but a leaf entry that was walked through it: walkers may be indexed by input address (RRVJDB),
/// so the walk of that address stays with what came of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct Trail {
    pub(super) shift: u8,
    pub(super) va: u64,
    pub(super) table: u64,
}

/// A frame that was walked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct WalkedFrame {
    pub(super) table: u64,
    /// Level of the descriptors in it.
    pub(super) level: i8,
}

/// What the PE did last, as far as errata ask.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Neighbour {
    Isb,
    Dsb,
    HcrWrite,
    Other,
}

/// Where a table is walked from.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableUse {
    /// Level of the descriptors in the table.
    pub(super) level: i8,
    pub(super) va: u64,
    pub(super) table: u64,
    /// Where the descriptor stands that leads here; [`TableUse::ROOT`] where none does.
    pub(super) link: u64,
    pub(super) no_write: bool,
    pub(super) no_execute: bool,
    pub(super) doom: u32,
}

/// How the descriptors of a table are read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct TableEncoding {
    pub(super) format: Format,
    pub(super) mair: u64,
    pub(super) big_endian: bool,
}

impl TableEncoding {
    pub(super) fn of(controls: &Controls, features: &Features) -> Option<Self> {
        let format = controls.format(features).ok()?;
        Some(Self { format, mair: controls.mair, big_endian: controls.big_endian() })
    }

    pub(super) const fn value(&self, word: u64) -> u64 {
        if self.big_endian { word.swap_bytes() } else { word }
    }

    /// Whether nothing may be cached of `word` at `level`.
    pub(super) fn faults(&self, word: u64, level: i8) -> bool {
        !self.format.may_be_cached(self.format.decode(self.value(word), level))
    }
}

/// A PE.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Element {
    pub(super) pe: u32,
    /// Declared with the machine.
    pub(super) features: Hint<Features>,
    /// The controls as last written.
    pub(super) controls: Controls,
    /// How descriptors are read under them; nothing if no walk can follow.
    regime: Hint<Option<TableEncoding>>,
    /// Values of controls that may still be in force until the next context synchronisation, each whatever the others are.
    pub(super) older_controls: Vec<(Control, u64)>,
    /// A bit per [`Control`] that still has its reset value, whatever it was found to be.
    pub(super) unknown_controls: u8,
    /// Where it executes: at EL3 nothing walks EL2's tables, below EL2 no access of its own.
    pub(super) levels: Levels,
    /// What its DC ZVA zeroes.
    pub(super) zeroed_block: ZeroedBlock,
    /// Only `found` records so far.
    pub(super) is_new: bool,
    /// M was 1 at some time.
    pub(super) was_on: bool,
    /// Between two roots: memory was accessed, a store was in flight when M became 0, or C changed with it.
    pub(super) window_access: bool,
    /// A store has had no DSB of stores that reaches other PEs.
    pub(super) is_storing: bool,
    /// A store past the cache has had no DSB of stores that reaches beyond the Inner Shareable domain.
    pub(super) is_storing_past: bool,
    /// Its fetches are recorded: the addresses of its instructions are known.
    pub(super) has_fetched: bool,
    /// What a TLB holds out of reset, until invalidated by this PE; the pending classes that will.
    pub(super) garbage: Option<u32>,
    /// Garbage or cached controls are invalidated, a context synchronisation is to follow.
    pub(super) is_settling: bool,
    /// Pending TLBIs of this PE, whatever they doomed: how far each reaches, and whether it is of the nXS form.
    pub(super) unfinished: Vec<(Reach, bool)>,
    pub(super) neighbour: Neighbour,
    /// Roots that are no longer in force: walks of entries that are held began there, and may begin there until all are invalidated.
    pub(super) former_roots: Vec<Held<WalkedFrame>>,
    /// Former roots that its own TLBI removed, until the context synchronisation.
    pub(super) latent_roots: Vec<u64>,
    pub(super) leaves: Vec<Held<Translation>>,
    pub(super) tables: List<Held<TableEntry>>,
    /// Tables of held leaves that [`Element::tables`] no longer leads to.
    pub(super) trails: Vec<Trail>,
    /// Table frames whose descriptors may be cached by physical address.
    pub(super) walked: List<Held<WalkedFrame>>,
    /// Such descriptors that memory no longer holds.
    pub(super) cached_words: Vec<Held<CachedWord>>,
    pub(super) cached_controls: Vec<Held<CachedControls>>,
    /// Values of MAIR_EL2 that its own TLBI removed from the TLB, until the context synchronisation: without FEAT_ETS2
    /// walks of this PE's accesses may still read types by them.
    pub(super) latent_mairs: Vec<u64>,
    pub(super) latent: Vec<Latent>,
    /// Without FEAT_ETS2, walks of this PE's accesses may still use table entries that its own TLBI has removed.
    pub(super) is_completing: bool,
    pub(super) fault_views: Vec<FaultView>,
    /// Addresses, first to last, whose descriptors have changed: whatever is held and not current lies there.
    pub(super) suspects: Hint<List<(u64, u64)>>,
    /// Every pair of memory type and shareability that a leaf has had.
    pub(super) attributes: Hint<List<(MemoryType, u8)>>,
}

impl Element {
    pub(super) fn new(pe: u32, features: Features, has_garbage: bool) -> Self {
        Self {
            pe,
            features: Hint(features),
            controls: Controls::default(),
            regime: Hint(TableEncoding::of(&Controls::default(), &features)),
            older_controls: Vec::new(),
            // All but TCR2_EL2, which may not exist.
            unknown_controls: 0x1f,
            levels: Levels::default(),
            zeroed_block: ZeroedBlock::default(),
            is_new: true,
            was_on: false,
            window_access: false,
            is_storing: false,
            is_storing_past: false,
            has_fetched: false,
            garbage: has_garbage.then_some(0),
            is_settling: false,
            unfinished: Vec::new(),
            neighbour: Neighbour::Other,
            former_roots: Vec::new(),
            latent_roots: Vec::new(),
            leaves: Vec::new(),
            tables: List::new(),
            trails: Vec::new(),
            walked: List::new(),
            cached_words: Vec::new(),
            cached_controls: Vec::new(),
            latent_mairs: Vec::new(),
            latent: Vec::new(),
            is_completing: false,
            fault_views: Vec::new(),
            suspects: Hint(List::everything()),
            attributes: Hint(List::new()),
        }
    }

    pub(super) fn note_attributes(&mut self, attributes: (MemoryType, u8)) {
        if !self.attributes.0.contains(&attributes) {
            self.attributes.0.push(attributes);
        }
    }

    /// What is held for `first..=last` may no longer be current.
    pub(super) fn suspect(&mut self, first: u64, last: u64) {
        let Hint(suspects) = &mut self.suspects;
        if suspects.iter().any(|range| range.0 <= first && last <= range.1) {
            return;
        }
        if suspects.len() >= MOST_SUSPECTS {
            suspects.clear();
            suspects.push(EVERYTHING);
        } else {
            suspects.push((first, last));
        }
    }

    /// Whether so much is suspect that it is better forgotten, once all of it is current, than looked at again.
    pub(super) fn suspects_many(&self) -> bool {
        self.suspects.0.len() > FEW_SUSPECTS || self.suspects.0.first() == Some(&EVERYTHING)
    }

    pub(super) fn suspect_everything(&mut self) {
        self.suspects.0 = List::everything();
    }

    /// Whether a context synchronisation changes nothing.
    pub(super) const fn is_synchronised(&self) -> bool {
        let is_complete = !self.is_settling && !self.is_completing && self.latent_roots.is_empty();
        is_complete && self.older_controls.is_empty() && self.latent.is_empty() && self.fault_views.is_empty()
    }

    /// Whether walks may happen.
    pub(super) fn walks(&self) -> bool {
        !self.levels.is_el3() && self.values_of(Control::Sctlr).any(|sctlr| sctlr & 1 != 0)
    }

    /// Whether EL2 translates by what was programmed last.
    pub(super) fn is_on(&self) -> bool {
        !self.levels.is_el3() && self.controls.mmu_on()
    }

    /// Whether data accesses go into the data cache.
    pub(super) fn is_cacheable(&self) -> bool {
        if self.levels.is_el2() {
            return self.is_on() && self.controls.cache_on();
        }
        self.levels.caches(self.controls.hcr).unwrap_or(true)
    }

    /// Whether lines may come into its data caches, or go: by any value of SCTLR that may be in force.
    pub(super) fn moves_lines(&self) -> bool {
        if self.levels.is_el2() {
            self.values_of(Control::Sctlr).any(|sctlr| sctlr & 5 == 5)
        } else {
            self.is_cacheable()
        }
    }

    /// Whose walks these are, and how they go: through the caches if SCTLR_EL2.C and TCR_EL2 both say so.
    pub(super) const fn eyes(&self) -> (u32, Route) {
        (self.pe, route_of(&self.controls))
    }

    pub(super) const fn regime(&self) -> Option<TableEncoding> {
        self.regime.0
    }

    pub(super) fn set_features(&mut self, features: Features) {
        self.features = Hint(features);
        self.regime = Hint(TableEncoding::of(&self.controls, &features));
        self.suspect_everything();
    }

    /// Sets a control, as it will be in force.
    pub(super) fn set(&mut self, control: Control, value: u64) {
        // Without FEAT_TTCNP the bit is RES0: nothing can be kept of it.
        let res0 = u64::from(control == Control::Ttbr0 && !self.features.cnp);
        self.controls.set(control, value & !res0);
        self.regime = Hint(TableEncoding::of(&self.controls, &self.features));
        self.suspect_everything();
    }

    pub(super) fn cached_controls_now(&self) -> CachedControls {
        let without = if self.features.cnp { 0 } else { 1 << Control::Ttbr0 as u8 };
        Self::to_cache(&self.controls, self.unknown_controls & !without)
    }

    pub(super) fn to_cache(controls: &Controls, unknown: u8) -> CachedControls {
        CachedControls {
            tcr: controls.tcr,
            mair: controls.mair,
            bits: [controls.wxn(), controls.big_endian(), controls.e2h(), controls.common_not_private()],
            // TCR2_EL2 is not among them.
            unknown: unknown & !(1 << Control::Tcr2 as u8),
        }
    }

    /// A register as it was found.
    pub(super) fn find(&mut self, register: Register, value: u64) {
        self.levels.set(register, value);
        self.zeroed_block.find(register, value);
        if let Some(control) = Control::of(register) {
            self.set(control, value);
            match control {
                // What runs at EL2 runs under them, MMU or not: found is known.
                Control::Hcr | Control::Sctlr if !self.levels.is_el3() => {
                    self.unknown_controls &= !(1 << control as u8)
                }
                // It exists.
                Control::Tcr2 => self.unknown_controls |= 1 << control as u8,
                _ => {}
            }
            if self.controls.mmu_on() {
                self.garbage = None;
                self.unknown_controls = 0;
            }
        }
    }

    /// Renames the pending classes in every doom.
    pub(super) fn rename(&mut self, renamed: impl Fn(u32) -> u32) {
        self.leaves.iter_mut().for_each(|held| held.doom = renamed(held.doom));
        if self.tables.iter().any(|held| held.doom != 0) {
            self.tables.iter_mut().for_each(|held| held.doom = renamed(held.doom));
        }
        if self.walked.iter().any(|held| held.doom != 0) {
            self.walked.iter_mut().for_each(|held| held.doom = renamed(held.doom));
        }
        self.cached_words.iter_mut().for_each(|held| held.doom = renamed(held.doom));
        self.cached_controls.iter_mut().for_each(|held| held.doom = renamed(held.doom));
        self.former_roots.iter_mut().for_each(|held| held.doom = renamed(held.doom));
        self.garbage = self.garbage.map(renamed);
    }

    /// Every bit that stands in a doom.
    pub(super) fn doomed_by(&self) -> u32 {
        let leaves = self.leaves.iter().fold(0, |all, held| all | held.doom);
        let tables = self.tables.iter().fold(leaves, |all, held| all | held.doom);
        let walked = self.walked.iter().fold(tables, |all, held| all | held.doom);
        let words = self.cached_words.iter().fold(walked, |all, held| all | held.doom);
        let controls = self.cached_controls.iter().fold(words, |all, held| all | held.doom);
        let roots = self.former_roots.iter().fold(controls, |all, held| all | held.doom);
        roots | self.garbage.unwrap_or(0)
    }
}

/// How walks go under `controls`.
pub(super) const fn route_of(controls: &Controls) -> Route {
    if controls.cache_on() && controls.walks_cacheable() { Route::Cached } else { Route::Past }
}

impl List<(u64, u64)> {
    fn everything() -> Self {
        let mut list = Self::new();
        list.push(EVERYTHING);
        list
    }
}
