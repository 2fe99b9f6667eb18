//! The peer aarch64-paging: Google's, as aarch64-rt and others use it.
//!
//! Its TLBIs are a hook, and counted. Its barriers are compiled for aarch64 alone; here two DSBs and an ISB a request stand for them, which is
//! the fewest that it does there: each table that it frees costs it as many more.

use crate::arena::{self, Arena, FRAME};
use crate::candidate::{Candidate, Refused};
use crate::request::{Leaf, Step, Verb};
use aarch64_paging::descriptor::{El23Attributes, PhysicalAddress, VirtualAddress};
use aarch64_paging::paging::{Constraints, MemoryRegion, PageTable, Translation, TranslationRegime};
use aarch64_paging::{MapError, Mapping};
use std::num::NonZero;
use std::ptr::NonNull;

/// The regime of EL2 as the crate has it, but for its TLBI, which on a host is nothing and here is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Counted;

impl TranslationRegime for Counted {
    type Attributes = El23Attributes;
    type Asid = ();
    type VaRange = ();

    #[inline]
    fn invalidate_va(va: VirtualAddress) {
        arena::tlbi(va.0 as u64 >> 12);
    }

    unsafe fn activate(_root: PhysicalAddress, _asid: (), _range: ()) -> usize {
        0
    }

    unsafe fn deactivate(_previous: usize, _asid: (), _range: ()) {}
}

/// Frames of the arena.
#[derive(Debug)]
struct Frames;

impl Translation<El23Attributes> for Frames {
    #[inline]
    fn allocate_table(&mut self) -> (NonNull<PageTable<El23Attributes>>, PhysicalAddress) {
        let frame = arena::take();
        arena::zero(frame);
        let address = PhysicalAddress(frame as usize);
        (self.physical_to_virtual(address), address)
    }

    unsafe fn deallocate_table(&mut self, _table: NonNull<PageTable<El23Attributes>>) {}

    #[inline]
    fn physical_to_virtual(&self, pa: PhysicalAddress) -> NonNull<PageTable<El23Attributes>> {
        NonNull::with_exposed_provenance(NonZero::new(pa.0).expect("a table's address is not 0"))
    }
}

/// Tables that the crate takes to be out of use: no check and no maintenance.
const NOT_LIVE: u8 = 0;
/// The same, and around each request the maintenance that tables in use need.
const INVALIDATED: u8 = 1;
/// Tables that the crate takes to be in use: its own check and its own TLBIs.
const LIVE: u8 = 2;

/// aarch64-paging on tables that are not in use, as it is.
pub type NotLive = Paging<NOT_LIVE>;
/// aarch64-paging on tables that are not in use, with the invalidation that it then omits.
pub type Invalidated = Paging<INVALIDATED>;
/// aarch64-paging on tables in use.
pub type Live = Paging<LIVE>;

/// The peer, in one of three ways.
#[derive(Debug)]
pub struct Paging<const HOW: u8> {
    mapping: Mapping<Frames, Counted>,
}

/// Readable and writable, never executed; the bits that the manager writes too.
const DATA: El23Attributes = El23Attributes::VALID
    .union(El23Attributes::ATTRIBUTE_INDEX_7)
    .union(El23Attributes::INNER_SHAREABLE)
    .union(El23Attributes::ACCESSED)
    .union(El23Attributes::USER_RES1)
    .union(El23Attributes::XN);

impl<const HOW: u8> Candidate for Paging<HOW> {
    const NAME: &'static str = match HOW {
        NOT_LIVE => "aarch64-paging",
        INVALIDATED => "aarch64-paging + invalidation",
        _ => "aarch64-paging, live",
    };
    const NOTE: &'static str = match HOW {
        NOT_LIVE => {
            "tables that it takes to be out of use: no check, no barrier, no TLBI; overwrites what is mapped; no rollback"
        }
        INVALIDATED => "the same, and around each request DSB, one TLBI a leaf, DSB, ISB; a fill gets its DSB and ISB",
        _ => {
            "tables in use: a dry run looks for violations first; then one TLBI a leaf, for fills too, between its barriers"
        }
    };

    fn new(_arena: &Arena) -> Self {
        let mapping = Mapping::new(Frames, 0, Counted);
        if HOW == LIVE {
            mapping.mark_active();
        }
        Self { mapping }
    }

    #[inline]
    fn step(&mut self, step: &Step) -> Result<(), Refused> {
        let range = MemoryRegion::new(step.virt as usize, (step.virt + step.bytes) as usize);
        let output = PhysicalAddress(step.output as usize);
        let constraints = if step.leaf == Leaf::Page { Constraints::NO_BLOCK_MAPPINGS } else { Constraints::empty() };
        if HOW == INVALIDATED {
            arena::dsb(); // of the stores before: here for its count, since nothing on this host waits for it
        }
        let done = match step.verb {
            Verb::Map | Verb::Remap => self.mapping.map_range(&range, output, DATA, constraints),
            Verb::Unmap => self.mapping.map_range(&range, PhysicalAddress(0), El23Attributes::empty(), constraints),
            Verb::Protect => self.mapping.map_range(&range, output, DATA | El23Attributes::READ_ONLY, constraints),
        };
        match HOW {
            NOT_LIVE => {}
            INVALIDATED => invalidate(step),
            // For the barriers before and after its TLBIs.
            _ => {
                arena::dsb();
                arena::dsb();
                arena::isb();
            }
        }
        done.map_err(refused)
    }

    fn root(&self) -> Option<u64> {
        Some(self.mapping.root_address().0 as u64)
    }
}

/// One TLBI for each leaf, as the crate does for tables in use, and the barriers after it.
#[inline]
fn invalidate(step: &Step) {
    if step.verb != Verb::Map {
        (0..step.leaves()).for_each(|leaf| arena::tlbi((step.virt + (leaf << step.leaf.shift())) / FRAME));
        arena::dsb();
    }
    arena::isb();
}

impl<const HOW: u8> Drop for Paging<HOW> {
    fn drop(&mut self) {
        // The crate panics when tables go that are in use.
        if HOW == LIVE {
            self.mapping.mark_inactive();
        }
    }
}

#[cold]
fn refused(error: MapError) -> Refused {
    Refused(error.to_string())
}
