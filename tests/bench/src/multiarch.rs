//! The peer page_table_multiarch: ArceOS's, for several architectures.
//!
//! Its aarch64 descriptors exist only where the host is one. It takes any descriptor by a trait, so it is given one here: the walk, the
//! region loops and the collection of addresses to flush, which are what is measured, are the crate's own.

use crate::arena::{self, Arena};
use crate::candidate::{Candidate, Refused};
use crate::hardware;
use crate::request::{Leaf, Step, Verb};
use memory_addr::{PhysAddr, VirtAddr};
use page_table_multiarch::{
    GenericPTE, MappingFlags, PageSize, PageTable64, PageTable64Cursor, PagingError, PagingHandler, PagingMetaData,
    PagingResult,
};

const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 2;
/// Normal memory, Inner Shareable, accessed: attribute index 7, bit 6 RES1.
const NORMAL: u64 = 7 << 2 | 1 << 6 | 3 << 8 | 1 << 10;
const READ_ONLY: u64 = 1 << 7;
const XN: u64 = 1 << 54;

/// A descriptor of the EL2 regime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
struct Descriptor(u64);

#[inline]
fn bits(flags: MappingFlags, is_block: bool) -> u64 {
    let mut bits = NORMAL;
    if flags.contains(MappingFlags::READ) {
        bits |= VALID;
    }
    if !flags.contains(MappingFlags::WRITE) {
        bits |= READ_ONLY;
    }
    if !flags.contains(MappingFlags::EXECUTE) {
        bits |= XN;
    }
    if is_block { bits } else { bits | TABLE_OR_PAGE }
}

impl GenericPTE for Descriptor {
    #[inline]
    fn new_page(paddr: PhysAddr, flags: MappingFlags, is_huge: bool) -> Self {
        Self(paddr.as_usize() as u64 & ADDRESS | bits(flags, is_huge))
    }

    #[inline]
    fn new_table(paddr: PhysAddr) -> Self {
        Self(paddr.as_usize() as u64 & ADDRESS | VALID | TABLE_OR_PAGE)
    }

    #[inline]
    fn paddr(&self) -> PhysAddr {
        PhysAddr::from((self.0 & ADDRESS) as usize)
    }

    #[inline]
    fn flags(&self) -> MappingFlags {
        let is = |bit, flag| if self.0 & bit == 0 { flag } else { MappingFlags::empty() };
        MappingFlags::READ | is(READ_ONLY, MappingFlags::WRITE) | is(XN, MappingFlags::EXECUTE)
    }

    #[inline]
    fn set_paddr(&mut self, paddr: PhysAddr) {
        self.0 = self.0 & !ADDRESS | paddr.as_usize() as u64 & ADDRESS;
    }

    #[inline]
    fn set_flags(&mut self, flags: MappingFlags, is_huge: bool) {
        self.0 = self.0 & ADDRESS | bits(flags, is_huge);
    }

    #[inline]
    fn bits(self) -> usize {
        self.0 as usize
    }

    #[inline]
    fn is_unused(&self) -> bool {
        self.0 == 0
    }

    #[inline]
    fn is_present(&self) -> bool {
        self.0 & VALID != 0
    }

    #[inline]
    fn is_huge(&self) -> bool {
        self.0 & TABLE_OR_PAGE == 0
    }

    #[inline]
    fn clear(&mut self) {
        self.0 = 0;
    }
}

/// Four levels, 48 bits. The crate flushes on the bare target only; here [`flush`] stands for it.
struct El2;

impl PagingMetaData for El2 {
    const LEVELS: usize = 4;
    const PA_MAX_BITS: usize = 48;
    const VA_MAX_BITS: usize = 48;
    type VirtAddr = VirtAddr;

    fn flush_tlb(_vaddr: Option<VirtAddr>) {}
}

/// Frames of the arena.
struct Frames;

impl PagingHandler for Frames {
    #[inline]
    fn alloc_frames(_num: usize, _align: usize) -> Option<PhysAddr> {
        Some(PhysAddr::from(arena::take() as usize))
    }

    fn dealloc_frames(_paddr: PhysAddr, _num: usize) {}

    #[inline]
    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from(paddr.as_usize())
    }
}

/// page_table_multiarch as it is on a host.
pub type AsItIs = Multiarch<false>;
/// page_table_multiarch with what it does on the target, and the DSB that it omits there.
pub type Invalidated = Multiarch<true>;

/// The peer, with or without invalidation.
pub struct Multiarch<const INVALIDATES: bool> {
    table: PageTable64<El2, Descriptor, Frames>,
}

impl<const INVALIDATES: bool> std::fmt::Debug for Multiarch<INVALIDATES> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Multiarch {{ root: {:?} }}", self.table.root_paddr())
    }
}

/// Addresses that the crate flushes one by one before it flushes everything instead.
const FLUSHED_BY_ADDRESS: u64 = 32;

const DATA: MappingFlags = MappingFlags::READ.union(MappingFlags::WRITE);

impl<const INVALIDATES: bool> Candidate for Multiarch<INVALIDATES> {
    const NAME: &'static str = if INVALIDATES { "page_table_multiarch + invalidation" } else { "page_table_multiarch" };
    const NOTE: &'static str = if INVALIDATES {
        "DSB, then what it does on the target, after fills too: up to 32 times TLBI, DSB, ISB, or once for everything"
    } else {
        "no barrier and no TLBI on a host, no DSB before TLBI on the target; remaps without a break; a failure leaves a part done"
    };

    fn new(_arena: &Arena) -> Self {
        Self { table: PageTable64::try_new().expect("a fresh arena has frames") }
    }

    #[inline]
    fn step(&mut self, step: &Step) -> Result<(), Refused> {
        let done = region(&mut self.table.cursor(), step);
        if INVALIDATES {
            flush(step);
        }
        done.map_err(refused)
    }

    fn root(&self) -> Option<u64> {
        Some(self.table.root_paddr().as_usize() as u64)
    }
}

#[inline]
fn region(cursor: &mut PageTable64Cursor<'_, El2, Descriptor, Frames>, step: &Step) -> PagingResult {
    let (virt, bytes) = (VirtAddr::from(step.virt as usize), step.bytes as usize);
    let output = |at: VirtAddr| PhysAddr::from((at.as_usize() as u64 - step.virt + step.output) as usize);
    match step.verb {
        Verb::Map => cursor.map_region(virt, output, bytes, DATA, step.leaf != Leaf::Page),
        Verb::Unmap => cursor.unmap_region(virt, bytes),
        Verb::Protect => cursor.protect_region(virt, bytes, MappingFlags::READ),
        // There is no remap of a region.
        Verb::Remap => (0..step.leaves()).try_for_each(|index| {
            let at = VirtAddr::from((step.virt + (index << step.leaf.shift())) as usize);
            cursor.remap(at, output(at), DATA).map(|_: PageSize| ())
        }),
    }
}

/// `PageTable64Cursor::flush` on the target, with the DSB before that it lacks.
#[inline]
fn flush(step: &Step) {
    hardware::dsb();
    let by_address = if step.leaves() <= FLUSHED_BY_ADDRESS { step.leaves() } else { 1 };
    for index in 0..by_address {
        hardware::tlbi((step.virt + (index << step.leaf.shift())) >> 12);
        hardware::dsb();
        hardware::isb();
    }
}

#[cold]
fn refused(error: PagingError) -> Refused {
    Refused(format!("{error:?}"))
}
