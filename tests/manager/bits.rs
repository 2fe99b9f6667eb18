//! Tables of the EL2 regime by granule and address size, and the bits of their descriptors, from the architecture: what the raw walk and the map
//! read them by. Of a [`Geometry`] of the manager's, only page size and address bits are taken.

use super::rig::{CODE, CONSTANTS, DATA, DEVICE};
use breakwater::descriptor::{Access, Attributes, DataAccess, DeviceKind};
use breakwater::geometry::Geometry;

/// Bits 47:12: the output address of a page of 4 KiB.
pub(crate) const OUTPUT: u64 = 0x0000_ffff_ffff_f000;
/// AP\[2\].
pub(crate) const READ_ONLY: u64 = 1 << 7;
/// XN.
pub(crate) const EXECUTE_NEVER: u64 = 1 << 54;
/// Contiguous.
pub(crate) const CONTIGUOUS: u64 = 1 << 52;
/// GP.
pub(crate) const GUARDED: u64 = 1 << 50;
/// Bit 55 of a table descriptor, which hardware ignores: the manager's note that the table stays.
pub(crate) const KEPT: u64 = 1 << 55;
const ATTRIBUTE_INDEX: u64 = 7 << 2;
const SHAREABILITY: u64 = 3 << 8;
/// AF and AP\[1\].
const ALWAYS_SET: u64 = 1 << 10 | 1 << 6;

/// How tables cut an address, and where descriptors keep one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// log2 of a page's bytes.
    pub(crate) page_shift: u32,
    /// 48 or 52.
    pub(crate) address_bits: u32,
}

/// What boots.
pub(crate) const K4: Shape = Shape { page_shift: 12, address_bits: 48 };

impl Shape {
    /// That of a geometry.
    pub(crate) const fn of<G: Geometry>() -> Self {
        Self { page_shift: G::PAGE_SHIFT, address_bits: G::INPUT_BITS }
    }

    /// Bytes of a page, and of a table.
    pub(crate) const fn page_bytes(self) -> u64 {
        1 << self.page_shift
    }

    /// Descriptors in a table.
    pub(crate) const fn words(self) -> usize {
        1 << (self.page_shift - 3)
    }

    /// Bytes that a slot of a table of `level` translates.
    pub(crate) const fn slot_bytes(self, level: i8) -> u64 {
        1 << (self.page_shift + (self.page_shift - 3) * (3 - level) as u32)
    }

    /// The level at which walks begin.
    pub(crate) const fn root_level(self) -> i8 {
        let levels = (self.address_bits - self.page_shift).div_ceil(self.page_shift - 3);
        4 - levels as i8
    }

    /// Where the descriptor for `virt` stands in a table of `level`.
    pub(crate) const fn index(self, virt: u64, level: i8) -> usize {
        (virt / self.slot_bytes(level)) as usize & (self.words() - 1)
    }

    /// TCR_EL2.DS: 52-bit addresses with pages of 4 KiB or 16 KiB.
    pub(crate) const fn has_ds(self) -> bool {
        self.address_bits == 52 && self.page_shift < 16
    }

    /// Bits of an output address above 47, and how far they are moved down in a descriptor.
    const fn high(self) -> (u64, u32) {
        match (self.address_bits, self.page_shift) {
            (52, 16) => (0xf << 48, 36),
            (52, _) => (3 << 50, 42),
            _ => (0, 0),
        }
    }

    /// The bits of a descriptor that hold an output address.
    pub(crate) const fn output_mask(self) -> u64 {
        let top = if self.has_ds() { 50 } else { 48 };
        let (high, down) = self.high();
        ((1 << top) - 1) & !(self.page_bytes() - 1) | high >> down
    }

    /// The output address in a descriptor of a page or table; of a block, whose low bits are 0.
    pub(crate) const fn output(self, descriptor: u64) -> u64 {
        let (high, down) = self.high();
        let bits = descriptor & self.output_mask();
        bits & !(high >> down) | bits << down & high
    }

    /// Whether blocks exist at `level`.
    const fn has_blocks(self, level: i8) -> bool {
        let largest = match (self.page_shift, self.address_bits) {
            (12, 48) | (14 | 16, 52) => 1,
            (12, _) => 0,
            _ => 2,
        };
        largest <= level && level < 3
    }

    /// Leaves in a contiguous run of `level`.
    pub(crate) const fn run(self, level: i8) -> u64 {
        match (self.page_shift, level) {
            (12, _) => 16,
            (14, 3) => 128,
            _ => 32,
        }
    }

    /// Whether a valid descriptor of a table of `level` leads to a further table.
    pub(crate) const fn is_table(self, descriptor: u64, level: i8) -> bool {
        descriptor & 3 == 3 && level < 3
    }

    /// What is wrong with a valid descriptor in a table of `level`, if something is: bits that this manager never writes.
    pub(crate) fn fault(self, level: i8, value: u64) -> Option<&'static str> {
        if self.is_table(value, level) {
            return (value & !self.output_mask() & !KEPT != 3).then_some("hierarchical or unknown bits");
        }
        let shareable = if self.has_ds() { 0 } else { SHAREABILITY };
        let hints = READ_ONLY | EXECUTE_NEVER | CONTIGUOUS | GUARDED;
        let known = self.output_mask() | hints | ATTRIBUTE_INDEX | shareable | ALWAYS_SET | 3;
        let (index, is_code) = ((value & ATTRIBUTE_INDEX) >> 2, value & EXECUTE_NEVER == 0);
        let is_page = value & 2 != 0;
        let wrong = [
            (is_page != (level == 3) || !(is_page || self.has_blocks(level)), "no leaf of this level"),
            (value & !known != 0 || value & ALWAYS_SET != ALWAYS_SET, "bits that must be 0 are 1, or AF or AP[1] is 0"),
            (self.output(value) & (self.slot_bytes(level) - 1) != 0, "a misaligned output"),
            (![0, 1, 4, 5, 6, 7].contains(&index), "an index that MAIR_EL2 does not define"),
            (value & shareable != shareability(index) & shareable, "a shareability that does not go with the type"),
            (is_code && value & READ_ONLY == 0, "writable and executable"),
            (is_code && index != 7, "executable, and no Normal cacheable memory (B2.10)"),
            (!is_code && value & GUARDED != 0, "guarded, and no code"),
        ];
        wrong.iter().find(|(is_wrong, _)| *is_wrong).map(|(_, what)| *what)
    }

    /// Bits of a leaf beside the address, the type, the hint and the valid bit; shareability as it is in force.
    pub(crate) fn attributes_in(self, descriptor: u64) -> u64 {
        let bits = descriptor & !self.output_mask() & (EXECUTE_NEVER | GUARDED | 0xffc);
        if self.has_ds() { bits | shareability((bits & ATTRIBUTE_INDEX) >> 2) } else { bits }
    }
}

/// The shareability that goes with a memory type.
fn shareability(index: u64) -> u64 {
    if matches!(index, 6 | 7) { 3 << 8 } else { 2 << 8 }
}

/// Bytes that a slot of a table of `level` translates, of what boots.
pub(crate) fn slot_bytes(level: i8) -> u64 {
    K4.slot_bytes(level)
}

pub(crate) fn is_valid(descriptor: u64) -> bool {
    descriptor & 1 == 1
}

/// Attribute bits of a leaf, as the architecture and MAIR_EL2 define them.
pub(crate) fn attribute_bits(attributes: Attributes) -> u64 {
    let data = |access| (access == DataAccess::ReadWrite, false);
    let (index, (writable, executable)) = match attributes {
        Attributes::Normal(Access::ReadExecute | Access::ReadExecuteGuarded) => (7, (false, true)),
        Attributes::Normal(access) => (7, (access == Access::ReadWrite, false)),
        Attributes::Tagged(access) => (6, data(access)),
        Attributes::NonCacheable(access) => (1, data(access)),
        Attributes::Device(DeviceKind::NGnRnE, access) => (0, data(access)),
        Attributes::Device(DeviceKind::NGnRE, access) => (4, data(access)),
        Attributes::Device(DeviceKind::Gre, access) => (5, data(access)),
    };
    let guarded = if attributes == Attributes::Normal(Access::ReadExecuteGuarded) { GUARDED } else { 0 };
    let read_only = if writable { 0 } else { READ_ONLY };
    let never = if executable { 0 } else { EXECUTE_NEVER };
    index << 2 | shareability(index) | read_only | never | guarded | ALWAYS_SET
}

/// A page that maps to 0.
fn page(attributes: Attributes) -> u64 {
    attribute_bits(attributes) | 3
}

#[test]
fn good_descriptors_that_the_manager_writes() {
    let guarded = Attributes::Normal(Access::ReadExecuteGuarded);
    for attributes in [DATA, CONSTANTS, CODE, DEVICE, guarded, Attributes::Tagged(DataAccess::ReadWrite)] {
        assert_eq!(K4.fault(3, page(attributes) | 0x8000), None, "{attributes:?}");
        assert_eq!(K4.fault(3, page(attributes) | 0x8000 | CONTIGUOUS), None, "{attributes:?}");
        assert_eq!(K4.fault(2, page(attributes) & !2 | 0x20_0000), None, "{attributes:?}");
    }
    assert_eq!(K4.fault(1, 0x5000 | 3), None);
    assert_eq!(K4.fault(1, 0x5000 | 3 | KEPT), None);
}

#[test]
fn bad_descriptors_by_what_is_wrong_with_them() {
    let (data, device) = (page(DATA), page(DEVICE));
    for (level, descriptor, what) in [
        (3, data & !EXECUTE_NEVER, "writable and executable"),
        (3, device & !EXECUTE_NEVER | READ_ONLY, "executable, and no Normal cacheable memory (B2.10)"),
        (3, data | GUARDED, "guarded, and no code"),
        (3, data & !(1 << 10), "bits that must be 0 are 1, or AF or AP[1] is 0"),
        (3, data | 1 << 51, "bits that must be 0 are 1, or AF or AP[1] is 0"),
        (3, data | KEPT, "bits that must be 0 are 1, or AF or AP[1] is 0"),
        (3, data & !2, "no leaf of this level"),
        (0, data & !2, "no leaf of this level"),
        (3, data & !SHAREABILITY, "a shareability that does not go with the type"),
        (3, data & !ATTRIBUTE_INDEX | 3 << 2, "an index that MAIR_EL2 does not define"),
        (2, data & !2 | 0x1000, "a misaligned output"),
        (1, 1 << 60 | 0x5000 | 3, "hierarchical or unknown bits"),
    ] {
        assert_eq!(K4.fault(level, descriptor), Some(what), "{descriptor:#x}");
    }
}

#[test]
fn good_output_addresses_of_every_format() {
    let shape = |page_shift, address_bits| Shape { page_shift, address_bits };
    assert_eq!(K4.output(0xffff_ffff_ffff_ffff), 0xffff_ffff_f000);
    assert_eq!(shape(12, 52).output(0x300 | 1 << 48), 3 << 50 | 1 << 48, "51:50 in 9:8, 49:48 in place");
    assert_eq!(shape(14, 52).output(0x1ff), 1 << 50);
    assert_eq!(shape(16, 52).output(0xf000 | 0x1_0000), 0xf << 48 | 0x1_0000, "51:48 in 15:12");
    assert_eq!(shape(12, 52).root_level(), -1);
    assert_eq!(
        [(12, 48), (14, 48), (14, 52), (16, 48)].map(|(page, bits)| shape(page, bits).root_level()),
        [0, 0, 0, 1]
    );
}
