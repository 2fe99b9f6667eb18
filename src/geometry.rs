//! Granule and address size: what cuts an address into indices, and where a descriptor keeps an output address.
//!
//! Why it exists: 4 KiB pages and 48 bits are what boots, and constants for them spread through a page-table manager are what keeps
//! others from ever booting anything else. Here the two are one type, [`Geometry`], which a [`crate::machine::Machine`] names; the
//! manager asks it and has no number of its own.
//!
//! | | levels | a root has | blocks | contiguous run |
//! |---|---|---|---|---|
//! | [`Granule4K`] | 0 to 3 | 512 slots | 1 GiB, 2 MiB | 16 |
//! | [`Granule4KLpa2`] | -1 to 3 | 16 slots | 512 GiB, 1 GiB, 2 MiB | 16 |
//! | [`Granule16K`] | 0 to 3 | 2 slots | 32 MiB | 128 pages, 32 blocks |
//! | [`Granule16KLpa2`] | 0 to 3 | 32 slots | 64 GiB, 32 MiB | 128 pages, 32 blocks |
//! | [`Granule64K`] | 1 to 3 | 64 slots | 512 MiB | 32 |
//! | [`Granule64KLva`] | 1 to 3 | 1024 slots | 4 TiB, 512 MiB | 32 |
//!
//! Rests on Arm ARM DDI 0487, VMSAv8-64 translation table formats. A level -1, blocks of 512 GiB and 64 GiB, and output bits 51:50 in
//! descriptor bits 9:8 need TCR_EL2.DS = 1 (FEAT_LPA2); bits 51:48 in 15:12 and blocks of 4 TiB need FEAT_LPA.

#![forbid(unsafe_code)]

use crate::addr::{Frame, Level, PhysAddr, VirtAddr, VirtSpan};
use core::fmt::{self, Debug};

/// Where a descriptor keeps the bits of an output address that do not fit below bit 48.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HighBits {
    /// There are none: addresses have 48 bits.
    None,
    /// 49:48 in place, 51:50 in bits 9:8, where shareability was: TCR_EL2.SH0 says that for all (TCR_EL2.DS = 1).
    Shareability,
    /// 51:48 in bits 15:12 (64 KiB granule, FEAT_LPA).
    Low,
}

/// A granule with an address size. Functions take a [`Level`] that the geometry has: from [`Geometry::ROOT`] down to [`Level::L3`].
pub trait Geometry: Copy + Debug + Eq + Send + Sync + 'static {
    /// log2 of the bytes of a page, and of a table.
    const PAGE_SHIFT: u32;
    /// Bits of an input address.
    const INPUT_BITS: u32;
    /// The level at which walks begin.
    const ROOT: Level;
    /// The level of the largest blocks.
    const LARGEST: Level;
    /// Where output addresses of more than 48 bits go.
    const HIGH_BITS: HighBits;
    /// The granule as TTL and range operands of TLBI name it: 1 is 4 KiB, 2 is 16 KiB, 3 is 64 KiB.
    const TLBI_GRANULE: u64;

    /// Bits of an output address.
    const OUTPUT_BITS: u32 = if matches!(Self::HIGH_BITS, HighBits::None) { 48 } else { 52 };
    /// Bytes of a page, and of a table.
    const PAGE_BYTES: u64 = 1 << Self::PAGE_SHIFT;
    /// log2 of the descriptors in a table.
    const STRIDE: u32 = Self::PAGE_SHIFT - 3;
    /// The bits of a descriptor that hold an output address.
    const OUTPUT_MASK: u64 = match Self::HIGH_BITS {
        HighBits::None => ((1 << 48) - 1) & !(Self::PAGE_BYTES - 1),
        HighBits::Shareability => ((1 << 50) - 1) & !(Self::PAGE_BYTES - 1) | 0x300,
        HighBits::Low => ((1 << 48) - 1) & !(Self::PAGE_BYTES - 1) | 0xf000,
    };

    /// log2 of the bytes that one slot of `level` spans.
    #[must_use]
    #[inline(always)]
    fn shift(level: Level) -> u32 {
        Self::PAGE_SHIFT + Self::STRIDE * (3 - level as i32) as u32
    }

    /// The bytes that one slot of `level` spans.
    #[must_use]
    #[inline(always)]
    fn slot_bytes(level: Level) -> u64 {
        1 << Self::shift(level)
    }

    /// Descriptors in a table of `level`; a root may have fewer than others.
    #[must_use]
    #[inline(always)]
    fn slots(level: Level) -> u64 {
        1 << Self::STRIDE.min(Self::INPUT_BITS - Self::shift(level))
    }

    /// Whether a leaf may stand at `level`.
    #[must_use]
    #[inline(always)]
    fn allows_leaf(level: Level) -> bool {
        level >= Self::LARGEST
    }

    /// The slots of a contiguous run at `level`: so many leaves side by side a TLB may hold as one. 1 where the manager makes none: for
    /// blocks that only a 52-bit format has.
    #[must_use]
    #[inline(always)]
    fn run_slots(level: Level) -> u64 {
        run_slots(Self::STRIDE as u8, level)
    }

    /// The slot of `table`, a table of `level`, that translates `virt`.
    #[must_use]
    #[inline(always)]
    fn slot(table: Frame, level: Level, virt: VirtAddr) -> Slot {
        let shift = Self::shift(level) as u8;
        let slots = Self::slots(level) as u16;
        Slot { table, virt: 0, index: 0, slots, level, shift, stride: Self::STRIDE as u8 }.beside(virt)
    }

    /// A descriptor's bits for the output address `raw`, which has no more bits than the format.
    #[must_use]
    #[inline(always)]
    fn encode_output(raw: u64) -> u64 {
        match Self::HIGH_BITS {
            HighBits::None => raw,
            HighBits::Shareability => raw & ((1 << 50) - 1) | raw >> 50 << 8,
            HighBits::Low => raw & ((1 << 48) - 1) | raw >> 48 << 12,
        }
    }

    /// The output address that `descriptor` holds; of a block, whose low bits are 0 where the manager wrote it.
    #[must_use]
    #[inline(always)]
    fn decode_output(descriptor: u64) -> u64 {
        let plain = descriptor & Self::OUTPUT_MASK & !0xfff;
        match Self::HIGH_BITS {
            HighBits::None => plain,
            HighBits::Shareability => plain | (descriptor >> 8 & 3) << 50,
            HighBits::Low => plain & !0xffff | (descriptor >> 12 & 0xf) << 48,
        }
    }
}

/// [`Geometry::run_slots`] of a granule whose tables have 2^`stride` slots.
const fn run_slots(stride: u8, level: Level) -> u64 {
    match (stride, level) {
        (9, Level::L1 | Level::L2 | Level::L3) => 16,
        (11, Level::L3) => 128,
        (11 | 13, Level::L2) | (13, Level::L3) => 32,
        _ => 1,
    }
}

/// A slot of a table: where a descriptor stands, and which input addresses it translates. [`Geometry::slot`] finds the first of a walk; the
/// others follow from it, for a slot knows the shape of its tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    table: Frame,
    virt: u64,
    index: u16,
    /// Slots in the table.
    slots: u16,
    level: Level,
    /// log2 of the bytes that the slot spans.
    shift: u8,
    /// log2 of the slots of every table but a root.
    stride: u8,
}

impl Slot {
    /// The table's frame.
    #[must_use]
    pub const fn table(self) -> Frame {
        self.table
    }

    /// The table's level.
    #[must_use]
    pub const fn level(self) -> Level {
        self.level
    }

    /// The first byte that the slot translates.
    #[must_use]
    #[inline(always)]
    pub const fn virt(self) -> VirtAddr {
        VirtAddr::within(self.virt)
    }

    /// Where the descriptor stands in its table, from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// The descriptor's physical address.
    #[must_use]
    #[inline(always)]
    pub const fn address(self) -> PhysAddr {
        // Within a table, so it cannot pass 2^52.
        PhysAddr::within(self.table.start().raw() + 8 * self.index as u64)
    }

    /// log2 of the bytes that it spans.
    #[must_use]
    #[inline(always)]
    pub const fn shift(self) -> u32 {
        self.shift as u32
    }

    /// The bytes that it spans.
    #[must_use]
    #[inline(always)]
    pub const fn bytes(self) -> u64 {
        1 << self.shift
    }

    /// Descriptors in its table; a root may have fewer than others.
    #[must_use]
    #[inline(always)]
    pub const fn slots(self) -> u64 {
        self.slots as u64
    }

    /// [`Geometry::run_slots`] at its level.
    #[must_use]
    #[inline(always)]
    pub const fn run_slots(self) -> u64 {
        run_slots(self.stride, self.level)
    }

    /// What it translates.
    #[must_use]
    #[inline(always)]
    pub fn span(self) -> VirtSpan {
        self.span_of(1)
    }

    /// Whether it translates `virt`.
    #[must_use]
    #[inline(always)]
    pub const fn translates(self, virt: VirtAddr) -> bool {
        (virt.raw() ^ self.virt) >> self.shift == 0
    }

    /// What `count` slots from this one on translate.
    #[must_use]
    #[inline(always)]
    pub fn span_of(self, count: u64) -> VirtSpan {
        let end_exclusive = self.virt + (count << self.shift);
        VirtSpan::new(self.virt(), VirtAddr::within(end_exclusive)).unwrap_or(VirtSpan::EMPTY)
    }

    /// The slot `count` further on in its table.
    ///
    /// # Panics
    /// In a debug build, when the table ends before.
    #[must_use]
    #[inline(always)]
    pub const fn step(self, count: u64) -> Self {
        let index = self.index as u64 + count;
        debug_assert!(index < self.slots as u64, "a slot lies in its table");
        Self { index: index as u16, virt: self.virt + (count << self.shift), ..self }
    }

    /// The first slot of its table.
    #[must_use]
    #[inline(always)]
    pub const fn first(self) -> Self {
        Self { index: 0, virt: self.virt - ((self.index as u64) << self.shift), ..self }
    }

    /// The slot of its table that translates `virt`, an address of that table's.
    #[must_use]
    #[inline(always)]
    pub const fn beside(self, virt: VirtAddr) -> Self {
        let number = virt.raw() >> self.shift;
        Self { index: (number & ((1 << self.stride) - 1)) as u16, virt: number << self.shift, ..self }
    }

    /// The slot for `virt` of `child`, the table that this slot leads to; `None` at the last level.
    #[must_use]
    #[inline(always)]
    pub const fn below(self, child: Frame, virt: VirtAddr) -> Option<Self> {
        match self.level.next() {
            Some(level) => {
                let (shift, slots) = (self.shift - self.stride, 1 << self.stride);
                Some(Self { table: child, level, shift, slots, ..self }.beside(virt))
            }
            None => None,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} slot {} of table {} (va {})", self.level, self.index, self.table.start(), self.virt())
    }
}

macro_rules! geometry {
    ($(#[$doc:meta])* $name:ident, $shift:literal, $input:literal, $root:ident, $largest:ident, $high:ident, $granule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name;

        impl Geometry for $name {
            const PAGE_SHIFT: u32 = $shift;
            const INPUT_BITS: u32 = $input;
            const ROOT: Level = Level::$root;
            const LARGEST: Level = Level::$largest;
            const HIGH_BITS: HighBits = HighBits::$high;
            const TLBI_GRANULE: u64 = $granule;
        }
    };
}

geometry! {
    /// 4 KiB, 48 bits: what boots.
    Granule4K, 12, 48, L0, L1, None, 1
}
geometry! {
    /// 4 KiB, 52 bits (TCR_EL2.DS = 1).
    Granule4KLpa2, 12, 52, Minus1, L0, Shareability, 1
}
geometry! {
    /// 16 KiB, 48 bits.
    Granule16K, 14, 48, L0, L2, None, 2
}
geometry! {
    /// 16 KiB, 52 bits (TCR_EL2.DS = 1).
    Granule16KLpa2, 14, 52, L0, L1, Shareability, 2
}
geometry! {
    /// 64 KiB, 48 bits.
    Granule64K, 16, 48, L1, L2, None, 3
}
geometry! {
    /// 64 KiB, 52 bits (FEAT_LPA, FEAT_LVA).
    Granule64KLva, 16, 52, L1, L1, Low, 3
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! in_every_geometry {
        ($claim:ident) => {
            $claim::<Granule4K>();
            $claim::<Granule4KLpa2>();
            $claim::<Granule16K>();
            $claim::<Granule16KLpa2>();
            $claim::<Granule64K>();
            $claim::<Granule64KLva>();
        };
    }

    fn levels<G: Geometry>() -> Vec<(Level, u64, u64)> {
        let all = [Level::Minus1, Level::L0, Level::L1, Level::L2, Level::L3];
        let own = all.into_iter().filter(|&level| level >= G::ROOT);
        own.map(|level| (level, G::slots(level), G::slot_bytes(level))).collect()
    }

    #[test]
    fn good_tables_span_the_input_addresses() {
        fn holds<G: Geometry>() {
            let levels = levels::<G>();
            let (_, slots, bytes) = levels[0];
            assert_eq!(slots * bytes, 1 << G::INPUT_BITS, "{:?}", levels);
            for pair in levels.windows(2) {
                assert_eq!(pair[0].2, pair[1].1 * pair[1].2, "a slot spans the table below it: {levels:?}");
            }
        }
        in_every_geometry!(holds);
    }

    #[test]
    fn good_roots_and_blocks_are_those_of_the_table_above() {
        const GIB: u64 = 1 << 30;
        assert_eq!(levels::<Granule4K>()[0], (Level::L0, 512, 512 * GIB));
        assert_eq!(levels::<Granule4KLpa2>()[0], (Level::Minus1, 16, 512 * 512 * GIB));
        assert_eq!(levels::<Granule16K>()[0], (Level::L0, 2, 128 * 1024 * GIB));
        assert_eq!(levels::<Granule16KLpa2>()[..2], [(Level::L0, 32, 128 * 1024 * GIB), (Level::L1, 2048, 64 * GIB)]);
        assert_eq!(levels::<Granule64K>()[..2], [(Level::L1, 64, 4096 * GIB), (Level::L2, 8192, GIB / 2)]);
        assert_eq!(levels::<Granule64KLva>()[0], (Level::L1, 1024, 4096 * GIB));
    }

    #[test]
    fn good_slots_know_where_they_are() {
        let table = |start| Frame::containing(PhysAddr::at(start));
        let virt = VirtAddr::at(0x0a00_0020_1234);
        let slot = Granule4K::slot(table(0x4000_0000), Level::L2, virt);
        assert_eq!((slot.index(), slot.address()), (1, PhysAddr::at(0x4000_0008)));
        assert_eq!(slot.virt(), VirtAddr::at(0x0a00_0020_0000));
        assert_eq!(
            slot.step(2).first(),
            Granule4K::slot(table(0x4000_0000), Level::L2, VirtAddr::at(0x0a00_0000_0000))
        );
        assert_eq!(slot.below(table(0x5000_0000), virt), Some(Granule4K::slot(table(0x5000_0000), Level::L3, virt)));
    }

    #[test]
    fn good_walks_go_down_from_the_root() {
        fn holds<G: Geometry>() {
            let (table, virt) = (Frame::containing(PhysAddr::at(0x9_0000)), VirtAddr::at(0x7f12_3456_7000));
            let mut slot = G::slot(table, G::ROOT, virt);
            while let Some(next) = slot.below(table, virt) {
                assert_eq!(next, G::slot(table, next.level(), virt));
                assert_eq!(next.run_slots(), G::run_slots(next.level()));
                assert!(slot.span().covers(next.span()) && next.slots() << next.shift() == slot.bytes());
                slot = next;
            }
            assert_eq!((slot.level(), slot.bytes()), (Level::L3, G::PAGE_BYTES));
        }
        in_every_geometry!(holds);
    }

    #[test]
    fn good_output_addresses_come_back() {
        fn holds<G: Geometry>() {
            for raw in [0, G::PAGE_BYTES, 1 << 47, ((1 << G::OUTPUT_BITS) - 1) & !(G::PAGE_BYTES - 1)] {
                let bits = G::encode_output(raw);
                assert_eq!(bits & !G::OUTPUT_MASK, 0, "{raw:#x}");
                assert_eq!(G::decode_output(bits | 0x783), raw | G::decode_output(0x783), "{raw:#x}");
                assert_eq!(G::decode_output(bits), raw, "{raw:#x}");
            }
        }
        in_every_geometry!(holds);
    }
}
