//! Descriptor bits of the EL2 regime in the 4 KiB granule, from the architecture: what the raw walk and the map read them by.

use super::rig::{CODE, CONSTANTS, DATA, DEVICE};
use breakwater::descriptor::{Access, Attributes, DataAccess, DeviceKind};

/// Bits 47:12.
pub(crate) const OUTPUT: u64 = 0x0000_ffff_ffff_f000;
/// AP\[2\].
pub(crate) const READ_ONLY: u64 = 1 << 7;
/// XN.
pub(crate) const EXECUTE_NEVER: u64 = 1 << 54;
const ATTRIBUTE_INDEX: u64 = 7 << 2;
const SHAREABILITY: u64 = 3 << 8;
/// AF and AP\[1\].
const ALWAYS_SET: u64 = 1 << 10 | 1 << 6;

/// Bytes that a slot of a table of `level` translates.
pub(crate) fn slot_bytes(level: u8) -> u64 {
    1 << (12 + 9 * (3 - u32::from(level)))
}

pub(crate) fn is_valid(descriptor: u64) -> bool {
    descriptor & 1 == 1
}

/// Whether a valid descriptor of a table of `level` leads to a further table.
pub(crate) fn is_table(descriptor: u64, level: u8) -> bool {
    descriptor & 3 == 3 && level < 3
}

/// What is wrong with a valid descriptor in a table of `level`, if something is: bits that this manager never writes.
pub(crate) fn fault(level: u8, value: u64) -> Option<&'static str> {
    if is_table(value, level) {
        return (value & !OUTPUT != 3).then_some("hierarchical or unknown bits");
    }
    let says_page = value & 2 != 0;
    let known = OUTPUT | READ_ONLY | EXECUTE_NEVER | ATTRIBUTE_INDEX | SHAREABILITY | ALWAYS_SET | 3;
    let index = (value & ATTRIBUTE_INDEX) >> 2;
    let shareability = if index == 7 { 3 } else { 2 };
    let wrong = [
        (level == 0 || says_page != (level == 3), "no leaf of this level"),
        (value & !known != 0 || value & ALWAYS_SET != ALWAYS_SET, "bits that must be 0 are 1, or AF or AP[1] is 0"),
        (value & OUTPUT & (slot_bytes(level) - 1) != 0, "a misaligned output"),
        (![0, 1, 4, 5, 7].contains(&index), "an index that MAIR_EL2 does not define"),
        ((value & SHAREABILITY) >> 8 != shareability, "a shareability that does not go with the type"),
        (value & (READ_ONLY | EXECUTE_NEVER) == 0, "writable and executable"),
        (index != 7 && value & EXECUTE_NEVER == 0, "executable, and no Normal cacheable memory (B2.10)"),
    ];
    wrong.iter().find(|(is_wrong, _)| *is_wrong).map(|(_, what)| *what)
}

/// Attribute bits of a leaf, as the architecture and MAIR_EL2 define them.
pub(crate) fn attribute_bits(attributes: Attributes) -> u64 {
    let (index, shareability, writable, executable) = match attributes {
        Attributes::Normal(access) => (7, 3, access == Access::ReadWrite, access == Access::ReadExecute),
        Attributes::NonCacheable(access) => (1, 2, access == DataAccess::ReadWrite, false),
        Attributes::Device(kind, access) => {
            let index = match kind {
                DeviceKind::NGnRnE => 0,
                DeviceKind::NGnRE => 4,
                DeviceKind::Gre => 5,
            };
            (index, 2, access == DataAccess::ReadWrite, false)
        }
    };
    let read_only = if writable { 0 } else { READ_ONLY };
    let never = if executable { 0 } else { EXECUTE_NEVER };
    index << 2 | shareability << 8 | read_only | never | ALWAYS_SET
}

/// A page that maps to 0.
fn page(attributes: Attributes) -> u64 {
    attribute_bits(attributes) | 3
}

#[test]
fn good_descriptors_that_the_manager_writes() {
    for attributes in [DATA, CONSTANTS, CODE, DEVICE] {
        assert_eq!(fault(3, page(attributes) | 0x8000), None, "{attributes:?}");
        assert_eq!(fault(2, page(attributes) & !2 | 0x20_0000), None, "{attributes:?}");
    }
    assert_eq!(fault(1, 0x5000 | 3), None);
}

#[test]
fn bad_descriptors_by_what_is_wrong_with_them() {
    let (data, device) = (page(DATA), page(DEVICE));
    for (level, descriptor, what) in [
        (3, data & !EXECUTE_NEVER, "writable and executable"),
        (3, device & !EXECUTE_NEVER | READ_ONLY, "executable, and no Normal cacheable memory (B2.10)"),
        (3, data & !(1 << 10), "bits that must be 0 are 1, or AF or AP[1] is 0"),
        (3, data | 1 << 52, "bits that must be 0 are 1, or AF or AP[1] is 0"),
        (3, data & !2, "no leaf of this level"),
        (0, data & !2, "no leaf of this level"),
        (3, data & !SHAREABILITY, "a shareability that does not go with the type"),
        (3, data & !ATTRIBUTE_INDEX | 6 << 2, "an index that MAIR_EL2 does not define"),
        (2, data & !2 | 0x1000, "a misaligned output"),
        (1, 1 << 60 | 0x5000 | 3, "hierarchical or unknown bits"),
    ] {
        assert_eq!(fault(level, descriptor), Some(what), "{descriptor:#x}");
    }
}
