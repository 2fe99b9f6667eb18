//! The bits of a leaf, decoded from the architecture and nothing else.
//!
//! Arm ARM DDI 0487, VMSAv8-64, a block or page of the EL2 regime: AttrIndx 4:2, NS 5 (RES0 in Non-secure), AP\[1\] 6 (RES1), AP\[2\] 7
//! (1 is read-only), SH 9:8 (0 none, 2 outer, 3 inner), AF 10, nG 11 (RES0), nT 16 (blocks), GP 50, DBM 51, contiguous 52, 53 RES0, XN 54,
//! software 58:55, PBHA 62:59. A table: NSTable 63, APTable 62:61, XNTable 60.

use crate::addr::Level;
use crate::descriptor::{Access, Attributes, DeviceKind, MAIR, Rights};
use core::fmt;

/// Valid, and table or page.
pub(super) const TYPE: u64 = 3;
/// Output address, bits 47:12.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
const READ_ONLY: u64 = 1 << 7;
const XN: u64 = 1 << 54;
const GUARDED: u64 = 1 << 50;
/// One of a run of leaves that a TLB may hold as one entry.
const CONTIGUOUS: u64 = 1 << 52;
/// Leaves of such a run, at every level of the 4 KiB granule.
pub(super) const RUN_SLOTS: usize = 16;
/// What every leaf has: AF and AP\[1\].
const ALWAYS: u64 = 1 << 10 | 1 << 6;
/// What tells leaves apart: AttrIndx, AP\[2\], SH, GP, XN.
const VARIES: u64 = 7 << 2 | READ_ONLY | 3 << 8 | GUARDED | XN;
/// APTable\[1\]: no writes below.
const TABLE_READ_ONLY: u64 = 1 << 62;
/// Bit 55 of a table, which hardware ignores: the manager's mark of a table that stays when it is empty.
const TABLE_KEPT: u64 = 1 << 55;
/// XNTable: no execution below.
const TABLE_XN: u64 = 1 << 60;

/// Attributes of a leaf as the hardware sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen(u64);

/// The address that a descriptor of `level` holds: of a leaf, its output; of a table, the next one.
pub(super) const fn address(raw: u64, alignment: u64) -> u64 {
    raw & ADDRESS & !(alignment - 1)
}

/// Whether leaf `raw` says that it is one of a contiguous run.
pub(super) const fn is_contiguous(raw: u64) -> bool {
    raw & CONTIGUOUS != 0
}

/// What the first leaf of the run must be that `raw` is number `place` of, or `None` when no run is aligned so: leaves of a run differ in
/// their output addresses alone, which follow each other from a multiple of the run's size on (Arm ARM, the Contiguous bit).
pub(super) const fn first_of_run(raw: u64, place: usize, level: Level) -> Option<u64> {
    let first = raw.wrapping_sub((place as u64) << level.shift());
    let run_bytes = (RUN_SLOTS as u64) << level.shift();
    if first & ADDRESS & (run_bytes - 1) & !(level.slot_bytes() - 1) == 0 { Some(first) } else { None }
}

/// How many leaves from `raw` on have an address, counting upwards: the next would carry into the bits above it.
pub(super) const fn leaves_from(raw: u64, level: Level) -> usize {
    (((ADDRESS - address(raw, level.slot_bytes())) >> level.shift()) + 1) as usize
}

/// Bits of a leaf of `level` that are not as this image writes them, whatever it maps. Whether a contiguous run is whole
/// is another question.
pub(super) const fn wrong_in_leaf(raw: u64, level: Level) -> u64 {
    let known = address(u64::MAX, level.slot_bytes()) | TYPE | ALWAYS | VARIES | CONTIGUOUS;
    raw & !known | ALWAYS & !raw
}

/// Bits of a table descriptor that this image never writes.
pub(super) const fn wrong_in_table(raw: u64) -> u64 {
    raw & !(ADDRESS | TYPE | TABLE_KEPT)
}

/// What tables above forbid to a leaf, as bits of the leaf, added to what `above` forbids already.
pub(super) const fn forbidden_below(table: u64, above: u64) -> u64 {
    let writes = if table & TABLE_READ_ONLY != 0 { READ_ONLY } else { 0 };
    let execution = if table & TABLE_XN != 0 { XN } else { 0 };
    above | writes | execution
}

impl Seen {
    pub(super) const NOTHING: Self = Self(0);

    /// The attributes of leaf `raw` under tables that forbid `forbidden`.
    pub(super) const fn of(raw: u64, forbidden: u64) -> Self {
        Self(raw & VARIES | forbidden)
    }

    /// What a leaf with `attributes` must look like.
    pub(super) fn expected(attributes: Attributes) -> Self {
        let (mair, shareability) = match attributes {
            Attributes::Normal(_) => (0xff, 3),
            Attributes::Tagged(_) => (0xf0, 3),
            Attributes::NonCacheable(_) => (0x44, 2),
            Attributes::Device(DeviceKind::NGnRnE, _) => (0x00, 2),
            Attributes::Device(DeviceKind::NGnRE, _) => (0x04, 2),
            Attributes::Device(DeviceKind::Gre, _) => (0x0c, 2),
        };
        let rights = attributes.rights();
        let read_only = if rights.contains(Rights::WRITE) { 0 } else { READ_ONLY };
        let xn = if rights.contains(Rights::EXECUTE) { 0 } else { XN };
        let guarded = matches!(attributes, Attributes::Normal(Access::ReadExecuteGuarded));
        let guarded = if guarded { GUARDED } else { 0 };
        Self(index_of(mair) << 2 | shareability << 8 | read_only | guarded | xn)
    }

    /// What EL2 may do there.
    #[must_use]
    pub fn rights(self) -> Rights {
        let write = if self.0 & READ_ONLY == 0 { Rights::WRITE } else { Rights::empty() };
        let execute = if self.0 & XN == 0 { Rights::EXECUTE } else { Rights::empty() };
        Rights::READ | write | execute
    }

    /// The byte of MAIR_EL2 that AttrIndx chooses.
    const fn mair(self) -> u8 {
        (MAIR >> (8 * (self.0 >> 2 & 7))) as u8
    }

    /// Memory type, cacheability and shareability: what all mappings of a frame must agree in. Device and Non-cacheable memory is
    /// Outer Shareable whatever SH says.
    pub(super) const fn memory(self) -> (u8, u8) {
        let shareability = if self.is_device() || self.mair() == 0x44 { 2 } else { self.0 >> 8 & 3 };
        (self.mair(), shareability as u8)
    }

    /// Whether it is Device memory: the upper half of the MAIR byte is 0.
    #[must_use]
    pub const fn is_device(self) -> bool {
        self.mair() & 0xf0 == 0
    }

    /// Whether it is what the walker itself uses for tables: Write-Back, Inner Shareable.
    pub(super) const fn is_for_tables(self) -> bool {
        matches!(self.memory(), (0xff, 3))
    }
}

/// The lowest index of MAIR_EL2 that holds `byte`.
const fn index_of(byte: u64) -> u64 {
    let mut index = 0;
    while index < 7 && MAIR >> (8 * index) & 0xff != byte {
        index += 1;
    }
    index
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.mair() {
            0xff => "normal",
            0xf0 => "tagged",
            0x44 => "non-cacheable",
            0x00 => "device nGnRnE",
            0x04 => "device nGnRE",
            0x0c => "device GRE",
            _ => "other memory",
        };
        write!(f, "{} {kind} (attribute bits {:#x})", self.rights(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::{Access, DataAccess, leaf_bits};

    #[test]
    fn good_expected_bits_agree_with_what_the_manager_writes() {
        let data = [DataAccess::ReadOnly, DataAccess::ReadWrite];
        let kinds = [DeviceKind::NGnRnE, DeviceKind::NGnRE, DeviceKind::Gre];
        let devices = kinds.iter().flat_map(|kind| data.map(|access| Attributes::Device(*kind, access)));
        let normal = [Access::ReadOnly, Access::ReadWrite, Access::ReadExecute].map(Attributes::Normal);
        for attributes in devices.chain(normal).chain(data.map(Attributes::NonCacheable)) {
            for level in [Level::L1, Level::L2, Level::L3] {
                let raw = leaf_bits(attributes, level);
                assert_eq!(Seen::of(raw, 0), Seen::expected(attributes), "{attributes}");
                assert_eq!(wrong_in_leaf(raw, level), 0, "{attributes}");
            }
            assert_eq!(Seen::expected(attributes).rights(), attributes.rights());
        }
    }

    #[test]
    fn bad_hierarchical_bits_take_rights_away() {
        let forbidden = forbidden_below(TABLE_XN, forbidden_below(TABLE_READ_ONLY, 0));
        assert_eq!(Seen::of(0, 0).rights(), Rights::all());
        assert_eq!(Seen::of(0, forbidden).rights(), Rights::READ);
        assert_eq!(wrong_in_table(TABLE_XN | 0x1234_5003), TABLE_XN);
    }

    #[test]
    fn bad_block_bits_below_its_alignment_are_wrong() {
        let raw = leaf_bits(Attributes::Normal(Access::ReadWrite), Level::L2) | 0x4000_0000;
        assert_eq!(wrong_in_leaf(raw, Level::L2), 0);
        assert_eq!(wrong_in_leaf(raw | 1 << 16, Level::L2), 1 << 16, "nT");
        assert_eq!(wrong_in_leaf(raw | 1 << 29, Level::L1), 1 << 29);
        assert_eq!(wrong_in_leaf(raw & !(1 << 10), Level::L2), 1 << 10, "AF is missing");
    }
}
