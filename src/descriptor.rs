//! 64-bit descriptors of the EL2 stage 1 regime (E2H=0, 4 KiB granule) and what they mean.
//!
//! Why it exists: a descriptor is a number until someone misplaces a bit of it. What the manager writes is an [`Entry`], which has no
//! value for "writable and executable", "executable device" or a misaligned block; what it reads is decoded into one or
//! reported as [`Entry::Foreign`] with the number.
//!
//! Fields, Arm ARM DDI 0487, VMSAv8-64 descriptor formats: valid 0, table-or-page 1, AttrIndx 4:2, AP\[1\] 6 (RES1 here), AP\[2\] 7
//! (read-only), SH 9:8, AF 10, nG 11 (RES0 here), output address 47:12, contiguous 52, XN 54.

#![forbid(unsafe_code)]

use crate::addr::{Frame, Level, PhysAddr};
use bitflags::bitflags;
use core::fmt;
use fields::DESCRIPTOR;
use tock_registers::fields::FieldValue;

/// The fields. The macro's items are documented where they are declared, but rustc does not see that.
#[allow(missing_docs, unreachable_pub)]
mod fields {
    use tock_registers::register_bitfields;

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
            /// One of a run of 16 that a TLB may hold as one entry.
            CONTIGUOUS OFFSET(52) NUMBITS(1) [],
            /// Execute-never.
            XN OFFSET(54) NUMBITS(1) []
        ]
    ];
}

/// Bits 47:12 of a descriptor: the output address.
const OUTPUT_ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// Every bit that the manager's leaves use beside the address; any other that is set makes an entry foreign.
const LEAF_BITS: u64 = 0x0040_0000_0000_07df;

/// MAIR_EL2 that gives each `ATTR_INDX` its meaning: 0 Device-nGnRnE, 1 Normal Non-cacheable, 4 Device-nGnRE, 5 Device-GRE, 7 Normal
/// Write-Back Read/Write-Allocate. The unused ones are Device-nGnRnE, the strictest.
pub const MAIR: u64 = 0xff00_0c04_0000_4400;

bitflags! {
    /// What EL2 may do with a page, as the tables in force say it: requests use [`Access`], which has no value for
    /// write and execute; this one is for observed descriptors, which may say anything.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Rights: u8 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches.
        const EXECUTE = 4;
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |right, letter| if self.contains(right) { letter } else { '-' };
        write!(f, "{}{}{}", letter(Self::READ, 'r'), letter(Self::WRITE, 'w'), letter(Self::EXECUTE, 'x'))
    }
}

/// What a mapping of Normal memory may be used for. Writable and executable at once has no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Data that nobody writes.
    ReadOnly,
    /// Data.
    ReadWrite,
    /// Code.
    ReadExecute,
}

/// What a mapping that can never be executed may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataAccess {
    /// Loads only.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// Kinds of Device memory, strictest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceKind {
    /// No gathering, no reordering, no early write acknowledgement.
    NGnRnE,
    /// No gathering, no reordering.
    NGnRE,
    /// Gathering, reordering, early write acknowledgement.
    Gre,
}

/// Memory type, shareability and rights of a leaf. Device memory is execute-never by construction (Arm ARM B2.10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attributes {
    /// Write-Back cacheable, Inner Shareable.
    Normal(Access),
    /// Normal Non-cacheable, Outer Shareable.
    NonCacheable(DataAccess),
    /// Device, which the architecture treats as Outer Shareable.
    Device(DeviceKind, DataAccess),
}

impl From<DataAccess> for Access {
    fn from(access: DataAccess) -> Self {
        match access {
            DataAccess::ReadOnly => Self::ReadOnly,
            DataAccess::ReadWrite => Self::ReadWrite,
        }
    }
}

impl Attributes {
    /// The rights that these attributes give.
    #[must_use]
    pub fn rights(self) -> Rights {
        let access = match self {
            Self::Normal(access) => access,
            Self::NonCacheable(access) | Self::Device(_, access) => access.into(),
        };
        match access {
            Access::ReadOnly => Rights::READ,
            Access::ReadWrite => Rights::READ | Rights::WRITE,
            Access::ReadExecute => Rights::READ | Rights::EXECUTE,
        }
    }

    /// The same memory type, or another: whatever a TLB entry pair may not differ in without break-before-make (RWHZWS).
    #[must_use]
    pub fn same_memory_type(self, other: Self) -> bool {
        match (self, other) {
            (Self::Normal(_), Self::Normal(_)) | (Self::NonCacheable(_), Self::NonCacheable(_)) => true,
            (Self::Device(one, _), Self::Device(two, _)) => one == two,
            _ => false,
        }
    }

    /// The descriptor bits of a leaf with these attributes, the type and address bits left 0.
    #[must_use]
    pub const fn bits(self) -> u64 {
        let (index, shareability, access) = match self {
            Self::Normal(access) => (DESCRIPTOR::ATTR_INDX::Normal.value, DESCRIPTOR::SH::Inner.value, access),
            Self::NonCacheable(access) => {
                (DESCRIPTOR::ATTR_INDX::NonCacheable.value, DESCRIPTOR::SH::Outer.value, data(access))
            }
            Self::Device(kind, access) => (device_index(kind), DESCRIPTOR::SH::Outer.value, data(access)),
        };
        let rights = match access {
            Access::ReadOnly => DESCRIPTOR::READ_ONLY::SET.value | DESCRIPTOR::XN::SET.value,
            Access::ReadWrite => DESCRIPTOR::XN::SET.value,
            Access::ReadExecute => DESCRIPTOR::READ_ONLY::SET.value,
        };
        index | shareability | rights | DESCRIPTOR::AF::SET.value | DESCRIPTOR::AP1::SET.value
    }

    fn from_bits(raw: u64) -> Option<Self> {
        let is = |field: FieldValue<u64, DESCRIPTOR::Register>| field.matches_all(raw);
        let access = match (is(DESCRIPTOR::READ_ONLY::SET), is(DESCRIPTOR::XN::SET)) {
            (true, true) => Access::ReadOnly,
            (false, true) => Access::ReadWrite,
            (true, false) => Access::ReadExecute,
            (false, false) => return None,
        };
        let data = match access {
            Access::ReadOnly => Some(DataAccess::ReadOnly),
            Access::ReadWrite => Some(DataAccess::ReadWrite),
            Access::ReadExecute => None,
        };
        let attributes = if is(DESCRIPTOR::ATTR_INDX::Normal) {
            Self::Normal(access)
        } else if is(DESCRIPTOR::ATTR_INDX::NonCacheable) {
            Self::NonCacheable(data?)
        } else if is(DESCRIPTOR::ATTR_INDX::DeviceNgnrne) {
            Self::Device(DeviceKind::NGnRnE, data?)
        } else if is(DESCRIPTOR::ATTR_INDX::DeviceNgnre) {
            Self::Device(DeviceKind::NGnRE, data?)
        } else if is(DESCRIPTOR::ATTR_INDX::DeviceGre) {
            Self::Device(DeviceKind::Gre, data?)
        } else {
            return None;
        };
        Some(attributes)
    }
}

const fn data(access: DataAccess) -> Access {
    match access {
        DataAccess::ReadOnly => Access::ReadOnly,
        DataAccess::ReadWrite => Access::ReadWrite,
    }
}

const fn device_index(kind: DeviceKind) -> u64 {
    match kind {
        DeviceKind::NGnRnE => DESCRIPTOR::ATTR_INDX::DeviceNgnrne.value,
        DeviceKind::NGnRE => DESCRIPTOR::ATTR_INDX::DeviceNgnre.value,
        DeviceKind::Gre => DESCRIPTOR::ATTR_INDX::DeviceGre.value,
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Normal(_) => "normal",
            Self::NonCacheable(_) => "non-cacheable",
            Self::Device(DeviceKind::NGnRnE, _) => "device nGnRnE",
            Self::Device(DeviceKind::NGnRE, _) => "device nGnRE",
            Self::Device(DeviceKind::Gre, _) => "device GRE",
        };
        write!(f, "{} {kind}", self.rights())
    }
}

/// A block or page. Holding one proves that its output address is aligned to what its level spans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    output: PhysAddr,
    attributes: Attributes,
}

impl Leaf {
    /// A leaf of `level` that maps to `output`, or `None` when the level has no leaves or `output` is misaligned for it.
    #[must_use]
    pub const fn new(level: Level, output: PhysAddr, attributes: Attributes) -> Option<Self> {
        if level.allows_leaf() && output.is_aligned(level.slot_bytes()) {
            Some(Self { output, attributes })
        } else {
            None
        }
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

    /// The same output with other attributes.
    #[must_use]
    pub const fn with(self, attributes: Attributes) -> Self {
        Self { output: self.output, attributes }
    }
}

/// What a slot of a table says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// All bits 0: nothing was ever here, or it was broken, invalidated and reclaimed. No TLB translates through it.
    Unused,
    /// Bit 0 clear, other bits as they were: broken. A TLB may still translate through it until the invalidation.
    Broken(u64),
    /// The next table of the walk, with no hierarchical restrictions.
    Table(Frame),
    /// A block or page.
    Leaf(Leaf),
    /// A valid descriptor that the manager never writes: contiguous, software bits, hierarchical restrictions, other types.
    Foreign(u64),
}

impl Entry {
    /// The table that `raw`, of a table of `level`, leads to; `None` for anything but [`Self::Table`]. What walks ask most.
    #[must_use]
    #[inline]
    pub const fn table_of(raw: u64, level: Level) -> Option<Frame> {
        if raw & !OUTPUT_ADDRESS == TABLE_BITS && !matches!(level, Level::L3) {
            Some(Frame::containing(PhysAddr::at(raw & OUTPUT_ADDRESS)))
        } else {
            None
        }
    }

    /// Reads descriptor `raw` of a table of `level`.
    #[must_use]
    pub fn decode(raw: u64, level: Level) -> Self {
        if raw == 0 {
            return Self::Unused;
        }
        if raw & DESCRIPTOR::VALID::SET.value == 0 {
            return Self::Broken(raw);
        }
        if let Some(table) = Self::table_of(raw, level) {
            return Self::Table(table);
        }
        let points_on = raw & DESCRIPTOR::TABLE_OR_PAGE::SET.value != 0;
        // 48 bits by the mask, so the address is always in range.
        let address = PhysAddr::at(raw & OUTPUT_ADDRESS);
        let is_page = level == Level::L3;
        let known = raw & !OUTPUT_ADDRESS & !LEAF_BITS == 0;
        let used = DESCRIPTOR::AF::SET.value | DESCRIPTOR::AP1::SET.value;
        if points_on != is_page || !known || raw & used != used {
            return Self::Foreign(raw);
        }
        let leaf = Attributes::from_bits(raw).and_then(|attributes| Leaf::new(level, address, attributes));
        match leaf {
            // The shareability that goes with the type, and no contiguous bit: exactly what encode would write.
            Some(leaf) if Self::Leaf(leaf).encode(level) == raw => Self::Leaf(leaf),
            _ => Self::Foreign(raw),
        }
    }

    /// The descriptor that says this in a table of `level`.
    #[must_use]
    pub const fn encode(self, level: Level) -> u64 {
        match self {
            Self::Unused => 0,
            Self::Broken(raw) => raw & !DESCRIPTOR::VALID::SET.value,
            Self::Foreign(raw) => raw,
            Self::Table(frame) => frame.start().raw() | TABLE_BITS,
            Self::Leaf(leaf) => leaf.output.raw() | leaf_bits(leaf.attributes, level),
        }
    }

    /// Whether a walk goes on or ends here without a fault.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        !matches!(self, Self::Unused | Self::Broken(_))
    }
}

/// The bits of a table descriptor beside the address.
pub const TABLE_BITS: u64 = DESCRIPTOR::VALID::SET.value | DESCRIPTOR::TABLE_OR_PAGE::SET.value;

/// The bits of a leaf of `level` beside the address. boot/tables.S takes its constants from here.
#[must_use]
pub const fn leaf_bits(attributes: Attributes, level: Level) -> u64 {
    let page = if matches!(level, Level::L3) { DESCRIPTOR::TABLE_OR_PAGE::SET.value } else { 0 };
    attributes.bits() | DESCRIPTOR::VALID::SET.value | page
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
