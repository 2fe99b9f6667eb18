//! Descriptor bits of the EL2 regime in the 4 KiB granule, from the architecture: what the judge and the raw walk read them by.

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

/// What is wrong with a valid descriptor in a table of `level`.
pub(crate) fn faults(level: u8, value: u64) -> Vec<&'static str> {
    if is_table(value, level) {
        return if value & !OUTPUT == 3 { Vec::new() } else { vec!["hierarchical or unknown bits"] };
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
    wrong.iter().filter(|(is_wrong, _)| *is_wrong).map(|(_, what)| *what).collect()
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
