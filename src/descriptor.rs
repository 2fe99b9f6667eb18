//! 64-bit descriptors of the EL2 stage 1 regime (E2H=0) and what they mean.
//!
//! Why it exists: a descriptor is a number until someone misplaces a bit of it. What the manager writes is an [`Entry`], which has no
//! value for "writable and executable", "executable device" or a misaligned block; what it reads is decoded into one or
//! reported as [`Entry::Foreign`] with the number.
//!
//! Fields, Arm ARM DDI 0487, VMSAv8-64 descriptor formats: valid 0, table-or-page 1, AttrIndx 4:2, AP\[1\] 6 (RES1 here), AP\[2\] 7
//! (read-only), SH 9:8, AF 10, nG 11 (RES0 here), output address 47:12, GP 50, contiguous 52, XN 54. Where 52-bit formats keep the rest of
//! an address is for [`Geometry`]; in those with TCR_EL2.DS = 1 no leaf has a shareability of its own. Functions whose name ends in
//! `in` are for any geometry; the others are for the one that boots.

#![forbid(unsafe_code)]

mod attributes;

pub use attributes::{Access, Attributes, DataAccess, DeviceKind, Rights};

use crate::addr::{Frame, Level, PhysAddr};
use crate::geometry::{Geometry, Granule4K, HighBits};
use fields::DESCRIPTOR::ATTR_INDX;
use fields::{DESCRIPTOR, MAIR_ATTR};
use static_assertions::const_assert_eq;
use tock_registers::fields::FieldValue;

/// The fields. The macro's items are documented where they are declared, but rustc does not see that.
#[allow(missing_docs, unreachable_pub)]
mod fields {
    use tock_registers::register_bitfields;

    register_bitfields! [u8,
        /// One of the eight bytes of MAIR_EL2.
        pub(super) MAIR_ATTR [
            /// Device memory; the other bits are 0.
            DEVICE OFFSET(2) NUMBITS(2) [
                Ngnrne = 0,
                Ngnre = 1,
                Gre = 3
            ],
            /// Normal memory: the outer caches. Allocating is on reads and on writes.
            OUTER OFFSET(4) NUMBITS(4) [
                NonCacheable = 4,
                WriteBackAllocating = 15
            ],
            /// Normal memory: the inner caches; or, below an outer 15, that it is Tagged.
            INNER_OR_TAGGED OFFSET(0) NUMBITS(4) [
                Tagged = 0,
                NonCacheable = 4,
                WriteBackAllocating = 15
            ]
        ]
    ];

    register_bitfields! [u64,
        /// A stage 1 descriptor of the EL2 regime.
        pub(super) DESCRIPTOR [
            /// Bit 0: the walk goes on or ends here; 0 is a translation fault.
            VALID OFFSET(0) NUMBITS(1) [],
            /// Bit 1: a table (levels 0 to 2) or a page (level 3); 0 is a block (levels 1 and 2).
            TABLE_OR_PAGE OFFSET(1) NUMBITS(1) [],
            /// Index into MAIR_EL2.
            ATTR_INDX OFFSET(2) NUMBITS(3) [
                DeviceNgnrne = 0,
                NonCacheable = 1,
                DeviceNgnre = 4,
                DeviceGre = 5,
                Tagged = 6,
                Normal = 7
            ],
            /// RES1 where there is no EL0.
            AP1 OFFSET(6) NUMBITS(1) [],
            /// AP[2].
            READ_ONLY OFFSET(7) NUMBITS(1) [],
            /// Shareability.
            SH OFFSET(8) NUMBITS(2) [
                Outer = 2,
                Inner = 3
            ],
            /// Access flag. Always set: HA is 0 and an AF fault has no handler.
            AF OFFSET(10) NUMBITS(1) [],
            /// Guarded page: an indirect branch must land on a BTI.
            GP OFFSET(50) NUMBITS(1) [],
            /// One of a run of side by side leaves that a TLB may hold as one entry.
            CONTIGUOUS OFFSET(52) NUMBITS(1) [],
            /// Execute-never.
            XN OFFSET(54) NUMBITS(1) [],
            /// Bit 55 of a table descriptor, which hardware ignores: this table stays when it is empty.
            KEPT OFFSET(55) NUMBITS(1) []
        ]
    ];
}

/// MAIR_EL2 that gives each `ATTR_INDX` its meaning. The unused ones are Device-nGnRnE, the strictest. Without FEAT_MTE2 no leaf says
/// Tagged.
pub const MAIR: u64 = mair_byte(ATTR_INDX::DeviceNgnrne, MAIR_ATTR::DEVICE::Ngnrne.value)
    | mair_byte(
        ATTR_INDX::NonCacheable,
        MAIR_ATTR::OUTER::NonCacheable.value | MAIR_ATTR::INNER_OR_TAGGED::NonCacheable.value,
    )
    | mair_byte(ATTR_INDX::DeviceNgnre, MAIR_ATTR::DEVICE::Ngnre.value)
    | mair_byte(ATTR_INDX::DeviceGre, MAIR_ATTR::DEVICE::Gre.value)
    | mair_byte(
        ATTR_INDX::Tagged,
        MAIR_ATTR::OUTER::WriteBackAllocating.value | MAIR_ATTR::INNER_OR_TAGGED::Tagged.value,
    )
    | mair_byte(
        ATTR_INDX::Normal,
        MAIR_ATTR::OUTER::WriteBackAllocating.value | MAIR_ATTR::INNER_OR_TAGGED::WriteBackAllocating.value,
    );

const_assert_eq!(MAIR, 0xfff0_0c04_0000_4400);

/// `byte` where MAIR_EL2 has that of `index`.
const fn mair_byte(index: FieldValue<u64, DESCRIPTOR::Register>, byte: u8) -> u64 {
    (byte as u64) << (8 * (index.value >> DESCRIPTOR::ATTR_INDX.shift))
}

/// A block or page. Holding one proves that its output address is aligned to what its level spans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    output: PhysAddr,
    attributes: Attributes,
    contiguous: bool,
}

impl Leaf {
    /// A leaf of `level` that maps to `output`, or `None` when the level has no leaves or `output` is misaligned for it.
    #[must_use]
    pub const fn new(level: Level, output: PhysAddr, attributes: Attributes) -> Option<Self> {
        if level.allows_leaf() && output.is_aligned(level.slot_bytes()) {
            Some(Self { output, attributes, contiguous: false })
        } else {
            None
        }
    }

    /// The same in geometry `G`.
    #[must_use]
    #[inline(always)]
    pub fn new_in<G: Geometry>(level: Level, output: PhysAddr, attributes: Attributes) -> Option<Self> {
        let fits = G::allows_leaf(level) && output.is_aligned(G::slot_bytes(level));
        fits.then_some(Self { output, attributes, contiguous: false })
    }

    /// The first byte that it maps to.
    #[must_use]
    pub const fn output(self) -> PhysAddr {
        self.output
    }

    /// Memory type, shareability and rights.
    #[must_use]
    pub const fn attributes(self) -> Attributes {
        self.attributes
    }

    /// Whether it is one of a contiguous run, which a TLB may hold as one entry.
    #[must_use]
    pub const fn contiguous(self) -> bool {
        self.contiguous
    }

    /// The same leaf `bytes`, a multiple of its size, further up in memory.
    #[must_use]
    #[inline(always)]
    pub const fn advanced(self, bytes: u64) -> Self {
        Self { output: PhysAddr::within(self.output.raw() + bytes), ..self }
    }

    /// The same output with other attributes.
    #[must_use]
    pub const fn with(self, attributes: Attributes) -> Self {
        Self { attributes, ..self }
    }

    /// The same as one of a contiguous run, or as none.
    #[must_use]
    pub const fn with_contiguous(self, contiguous: bool) -> Self {
        Self { contiguous, ..self }
    }

    /// The descriptor that says this in a table of `level`.
    #[must_use]
    #[inline(always)]
    pub fn encode_in<G: Geometry>(self, level: Level) -> u64 {
        leaf_bits_in::<G>(self.attributes, level, self.contiguous) | G::encode_output(self.output.raw())
    }
}

/// The bits of a leaf of `level` beside the address, in geometry `G`.
#[must_use]
#[inline(always)]
pub fn leaf_bits_in<G: Geometry>(attributes: Attributes, level: Level, contiguous: bool) -> u64 {
    let run = if contiguous { DESCRIPTOR::CONTIGUOUS::SET.value } else { 0 };
    leaf_bits(attributes, level) & shareability::<G>() | run
}

/// All ones, but for the shareability where the format has none in a leaf.
const fn shareability<G: Geometry>() -> u64 {
    if matches!(G::HIGH_BITS, HighBits::Shareability) { !0x300 } else { !0 }
}

/// What a slot of a table says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// All bits 0: nothing was ever here, or it was broken, invalidated and reclaimed. No TLB translates through it.
    Unused,
    /// Bit 0 clear, others not: broken. A TLB may still translate through it until the invalidation. The other bits say what was there,
    /// or what comes.
    Broken(u64),
    /// The next table of the walk, with no hierarchical restrictions.
    Table {
        /// Where it is.
        frame: Frame,
        /// Whether it stays when nothing is mapped through it any more: it was asked for, not just needed.
        kept: bool,
    },
    /// A block or page.
    Leaf(Leaf),
    /// A valid descriptor that the manager never writes: software bits, hierarchical restrictions, other types.
    Foreign(u64),
}

impl Entry {
    /// A table that goes once it is empty.
    #[must_use]
    pub const fn table(frame: Frame) -> Self {
        Self::Table { frame, kept: false }
    }

    /// The table that `raw`, of a table of `level`, leads to; `None` for anything but [`Self::Table`]. What walks ask most.
    #[must_use]
    #[inline(always)]
    pub fn table_in<G: Geometry>(raw: u64, level: Level) -> Option<Frame> {
        let bits = raw & !G::OUTPUT_MASK & !DESCRIPTOR::KEPT::SET.value;
        if bits == TABLE_BITS && level != Level::L3 { Some(output_frame::<G>(raw)) } else { None }
    }

    /// Whether `raw`, a table descriptor, is marked as one that stays when its table is empty.
    #[must_use]
    #[inline(always)]
    pub const fn keeps(raw: u64) -> bool {
        raw & DESCRIPTOR::KEPT::SET.value != 0
    }

    /// Reads descriptor `raw` of a table of `level`.
    #[must_use]
    pub fn decode(raw: u64, level: Level) -> Self {
        Self::decode_in::<Granule4K>(raw, level)
    }

    /// The same in geometry `G`.
    #[must_use]
    pub fn decode_in<G: Geometry>(raw: u64, level: Level) -> Self {
        if raw == 0 {
            return Self::Unused;
        }
        if raw & DESCRIPTOR::VALID::SET.value == 0 {
            return Self::Broken(raw);
        }
        if let Some(frame) = Self::table_in::<G>(raw, level) {
            return Self::Table { frame, kept: Self::keeps(raw) };
        }
        match Self::leaf_in::<G>(raw, level) {
            Some(leaf) => Self::Leaf(leaf),
            None => Self::Foreign(raw),
        }
    }

    /// The leaf that `raw`, of a table of `level`, is: exactly as the manager would write it. `None` for anything but [`Self::Leaf`].
    #[must_use]
    #[inline(always)]
    pub fn leaf_in<G: Geometry>(raw: u64, level: Level) -> Option<Leaf> {
        let run = raw & DESCRIPTOR::CONTIGUOUS::SET.value;
        let (attributes, bits) = Attributes::of_bits(raw)?;
        let leaf = Leaf::new_in::<G>(level, PhysAddr::within(G::decode_output(raw)), attributes)?;
        let is_ours = raw & !G::OUTPUT_MASK == (bits | type_bits(level)) & shareability::<G>() & !G::OUTPUT_MASK | run;
        let contiguous = run != 0;
        (is_ours && (!contiguous || G::run_slots(level) > 1)).then_some(leaf.with_contiguous(contiguous))
    }

    /// What `raw`, a valid descriptor of a table of `level`, says but for bits that the manager never writes so, and
    /// those bits. `None` for what no attributes of ours say. The mark of a table that stays is nobody else's.
    pub(crate) fn nearest_in<G: Geometry>(raw: u64, level: Level) -> Option<(Self, u64)> {
        let nearest = if raw & TABLE_BITS == TABLE_BITS && level != Level::L3 {
            Self::table(output_frame::<G>(raw))
        } else {
            let (attributes, _) = Attributes::of_bits(raw)?;
            let leaf = Leaf::new_in::<G>(level, PhysAddr::within(G::decode_output(raw)), attributes)?;
            let run = raw & DESCRIPTOR::CONTIGUOUS::SET.value != 0 && G::run_slots(level) > 1;
            Self::Leaf(leaf.with_contiguous(run))
        };
        Some((nearest, raw ^ nearest.encode_in::<G>(level)))
    }

    /// Bits beside the address that the architecture ignores, or has as RES0, in such a descriptor of EL2's stage 1 in
    /// Non-secure state with E2H = 0: of a leaf NS, nG, bit 53 and software's; of a table those that only leaves have,
    /// and software's.
    pub(crate) const fn ignored_bits(self) -> u64 {
        const SOFTWARE: u64 = 0xf << 55;
        match self {
            Self::Table { .. } => 0x3ff << 2 | 0xf << 51 | SOFTWARE,
            Self::Leaf(_) => 1 << 5 | 1 << 11 | 1 << 53 | SOFTWARE,
            _ => 0,
        }
    }

    /// The descriptor that says this in a table of `level`.
    #[must_use]
    pub fn encode(self, level: Level) -> u64 {
        self.encode_in::<Granule4K>(level)
    }

    /// The same in geometry `G`.
    #[must_use]
    #[inline(always)]
    pub fn encode_in<G: Geometry>(self, level: Level) -> u64 {
        match self {
            Self::Unused => 0,
            Self::Broken(raw) => raw & !DESCRIPTOR::VALID::SET.value,
            Self::Foreign(raw) => raw,
            Self::Table { frame, kept } => {
                let kept = if kept { DESCRIPTOR::KEPT::SET.value } else { 0 };
                G::encode_output(frame.start().raw()) | TABLE_BITS | kept
            }
            Self::Leaf(leaf) => leaf.encode_in::<G>(level),
        }
    }

    /// Whether a walk goes on or ends here without a fault.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        !matches!(self, Self::Unused | Self::Broken(_))
    }
}

/// What the bits of a slot say while bit 0 is clear, between a break and what follows the invalidation: what was there goes, or what is
/// there comes. A walk looks at bit 0 alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BrokenBits(u64);

impl BrokenBits {
    /// Bit 63: the descriptor comes. The manager sets it in no valid descriptor.
    const COMES: u64 = 1 << 63;
    /// Bit 62: it is a table that was laid where nothing was, and owes a DSB, no invalidation.
    const LAID: u64 = 1 << 62;

    /// The bits of a slot that is broken.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn read(raw: u64) -> Option<Self> {
        if raw & DESCRIPTOR::VALID::SET.value == 0 && raw != 0 { Some(Self(raw)) } else { None }
    }

    /// `descriptor` was here and goes.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn going(descriptor: u64) -> Self {
        Self(descriptor & !DESCRIPTOR::VALID::SET.value)
    }

    /// `descriptor` is valid from the make on.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn coming(descriptor: u64) -> Self {
        Self(descriptor & !DESCRIPTOR::VALID::SET.value | Self::COMES)
    }

    /// `descriptor`, of a table, stands ready where nothing was.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn laid(descriptor: u64) -> Self {
        Self(Self::coming(descriptor).0 | Self::LAID)
    }

    /// Whether it is a table that was laid.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn is_laid(self) -> bool {
        self.0 & Self::LAID != 0
    }

    /// What the slot holds meanwhile.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    /// What comes, valid; or nothing.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn comes(self) -> Option<u64> {
        if self.0 & Self::COMES != 0 { Some(self.went()) } else { None }
    }

    /// What was there.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn went(self) -> u64 {
        self.0 & !(Self::COMES | Self::LAID) | DESCRIPTOR::VALID::SET.value
    }
}

/// The frame that the output address of `raw` names.
#[inline(always)]
fn output_frame<G: Geometry>(raw: u64) -> Frame {
    // At most 52 bits by the mask, so the address is always in range.
    Frame::containing(PhysAddr::within(G::decode_output(raw)))
}

/// The bits of a table descriptor beside the address.
pub const TABLE_BITS: u64 = DESCRIPTOR::VALID::SET.value | DESCRIPTOR::TABLE_OR_PAGE::SET.value;

/// The bits of a leaf of `level` beside the address. boot/tables.S takes its constants from here.
#[must_use]
#[inline]
pub const fn leaf_bits(attributes: Attributes, level: Level) -> u64 {
    attributes.bits() | type_bits(level)
}

/// The bits that tell whether a descriptor of a table of `level` is a leaf, and what they are then: a valid one at
/// level 3, elsewhere one that is no table.
#[must_use]
#[inline(always)]
pub(crate) const fn leaf_mark(level: Level) -> (u64, u64) {
    let valid = DESCRIPTOR::VALID::SET.value;
    if matches!(level, Level::L3) { (valid, valid) } else { (TABLE_BITS, valid) }
}

/// The bits of a leaf of `level` that say that it is one.
const fn type_bits(level: Level) -> u64 {
    let page = if matches!(level, Level::L3) { DESCRIPTOR::TABLE_OR_PAGE::SET.value } else { 0 };
    DESCRIPTOR::VALID::SET.value | page
}

/// The effective rights of a leaf `raw` reached through table descriptors whose XNTable and APTable bits are or-ed in `hierarchy`
/// (bits 60 and 62:61 as they stand in a descriptor): for observers, which must not trust that nobody set them.
#[must_use]
pub fn effective_rights(raw: u64, hierarchy: u64) -> Rights {
    const XN_TABLE: u64 = 1 << 60;
    const READ_ONLY_TABLE: u64 = 1 << 62;
    let mut rights = Rights::READ;
    if raw & DESCRIPTOR::READ_ONLY::SET.value == 0 && hierarchy & READ_ONLY_TABLE == 0 {
        rights |= Rights::WRITE;
    }
    if raw & DESCRIPTOR::XN::SET.value == 0 && hierarchy & XN_TABLE == 0 {
        rights |= Rights::EXECUTE;
    }
    rights
}

#[cfg(test)]
mod tests;
